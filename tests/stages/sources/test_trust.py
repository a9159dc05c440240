"""A private certificate authority counts for every HTTPS client of a stage's process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from srlm_local.http.certificates import server_context
from srlm_stages.sources.trust import VARIABLES, trust_bundle


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """No log."""

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()


@pytest.fixture(scope="module")
def private() -> Iterator[tuple[str, str]]:
    """Address of a server, and the authority that vouches for it."""
    context, authority = server_context()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}/", authority
    server.shutdown()
    server.server_close()


#: The hub's library uses httpx2, external judges httpx, data set libraries requests.
CLIENTS = {
    "httpx": "import httpx; print(httpx.get(url).status_code)",
    "httpx2": "import httpx2; print(httpx2.get(url).status_code)",
    "requests": "import requests; print(requests.get(url).status_code)",
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("bundled", [True, False])
def test_every_client_trusts_it(client: str, bundled: bool, private: tuple[str, str], tmp_path: Path) -> None:
    url, authority = private
    (tmp_path / "ca.crt").write_text(authority)
    environ = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environ["SRLM_WORK_DIR"] = str(tmp_path / "work")
    if bundled:
        environ["SRLM_CA_BUNDLE_FILE"] = str(tmp_path / "ca.crt")
    start = "import os, sys; from srlm_stages.sources import trust; trust.trust_bundle(os.environ); url = sys.argv[1]"
    code = f"{start}; {CLIENTS[client]}"
    done = subprocess.run([sys.executable, "-c", code, url], env=environ, capture_output=True, text=True, check=False)
    if bundled:
        assert done.stdout.strip() == "204", done.stderr
    else:
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_public_authorities_stay_and_own_settings_win(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_text("-----MINE-----")
    environ = {"SRLM_CA_BUNDLE_FILE": str(bundle), "SRLM_WORK_DIR": str(tmp_path), "SSL_CERT_FILE": "/mine"}
    trust_bundle(environ)
    assert environ["SSL_CERT_FILE"] == "/mine"
    text = Path(environ["REQUESTS_CA_BUNDLE"]).read_text()
    assert text.endswith("-----MINE-----")
    assert text.count("BEGIN CERTIFICATE") > 50


def test_nothing_changes_without_a_bundle(tmp_path: Path) -> None:
    for environ in ({"SRLM_WORK_DIR": str(tmp_path)}, {"SRLM_CA_BUNDLE_FILE": str(tmp_path / "absent")}):
        before = dict(environ)
        trust_bundle(environ)
        assert environ == before
    assert list(tmp_path.iterdir()) == []
