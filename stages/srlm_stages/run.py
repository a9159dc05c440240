"""The way every stage runs: read the task, look whether it is done already, do it, commit, report.

Exit codes: 0 committed, 64 invalid task, 65 input missing or damaged, 75 temporary, 77 not permitted,
143 terminated, 1 anything else. The termination message is a StageResult of at most 4 KiB.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType

from pydantic import ValidationError

from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.cache import ModelCache
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Manifest, Producer
from srlm_contract.artifacts.retention import add_refs
from srlm_contract.artifacts.s3_count import RequestErrors
from srlm_contract.artifacts.store import Store
from srlm_contract.artifacts.uploads import give_up, sending
from srlm_contract.errors import InvalidTask, Terminated
from srlm_contract.stages import STAGES, TRAINERS
from srlm_contract.tasks import EXIT_INVALID_TASK, EXIT_OK, StageResult, StageTask

from .chain import Chain, Wait, waited
from .context import StageContext
from .pod import Pod
from .runtime.failures import failure
from .runtime.progress import ProgressReporter
from .runtime.redaction import redacted
from .runtime.statistics import Statistics, figures, merge_shards, with_ratios
from .runtime.termination import write_result

DEFAULT_CACHE_BYTES = 64 * 2**30


def program(stage: str) -> ModuleType:
    """The module of a stage: `run`, and `merge` where the statistics of shards do not simply add up.

    Imports what that stage needs and nothing else.
    """
    if stage not in STAGES:
        raise InvalidTask("InvalidTask", f"there is no stage {stage!r}; stages: {', '.join(STAGES)}")
    return import_module(f".{stage}", __package__)


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the stage named by the only argument; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    stage = arguments[0] if arguments else ""
    errors = RequestErrors()
    told: StageResult | None = None

    def tell(result: StageResult) -> StageResult:
        """Writes the termination message: whatever happens later, the kubelet has it."""
        nonlocal told
        warnings = tuple(redacted(text, environ) for text in result.warnings)
        told = write_result(result.model_copy(update={"storage_errors": errors.count, "warnings": warnings}), environ)
        return told

    try:
        if len(arguments) != 1:
            raise InvalidTask("InvalidTask", "usage: python -m srlm_stages STAGE, with the task in SRLM_TASK")
        result = run_task(read_task(stage, environ), environ, errors, tell)
    except (Exception, Terminated) as error:
        code, problem = failure(stage, error, environ)
        if told is not None:  # all that went wrong came after the commit
            return code if isinstance(error, Terminated) else EXIT_OK
        known = stage if stage in STAGES else "preflight"
        tell(StageResult(stage=known, error=problem))  # type: ignore[arg-type]  # checked
        return code
    lost = tell(result).error
    if lost is None:
        return EXIT_OK
    print(f"stage {stage} failed ({lost.reason}): {lost.message}", file=sys.stderr, flush=True)  # noqa: T201
    return EXIT_INVALID_TASK


def read_task(stage: str, environ: Mapping[str, str]) -> StageTask:
    """The task in SRLM_TASK. Raises InvalidTask naming every wrong field."""
    text = environ.get("SRLM_TASK")
    if not text:
        raise InvalidTask("InvalidTask", "SRLM_TASK is not set; the operator sets it to the stage's task as JSON")
    try:
        task = StageTask.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'task'}: {e['msg']}" for e in error.errors(include_url=False)[:8]
        )
        raise InvalidTask("InvalidTask", f"SRLM_TASK does not fit this version of the stages: {problems}") from error
    if task.stage != stage:
        raise InvalidTask("InvalidTask", f"the command runs stage {stage!r}, the task is for stage {task.stage!r}")
    return task


def run_task(
    task: StageTask,
    environ: Mapping[str, str],
    errors: RequestErrors,
    tell: Callable[[StageResult], object] = lambda result: None,
) -> StageResult:
    """Open storage as the task says, execute the task and what follows it in its chain.

    errors: counts what the object store fails or refuses. tell: is given what is committed, after each stage.
    """
    opened = open_store(task, environ, errors)
    root = environ.get("SRLM_WORK_DIR")
    if root:
        Path(root).mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{task.stage}-", dir=root or None))
    try:
        return execute_chain(task, opened(task.storage.uri), work, environ, opened, tell)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def execute_chain(
    task: StageTask,
    store: Store,
    work: Path,
    environ: Mapping[str, str],
    opened: Callable[[str], Store] | None = None,
    tell: Callable[[StageResult], object] = lambda result: None,
    wait: Wait = waited,
) -> StageResult:
    """Do a task and the stages of its chain, with what they share."""
    with Pod(work / "shared", model_cache(environ), chained=bool(task.chain)) as pod:
        artifacts = ArtifactStore(store, producer=Producer.from_environment(task.run, environ))

        def run(one: StageTask) -> StageResult:
            folder = work / f"{one.iteration}-{one.node or one.stage}"
            shard = f"{shard_index(one, environ)}-of-{one.shards}"
            awaited = task.chain and one.shards > 1
            try:
                with sending(store, one.stage, one.key, shard, artifacts.producer) if awaited else nullcontext():
                    return execute(one, store, folder, environ, opened, pod)
            except BaseException:
                if awaited:
                    give_up(store, one.stage, one.key, shard, artifacts.producer)
                raise
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        result = run(task)
        if not task.chain:
            return result
        tell(result)
        return Chain(task, artifacts, run, environ, wait).follow(result, tell)


def open_store(
    task: StageTask, environ: Mapping[str, str], errors: RequestErrors | None = None
) -> Callable[[str], Store]:
    """Opens an s3:// location with the endpoint and credentials of the run's storage."""

    def opened(uri: str) -> Store:
        from srlm_contract.artifacts.s3 import S3Store

        return S3Store.open(
            task.storage,
            uri,
            ca_bundle=environ.get("SRLM_CA_BUNDLE_FILE") or None,
            conditional=task.storage.conditional_puts,
            if_match=task.storage.if_match,
            errors=errors,
        )

    return opened


