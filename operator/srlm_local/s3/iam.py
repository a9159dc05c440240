"""Accounts checked by moto's IAM: signatures (SigV4) and what a user may do.

Checked before the body is received and in one place, not by moto's switch for it: that one comes after the
body and fails on requests without a signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.request import Request
from moto.iam.access_control import S3IAMRequest
from moto.iam.models import iam_backends
from moto.s3.exceptions import S3AccessDeniedError

from srlm_local.s3.auth import Account


def provision(accounts: Mapping[str, Account]) -> None:
    """Makes each account a user of moto's IAM; the actions of its policy are HTTP methods."""
    iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for access_key, account in accounts.items():
        iam.create_user("us-east-1", access_key)
        key = iam.create_access_key(access_key)
        key.access_key_id, key.secret_access_key = access_key, account.secret_key
        allowed = ["s3:GET", "s3:HEAD"] if account.read_only else ["s3:*"]
        statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(access_key, "all", policy)


def authorize(request: Request) -> None:
    """Raises InvalidAccessKeyId, SignatureDoesNotMatch or AccessDenied, as S3ClientError."""
    path = request.raw_path + (f"?{request.query_string.decode('latin-1')}" if request.query_string else "")
    try:
        checked = S3IAMRequest(
            account_id=DEFAULT_ACCOUNT_ID, method=request.method, path=path, data={}, body=b"",
            headers=request.headers, action=request.method,
        )  # fmt: skip
        if checked._service != "s3" or "X-Amz-Content-Sha256" not in request.headers:
            raise S3AccessDeniedError
        checked.check_signature()
    except (KeyError, IndexError):  # no header, or one that is not of Signature Version 4
        raise S3AccessDeniedError from None
    checked.check_action_permitted("*")
