"""Checks AWS Signature Version 4 of a request's Authorization header.

Source of the algorithm: AWS, "Authenticating Requests: Using the Authorization Header (SigV4)".
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from srlm_local.s3.errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW_SECONDS = 15 * 60


@dataclass(frozen=True)
class Account:
    """Somebody who may use the server; `read_only` accounts get AccessDenied for every change."""

    secret_key: str
    read_only: bool = False


def load_accounts(path: Path) -> dict[str, Account]:
    """Accounts by access key from JSON: {"KEY": {"secret_key": ..., "read_only": false}, ...}."""
    return {key: Account(**value) for key, value in json.loads(path.read_text()).items()}


def save_accounts(path: Path, accounts: Mapping[str, Account]) -> None:
    """Writes the file for `load_accounts`, readable by its owner only."""
    path.touch(mode=0o600, exist_ok=True)
    path.write_text(
        json.dumps({k: {"secret_key": a.secret_key, "read_only": a.read_only} for k, a in accounts.items()})
    )


def authenticate(
    accounts: Mapping[str, Account], method: str, raw_path: str, headers: Mapping[str, str]
) -> Account:
    """The account that signed the request; `raw_path` is the request target as sent. Raises S3Error."""
    authorization = headers.get("Authorization", "")
    if not authorization:
        raise S3Error("AccessDenied")
    algorithm, _, rest = authorization.partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    credential = fields.get("Credential", "").rsplit("/", 4)
    if algorithm != ALGORITHM or len(credential) != 5 or not fields.get("SignedHeaders"):
        raise S3Error(
            "AuthorizationHeaderMalformed", "The authorization header is not of Signature Version 4."
        )
    access_key, date, region, service, _ = credential
    account = accounts.get(access_key)
    if account is None:
        raise S3Error("InvalidAccessKeyId")
    timestamp = headers.get("x-amz-date", "")
    _check_time(timestamp)
    signed_headers = fields["SignedHeaders"].split(";")
    canonical = _canonical_request(method, raw_path, headers, signed_headers)
    scope = f"{date}/{region}/{service}/aws4_request"
    to_sign = "\n".join([ALGORITHM, timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{account.secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected, fields.get("Signature", "")):
        raise S3Error("SignatureDoesNotMatch")
    return account


def _check_time(timestamp: str) -> None:
    try:
        sent = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid x-amz-date header") from None
    if abs((datetime.now(UTC) - sent).total_seconds()) > MAX_SKEW_SECONDS:
        raise S3Error(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        )


def _canonical_request(
    method: str, raw_path: str, headers: Mapping[str, str], signed_headers: list[str]
) -> str:
    path, _, query = raw_path.partition("?")
    pairs = sorted(
        (quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~"))
        for name, _, value in (item.partition("=") for item in query.split("&") if item)
    )
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed_headers]
    payload = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    return "\n".join(
        [
            method,
            path or "/",
            "&".join(f"{name}={value}" for name, value in pairs),
            *lines,
            "",
            ";".join(signed_headers),
            payload,
        ]
    )