def execute(
    task: StageTask,
    store: Store,
    work: Path,
    environ: Mapping[str, str],
    opened: Callable[[str], Store] | None = None,
    pod: Pod | None = None,
) -> StageResult:
    """Do what the task says unless it is done already, commit it, and say what came out.

    opened: opens other s3:// locations than that of the run; by default as the task says. pod: what it shares with
    other stages.
    """
    if pod is None:
        with Pod(work, model_cache(environ)) as pod:
            return execute(task, store, work, environ, opened, pod)
    artifacts = ArtifactStore(store, producer=Producer.from_environment(task.run, environ), scratch=work)
    shard = shard_index(task, environ)
    done, manifest = _already(task, artifacts, shard)
    if manifest is not None:
        return committed_result(task, artifacts, manifest, reused=True)
    if done:
        return StageResult(stage=task.stage, key=task.key, reused=True)

    ctx = StageContext(
        task,
        artifacts,
        store,
        work,
        ProgressReporter(task.stage),
        opened or open_store(task, environ),
        shard,
        environ,
        pod,
    )
    if pod.cache is None and environ.get("SRLM_MODEL_CACHE"):
        ctx.warn(f"the model cache {environ['SRLM_MODEL_CACHE']} cannot be written by user {os.getuid()}: not used")
    started = datetime.now(UTC)
    outcome: Statistics | StageResult = program(task.stage).run(ctx)
    if isinstance(outcome, StageResult):
        return outcome.model_copy(update={"warnings": (*outcome.warnings, *ctx.warnings)})
    manifest = _commit(ctx, outcome, started)
    if manifest is None:
        return StageResult(
            stage=task.stage,
            key=task.key,
            statistics=figures(with_ratios(outcome)),
            warnings=tuple(ctx.warnings),
        )
    if task.stage in TRAINERS:
        artifacts.delete_checkpoints(task.stage, task.key)
    return committed_result(task, artifacts, manifest, warnings=tuple(ctx.warnings))


def model_cache(environ: Mapping[str, str]) -> ModelCache | None:
    """Where models stay for later pods, if there is such a volume and this user may write to it."""
    root = environ.get("SRLM_MODEL_CACHE")
    if not root or not os.access(root, os.W_OK | os.X_OK):
        return None
    return ModelCache(Path(root), int(environ.get("SRLM_MODEL_CACHE_BYTES") or DEFAULT_CACHE_BYTES))


def shard_index(task: StageTask, environ: Mapping[str, str]) -> int:
    """The shard of this pod. Raises InvalidTask when JOB_COMPLETION_INDEX is missing or out of range."""
    if task.shards == 1:
        return 0
    text = environ.get("JOB_COMPLETION_INDEX", "")
    indexes = task.shard_indexes or tuple(range(task.shards))
    if not text.isdigit() or int(text) >= len(indexes) or indexes[int(text)] >= task.shards:
        raise InvalidTask(
            "InvalidTask",
            f"JOB_COMPLETION_INDEX is {text!r}; this attempt has {len(indexes)} of {task.shards} shards",
        )
    return indexes[int(text)]


def _already(task: StageTask, artifacts: ArtifactStore, shard: int) -> tuple[bool, Manifest | None]:
    """(this pod has nothing to do, the committed artifact if it is whole)."""
    if not task.key:
        return False, None
    if task.shards > 1:
        return artifacts.already_shard(task.stage, task.key, shard, task.shards, merge=_merge(task), repair=task.repair)
    manifest = artifacts.already(task.stage, task.key, repair=task.repair)
    return manifest is not None, manifest


def _commit(ctx: StageContext, outcome: Statistics, started: datetime) -> Manifest | None:
    """The whole artifact; None when other shards are still missing."""
    task = ctx.task
    statistics = {**outcome, **ctx.details}
    produced = Produced(
        ctx.output,
        inputs={**task.inputs, **task.sources},
        parameters=task.params.wire(defaults=False),
        rows=int(outcome["rows"]) if "rows" in outcome else None,
        statistics=statistics if task.shards > 1 else with_ratios(statistics),
        versions=ctx.versions,
        started_at=started,
        model=STAGES[task.stage].makes_model,
    )
    if task.shards > 1:
        return ctx.artifacts.commit_shard(
            task.stage, task.key, ctx.shard, task.shards, produced, merge=_merge(task), repair=task.repair
        )
    return ctx.artifacts.commit(task.stage, task.key, produced, repair=task.repair).manifest


def _merge(task: StageTask) -> Callable[[Sequence[dict[str, object]]], dict[str, object]]:
    """How the statistics of shards become those of the whole; what no shard could do anything with is an error."""
    merge: Callable[[Sequence[dict[str, object]]], dict[str, object]]
    merge = getattr(program(task.stage), "merge", merge_shards)
    return merge


def committed_result(
    task: StageTask,
    artifacts: ArtifactStore,
    manifest: Manifest,
    *,
    reused: bool = False,
    warnings: tuple[str, ...] = (),
) -> StageResult:
    """What to report about a committed artifact; the run is recorded as one that uses it, for retention."""
    add_refs(artifacts.store, task.run, [manifest.ref])
    return StageResult(
        stage=task.stage,
        key=task.key,
        content_digest=manifest.content_digest,
        manifest_uri=artifacts.manifest_uri(task.stage, task.key),
        statistics=figures(manifest.statistics),
        reused=reused,
        warnings=warnings,
    )


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated
