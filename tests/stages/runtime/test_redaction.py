"""Secrets that others repeat stay out of messages; test_entry.py has a whole process."""

from __future__ import annotations

from base64 import b64encode

import pytest

from srlm_stages.runtime.redaction import redacted

KEY = 'sk-canary/"7+x\\'


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        (f"invalid key {KEY}!", "invalid key [SRLM_JUDGE_API_KEY]!"),
        (f"{KEY}{KEY}", "[SRLM_JUDGE_API_KEY][SRLM_JUDGE_API_KEY]"),
        ("?key=sk-canary%2F%227%2Bx%5C&y", "?key=[SRLM_JUDGE_API_KEY]&y"),
        ('{"error": "sk-canary/\\"7+x\\\\"}', '{"error": "[SRLM_JUDGE_API_KEY]"}'),
        ("nothing of it: sk-canary", "nothing of it: sk-canary"),
    ],
)
def test_the_value_is_replaced_in_every_spelling(text: str, becomes: str) -> None:
    assert redacted(text, {"SRLM_JUDGE_API_KEY": KEY, "HF_TOKEN": ""}) == becomes


def test_every_secret_and_only_secrets() -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "identity", "AWS_SECRET_ACCESS_KEY": "secret-1", "AWS_SESSION_TOKEN": "secret-2",
        "HF_TOKEN": "secret-3", "HOME": "/home/stage",
    }  # fmt: skip
    found = redacted(" ".join(environ.values()), environ)
    assert found == "identity [AWS_SECRET_ACCESS_KEY] [AWS_SESSION_TOKEN] [HF_TOKEN] /home/stage"


def test_basic_authorisation_is_as_secret_as_what_it_is_made_of() -> None:
    environ = {"WANDB_API_KEY": "local-0123", "MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pass-9"}
    sent = " ".join(b64encode(text).decode() for text in (b"api:local-0123", b"ann:pass-9"))
    assert redacted(f"Basic {sent}", environ) == "Basic [WANDB_API_KEY] [MLFLOW_TRACKING_PASSWORD]"


def test_values_too_short_for_a_secret_leave_the_text_alone() -> None:
    assert redacted("exit 1 of 1", {"HF_TOKEN": "1", "SRLM_JUDGE_API_KEY": " \n"}) == "exit 1 of 1"
