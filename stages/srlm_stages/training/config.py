"""What the entry tells its workers, as one JSON file."""

from __future__ import annotations

from pydantic import Field

from srlm_contract.base import Contract
from srlm_contract.spec.data import TemplateArguments
from srlm_contract.spec.training import DpoSpec, LoraSpec, Precision, SaveDtype, SftSpec
from srlm_contract.tasks import ProcessSettings


class WorkerConfig(Contract):
    """One training: paths are absolute, on a disk all workers of a node share."""

    sft: SftSpec | None = None
    """Supervised training; exactly one of these two is set."""
    dpo: DpoSpec | None = None
    """Preference training."""
    model: str
    """Folder of the model training starts from."""
    reference: str | None = None
    """Folder of the reference model; None for the start model."""
    rows: str
    """JSON lines: SupervisedRow for supervised, PreferencePair for preference training."""
    output: str
    """Where the finished model goes."""
    result: str
    """Where rank 0 writes TrainingResult as JSON."""
    failures: str
    """Folder for the failures of workers."""
    checkpoints: str
    """Folder of resume points while training."""
    resume_from: str | None = None
    """Folder of the resume point to go on from."""
    stage: str
    """For progress lines."""
    tracked: bool = False
    """Whether rank 0 tells the figures of every step (step_lines.py)."""

    system_prompt: str = ""
    """System prompt of preference pairs."""
    chat_template: str | None = None
    chat_template_kwargs: TemplateArguments = Field(default_factory=dict)
    seed: int = 0
    lora: LoraSpec = LoraSpec()
    precision: Precision = "Auto"
    save_dtype: SaveDtype = "Float32"

    process: ProcessSettings = ProcessSettings()
    keep_every: int = 0
    """Steps between models kept in the artifact; 0 for none."""

    @property
    def recipe(self) -> SftSpec | DpoSpec:
        """What both kinds of training have in common. Raises ValueError when there is none."""
        recipe = self.dpo or self.sft
        if recipe is None:
            raise ValueError("WorkerConfig needs sft or dpo")
        return recipe


class SupervisedRow(Contract):
    """One example of supervised training."""

    prompt: str
    answer: str
    system: str = ""
    """System prompt; empty for judge tasks, which are asked without one."""


class TrainingResult(Contract):
    """What came out, written by rank 0."""

    statistics: dict[str, float]
    series: tuple[dict[str, float], ...] = ()
    """Figures of every logged step."""
    versions: dict[str, str] = Field(default_factory=dict)


class WorkerFailure(Contract):
    """Why a worker failed."""

    exit_code: int
    reason: str
    message: str
    time: float
    """Seconds since the epoch: the first failure is the cause, the others follow from it."""
