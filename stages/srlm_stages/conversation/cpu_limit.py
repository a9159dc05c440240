"""An end for programs that others wrote and that run inside this process: chat templates may loop for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cpu_limit(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raises `error()` in the body once the process has computed for `seconds` in it.

    Counts the CPU time of the whole process, so that a busy machine is no reason. Does nothing outside of the main
    thread, which alone gets signals; what runs there was tried in the main thread before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(number: int, frame: FrameType | None) -> None:
        raise error()

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
