"""Turns what botocore raises into the contract's errors: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from urllib3 import exceptions as urllib3

from srlm_contract.errors import (
    BucketNotFound,
    InvalidTask,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreNotPermitted,
    StoreUnavailable,
    Unsupported,
)

_CREDENTIALS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
    "TokenRefreshRequired", "InvalidClientTokenId", "UnrecognizedClientException", "NotSignedUp",
}  # fmt: skip
_RIGHTS = {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AccountProblem", "403"}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_FULL = {"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "507"}
#: The store does not know a header or operation; callers fall back.
NOT_IMPLEMENTED = {"NotImplemented", "501", "405", "MethodNotAllowed"}
#: Two conditional writes met in the store: nothing was decided.
_MET = {"ConditionalRequestConflict", "OperationAborted"}
#: What arrived is not what was sent, by one of the digests in the request.
_CHANGED_ON_THE_WAY = {
    "BadDigest", "InvalidDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
}  # fmt: skip


#: S3 answers these by 404 only with a code; a web server that is no S3 has none.
_SAY_WHY = {"PutObject", "CreateMultipartUpload", "ListObjectsV2"}


class SendAgain(StoreUnavailable):
    """The store took nothing and the same request may go through: two writes met, or bytes were damaged."""


class Rejected(StoreUnavailable):
    """The store calls the request bad (400) and has its own word for why."""


def refuse_redirects(client: Any) -> None:
    """A boto3 client that is sent elsewhere by no S3 server asks for the bucket's region, is sent elsewhere again, and
    ends in RecursionError; from now on it raises BucketNotFound at once."""
    client.meta.events.register("response-received.s3", _refuse_redirect, unique_id="srlm-redirects")


def _refuse_redirect(
    response_dict: Mapping[str, Any] | None, parsed_response: Mapping[str, Any] | None, **_: object
) -> None:
    status = int(response_dict["status_code"]) if response_dict else 0
    if response_dict is None or not 300 <= status < 400 or status == 304:
        return
    headers = {name.lower(): value for name, value in response_dict["headers"].items()}
    code = str((parsed_response or {}).get("Error", {}).get("Code", ""))
    if "x-amz-bucket-region" in headers or (code and not code.isdigit()):
        return  # S3 itself says where the bucket is
    raise BucketNotFound(
        f"the server at storage.endpointUrl is not the store: it answers {status} and sends to "
        f"{headers.get('location', 'nowhere')}; give that address, without bucket and key, as storage.endpointUrl"
    )


@contextmanager
def translated(uri: str, action: str) -> Iterator[None]:
    """Runs a boto3 call that would `action` (such as "write") the object or bucket at `uri`."""
    try:
        yield
    except boto.ClientError as error:
        raise _from_answer(error, uri, action) from error
    except (boto.BotoCoreError, urllib3.HTTPError, ConnectionError, TimeoutError, KeyError) as error:
        # KeyError: an answer without the fields that every S3 server sends.
        raise _from_client(error, uri, action) from error


def _from_answer(error: boto.ClientError, uri: str, action: str) -> StoreError:
    """The store answered, with an error."""
    details = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    says = f"the store says {code or status}: {details.get('Message', '')}".rstrip(": ")
    cannot = f"cannot {action} {uri}"
    if code == "NoSuchBucket":
        return BucketNotFound(f"{cannot}: the bucket does not exist; create it or correct storage.uri")
    if code in _REGION:
        region = meta.get("HTTPHeaders", {}).get("x-amz-bucket-region") or details.get("Region")
        where = f"region {region}" if region else "another region"
        return BucketNotFound(f"{cannot}: the bucket is in {where}; correct storage.region ({says})")
    if status == 404 and code in {"", "404"} and error.operation_name in _SAY_WHY:
        return BucketNotFound(
            f"{cannot}: what answers at the endpoint is no store (404 without the reason that S3 gives); "
            "correct storage.endpointUrl"
        )
    if code in {"NoSuchKey", "404"} or (status == 404 and code != "NoSuchUpload"):
        return NotFound(f"{uri} does not exist")
    if code == "PreconditionFailed" or status == 412:
        return PreconditionFailed(f"{cannot}: somebody else wrote it first")
    if code in _MET or status == 409:
        return SendAgain(f"{cannot}: another write is under way ({says})")
    if code in _CHANGED_ON_THE_WAY:
        return SendAgain(f"{cannot}: the bytes were damaged on the way; check the network ({says})")
    if code in _CREDENTIALS:
        return StoreNotPermitted(
            f"{cannot}: the credentials are refused; correct storage.credentialsSecretRef "
            f"or the service account's identity ({says})"
        )
    if code == "RequestTimeTooSkewed":
        return StoreUnavailable(f"{cannot}: the clock of this node is wrong; set it right ({says})")
    if code in NOT_IMPLEMENTED or status in {405, 501}:
        return Unsupported(f"{cannot}: {says}")
    if code in _RIGHTS or status in {401, 403}:
        return StoreNotPermitted(
            f"{cannot}: the right is missing; stages need s3:GetObject, s3:PutObject, s3:DeleteObject, "
            f"s3:ListBucket, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads there ({says})"
        )
    if code in _FULL or status == 507:
        return StoreUnavailable(f"{cannot}: the store is full; free space there ({says})")
    return Rejected(f"{cannot}: {says}") if status == 400 else StoreUnavailable(f"{cannot}: {says}")


def _from_client(error: Exception, uri: str, action: str) -> StoreError | InvalidTask:
    """No answer, or none that can be read."""
    cannot = f"cannot {action} {uri}"
    match error:
        case boto.SSLError():
            return StoreNotPermitted(
                f"{cannot}: the certificate of the store is not trusted; give its authority in "
                f"storage.caBundleRef, or correct storage.endpointUrl ({error})"
            )
        case (
            boto.NoCredentialsError()
            | boto.PartialCredentialsError()
            | boto.CredentialRetrievalError()
            | boto.TokenRetrievalError()
            | boto.InvalidConfigError()
            | boto.ProfileNotFound()
        ):
            return StoreNotPermitted(
                f"{cannot}: there are no usable credentials; set storage.credentialsSecretRef "
                f"or give the service account an identity ({error})"
            )
        case boto.ParamValidationError():
            return InvalidTask("InvalidTask", f"{cannot}: storage.uri or a key is not valid for S3 ({error})")
        case _:
            return StoreUnavailable(
                f"{cannot}: the store does not answer as it should; "
                f"check storage.endpointUrl, the network and the store ({error})"
            )
