"""The HTTP side of the S3 server: authenticates, routes path-style requests, answers errors as XML."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from aiohttp import web

from srlm_local.s3 import handlers
from srlm_local.s3.auth import Account, authenticate
from srlm_local.s3.errors import S3Error
from srlm_local.s3.listing import document, list_buckets, list_objects, list_parts, list_uploads
from srlm_local.s3.objects import ObjectStore

READING = {"GET", "HEAD"}
LIST_QUERY = {
    "continuation-token", "delimiter", "encoding-type", "fetch-owner", "list-type", "marker", "max-keys",
    "prefix", "start-after", "x-id",
}  # fmt: skip


class S3Server:
    """One `ObjectStore` behind aiohttp; `accounts` may use it, everybody else gets 403."""

    def __init__(self, store: ObjectStore, accounts: Mapping[str, Account]) -> None:
        self.store = store
        self.accounts = accounts

    def application(self) -> web.Application:
        """The aiohttp application; bodies have no size limit, they go to disk."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request; every S3Error becomes its XML document."""
        path = request.raw_path.partition("?")[0]
        try:
            account = authenticate(self.accounts, request.method, request.raw_path, request.headers)
            if account.read_only and request.method not in READING:
                raise S3Error("AccessDenied")
            bucket, _, key = unquote(path).removeprefix("/").partition("/")
            return await self.route(request, bucket, key)
        except S3Error as error:
            # The rest of an unread body would be taken for the next request on this connection.
            if request.can_read_body and not request.content.is_eof():
                await _drain(request)
            if request.method == "HEAD" or error.status == 304:
                return web.Response(status=error.status)
            body = error.document(unquote(path))
            return web.Response(status=error.status, body=body, content_type="application/xml")

    async def route(self, request: web.Request, bucket: str, key: str) -> web.StreamResponse:
        """Chooses the operation from method, path and query."""
        if not bucket:
            if request.method == "GET":
                return handlers.xml(list_buckets(self.store))
            raise S3Error("MethodNotAllowed")
        if key:
            return await self._object(request, bucket, key)
        return await self._bucket(request, bucket)

    async def _bucket(self, request: web.Request, bucket: str) -> web.StreamResponse:
        store, query = self.store, request.query
        match request.method:
            case "PUT" if not query:
                store.create_bucket(bucket)
                return web.Response(headers={"Location": f"/{bucket}"})
            case "HEAD":
                store.bucket(bucket)
                return web.Response(headers={"x-amz-bucket-region": "us-east-1"})
            case "DELETE" if not query:
                store.delete_bucket(bucket)
                return web.Response(status=204)
            case "POST" if "delete" in query:
                return await handlers.delete_objects(store, request, bucket)
            case "GET" if "location" in query:
                store.bucket(bucket)
                return handlers.xml(document("LocationConstraint", ""))
            case "GET" if "uploads" in query:
                return handlers.xml(list_uploads(store, bucket, query))
            case "GET" if set(query) <= LIST_QUERY:
                return handlers.xml(list_objects(store.bucket(bucket), bucket, query))
        raise S3Error("NotImplemented")

    async def _object(self, request: web.Request, bucket: str, key: str) -> web.StreamResponse:
        store, query = self.store, request.query
        names = set(query) - {"x-id"}
        upload_id = query.get("uploadId")
        match request.method:
            case "GET" | "HEAD" if not names:
                return await handlers.get_object(store, request, bucket, key)
            case "PUT" if not names and "x-amz-copy-source" in request.headers:
                return await handlers.copy_object(store, request, bucket, key)
            case "PUT" if not names:
                return await handlers.put_object(store, request, bucket, key)
            case "DELETE" if not names:
                if request.headers.get("If-Match"):
                    store.check(bucket, key, request.headers["If-Match"], None)
                store.delete(bucket, key)
                return web.Response(status=204)
            case "POST" if names == {"uploads"}:
                return await handlers.start_upload(store, request, bucket, key)
            case "PUT" if upload_id and "partNumber" in names and "x-amz-copy-source" not in request.headers:
                upload = store.upload(bucket, key, upload_id)
                return await handlers.put_part(store, request, upload, query["partNumber"])
            case "POST" if upload_id:
                return await handlers.complete_upload(store, request, store.upload(bucket, key, upload_id))
            case "DELETE" if upload_id:
                store.drop_upload(store.upload(bucket, key, upload_id))
                return web.Response(status=204)
            case "GET" if upload_id:
                return handlers.xml(list_parts(store.upload(bucket, key, upload_id)))
        raise S3Error("NotImplemented")


async def _drain(request: web.Request) -> None:
    async for _ in request.content.iter_chunked(1024 * 1024):
        pass
