"""Which rows make a step, which of them a process takes, and which of those go through the model at once.

Only the first changes what a training computes. The rest is about speed and memory: a step's gradient is a sum over
its rows, each of which counts the same, however they are put together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice, pairwise
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset, Sampler


class Size(NamedTuple):
    """A row in tokens; a preference pair is two sequences."""

    padded: int
    """With all its sequences as long as the longest."""
    real: int


def size_of_row(row: Mapping[str, Any]) -> Size:
    """Of an encoded row of supervised or preference training."""
    if "input_ids" in row:
        return Size(len(row["input_ids"]), len(row["input_ids"]))
    prompt, chosen, rejected = (len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return Size(2 * (prompt + max(chosen, rejected)), 2 * prompt + chosen + rejected)


@dataclass
class Plan:
    """How many rows go through the model at once."""

    rows: int | None
    """Always that many; None for as many as `tokens` allows."""
    tokens: int = 0
    """Most tokens at once, where there is more than one row. Halved when memory turns out to be short."""
    padding_free: bool = False
    """Whether tokens are counted, and computed, without padding."""
    recompute: bool = True
    """Whether activations are computed again for the gradients."""

    def split(self, sizes: Sequence[Size]) -> list[int]:
        """Rows of each micro-batch of rows of these sizes, in this order."""
        if self.rows is not None:
            return [min(self.rows, len(sizes) - start) for start in range(0, len(sizes), self.rows)]
        counts: list[int] = []
        taken: list[Size] = []
        for size in sizes:
            if taken and self.cost([*taken, size]) > self.tokens:
                counts.append(len(taken))
                taken = []
            taken.append(size)
        return [*counts, len(taken)] if taken else counts

    def cost(self, sizes: Sequence[Size]) -> int:
        """Tokens that rows of these sizes have at once."""
        if self.padding_free:
            return sum(size.real for size in sizes)
        return len(sizes) * max(size.padded for size in sizes)


class Steps(Sampler[list[tuple[int, ...]]]):  # type: ignore[misc]  # torch is not followed by mypy
    """Random optimizer steps: of each the micro-batches of one process, as numbers of rows.

    Rows of a step lie in order of length, so that those of a micro-batch are alike, and are dealt out to the
    processes like cards. All processes have as many micro-batches with as many rows each: they gather figures after
    each, and gradients after the last.
    """

    def __init__(
        self, sizes: Sequence[Size], rows_a_step: int, seed: int, plan: Plan, process: int = 0, processes: int = 1
    ) -> None:
        self.sizes, self.rows_a_step, self.seed, self.plan = sizes, rows_a_step, seed, plan
        self.process, self.processes, self.epoch = process, processes, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self._rows() // self.rows_a_step)

    def _rows(self) -> int:
        """Rows of an epoch, with those that are taken twice so that every process has as many."""
        dealt = 1 if self.processes == 1 else self.processes * (self.plan.rows or 1)
        return -(-len(self.sizes) // dealt) * dealt

    def order(self) -> list[int]:
        """Rows of the epoch, step after step."""
        order = list(range(len(self.sizes)))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)  # noqa: S311 - an order of rows, not a secret
        steps = (order[start : start + self.rows_a_step] for start in range(0, len(order), self.rows_a_step))
        ordered = [row for step in steps for row in sorted(step, key=lambda i: (-self.sizes[i].padded, i))]
        return list(islice(cycle(ordered), self._rows()))

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        order = self.order()
        at_once = self.plan.rows or 1
        for start in range(0, len(order), self.rows_a_step):
            step = order[start : start + self.rows_a_step]
            hands = [
                [row for n, row in enumerate(step) if n // at_once % self.processes == process]
                for process in range(self.processes)
            ]
            largest = [
                Size(max(self.sizes[row].padded for row in rows), max(self.sizes[row].real for row in rows))
                for rows in zip(*hands, strict=True)
            ]
            ends = accumulate(self.plan.split(largest), initial=0)
            yield [tuple(hands[self.process][a:b]) for a, b in pairwise(ends)]


class Rows(Dataset[list[dict[str, Any]]]):  # type: ignore[misc]
    """The rows of a micro-batch by their numbers."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, numbers: tuple[int, ...]) -> list[dict[str, Any]]:
        return [self._dataset[number] for number in numbers]


class StepLoader(DataLoader[list[list[dict[str, Any]]]]):  # type: ignore[misc]
    """Steps as lists of micro-batches, each a list of rows."""

    def __init__(self, dataset: Any, steps: Steps) -> None:
        super().__init__(Rows(dataset), batch_sampler=steps, collate_fn=list)

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
