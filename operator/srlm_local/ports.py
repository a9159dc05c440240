"""Ports of this machine to listen on."""

from __future__ import annotations

import random
import socket

#: Below the ports that systems hand to outgoing connections (from 32768 on Linux, from 49152 elsewhere): a port from
#: there would be free when looked at and some client's a second later.
FIRST, LAST = 10_000, 32_000


def free_port(offset: int = 0) -> int:
    """A port of the loopback address that nobody listens on, nor on the one so much higher.

    Drawn by chance so that neighbours differ.
    """
    while True:
        port = random.randint(FIRST, LAST - offset)  # noqa: S311 - not a secret
        if is_free(port) and is_free(port + offset):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: connections that a server left behind when it ended do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
