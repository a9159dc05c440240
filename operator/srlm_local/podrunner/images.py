"""Images are ignored: all containers run in this Python environment. Some names stand for a failed pull."""

from __future__ import annotations

UNPULLABLE = "does-not-exist"
"""An image with this in its name cannot be pulled: what a typo or a private registry looks like."""


def pull_error(image: str) -> str | None:
    """Why the image cannot be pulled, in the words of a container runtime, or None."""
    if UNPULLABLE not in image:
        return None
    resolving = f'failed to resolve reference "{image}": {image}: not found'
    return f'failed to pull and unpack image "{image}": {resolving}'
