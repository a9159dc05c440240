"""What Jobs are made of, for tests of their manifests."""

from __future__ import annotations

from srlm_contract.spec.run import RunSpec
from srlm_contract.tasks import ArtifactRef, GenerateParams
from srlm_operator.jobs.job import Work, render
from srlm_operator.values import CreateJob
from support.builders import run, settings, spec

MODEL = ArtifactRef(stage="sft", key="a" * 24, content_digest="sha256:" + "1" * 64)


def generate(shards: int = 4) -> Work:
    inputs = {"model": MODEL, "prompts": MODEL.model_copy(update={"stage": "prompts"})}
    return Work(1, "generate", "generate", "b" * 24, GenerateParams(), inputs=inputs, shards=shards)


def make(work: Work, for_spec: RunSpec | None = None, missing: tuple[int, ...] = (), attempt: int = 1) -> CreateJob:
    found = for_spec or spec()
    return render(run(spec_=found), found, work, attempt, missing, settings())
