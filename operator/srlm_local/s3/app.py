"""The WSGI application: who may, the body to disk, moto's operation under one lock, the record of it."""

from __future__ import annotations

import io
import sys
import threading
import traceback
from collections.abc import Iterable
from typing import Any

from moto.core.request import Request as MotoRequest
from moto.core.responses import ActionResult
from moto.core.utils import iso_8601_datetime_with_milliseconds
from moto.s3.exceptions import MissingKey, NoSuchUpload, PreconditionFailed, S3ClientError
from moto.s3.responses import S3Response
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as HttpResponse

from srlm_local.s3.body import receive
from srlm_local.s3.disk import DISK, FileValue
from srlm_local.s3.iam import authorize
from srlm_local.s3.records import Records

#: Query parameters of the operations whose effects `Records` keeps; others get NotImplemented.
KNOWN_QUERY = {
    "continuation-token", "delete", "delimiter", "encoding-type", "fetch-owner", "key-marker", "list-type",
    "location", "marker", "max-keys", "max-parts", "max-uploads", "part-number-marker", "partNumber", "prefix",
    "start-after", "upload-id-marker", "uploadId", "uploads", "x-id",
}  # fmt: skip
#: Lists of a thousand keys to delete or ten thousand parts are well below.
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
#: moto's service model knows the status of the others.
STATUS = {"InternalError": 500, "NotImplemented": 501}


class Request(MotoRequest):  # type: ignore[misc]
    """A request that came over HTTP."""

    from_wsgi_server = True


class Response(S3Response):  # type: ignore[misc]
    """moto's operations on one bucket or object, with what moto lacks for them."""

    records: Records
    body: Any

    @property
    def backend(self) -> Any:
        return self.records.backend

    def setup_class(self, request: Any, full_url: str | None = None, headers: Any = None) -> None:
        super().setup_class(request, full_url, headers)
        self.body = request.environ.get("srlm.body", self.body)

    def serialized(self, action_result: ActionResult) -> Any:
        """moto gives one constant day to all uploads; clean-up by age would abort those of today."""
        result = action_result.result
        for entry in result.get("Uploads", []) if isinstance(result, dict) else []:
            upload = self.backend.get_bucket(self.bucket_name).multiparts[entry["UploadId"]]
            entry["Initiated"] = iso_8601_datetime_with_milliseconds(upload.initiated)
        return super().serialized(action_result)

    def check(self, key: str) -> None:
        """The conditions moto does not know: uploads that must exist, If-Match, copies."""
        headers, upload_id = self.headers, self.request.args.get("uploadId")
        copy = "x-amz-copy-source" in headers
        existing = self.backend.get_object(self.bucket_name, key)
        if upload_id and upload_id not in self.backend.get_bucket(self.bucket_name).multiparts:
            done = existing is not None and existing.multipart and existing.multipart.id == upload_id
            if not (done and self.method == "POST"):
                raise NoSuchUpload(upload_id=upload_id)
            return
        if (wanted := headers.get("If-Match")) and (copy or upload_id) and self.method in ("PUT", "POST"):
            if existing is None:
                raise MissingKey(key=key)
            if wanted.strip('"') != existing.etag.strip('"'):
                raise PreconditionFailed("If-Match")
        if copy and headers.get("If-None-Match") == "*" and existing is not None:
            raise PreconditionFailed("If-None-Match")


def check_known(request: Request) -> None:
    """Raises NotImplemented for what moto would do but `Records` would forget."""
    names = set(request.args)
    unknown = names - KNOWN_QUERY
    if "partNumber" in names and "uploadId" not in names:
        unknown.add("partNumber without uploadId")
    if request.method == "POST" and not names & {"delete", "uploads", "uploadId"}:
        unknown.add("uploads by forms")
    if unknown:
        message = f"The one-machine S3 server does not implement {', '.join(sorted(unknown))}."
        raise S3ClientError("NotImplemented", message)


class Application:
    """moto's S3 backend over the folder of `records`; accounts were provisioned before."""

    def __init__(self, records: Records) -> None:
        self.records = records
        # moto's state is not made for threads, and check and put must be one step: bodies move outside of it.
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI."""
        answered: Iterable[bytes] = self._respond(Request(environ))(environ, start_response)
        return answered

    def _respond(self, request: Request) -> Any:
        response = Response()
        response.records = self.records
        try:
            authorize(request)
            check_known(request)
            status, headers, content = self._answer(request, response)
        except S3ClientError as error:
            status, headers, content = self._failed(request, response, error)
        except HTTPException as error:
            return error
        except Exception:
            traceback.print_exc(file=sys.stderr)
            failure = S3ClientError("InternalError", "The server failed; see its log.")
            status, headers, content = self._failed(request, response, failure)
        answer = HttpResponse(content, status, {k: str(v) for k, v in headers.items()}, direct_passthrough=True)
        if request.method == "HEAD" and "content-length" in headers:
            answer.headers["Content-Length"] = str(headers["content-length"])
        return answer

    def _answer(self, request: Request, response: Response) -> Any:
        body = self._receive(request)
        try:
            with self.lock:
                return self._operate(request, response, body)
        finally:
            if body is not None and body.spare:
                for segment in body.segments:
                    segment.path.unlink()

    def _receive(self, request: Request) -> FileValue | None:
        environ = request.environ
        if environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return None
        value, trailers = receive(environ["wsgi.input"], request.headers, DISK.new())
        for name, text in trailers.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = text
        return value

    def _operate(self, request: Request, response: Response, body: FileValue | None) -> Any:
        environ = request.environ
        in_memory = b""
        if body is not None and request.method == "PUT" and request.raw_path.strip("/").count("/"):
            environ["srlm.body"] = body
        elif body is not None and len(body) > MAX_DOCUMENT_BYTES:
            raise S3ClientError("MaxMessageLengthExceeded", "Your request was too big.")
        elif body is not None:
            in_memory = b"".join(body.open())
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(in_memory), str(len(in_memory))
        for name in ("HTTP_X_AMZ_CONTENT_SHA256", "HTTP_TRANSFER_ENCODING"):
            environ.pop(name, None)
        response.setup_class(request)
        bucket, key = response.bucket_name, response.parse_key_name() if response.bucket_name else ""
        handler = response.key_response if key else response.bucket_response
        if key:
            response.check(key)
        status, headers, content = handler(request, request.raw_url, dict(request.headers))
        if request.method not in ("GET", "HEAD") and bucket:
            self.records.save(bucket, key, request.args.get("uploadId", ""))
        if isinstance(content, FileValue):
            content = content.open()
        return status, headers, content

    def _failed(self, request: Request, response: Response, error: S3ClientError) -> Any:
        request.environ["wsgi.input"], request.environ["CONTENT_LENGTH"] = io.BytesIO(), "0"
        if not hasattr(response, "data"):
            response.setup_class(request)
        status, headers, content = response._send_response(response.serialized(ActionResult(error)))
        return STATUS.get(error.code, status), headers, content
