"""What of the recordings is not replayed or not compared, and why. Nothing else may be left out.

NOT_SENT[scenario][step]: the step is not sent.
LOOSE[scenario][(step or "*", beginning of the difference)]: differences that begin so are allowed.
What is left out everywhere, because the one-machine cluster does not have it, is in `replay.not_here`.
"""

from __future__ import annotations

_SCHEMAS = "only a real API server checks the schema of a definition: `kubectl apply -f crds/` in CI does it"
_DECODING = "fields and types of built-in kinds are checked by kubernetes-validate in tests"
_ELASTIC = "less parallelism ends no pods, and completions stay"
_STOPPED = "a deleted pod is replaced, and counts, only once it has stopped, as with a podFailurePolicy"
_UNSUPPORTED = "refused here"
_APPLIED = "the object was made by server-side apply"
_CONDITIONS = "namespaces do not tell what they wait for"

NOT_SENT: dict[str, dict[int, str]] = {
    "02-crd": dict.fromkeys(range(5, 11), _SCHEMAS),
    "03-create": {
        7: "a field that is given twice is not noticed",
        49: "objects are created by POST to the collection only",
        **dict.fromkeys((52, 53, 54), _DECODING),
    },
    "04-update": dict.fromkeys((65, 67), _APPLIED),
    "06-propagation": {39: "two controllers are not refused"},
    "07-list": {9: "an exact list without a version is not refused"},
    "08-watch": {16: "no bookmarks are sent", 20: "which version a watch may begin with is not checked"},
    "09-job": {
        **dict.fromkeys(range(26, 41), _STOPPED),
        47: "Indexed Jobs have one completion by default",
        49: "backoffLimitPerIndex without indexes is ignored",
    },
    "11-job-indexed": {
        **dict.fromkeys(range(19, 42), f"maxFailedIndexes: {_UNSUPPORTED}"),
        **dict.fromkeys(range(50, 63), f"success policies: {_UNSUPPORTED}"),
    },
    "12-job-suspend": {
        7: "the whole template of a suspended Job that never ran may change",
        **dict.fromkeys(range(46, 60), _ELASTIC),
    },
    "15-pods": {
        3: "no token is mounted whose volume the body names",
        39: "runtime classes are ignored",
        40: "there are no priority classes of the system",
    },
    "16-limits": {21: "there is no etcd that would refuse a large object"},
    "17-namespaces": dict.fromkeys((7, 28), _CONDITIONS),
    "18-auth": {0: "the version names no compiler"},
    "19-leases": {8: "the values of a Lease are not checked"},
    "22-crd-delete": {6: "definitions do not tell how far the deletion of their instances is"},
}

_UNDECODABLE = "what cannot be decoded is answered with 400, in patches too"

LOOSE: dict[str, dict[tuple[int | str, str], str]] = {
    "04-update": {(27, "status 400, not 422"): _UNDECODABLE},
    "18-auth": {
        (8, "metadata is missing"): "the answer to a TokenRequest has what clients read of it",
        (8, "spec.audiences is missing"): "the same",
    },
    "19-leases": {(5, "status 400, not 422"): _UNDECODABLE},
}
