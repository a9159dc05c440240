"""`srlm demo`: a whole run, M0 to M3, for real on this machine.

Starts the one-machine cluster in a folder, applies `crds/samples/demo.yaml` with the model, seed data and
storage of this machine, shows how it goes and ends with the table of results and the report. An unfinished run in
the folder goes on where it was; a finished one makes way for a new one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from ruamel.yaml import YAML

import srlm_contract
from srlm_cli.demo.screen import Screen
from srlm_cli.download import read_object
from srlm_cli.local import add_store_arguments
from srlm_cli.results import duration, results_table
from srlm_contract.artifacts.layout import report_key
from srlm_contract.spec.storage import Storage
from srlm_contract.stages import INFERENCE
from srlm_contract.status import ENDED, RunStatus
from srlm_local.machine import Machine, MachineError, up
from srlm_local.podrunner.logs import log_path
from srlm_local.programs import python

RUNS = "selfrewardingruns.selfrewarding.dev"
NAMESPACE, NAME = "default", "demo"
SEED = "srlm_stages/demo/seed.trees.jsonl"
#: Tokens of an answer that is generated, beside those that the seed data's answers have at most.
ROOM_TOKENS = 32
#: Minutes of the whole run on two AVX2 cores.
USUAL_MINUTES = "15 to 20"
#: The report reads a few small files; longer than this it hangs.
REPORT_SECONDS = 300.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm demo`."""
    parser.set_defaults(func=main)
    parser.add_argument("--folder", type=Path, default=Path(".srlm/demo"), help="state (default: %(default)s)")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(os.environ.get("MODEL") or ".cache/models/smollm2-135m-instruct"),
        help="folder of the base model; made when it is not there (default: $MODEL or %(default)s)",
    )
    seed = os.environ.get("SEED_DATA")
    parser.add_argument(
        "--seed-data",
        type=Path,
        default=Path(seed) if seed else None,
        help="your seed data instead of the demo's own; short answers are taken (default: $SEED_DATA)",
    )
    add_store_arguments(parser)
    parser.add_argument("--fresh", action="store_true", help="forget an unfinished run in the folder")


def main(args: argparse.Namespace) -> int:
    """Runs the demo; 0 when the run succeeded."""
    console = Console(soft_wrap=True)
    try:
        run = manifest(args, console)
        return asyncio.run(_demo(args, run, console))
    except (DemoError, MachineError) as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        return 1


class DemoError(Exception):
    """The demo cannot start; the message says why and what to do."""


