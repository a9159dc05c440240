"""JSON over HTTP to a tracker: bounded in time, and with errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from .tracker import Refused, TrackerError

#: For a connection, and for every piece of an answer.
TIMEOUT_SECONDS = 10.0


class Http:
    """A server that takes and answers JSON."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._headers, self._auth = dict(headers or {}), auth
        self._client: httpx.Client | None = None

    def post(self, path: str, body: object) -> Any:
        return self._answer("POST", path, json=body)

    def get(self, path: str, **query: str) -> Any:
        return self._answer("GET", path, params=query)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _answer(self, method: str, path: str, **options: Any) -> Any:
        """Raises Refused where a further try would end alike, `Absent` for 404, TrackerError for all else."""
        url = f"{self.url}/{path}"
        try:
            answer = self._opened().request(method, url, **options)
        except httpx.InvalidURL as error:
            raise Refused(f"{url}: {error}") from error
        except httpx.HTTPError as error:
            raise TrackerError(f"{self.url} does not answer: {type(error).__name__}: {error}") from error
        told = f"{url} answers {answer.status_code}: {answer.text.strip()}"
        if answer.status_code in (401, 403):
            raise Refused(f"the credentials are refused: {told}")
        if answer.status_code == 404:
            raise Absent(told)
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            raise TrackerError(told)
        if not answer.is_success:
            raise Refused(told)
        try:
            return answer.json()
        except ValueError:
            raise Refused(f"{url} answers no JSON: is this the address of the tracker?") from None

    def _opened(self) -> httpx.Client:
        if self._client is None:
            for name, value in self._headers.items():
                if not (value.isascii() and value.isprintable()):
                    raise Refused(f"the Secret for {name} of {self.url} has characters that no header may have")
            self._client = httpx.Client(headers=self._headers, auth=self._auth, timeout=TIMEOUT_SECONDS)
        return self._client


class Absent(Refused):
    """404."""
