"""What servers that speak S3 do differently, each as a function that a request passes on its way to moto.

One answers in the server's place, or changes the request and answers None.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from hashlib import md5

from werkzeug.wrappers import Response

from contract.artifacts.faulty_s3 import Environ, error

Quirk = Callable[[Environ], Response | None]


def body_of(environ: Environ) -> bytes:
    """The body, which stays readable."""
    body: bytes = environ["wsgi.input"].getvalue()
    return body


def unquoted_if_match(environ: Environ) -> Response | None:
    """Ceph RGW 16, and stores made of it: a put compares If-Match with the bare ETag. moto wants the quotes."""
    etag = environ.get("HTTP_IF_MATCH")
    if etag is None or environ["REQUEST_METHOD"] not in {"PUT", "POST"}:
        return None
    if etag.startswith('"'):
        return error(412, "PreconditionFailed")(environ)
    environ["HTTP_IF_MATCH"] = f'"{etag}"'
    return None


def ignored_if_match(environ: Environ) -> Response | None:
    """Stores that took over If-None-Match only."""
    if environ["REQUEST_METHOD"] == "PUT":
        environ.pop("HTTP_IF_MATCH", None)
    return None


def refused_if_match(environ: Environ) -> Response | None:
    """The same, of those that say so."""
    if environ["REQUEST_METHOD"] == "PUT" and "HTTP_IF_MATCH" in environ:
        return error(501, "NotImplemented")(environ)
    return None


def conditions_are_bad_requests(environ: Environ) -> Response | None:
    """Stores with a word of their own for header fields they do not know."""
    if environ["REQUEST_METHOD"] == "PUT" and {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
        return error(400, "InvalidArgument")(environ)
    return None


def conditions_always_conflict(environ: Environ) -> Response | None:
    """Stores that answer a conditional put by 409, whatever it says."""
    if environ["REQUEST_METHOD"] == "PUT" and {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
        return error(409, "ConditionalRequestConflict")(environ)
    return None


def deletion_wants_md5(environ: Environ) -> Response | None:
    """MinIO until 2024 and others: DeleteObjects without Content-MD5 is refused."""
    if is_deletion(environ) and "HTTP_CONTENT_MD5" not in environ:
        return error(400, "MissingContentMD5", "Missing required header for this request: Content-Md5.")(environ)
    return None


def checked_md5(environ: Environ) -> Response | None:
    """SeaweedFS, rclone and Ceph: of all digests only Content-MD5 is compared with what arrived."""
    told = environ.get("HTTP_CONTENT_MD5")
    if told is not None and told != b64encode(md5(body_of(environ), usedforsecurity=False).digest()).decode():
        return error(400, "BadDigest")(environ)
    return None


def no_new_checksums(environ: Environ) -> Response | None:
    """Older stores: neither checksum trailers nor checksums in the header."""
    unknown = [name for name in environ if name.startswith(("HTTP_X_AMZ_CHECKSUM", "HTTP_X_AMZ_SDK_CHECKSUM"))]
    if unknown or "HTTP_X_AMZ_TRAILER" in environ:
        return error(400, "InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a SHA-256")(environ)
    return None


def is_deletion(environ: Environ) -> bool:
    return environ["REQUEST_METHOD"] == "POST" and "delete" in environ["QUERY_STRING"]


def without_batch_deletion(status: int, code: str) -> Quirk:
    """Stores that delete one object a request."""
    return lambda environ: error(status, code)(environ) if is_deletion(environ) else None


def without_upload_listing(status: int, code: str) -> Quirk:
    """Stores without ListMultipartUploads."""

    def quirk(environ: Environ) -> Response | None:
        asked = environ["REQUEST_METHOD"] == "GET" and "uploads" in environ["QUERY_STRING"].split("&")
        return error(status, code)(environ) if asked else None

    return quirk


class FlippedBit:
    """A network that damages the bodies of the first `times` puts of a key."""

    def __init__(self, key: str, times: int = 1) -> None:
        self.key = key
        self.left = times

    def __call__(self, environ: Environ) -> None:
        if environ["REQUEST_METHOD"] == "PUT" and self.key in environ["PATH_INFO"] and self.left:
            self.left -= 1
            body = body_of(environ)
            environ["wsgi.input"] = io.BytesIO(bytes([body[0] ^ 1]) + body[1:])


#: What the oldest stores have in common; the contract's tests run on it as one more store.
OLD_STORE: tuple[Quirk, ...] = (
    unquoted_if_match,
    deletion_wants_md5,
    checked_md5,
    no_new_checksums,
)