def manifest(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The demo run with the paths of this machine; fetches the model when it is not there."""
    run: dict[str, Any] = YAML(typ="safe").load(_sample().read_text())
    run["metadata"] = {"name": NAME, "namespace": NAMESPACE}
    spec = run["spec"]
    if args.seed_data is not None and not args.seed_data.is_file():
        raise DemoError(
            f"seed data {args.seed_data} is not a file: name one with ranked answers, such as Open Assistant trees"
        )
    model = _model(args.model)
    spec["baseModel"]["uri"] = model.as_uri()
    _choose_seed(args.seed_data or _seed(), model, args.folder, spec, console)
    if importlib.util.find_spec("vllm") is None:
        for stage in INFERENCE:
            spec["stages"].setdefault(stage, {})["engine"] = {"name": "transformers"}
    return run


def _choose_seed(source: Path, model: Path, folder: Path, spec: dict[str, Any], console: Console) -> None:
    """Puts into `spec` the part of a seed file that suits a small model, and limits that fit its answers."""
    name = f"{sha256(source.read_bytes()).hexdigest()[:12]}.trees.jsonl"
    result = folder.with_name(f"{folder.name}-seed") / name  # outside the folder, which makes way for a new run
    command = python("-m", "srlm_stages.demo.seed", str(source), str(model), str(result))
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        raise DemoError(f"seed data {source} cannot be used; see above")
    found = json.loads(made.stdout.splitlines()[-1])
    spec["seedData"]["uri"] = result.resolve().as_uri()
    spec["seedData"]["ift"]["maxAnswerTokens"] = found["answerTokens"]
    spec["generation"]["sampling"]["maxTokens"] = found["answerTokens"] + ROOM_TOKENS
    console.print(
        f"Seed data: {found['prompts']} of {found['of']} prompts with {found['answers']} answers of at most "
        f"{found['answerTokens']} tokens, the shortest first, from {source}",
        highlight=False,
        soft_wrap=True,
    )


def _sample() -> Path:
    """The sample in the installed package, or in the checkout."""
    package = Path(srlm_contract.__file__).parent
    found = [p for p in (package / "crds", package.parents[1] / "crds") if p.is_dir()]
    if not found:
        raise DemoError(f"no folder crds in {package}: install the package again")
    return found[0] / "samples" / "demo.yaml"


def _seed() -> Path:
    spec = importlib.util.find_spec("srlm_stages")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]).parent / SEED


def _model(folder: Path) -> Path:
    if not (folder / "config.json").exists():
        made = subprocess.run(python("-m", "srlm_stages.demo.model", str(folder)), check=False)
        if made.returncode:
            raise DemoError(f"the model could not be fetched into {folder}; see above")
    return folder.resolve()


async def _demo(args: argparse.Namespace, run: dict[str, Any], console: Console) -> int:
    engine = "transformers" if importlib.util.find_spec("vllm") is None else "vLLM"
    _make_room(args.folder, args.fresh)
    console.print(f"Starting the one-machine cluster in {args.folder} (inference with {engine}).")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    started = time.monotonic()
    async with up(args.folder, s3_endpoint=args.s3_endpoint, s3_bucket=args.s3_bucket) as machine:
        run["spec"]["storage"] = _storage(machine)
        _apply(machine, run, console)
        _say_what_is_normal(machine, console)
        ended = await _watch(machine, run["spec"]["iterations"], console, stop)
        took = time.monotonic() - started
        page = await _page(machine, run, console, stop) if ended else None
        status = _status(machine)
    if not ended:
        console.print("\nStopped; no process is left. `make demo` again goes on from here.")
        return 130
    _tell(status, args.folder, took, console, own_seed=args.seed_data is None)
    if page is not None:
        file = args.folder / "report.html"
        file.write_bytes(page)
        console.print(f"\nThe report, one page for a browser:  [bold]{file}[/]", highlight=False, soft_wrap=True)
    return 0 if status.phase == "Succeeded" else 1


def _make_room(folder: Path, fresh: bool) -> None:
    """Removes the state of a finished demo: a folder that has a marker of ours, and only that."""
    finished = folder / "finished"
    if folder.exists() and (folder / "settings.json").exists() and (fresh or finished.exists()):
        shutil.rmtree(folder)


def _storage(machine: Machine) -> dict[str, Any]:
    """The demo's part of the bucket, which in a store of somebody's may have those of other clusters."""
    prefix = "demo"
    if machine.settings.s3_endpoint:
        prefix += f"-{machine.cluster.get('namespaces', 'kube-system')['metadata']['uid'][:8]}"
    return {**machine.storage, "uri": f"{machine.storage['uri']}/{prefix}"}


def _apply(machine: Machine, run: dict[str, Any], console: Console) -> None:
    old = machine.cluster.find(RUNS, NAME, NAMESPACE)
    if old is None:
        machine.cluster.create(RUNS, run, NAMESPACE)
        console.print("Created SelfRewardingRun default/demo.")
        return
    if old["spec"]["seedData"]["uri"] != run["spec"]["seedData"]["uri"]:
        raise DemoError(
            f"an unfinished demo with other seed data ({old['spec']['seedData']['uri']}) is in {machine.folder}: "
            "run `make demo` with the same SEED_DATA, or `srlm demo --fresh` to forget it"
        )
    there, here = ([spec["storage"][key] for key in ("endpointUrl", "uri")] for spec in (old["spec"], run["spec"]))
    if there != here:
        raise DemoError(
            f"an unfinished demo in {machine.folder} keeps its objects at {' '.join(there)}, not {' '.join(here)}: "
            "use that store, or `srlm demo --fresh` to forget it"
        )
    console.print("Going on with the unfinished run default/demo.")


def _say_what_is_normal(machine: Machine, console: Console) -> None:
    lines = (
        f"It takes about {USUAL_MINUTES} minutes on two cores with nothing else to do, and as much longer as they are "
        "shared. Every stage is a process of its own: it imports PyTorch and loads the model before it has a first "
        "figure to show, which takes up to a minute, several on a busy machine.",
        f"Logs of the pods: {logs_of(machine)}/*/containers/*/0.log, or kubectl logs",
        f"Watch along: [bold]kubectl --kubeconfig {machine.kubeconfig} get srr,jobs,pods[/]\n",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def logs_of(machine: Machine) -> Path:
    """Folder with a folder for each pod, by its UID."""
    return machine.folder / "node" / "pods"


def _log(machine: Machine) -> Path | None:
    """What the pod writes that runs now."""
    for pod in machine.cluster.list("pods", NAMESPACE):
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        for container in statuses:
            if "running" in container.get("state", {}):
                folder = logs_of(machine) / pod["metadata"]["uid"]
                return log_path(folder, container["name"])
    return None


async def _watch(machine: Machine, iterations: int, console: Console, stop: asyncio.Event) -> bool:
    """Shows the run until it ends (True) or the person stops it (False)."""
    failed = asyncio.create_task(machine.wait())
    try:
        with Screen(console, iterations, lambda: _log(machine)) as screen:
            while not stop.is_set():
                if failed.done():
                    failed.result()
                status = _status(machine)
                screen.show(status)
                if status.phase in ENDED:
                    return True
                await asyncio.sleep(0.5)
        return False
    finally:
        failed.cancel()


def _status(machine: Machine) -> RunStatus:
    found = machine.cluster.get(RUNS, NAME, NAMESPACE)
    return RunStatus.parse(found.get("status", {}))


async def _page(machine: Machine, run: dict[str, Any], console: Console, stop: asyncio.Event) -> bytes | None:
    """The report that the operator has made of the run's end; None, and a word why, when there is none."""
    if _status(machine).report_stage is None:
        return None  # the run stopped before there was anything to report
    console.print("Making the report.")
    deadline = time.monotonic() + REPORT_SECONDS
    while (stage := _status(machine).report_stage) is not None and stage.state not in ("Succeeded", "Failed"):
        if stop.is_set() or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    report = _status(machine).report
    if stage is None or stage.state != "Succeeded":
        console.print(f"[red]There is no report:[/] {report.message or 'its Job was not finished'}", highlight=False)
        return None
    storage = Storage.parse(run["spec"]["storage"])
    return await asyncio.to_thread(read_object, storage, report_key(NAMESPACE, NAME), machine.s3.credentials)


def _tell(status: RunStatus, folder: Path, took: float, console: Console, *, own_seed: bool) -> None:
    console.print()
    if status.phase != "Succeeded":
        for condition in status.conditions:
            console.print(f"[red]{condition.type}={condition.status} {condition.reason}[/] {condition.message}")
        console.print(f"Look around: `srlm local up --folder {folder}`, then kubectl describe srr demo.")
        return
    (folder / "finished").touch()
    title = f"Self-rewarding run default/demo, {duration(took)} on this machine"
    console.print(results_table(status, title=title))
    if own_seed:
        console.print("[dim]The ranks of the demo's seed data were not given by annotators: see its README.[/]")
    console.print("[dim]A judge of this size is noise: the table shows that the system works, no more.[/]\n")
    for model in status.models:
        console.print(f"{model.name}  {model.uri}  {model.content_digest[:19]}", highlight=False, soft_wrap=True)
    newest = status.models[-1].name
    for line in (
        f"\nLook around:  srlm local up --folder {folder}        (Ctrl-C ends it; then, in another terminal:)",
        f"              export KUBECONFIG={folder}/kubeconfig",
        f"              srlm chat demo --against M1           (talk to {newest} and M1 side by side)",
        f"              srlm model demo -o {newest.lower()}                (a folder for transformers or `vllm serve`)",
        "              srlm ui                               (the run in a browser, answers with their scores too)",
        "              srlm status demo; srlm logs demo judge; kubectl get srr,jobs,pods",
    ):
        console.print(line, highlight=False, soft_wrap=True)
