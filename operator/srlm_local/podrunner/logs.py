"""Logs of containers as `pods/log` serves them. Files hold `<time> F|P <text>` a line, see supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from srlm_local.store.errors import bad_request

Object = dict[str, Any]
POLL_SECONDS = 0.2


def log_path(pod_folder: Path, container: str) -> Path:
    """The log of a container, which runs once."""
    return pod_folder / "containers" / container / "0.log"


def read_log(pod: Object, query: Mapping[str, str], folder: Path, now: datetime) -> str | AsyncIterator[bytes]:
    """The log that `query` asks for, as text, or as a stream for `follow`. Raises ApiError 400."""
    name = query["container"]
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    statuses = statuses + ((pod.get("status") or {}).get("initContainerStatuses") or [])
    status: Object = next(
        (s for s in statuses if s["name"] == name), {"state": {"waiting": {"reason": "ContainerCreating"}}}
    )
    if "waiting" in status["state"]:
        reason = status["state"]["waiting"].get("reason", "ContainerCreating")
        raise bad_request(f'container "{name}" in pod "{pod["metadata"]["name"]}" is waiting to start: {reason}')
    path = log_path(folder, name)
    stamps = query.get("timestamps") in ("true", "1")
    since = _since(query, now)
    tail = int(query["tailLines"]) if "tailLines" in query else None
    data = _whole_lines(path, 0)
    lines = _lines(data)
    kept = lines[max(len(lines) - tail, 0) :] if tail is not None else lines
    text = b"".join(_shown(kept, since, stamps))
    if query.get("follow") not in ("true", "1"):
        return text.decode(errors="replace")
    return _follow(path, text, len(data), stamps, path.with_suffix(".json").exists)


def _since(query: Mapping[str, str], now: datetime) -> float:
    if "sinceSeconds" in query:
        return now.timestamp() - float(query["sinceSeconds"])
    if "sinceTime" in query:
        return datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00")).timestamp()
    return 0.0


def _lines(data: bytes) -> list[bytes]:
    """Complete lines with their ends. Not splitlines: progress bars write carriage returns within a line."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _shown(lines: list[bytes], since: float, stamps: bool) -> Iterator[bytes]:
    for line in lines:
        time, kind, text = line.split(b" ", 2)
        if float(time) < since:
            continue
        if stamps:
            yield datetime.fromtimestamp(float(time), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode()
        yield text[:-1] if kind == b"P" else text


def _whole_lines(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read()
    except FileNotFoundError:
        return b""
    return data[: data.rfind(b"\n") + 1]


async def _follow(
    path: Path, first: bytes, position: int, stamps: bool, done: Callable[[], bool]
) -> AsyncIterator[bytes]:
    if first:
        yield first
    ended = False
    while True:
        ended = done()  # looked at before reading: what is written in between is read in the next round
        data = _whole_lines(path, position)
        position += len(data)
        shown = b"".join(_shown(_lines(data), 0.0, stamps))
        if shown:
            yield shown
        elif ended:
            return
        else:
            await asyncio.sleep(POLL_SECONDS)
