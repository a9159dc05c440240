"""S3 errors as values: code, HTTP status and message, in the wording that S3 clients know."""

from __future__ import annotations

from xml.sax.saxutils import escape

STATUS = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "BadDigest": 400,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "EntityTooSmall": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidPart": 400,
    "InvalidPartOrder": 400,
    "InvalidRange": 416,
    "KeyTooLongError": 400,
    "MalformedXML": 400,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NotImplemented": 501,
    "NotModified": 304,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "SignatureDoesNotMatch": 403,
    "XAmzContentSHA256Mismatch": 400,
}

MESSAGE = {
    "AccessDenied": "Access Denied",
    "BucketNotEmpty": "The bucket you tried to delete is not empty",
    "EntityTooSmall": "Your proposed upload is smaller than the minimum allowed size",
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "InvalidPart": "One or more of the specified parts could not be found.",
    "InvalidRange": "The requested range is not satisfiable",
    "NoSuchBucket": "The specified bucket does not exist",
    "NoSuchKey": "The specified key does not exist.",
    "NoSuchUpload": "The specified upload does not exist.",
    "NotImplemented": "The one-machine S3 server does not implement a header or operation you asked for.",
    "PreconditionFailed": "At least one of the pre-conditions you specified did not hold",
    "SignatureDoesNotMatch": "The request signature we calculated does not match the signature you provided.",
    "XAmzContentSHA256Mismatch": "The 'x-amz-content-sha256' header does not match what was computed.",
}


class S3Error(Exception):
    """An answer with an error document; `code` is one of `STATUS`."""

    def __init__(self, code: str, message: str | None = None) -> None:
        self.code = code
        self.status = STATUS[code]
        self.message = message or MESSAGE.get(code, code)
        super().__init__(f"{code}: {self.message}")

    def document(self, resource: str) -> bytes:
        """The XML body that goes with the status."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>"
            f"<Resource>{escape(resource)}</Resource></Error>"
        ).encode()
