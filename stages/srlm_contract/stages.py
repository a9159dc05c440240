"""The stages of a run and what tells them apart: one row each, read by operator and stages alike.

A new stage: its name and row here, its parameters in `tasks`, how they follow from a run in `params`, its place in
`graph`, its pod settings in `spec.pods`, and `srlm_stages/<name>.py` with `run`; CONTRIBUTING.md names the
places beyond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

StageName = Literal[
    "preflight", "data", "sft", "judge", "select", "prompts", "generate",
    "pairs", "train", "choose", "evaluate", "report", "cleanup",
]  # fmt: skip

Template = Literal["chat", "rubric"]


@dataclass(frozen=True)
class Stage:
    """What is true of every run of a stage."""

    image: Literal["light", "train", "inference"] = "light"
    """Its image: `train` for what runs under torchrun, `inference` for what has an engine, `light` for the rest."""
    revision: int = 0
    """Part of the key; raised by hand when the stage computes something else from the same parameters. 0 for stages
    outside the graph, which have no key."""
    makes_model: bool = False
    """Whether its artifact is a model."""
    result: bool = False
    """Whether its artifacts outlive the run with retention `DeleteIntermediate`."""
    read_later: bool = False
    """Whether stages of later iterations read its rows: its records stay in status when their iteration is closed."""
    templates: tuple[Template, ...] = ("chat",)
    """Templates of the run that it reads."""


STAGES: Mapping[StageName, Stage] = {
    "preflight": Stage(templates=("chat", "rubric")),
    "data": Stage(revision=1),
    "sft": Stage("train", revision=1, makes_model=True, result=True),
    "judge": Stage("inference", revision=1, templates=("chat", "rubric")),
    "select": Stage(revision=1, templates=("chat", "rubric")),
    "prompts": Stage("inference", revision=1, read_later=True),
    "generate": Stage("inference", revision=1),
    "pairs": Stage(revision=1),
    "train": Stage("train", revision=1, makes_model=True, result=True),
    "choose": Stage("inference", revision=1, makes_model=True, result=True),
    "evaluate": Stage("inference", revision=1, result=True, read_later=True, templates=("chat", "rubric")),
    "report": Stage(result=True, templates=()),
    "cleanup": Stage(templates=()),
}

#: Node of the bootstrap that measures a model of no iteration, and the name of that model.
BASELINES: Mapping[str, str] = {"evaluate-m0": "M0", "evaluate-sft": "SFT"}
#: Stages that train; they leave resume points while they run.
TRAINERS = tuple(name for name, stage in STAGES.items() if stage.image == "train")
#: Stages that ask a model.
INFERENCE = tuple(name for name, stage in STAGES.items() if stage.image == "inference")
#: Stages that make a model; in an iteration the last one of these makes its model.
MODEL_MAKERS = tuple(name for name, stage in STAGES.items() if stage.makes_model)
#: Stages that later iterations read.
READ_LATER = tuple(name for name, stage in STAGES.items() if stage.read_later)
