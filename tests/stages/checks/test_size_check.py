"""Models that cannot fit the GPUs a run asks for are refused, with numbers; where nothing is known, nothing is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from srlm_contract.errors import BadInput
from srlm_contract.sizing import EXAMPLES, ModelSize
from srlm_contract.spec.run import RunSpec
from srlm_stages.checks.architecture import Architecture
from srlm_stages.checks.size import check_sizes, training_shape


def architecture(name: str) -> Architecture:
    size = ModelSize.of(EXAMPLES[name])
    return Architecture(SimpleNamespace(**EXAMPLES[name]), size.parameters, size.vocabulary)


def spec(**sections: Any) -> RunSpec:
    return RunSpec.parse({"baseModel": {"uri": "file:///m"}, "seedData": {"uri": "file:///s"}, **sections})


def refused(name: str, **sections: Any) -> str:
    with pytest.raises(BadInput) as found:
        list(check_sizes(spec(**sections), architecture(name)))
    assert found.value.reason == "ModelNotUsable"
    return str(found.value)


def test_without_a_known_memory_numbers_are_told_and_nothing_is_refused() -> None:
    (line,) = check_sizes(spec(), architecture("70B"))
    assert line.startswith(
        "70,553,706,496 parameters: about 149 GiB on one GPU to answer, 153 GiB on each of 8 to train"
    )
    assert "a train pod needs 534 GiB of memory and 2,365 GiB of disk" in line


def test_what_fits_is_accepted() -> None:
    assert len(list(check_sizes(spec(scheduling={"gpuMemory": "80Gi"}), architecture("8B")))) == 1


def test_inference_names_the_ranks_that_are_enough() -> None:
    says = refused("70B", scheduling={"gpuMemory": "80Gi"})
    assert (
        "does not fit the GPUs of stage judge: 70,553,706,496 parameters in 16 bits and 2048 tokens need about" in says
    )
    assert "149 GiB on each of 1, which have 80 GiB; set stages.judge.engine.args.tensor_parallel_size to 2, or" in says


def test_training_names_the_gpus_that_are_enough() -> None:
    ranks = {"engine": {"args": {"tensor_parallel_size": 4}}}
    stages = dict.fromkeys(("judge", "prompts", "generate", "choose", "evaluate"), ranks)
    asked = {"scheduling": {"gpuMemory": "80Gi"}, "stages": stages}
    says = refused("70B", **asked)
    assert "training of the base model does not fit the GPUs of stage train" in says
    assert "need about 153 GiB on each of 8, which have 80 GiB; spread it over 32 GPUs" in says
    assert "set training.lora.rank" in says
    wide = {"nodes": 4, "dpo": {"batchSize": 32}}
    assert list(check_sizes(spec(**asked, training=wide), architecture("70B")))


def test_a_mig_resource_tells_its_memory() -> None:
    slice_ = {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}
    assert "GPUs of stage generate" in refused("8B", stages={"generate": slice_})
    assert "which have 9.3 GiB" in refused("8B", stages={"generate": slice_})
    assert list(check_sizes(spec(stages={"generate": slice_}), architecture("1.5B")))


def test_stages_without_gpus_and_external_judges_are_left_out() -> None:
    no_gpu = {"resources": {"limits": {"memory": "64Gi"}}}
    stages = dict.fromkeys(("judge", "prompts", "generate", "choose", "evaluate", "sft", "train"), no_gpu)
    assert list(check_sizes(spec(scheduling={"gpuMemory": "1Gi"}, stages=stages), architecture("70B")))


def test_an_architecture_without_these_numbers_is_not_judged() -> None:
    other = Architecture(SimpleNamespace(hidden_size=64), 1000, 10)
    assert list(check_sizes(spec(scheduling={"gpuMemory": "1k"}), other)) == []


@pytest.mark.parametrize(
    ("training", "shape"),
    [
        ({}, (8, True, 16)),
        ({"parallelism": "DDP"}, (8, False, 16)),
        ({"nodes": 2, "fsdp": {"dpReplicateSize": 2}, "dpo": {"batchSize": 16}}, (8, True, 16)),
        ({"fsdp": {"cpuOffload": True}}, (8, True, 0)),
        ({"dpo": {"optim": "adamw_bnb_8bit"}}, (8, True, 10)),
        ({"dpo": {"optim": "paged_adamw_8bit"}}, (8, True, 8)),
        ({"parallelism": "DeepSpeed"}, (8, True, 16)),
        ({"parallelism": "DeepSpeed", "deepspeed": {"zeroStage": 0}}, (8, False, 16)),
        ({"parallelism": "DeepSpeed", "deepspeed": {"offloadOptimizerDevice": "cpu"}}, (8, True, 8)),
        ({"parallelism": "DeepSpeed", "deepspeed": {"offloadParamDevice": "cpu"}}, (8, True, 0)),
    ],
)
def test_options_of_training_change_what_stays_on_a_gpu(training: dict[str, Any], shape: tuple[int, bool, int]) -> None:
    found = training_shape(spec(training=training), "train")
    assert (found.processes, found.sharded, found.trained_bytes) == shape
    assert (found.rows, training_shape(spec(training=training), "sft").rows) == (2, 1)


def test_the_limit_of_gpus_tells_the_processes() -> None:
    asked = spec(stages={"train": {"resources": {"limits": {"nvidia.com/gpu": 4}}}})
    assert (training_shape(asked, "train").processes, training_shape(asked, "sft").processes) == (4, 8)


def test_offloaded_weights_leave_room() -> None:
    ranks = {"engine": {"args": {"tensor_parallel_size": 4}}}
    stages = dict.fromkeys(("judge", "prompts", "generate", "choose", "evaluate"), ranks)
    asked = {"scheduling": {"gpuMemory": "80Gi"}, "stages": stages, "training": {"fsdp": {"cpuOffload": True}}}
    assert list(check_sizes(spec(**asked), architecture("70B")))
