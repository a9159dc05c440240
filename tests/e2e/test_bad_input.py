"""Wrong manifests, data, models and storage: each run says what is wrong and what to do, in its status.

All runs are applied at once and preflight speaks before anything expensive starts.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException

from e2e.machine import GROUP, PLURAL, VERSION, Machine
from e2e.runs import SEED, small_run
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Change = Callable[[dict[str, Any], Path, Machine], None]


def seed_file(text: bytes) -> Change:
    def change(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
        path = folder / "seed.jsonl"
        path.write_bytes(text)
        run["spec"]["seedData"]["uri"] = path.as_uri()

    return change


def tree(answers: list[int | None], lang: str = "en") -> bytes:
    replies = [
        {"text": f"answer {n}", "role": "assistant", "lang": lang, "rank": rank} for n, rank in enumerate(answers)
    ]
    trees = [
        {"prompt": {"text": f"question {n}", "role": "prompter", "lang": lang, "replies": replies}} for n in range(20)
    ]
    return b"\n".join(json.dumps(t).encode() for t in trees)


def no_model(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    run["spec"]["baseModel"]["uri"] = (folder / "nowhere").as_uri()


def no_template(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    run["spec"]["baseModel"]["uri"] = build_tiny_model(folder / "bare", chat_template=False).as_uri()


def no_causal_model(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    source = Path(run["spec"]["baseModel"]["uri"].removeprefix("file://"))
    shutil.copytree(source, folder / "bert")
    config = json.loads((folder / "bert/config.json").read_text()) | {"architectures": ["BertModel"]}
    (folder / "bert/config.json").write_text(json.dumps(config))
    run["spec"]["baseModel"]["uri"] = (folder / "bert").as_uri()


def wrong_bucket(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    run["spec"]["storage"]["uri"] = "s3://no-such-bucket/x"


def wrong_credentials(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    secret = cluster.core.read_namespaced_secret(run["spec"]["storage"]["credentialsSecretRef"]["name"], "default")
    wrong = {**secret.data, "AWS_SECRET_ACCESS_KEY": base64.b64encode(b"wrong").decode()}
    cluster.core.create_namespaced_secret("default", {"metadata": {"name": "wrong-keys"}, "data": wrong})
    run["spec"]["storage"]["credentialsSecretRef"] = {"name": "wrong-keys"}


def no_secret(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    run["spec"]["storage"]["credentialsSecretRef"] = {"name": "no-such-secret"}


def no_key(run: dict[str, Any], folder: Path, cluster: Machine) -> None:
    cluster.core.create_namespaced_secret(
        "default", {"metadata": {"name": "half"}, "data": {"AWS_ACCESS_KEY_ID": "eA=="}}
    )
    run["spec"]["storage"]["credentialsSecretRef"] = {"name": "half"}


#: name → (what is wrong, reasons that are right, words the message must have)
CASES: dict[str, tuple[Change, set[str], tuple[str, ...]]] = {
    "not-json": (seed_file(b'{"prompt": \n'), {"InvalidSeedData"}, ("line 1", "JSON")),
    "no-rank": (seed_file(tree([None, None])), {"InvalidSeedData"}, ("rank",)),
    "one-answer": (seed_file(tree([0])), {"InvalidSeedData"}, ("rank",)),
    "empty-seed": (seed_file(b""), {"InvalidSeedData"}, ("empty",)),
    "other-language": (seed_file(tree([0, 1], lang="de")), {"InvalidSeedData"}, ("language",)),
    "damaged-gzip": (seed_file(gzip.compress(SEED.read_bytes())[:-500]), {"InvalidSeedData"}, ("gzip",)),
    "no-model": (no_model, {"ModelNotUsable"}, ("nowhere",)),
    "no-template": (no_template, {"ModelNotUsable", "TemplateNotUsable"}, ("chatTemplateRef",)),
    "no-causal-model": (no_causal_model, {"ModelNotUsable"}, ("BertModel",)),
    "wrong-bucket": (wrong_bucket, {"StorageNotFound"}, ("no-such-bucket",)),
    "wrong-credentials": (wrong_credentials, {"StorageNotPermitted"}, ("credentialsSecretRef",)),
    "no-secret": (no_secret, {"SecretNotFound"}, ("no-such-secret",)),
    "no-key": (no_key, {"SecretNotFound"}, ("AWS_SECRET_ACCESS_KEY",)),
}


@pytest.fixture(scope="module")
def applied(cluster: Machine, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Runs that have not been deleted by their test are deleted at the end: what stalls is looked at each minute."""
    for name, (change, _, _) in CASES.items():
        run = small_run(cluster, f"bad.{name}", tiny_model, prefix=f"bad/{name}")
        run["spec"]["failurePolicy"] = {"maxAttempts": 1, "backoffSeconds": 0}
        change(run, tmp_path_factory.mktemp(name), cluster)
        cluster.apply(run)
    yield cluster
    for name in CASES:
        with contextlib.suppress(ApiException):
            cluster.delete(f"bad.{name}")


