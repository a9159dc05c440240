"""Keeps the secrets of a stage out of what it says.

Servers repeat in their errors what they were sent: a judge its API key, a proxy a header. Such texts reach logs,
termination messages and from there the run's status, which more people may read than the Secret.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

#: Variables that hold secrets in a stage's container.
SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "SRLM_JUDGE_API_KEY", "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY", "TRACKIO_WRITE_TOKEN",
)  # fmt: skip
#: With W&B's key this user is sent, in an `Authorization: Basic` header.
_WANDB_USER = "api"
#: Shorter values are no secrets, and would be found in every text.
_SHORTEST = 6


def redacted(text: str, environ: Mapping[str, str]) -> str:
    """`text` with the name of the variable in the place of every secret value: `Bearer [HF_TOKEN]`."""
    users = (_WANDB_USER, environ.get("MLFLOW_TRACKING_USERNAME", "").strip())
    for name in SECRET_VARIABLES:
        value = environ.get(name, "").strip()
        if len(value) >= _SHORTEST:
            basic = {b64encode(f"{user}:{value}".encode()).decode() for user in users}
            for spelling in {value, quote(value, safe=""), value.replace("\\", "\\\\").replace('"', '\\"')} | basic:
                text = text.replace(spelling, f"[{name}]")
    return text
