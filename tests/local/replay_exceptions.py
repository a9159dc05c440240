"""What of the recordings is not replayed or not compared, and why. Nothing else may be left out.

NOT_SENT[scenario][step]: the step is not sent.
LOOSE[scenario][(step or "*", beginning of the difference)]: differences that begin so are allowed.
"""

from __future__ import annotations

NOT_SENT: dict[str, dict[int, str]] = {}

NOT_SERVED = {"attach", "exec", "portforward", "proxy", "resize", "ephemeralcontainers"}
"""Subresources that the real server's discovery lists and nobody here calls."""

_LINE_BREAKS = "the Python client's models, where descriptions come from, have lost the line breaks"
_GO_DUMP = "the message holds a dump of Go structs, in which only the reason matters"

LOOSE: dict[str, dict[tuple[int | str, str], str]] = {
    "03-create": {
        (36, "header warning"): "fields are not checked against a version that does not exist",
        (51, ""): "errors are never sent as protobuf",
    },
    "07-list": {
        (15, "message"): "Go's words for bytes that are no JSON",
        (52, "columnDefinitions[4].description"): _LINE_BREAKS,
        (53, "columnDefinitions[4].description"): _LINE_BREAKS,
    },
    "19-leases": {
        (5, "message"): _GO_DUMP,
        (5, "details.causes[0].message"): _GO_DUMP,
    },
}
