"""Gates, budget, failures, scheduling and branches: when a run goes on, waits and stops."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from srlm_contract.base import Contract, CountOrZero, Fraction, NonNegative, ObjectName, Positive
from srlm_contract.spec.references import rules

QueueName = Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")]
#: Most iterations a run may ask for; lists in status are bounded by it.
MAX_ITERATIONS = 50


class GatesSpec(Contract):
    """What must hold after an iteration for the run to go on."""

    min_pairs: CountOrZero = 500
    """Smallest number of preference pairs (or positives)."""
    min_parse_rate: Fraction = 0.8
    """Smallest share of verdicts with a readable score."""
    max_length_growth: Positive = 2.0
    """Largest mean answer length relative to the previous model's."""
    max_tie_rate: Fraction | None = None
    """Largest share of prompts whose best and worst score are equal."""
    min_judge_accuracy: Fraction | None = None
    """Smallest pairwise accuracy of the judge on held-out human rankings."""
    min_win_rate: Fraction | None = None
    """Smallest win rate against the opponent (ties count half)."""
    on_failure: Literal["Stop", "Hold", "Continue"] = "Stop"
    """Stop the run, hold it until a person decides, or note it and go on."""


class BudgetSpec(Contract):
    """What a run may spend; it stops when it is spent."""

    gpu_seconds: NonNegative | None = None
    """GPU-seconds over all stages."""
    tokens: NonNegative | None = None
    """Tokens over all stages: generated, read for a score, or trained on."""


class FailurePolicySpec(Contract):
    """How often and how patiently the operator tries again."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts a stage gets; disruptions and suspension do not count."""
    backoff_seconds: Annotated[float, Field(ge=0, le=86400)] = 10
    """Seconds before the second attempt; doubled with each further one, up to the operator's longest pause."""
    temporary_budget_seconds: Annotated[int, Field(ge=0, le=2592000)] = 3600
    """Seconds for which temporary failures (network, S3) are tried again without counting."""
    stage_deadline_seconds: Annotated[int, Field(ge=1, le=2592000)] = 86400
    """Seconds that one attempt of a stage may take at most."""


class SchedulingSpec(Contract):
    """Queueing and priority of the Jobs."""

    queue_name: QueueName = ""
    """Kueue local queue of Jobs that ask for GPUs: created suspended, the queue starts them; empty for the operator's
    default."""
    cpu_queue_name: QueueName = ""
    """The same for Jobs without GPUs, which otherwise do not queue."""
    priority_class_name: Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    """PriorityClass of the pods; empty for the operator's default."""
    gang: Literal["Auto", "Off"] = "Auto"
    """Whether the pods of a training over several nodes start all at once or not at all: `Auto` makes them a PodGroup
    where the cluster serves those (`scheduling.k8s.io`, Kubernetes 1.37 with the feature GenericWorkload) and no queue
    starts them; `Off` never does."""
    chain: Literal["Auto", "Off"] = "Auto"
    """Whether stages that ask the same model with the same engine settings, resources and number of shards run one
    after the other in one pod, which loads the model once; each leaves the artifact that it leaves alone. A chain ends
    where a gate could stop the run. `Off` gives every stage a Job of its own."""
    gpu_memory: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i)?$")] | None = None
    """Memory of one GPU, such as `80Gi`: preflight then refuses models that cannot fit the GPUs asked for. Left out,
    only the names of MIG resources tell (`nvidia.com/mig-3g.40gb`), and nothing is refused where they do not."""


class BranchSpec(Contract):
    """Start at another run's model instead of a bootstrap."""

    model_config = rules(
        (
            "",
            "has(self.run) == has(self.model)",
            "branchFrom needs both run and model, such as {run: other, model: M1}",
        ),
    )

    run: ObjectName | None = None
    """Another run in this namespace with the same storage.uri."""
    model: Annotated[str, Field(pattern=r"^M[1-9][0-9]?$", max_length=3)] | None = None
    """The model of that run to start from, such as `M1`."""
