"""The report as a person's browser gets it: its tables, read from the HTML that lies in S3."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from e2e.machine import Machine


class _Tables(HTMLParser):
    """Rows of cells by the id of the section they stand in; every table of a section one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self._section = ""
        self._cell = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._section = dict(attributes).get("id") or ""
        elif tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        elif tag in ("th", "td"):
            self._cell = True
            self.rows[self._section][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[self._section][-1][-1] += data


def tables(page: str) -> dict[str, list[list[str]]]:
    """Rows of cells by section."""
    parser = _Tables()
    parser.feed(page)
    parser.close()
    return parser.rows


def reported(cluster: Machine, name: str) -> dict[str, Any]:
    """The run once its report is there."""

    def there() -> bool:
        stage = cluster.get(name)["status"].get("reportStage") or {}
        assert stage.get("state") != "Failed", cluster.describe()
        return stage.get("state") == "Succeeded"

    cluster.until(there, 180, f"there is no report of {name}")
    return cluster.get(name)


def fetch(cluster: Machine, uri: str) -> bytes:
    """The object at an s3:// address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body: bytes = cluster.s3().get_object(Bucket=bucket, Key=key)["Body"].read()
    return body
