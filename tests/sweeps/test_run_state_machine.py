"""Whatever people, nodes, stores and the API server do to runs: left alone, each ends as an undisturbed one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from srlm_operator.names import RETRY_ANNOTATION
from support.stage_script import Ending, error
from sweeps.jumping import JumpingLoop
from sweeps.record import JOBS, NAMESPACE, RUNS, Object
from sweeps.short_runs import EDITS, RETENTIONS, comes_to_rest, short
from sweeps.simulation import Blow, Loss, simulation
from sweeps.story import FUZZ, PARTS

T = TypeVar("T")
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(14400 if FUZZ else 900)]
EXAMPLES = 4000 if FUZZ else 32
MOST_RUNS = 3
NODES = ("preflight", "data", "sft", "prompts", "generate", "judge", "pairs", "train", "report", "cleanup")
STORE_IS_DOWN = error(75, "StorageUnavailable")
endings = st.sampled_from(
    [
        Ending(1, "it breaks"),
        Ending(137, "", "OOMKilled"),
        Ending(0, "no answer that anybody could read"),
        STORE_IS_DOWN,
        error(77, "StorageNotPermitted"),
    ]
)
blows = st.sampled_from(["crash-before", "crash-after", "error", "answer-lost", "overtaken"])
soon = st.integers(1, 12)
"""Writes or events from now on."""
pauses = st.sampled_from([0, 1, 4, 15])
which = st.integers(0, 30)
"""Of the objects there are, modulo their number."""


class Runs(RuleBasedStateMachine):
    """Up to three runs in one namespace; half of them share what they make."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=JumpingLoop)
        self.world = AsyncExitStack()
        self.sim = self.play(self.world.enter_async_context(simulation()))
        self.sim.committing = True
        self.numbers = itertools.count(1)

    def play(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    def wait(self, seconds: float) -> None:
        self.play(asyncio.sleep(seconds))

    @property
    def names(self) -> list[str]:
        """Runs that are not on their way out."""
        found = [run["metadata"] for run in self.sim.objects(RUNS)]
        return [meta["name"] for meta in found if "deletionTimestamp" not in meta]

    def name(self, number: int) -> str:
        return self.names[number % len(self.names)]

    @initialize(retention=st.sampled_from(RETENTIONS), pause=st.integers(0, 40))
    def begin(self, retention: str, pause: int) -> None:
        self.create(retention, True, pause)

    @precondition(lambda self: len(self.sim.objects(RUNS)) < MOST_RUNS)
    @rule(retention=st.sampled_from(RETENTIONS), shares=st.booleans(), pause=pauses)
    def create(self, retention: str, shares: bool, pause: int) -> None:
        self.sim.create(f"run-{next(self.numbers)}", **short(retention, seed=7 if shares else 8))
        self.wait(pause)

    @rule(seconds=st.sampled_from([10, 30, 400]))
    def pass_time(self, seconds: int) -> None:
        self.wait(seconds)

    @precondition(lambda self: self.names)
    @rule(number=which, change=st.sampled_from(EDITS), pause=pauses)
    def edit(self, number: int, change: Object, pause: int) -> None:
        self.sim.edit(change, self.name(number))
        self.wait(pause)

    @precondition(lambda self: self.names)
    @rule(number=which, pause=pauses)
    def suspend_or_resume(self, number: int, pause: int) -> None:
        name = self.name(number)
        spec = self.sim.cluster.get(RUNS, name, NAMESPACE)["spec"]
        self.sim.edit({"suspend": not spec.get("suspend")}, name)
        self.wait(pause)

    @precondition(lambda self: self.names)
    @rule(number=which, pause=pauses)
    def ask_again(self, number: int, pause: int) -> None:
        self.sim.annotate({RETRY_ANNOTATION: str(self.sim.writes)}, self.name(number))
        self.wait(pause)

    @precondition(lambda self: self.names)
    @rule(number=which, pause=pauses)
    def delete(self, number: int, pause: int) -> None:
        self.sim.delete(self.name(number))
        self.wait(pause)

    @precondition(lambda self: self.sim.running())
    @rule(number=which, pause=pauses)
    def evict_a_pod(self, number: int, pause: int) -> None:
        running = self.sim.running()
        self.sim.evict(running[number % len(running)])
        self.wait(pause)

    @precondition(lambda self: self.sim.objects(JOBS))
    @rule(number=which, pause=pauses)
    def remove_a_job(self, number: int, pause: int) -> None:
        jobs = self.sim.objects(JOBS)
        self.sim.remove_job(jobs[number % len(jobs)])
        self.wait(pause)

    @rule(node=st.sampled_from(NODES), ending=endings, times=st.integers(1, 6), pause=pauses)
    def stage_fails(self, node: str, ending: Ending, times: int, pause: int) -> None:
        self.sim.stages.fail(node, *[ending] * times)
        self.wait(pause)

    @rule(pause=pauses)
    def store_is_down(self, pause: int) -> None:
        """For the next pod of every stage."""
        for node in NODES:
            self.sim.stages.fail(node, STORE_IS_DOWN)
        self.wait(pause)

    @rule(ahead=soon, blow=blows, pause=pauses)
    def write_goes_wrong(self, ahead: int, blow: Blow, pause: int) -> None:
        self.sim.faults.writes[self.sim.writes + ahead] = blow
        self.wait(pause)

    @rule(ahead=soon)
    def no_room(self, ahead: int) -> None:
        """For a while a quota refuses further Jobs."""
        now = self.sim.writes
        self.sim.faults.writes.update(dict.fromkeys(range(now + ahead, now + 3 * ahead), "refused"))

    @rule(ahead=soon, loss=st.sampled_from(["drop", "delay"]), pause=pauses)
    def event_is_lost(self, ahead: int, loss: Loss, pause: int) -> None:
        self.sim.faults.events[self.sim.events + ahead] = loss
        self.wait(pause)

    @rule(count=st.integers(5, 60), pause=pauses)
    def events_are_late(self, count: int, pause: int) -> None:
        now = self.sim.events
        self.sim.faults.events.update(dict.fromkeys(range(now + 1, now + 1 + count), "delay"))
        self.wait(pause)

    @rule(back=st.sampled_from([0, 5, 30]), pause=pauses)
    def restart(self, back: int, pause: int) -> None:
        self.sim.faults.back = back
        self.sim.restart()
        self.wait(pause)

    def teardown(self) -> None:
        try:
            ends = self.play(comes_to_rest(self.sim))
        finally:
            self.play(self.world.aclose())
            self.runner.close()
        for end in ends:
            end.check()


@pytest.mark.parametrize("part", range(PARTS))
def test_runs_come_to_rest(part: int) -> None:
    """The same examples each time; with `make fuzz` others."""
    machine = type(f"Runs{part}", (Runs,), {})
    run_state_machine_as_test(
        machine if FUZZ else seed(part)(machine),
        settings=settings(
            max_examples=EXAMPLES // PARTS, stateful_step_count=25, deadline=None, derandomize=not FUZZ,
            database=None, suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False,
        ),
    )  # fmt: skip
