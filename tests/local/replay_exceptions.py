"""What of the recordings is not replayed or not compared, and why. Nothing else may be left out.

NOT_SENT[scenario][step]: the step is not sent.
LOOSE[scenario][(step or "*", beginning of the difference)]: differences that begin so are allowed.
"""

from __future__ import annotations

NOT_SENT: dict[str, dict[int, str]] = {
    "04-update": {58: "the recording has lost the managedFields that made the request wrong"},
}

NOT_SERVED = {"attach", "exec", "portforward", "proxy", "resize", "ephemeralcontainers"}
"""Subresources that the real server's discovery lists and nobody here calls."""

_LINE_BREAKS = "the Python client's models, where descriptions come from, have lost the line breaks"
_RETRY = "how often the Job controller has tried by then, with one event for each pod name, is a matter of timing"
_GO_DUMP = "the message holds a dump of Go structs, in which only the reason matters"

LOOSE: dict[str, dict[tuple[int | str, str], str]] = {
    "03-create": {
        (36, "header warning"): "fields are not checked against a version that does not exist",
        (51, ""): "errors are never sent as protobuf",
    },
    "04-update": {
        (27, "message"): _GO_DUMP,
        (27, "details.causes[0].message"): _GO_DUMP,
    },
    "07-list": {
        (15, "message"): "Go's words for bytes that are no JSON",
        (52, "columnDefinitions[4].description"): _LINE_BREAKS,
        (53, "columnDefinitions[4].description"): _LINE_BREAKS,
    },
    "21-admission": {
        (5, "items has"): _RETRY,
        (21, "items has"): _RETRY,
    },
    "19-leases": {
        (5, "message"): _GO_DUMP,
        (5, "details.causes[0].message"): _GO_DUMP,
    },
}