@pytest.mark.parametrize("name", CASES)
def test_the_run_is_stalled_and_says_why(applied: Machine, name: str) -> None:
    _, reasons, words = CASES[name]
    found = applied.until(lambda: applied.condition(f"bad.{name}", "Stalled"), 240, f"{name} is not Stalled")
    assert found["reason"] in reasons, found
    for word in words:
        assert word in found["message"], found["message"]
    ready = applied.condition(f"bad.{name}", "Ready")
    assert ready is not None
    assert ready["status"] == "False"
    if name != "no-secret":  # the next test goes on with it
        applied.delete(f"bad.{name}")


def test_a_missing_secret_is_enough_once_it_is_there(applied: Machine) -> None:
    applied.until(lambda: applied.condition("bad.no-secret", "Stalled"), 120, "not Stalled")
    secret = applied.core.read_namespaced_secret(applied.storage()["credentialsSecretRef"]["name"], "default")
    applied.core.create_namespaced_secret("default", {"metadata": {"name": "no-such-secret"}, "data": secret.data})
    applied.until(lambda: applied.condition("bad.no-secret", "Stalled") is None, 120, "it does not recover")
    applied.delete("bad.no-secret")


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown-enum": (lambda s: s["judging"].update(scorer="Guess"), "scorer"),
    "negative-count": (lambda s: s["prompts"].update(count=-1), "count"),
    "zero-count": (lambda s: s["generation"].update(candidates=0), "candidates"),
    "top-p": (lambda s: s["generation"]["sampling"].update(topP=1.5), "topP"),
    "password": (lambda s: s["storage"].update(endpointUrl="https://user:password@minio:9000"), "endpointUrl"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_api_server_refuses_it(cluster: Machine, tiny_model: Path, name: str) -> None:
    change, field = REFUSED[name]
    run = small_run(cluster, f"refused.{name}", tiny_model, prefix="refused")
    change(run["spec"])
    with pytest.raises(ApiException) as refused:
        cluster.apply(run)
    assert refused.value.status == 422
    assert field in refused.value.body


def test_a_name_of_more_than_63_characters_is_refused(cluster: Machine, tiny_model: Path) -> None:
    with pytest.raises(ApiException) as refused:
        cluster.apply(small_run(cluster, "n" * 64, tiny_model, prefix="refused"))
    assert refused.value.status == 422
    assert "63" in refused.value.body


def test_an_unknown_field_is_refused_to_strict_clients(cluster: Machine, tiny_model: Path) -> None:
    run = small_run(cluster, "refused.unknown", tiny_model, prefix="refused")
    run["spec"]["judging"]["scorers"] = "Sampled"
    with pytest.raises(ApiException) as refused:
        cluster.runs.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, run, field_validation="Strict")
    assert refused.value.status == 400
    assert "scorers" in refused.value.body
