"""A moto S3 server over HTTP whose answers can be made to fail, for the tests of the store.

moto looks at If-Match and If-None-Match and then writes, without a lock between; real stores do both at once.
Changing requests are therefore let in one at a time.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response

Environ = dict[str, Any]


@dataclass
class Fault:
    """Applies to requests of `method` whose path and query contain `path`, `times` times."""

    method: str
    path: str
    answer: Callable[[Environ], Response | None] = lambda environ: None
    """An answer instead of the real one, or None after changing the request."""
    change: Callable[[bytes], bytes] = lambda body: body
    """Changes the body of the real answer; its Content-Length stays."""
    times: int = 1_000_000
    after: int = 0
    """Requests that pass first."""
    seen: int = field(default=0, init=False)

    def applies(self, environ: Environ) -> bool:
        target = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if environ["REQUEST_METHOD"] != self.method or self.path not in target:
            return False
        self.seen += 1
        return self.after < self.seen <= self.after + self.times


class FaultyS3:
    """The WSGI application; `faults` may be changed at any time."""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        """Method and path of every request."""
        self.quirks: tuple[Callable[[Environ], Response | None], ...] = ()
        """What the server does differently for every request, in this order; see `Fault.answer`."""
        self._writing = threading.Lock()
        self._counting = threading.Lock()

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        # Read at once: an answer may come from a fault, from moto, or from both in turn.
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with self._counting:
            self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
            faults = [fault for fault in self.faults if fault.applies(environ)]
        for answer in (*self.quirks, *(fault.answer for fault in faults)):
            instead = answer(environ)
            if instead is not None:
                return instead(environ, start_response)
        response = self.real(environ)
        for fault in faults:
            body = fault.change(response.get_data())
            length = response.headers["Content-Length"]
            response.set_data(body)
            response.headers["Content-Length"] = length
        return response(environ, start_response)

    def real(self, environ: Environ) -> Response:
        if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            return Response.from_app(self.moto, environ, buffered=True)
        with self._writing:
            return Response.from_app(self.moto, environ, buffered=True)


@dataclass
class S3Server:
    """A running server."""

    app: FaultyS3
    http: BaseWSGIServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    @classmethod
    def start(cls) -> S3Server:
        app = FaultyS3()
        http = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        return cls(app, http)

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def error(status: int, code: str, message: str = "injected", **headers: str) -> Callable[[Environ], Response]:
    """An S3 error answer."""

    def answer(environ: Environ) -> Response:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        if environ["REQUEST_METHOD"] == "HEAD":
            body = ""
        return Response(body, status, {k.replace("_", "-"): v for k, v in headers.items()}, "application/xml")

    return answer


def ignore_conditions(environ: Environ) -> None:
    """A store that never heard of conditional puts."""
    environ.pop("HTTP_IF_NONE_MATCH", None)
    environ.pop("HTTP_IF_MATCH", None)


def refuse_conditions(environ: Environ) -> Response | None:
    """A store that says it does not implement them."""
    if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
        return error(501, "NotImplemented", "A header you provided implies functionality that is missing")(environ)
    return None
