"""What of the recordings is not replayed or not compared, and why. Nothing else may be left out.

NOT_SENT[scenario][step]: the step is not sent.
LOOSE[scenario][(step or "*", beginning of the difference)]: differences that begin so are allowed.
"""

from __future__ import annotations

NOT_SENT: dict[str, dict[int, str]] = {}

LOOSE: dict[str, dict[tuple[int | str, str], str]] = {}
