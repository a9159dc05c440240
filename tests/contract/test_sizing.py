"""What models need: figures against what is published of them, and the table of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from srlm_contract.sizing import (
    EXAMPLES,
    GIB,
    ModelSize,
    TrainingShape,
    answering_gpu_seconds,
    cache_bytes,
    in_gib,
    inference_gpu_bytes,
    mig_bytes,
    parameters_in_name,
    quantity_bytes,
    sizing_table,
    training_disk_bytes,
    training_gpu_bytes,
    training_gpu_seconds,
    training_host_bytes,
)

README = Path(__file__).resolve().parents[2] / "operator" / "README.md"
LLAMA_8B = ModelSize.of(EXAMPLES["8B"])


@pytest.mark.parametrize(
    ("name", "published", "off"),
    [
        ("1.5B", 1_543_714_304, 1e-4),
        ("8B", 8_030_261_248, 0),
        ("32B", 32_763_876_352, 1e-4),
        ("70B", 70_553_706_496, 0),
    ],
)
def test_parameters_are_those_published(name: str, published: int, off: float) -> None:
    assert ModelSize.of(EXAMPLES[name]).parameters == pytest.approx(published, rel=off, abs=0)


def test_parameters_that_are_known_are_not_counted() -> None:
    assert ModelSize.of(EXAMPLES["8B"], 7).parameters == 7
    with pytest.raises(KeyError):
        ModelSize.of({"hidden_size": 8})


def test_the_cache_of_llama_3_8b_takes_128_kib_a_token() -> None:
    assert cache_bytes(LLAMA_8B, 1) == 128 * 1024


def test_inference_is_weights_in_16_bits_and_cache_shared_by_the_ranks() -> None:
    one, two = (inference_gpu_bytes(LLAMA_8B, 8192, ranks=n) for n in (1, 2))
    assert one == pytest.approx((2 * 8_030_261_248 + GIB + 2 * GIB) / 0.9)
    assert two < one
    assert inference_gpu_bytes(LLAMA_8B, 8192, sequences=9) == pytest.approx(one + 8 * GIB / 0.9)


def test_training_holds_16_bytes_a_parameter_sharded_or_not() -> None:
    def needs(**changes: object) -> int:
        shape = {"processes": 8, "sharded": True, "rows": 2, "length": 2048} | changes
        return training_gpu_bytes(LLAMA_8B, TrainingShape(**shape))  # type: ignore[arg-type]

    assert needs(sharded=False) > 16 * LLAMA_8B.parameters > needs()
    assert needs(processes=16) < needs() - 7 * LLAMA_8B.parameters // 8
    assert needs(rows=4) > needs() > needs(length=1024)
    assert needs(checkpointing=False) > needs()
    assert needs(lora_rank=16) < needs()
    assert needs(sharded=False, lora_rank=16) > 4 * LLAMA_8B.parameters
    assert needs(processes=1) == needs(processes=1, sharded=False)


def test_adapters_of_llama_3_8b_at_rank_16_have_42_million_parameters() -> None:
    assert LLAMA_8B.adapters(16) == 41_943_040  # as PEFT counts them


def test_an_8b_model_trains_on_8_gpus_of_80_gib_and_a_70b_model_on_32() -> None:
    big = ModelSize.of(EXAMPLES["70B"])
    assert training_gpu_bytes(LLAMA_8B, TrainingShape(8, True, 2, 2048)) < 80 * GIB
    assert training_gpu_bytes(big, TrainingShape(8, True, 2, 2048)) > 80 * GIB
    assert training_gpu_bytes(big, TrainingShape(32, True, 2, 2048)) < 80 * GIB


def test_host_and_disk() -> None:
    assert training_host_bytes(LLAMA_8B.parameters) == 8 * LLAMA_8B.parameters + 8 * GIB
    assert training_disk_bytes(LLAMA_8B.parameters, 4, checkpoints=False) == 12 * LLAMA_8B.parameters
    assert training_disk_bytes(LLAMA_8B.parameters, 4, checkpoints=True) == 36 * LLAMA_8B.parameters


def test_time_of_8_billion_parameters() -> None:
    assert training_gpu_seconds(8e9, 1e6) == pytest.approx(8 * 8e15 / 350e12)
    assert training_gpu_seconds(8e9, 1e6, recomputed=False) == pytest.approx(6 * 8e15 / 350e12)
    assert answering_gpu_seconds(8e9, 1e6) == pytest.approx(2 * 8e15 / 60e12)


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("80Gi", 80 * GIB), ("80G", 80e9), ("1.5Gi", 1.5 * GIB), (1024, 1024), ("4k", 4000), ("1Ti", 1024 * GIB)],
)
def test_quantities(quantity: str | int, size: float) -> None:
    assert quantity_bytes(quantity) == size


@pytest.mark.parametrize("quantity", ["80GB", "", "Gi", "-1Gi", "80 Gi"])
def test_no_quantities(quantity: str) -> None:
    with pytest.raises(ValueError, match="no quantity of bytes such as 80Gi"):
        quantity_bytes(quantity)


def test_the_name_of_a_mig_resource_tells_its_memory() -> None:
    assert mig_bytes("nvidia.com/mig-3g.40gb") == 40e9
    assert mig_bytes("nvidia.com/mig-1g.10gb.me") == 10e9
    assert mig_bytes("nvidia.com/gpu") is None


@pytest.mark.parametrize(
    ("uri", "parameters"),
    [
        ("hf://meta-llama/Llama-3.1-8B-Instruct@main", 8e9), ("hf://Qwen/Qwen2.5-1.5B", 1.5e9),
        ("hf://HuggingFaceTB/SmolLM2-135M-Instruct", 135e6), ("hf://mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("hf://Qwen/Qwen3-30B-A3B", 30e9), ("s3://models/gemma-2b-it/", 2e9), ("file:///models/base", None),
        ("hf://someone/v2beta", None), ("s3://8b/model", None),
    ],
)  # fmt: skip
def test_what_a_name_says(uri: str, parameters: float | None) -> None:
    assert parameters_in_name(uri) == parameters


def test_sizes_are_written_for_people() -> None:
    assert [in_gib(n * GIB) for n in (0.52, 16, 1117.4)] == ["0.5 GiB", "16 GiB", "1,117 GiB"]


def test_the_table_of_the_readme_is_this_one() -> None:
    assert sizing_table() in README.read_text()
