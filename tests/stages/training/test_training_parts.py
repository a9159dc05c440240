"""The parts of training: what is learned from a row, batches, processes and failures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srlm_contract.errors import BadInput, InvalidTask, StageFailure
from srlm_contract.rows import PreferencePair
from srlm_contract.tasks import ProcessSettings
from srlm_stages.conversation.chat import encode_chat, messages
from srlm_stages.conversation.templates import BUILT_IN_CHAT_TEMPLATES
from srlm_stages.training.checkpoints import Uploader, step_of
from srlm_stages.training.config import SupervisedRow
from srlm_stages.training.encoding import IGNORED, encode_answer, encode_pairs, encode_rows
from srlm_stages.training.step_lines import row_of
from srlm_stages.training.torchrun import Place, command, environment, failure_of
from support.tiny_model import build_tokenizer

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def test_loss_is_on_the_answer_and_its_end_only(tokenizer: Any) -> None:
    row = SupervisedRow(prompt="What is the capital?", answer="The capital is Paris.", system="Be short.")
    (encoded,), dropped = encode_rows(tokenizer, [row], max_length=1000)
    assert dropped == 0
    learned = [i for i, label in enumerate(encoded["labels"]) if label != IGNORED]
    assert [encoded["input_ids"][i] for i in learned] == [encoded["labels"][i] for i in learned]
    assert tokenizer.decode([encoded["labels"][i] for i in learned]) == "The capital is Paris.<|im_end|>"
    before = tokenizer.decode(encoded["input_ids"][: learned[0]])
    assert before == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat is the capital?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_prompt_is_what_the_engine_is_given(tokenizer: Any) -> None:
    prompt, _ = encode_answer(tokenizer, "Be short.", "Why?", "\n\nBecause.")
    assert prompt == list(encode_chat(tokenizer, messages("Why?", "Be short.")))


def test_rows_that_are_too_long_are_left_out_and_counted(tokenizer: Any) -> None:
    rows = [SupervisedRow(prompt="Why?", answer="word " * n) for n in (1, 200, 2)]
    longest = len(encode_rows(tokenizer, rows[2:], max_length=1000)[0][0]["input_ids"])
    kept, dropped = encode_rows(tokenizer, rows, max_length=longest)
    assert (len(kept), dropped) == (2, 1)
    kept, dropped = encode_rows(tokenizer, rows, max_length=longest - 1)
    assert (len(kept), dropped) == (1, 2)


def pair(chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        id="1", prompt="Why?", chosen=chosen, rejected=rejected, chosen_id="a", rejected_id="b", chosen_score=4,
        rejected_score=1,
    )  # fmt: skip


def test_pairs_share_their_prompt_and_go_when_either_side_is_too_long(tokenizer: Any) -> None:
    pairs = [pair("yes", "no"), pair("yes " * 300, "no"), pair("yes", "no " * 300)]
    kept, dropped = encode_pairs(tokenizer, pairs, system_prompt="", max_length=200)
    assert (len(kept), dropped) == (1, 2)
    assert tokenizer.decode(kept[0]["chosen_ids"]) == "yes<|im_end|>"
    assert tokenizer.decode(kept[0]["rejected_ids"]) == "no<|im_end|>"
    assert tokenizer.decode(kept[0]["prompt_ids"]).endswith("<|im_start|>assistant\n")


def test_a_template_without_an_end_token_still_teaches_to_stop(tokenizer: Any) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    _, answer = encode_answer(tokenizer, "", "Why?", "Because.")
    assert tokenizer.decode(answer) == "Because.<|im_end|>"


@pytest.mark.parametrize("own_token", [False, True])
def test_the_built_in_template_leaves_no_mark_in_answers(own_token: bool) -> None:
    """Most base models do not know chatml's `<|im_end|>`: as plain text it would come back in every answer."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = BUILT_IN_CHAT_TEMPLATES["chatml"].replace("im_end", "turn_end")
    tokenizer.eos_token = "<|im_end|>"  # stands for `</s>` of a base model
    if own_token:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn_end|>"]})
    _, answer = encode_answer(tokenizer, "", "Why?", "Because.")
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer, skip_special_tokens=True) == "Because."
    assert ("<|turn_end|>" in tokenizer.decode(answer)) == own_token


def test_a_template_that_does_not_continue_its_own_prompt_is_refused(tokenizer: Any) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% if add_generation_prompt %}Answer now:{% endif %}{{ messages[-1]['content'] }}"
    with pytest.raises(BadInput, match="does not continue its own generation prompt") as error:
        encode_answer(tokenizer, "", "Why?", "Because.")
    assert error.value.reason == "TemplateNotUsable"


@pytest.mark.parametrize(("batch", "processes", "share"), [(16, 1, 16), (16, 4, 4), (3, 3, 1)])
def test_processes_share_a_batch(batch: int, processes: int, share: int) -> None:
    from srlm_stages.training.arguments import share_of

    assert share_of(batch, processes) == share
    with pytest.raises(InvalidTask, match="cannot be split evenly"):
        share_of(batch, 2 * batch)


def test_the_head_for_cpus_gives_trls_log_probabilities() -> None:
    import torch
    from trl.kernels import ChunkedLogProbFunction

    from srlm_stages.training.cpu_head import AnswerLogProbs

    torch.manual_seed(0)
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    targets = torch.randint(0, 90, (12,))
    found = []
    for function in (ChunkedLogProbFunction, AnswerLogProbs(ChunkedLogProbFunction)):
        torch.manual_seed(1)
        hidden = torch.randn(12, 16, requires_grad=True)
        weight = torch.randn(90, 16, requires_grad=True)
        log_probs, *_, top = function.apply(hidden, weight, None, targets, 1.0, 32, 30.0, 0.5, outputs)
        (log_probs * torch.arange(12)).sum().backward()
        found.append((log_probs.detach(), top, hidden.grad, weight.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(theirs, ours)


# torchrun


def test_one_node_meets_on_loopback() -> None:
    line = command(ProcessSettings(processes_per_node=2), Place(0, 2), Path("c.json"))
    assert "--rdzv-endpoint=127.0.0.1:0" in line
    assert "--nproc-per-node=2" in line
    assert line[-2:] == ["srlm_stages.training.worker", "c.json"]


def test_several_nodes_meet_at_node_0() -> None:
    settings = ProcessSettings(nodes=2, processes_per_node=8, master_address="train-0.train", master_port=29500)
    place = Place.here(settings, {"JOB_COMPLETION_INDEX": "1"})
    line = command(settings, place, Path("c.json"))
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=train-0.train", "--master-port=29500"} <= set(line)
    for index in ("", "2", "x"):
        with pytest.raises(InvalidTask, match="JOB_COMPLETION_INDEX"):
            Place.here(settings, {"JOB_COMPLETION_INDEX": index})


def test_workers_get_no_credentials() -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "s", "AWS_ACCESS_KEY_ID": "s", "HF_TOKEN": "s", "SRLM_JUDGE_API_KEY": "s"}
    secrets |= {"MLFLOW_TRACKING_TOKEN": "s", "MLFLOW_TRACKING_PASSWORD": "s"}
    secrets |= {"WANDB_API_KEY": "s", "TRACKIO_WRITE_TOKEN": "s"}
    env = environment(ProcessSettings(processes_per_node=2), Place(0, 8), secrets | {"SRLM_TASK": "t", "PATH": "p"})
    assert not {*secrets, "SRLM_TASK"} & set(env)
    assert (env["PATH"], env["OMP_NUM_THREADS"]) == ("p", "4")


def failure(folder: Path, rank: int, **fields: Any) -> None:
    row = {"exitCode": 1, "reason": "Crashed", "message": "m", "time": 1.0} | fields
    (folder / f"rank-{rank}.json").write_text(json.dumps(row))


def test_the_first_failure_is_the_cause(tmp_path: Path) -> None:
    failure(tmp_path, 0, time=2.0, message="connection closed by peer")
    failure(tmp_path, 1, time=1.0, exitCode=65, reason="InputTooLong", message="too long")
    error = failure_of(tmp_path, "exitcode  : 1 (pid: 7)", "train")
    assert isinstance(error, BadInput)
    assert (error.exit_code, error.reason, str(error)) == (65, "InputTooLong", "too long")


@pytest.mark.parametrize(
    ("log", "reason", "says"),
    [
        ("exitcode  : -9 (pid: 71)", "OutOfMemory", "stages.train.resources.limits.memory"),
        ("exitcode  : -11 (pid: 71)", "Crashed", "exit code -11"),
        ("", "Crashed", "without a report"),
        ("DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.", "Temporary", "1/2"),
        (
            "DistNetworkError: The client socket has timed out after 600000ms while trying to connect to (x, 29500).",
            "Temporary",
            "scheduling.queueName",
        ),
    ],
)
def test_workers_that_could_not_say_why(tmp_path: Path, log: str, reason: str, says: str) -> None:
    error = failure_of(tmp_path, log, "train")
    assert isinstance(error, StageFailure)
    assert error.reason == reason
    assert says in str(error)


@pytest.mark.parametrize(
    ("line", "step"),
    [("CHECKPOINT step=12", 12), ("CHECKPOINT step=x", None), ("an answer: CHECKPOINT step=3", None), ("", None)],
)
def test_only_whole_lines_announce_a_resume_point(line: str, step: int | None) -> None:
    assert step_of(line) == step


def test_a_resume_point_that_cannot_be_stored_does_not_stop_training(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "training_args.bin").write_bytes(b"pickle")
    stored: list[tuple[int, Sequence[str]]] = []
    said: list[str] = []

    def commit(step: int, folder: Path) -> None:
        if step == 1:
            raise OSError("no connection")
        stored.append((step, [p.name for p in folder.iterdir()]))

    uploader = Uploader(tmp_path, commit, said.append)
    for line in ("CHECKPOINT step=1", "loss", "CHECKPOINT step=2"):
        uploader.on_line(line)
    uploader.close()
    assert stored == [(2, [])]
    assert "no connection" in said[0]
    assert not any(tmp_path.iterdir())


def test_figures_of_the_last_quarter() -> None:
    from srlm_stages.training.callbacks import last_steps

    series = [{"loss": float(i)} for i in range(8)]
    assert last_steps(series, "loss") == 6.5
    assert last_steps(series[:2], "loss") == 1
    assert last_steps([], "loss") is None


def test_tokens_of_several_attempts_add_up() -> None:
    from srlm_stages.training.callbacks import earlier_steps

    logged = [(1, 10), (2, 20), (3, 10), (4, 25), (5, 15)]  # each attempt counts from 0: 20, then 25, then 15
    history = [{"loss": 1.0, "step": step, "num_tokens": tokens} for step, tokens in logged]
    assert [row["tokens"] for row in earlier_steps([*history, {"train_runtime": 3.0}])] == [10, 20, 30, 45, 60]


def test_a_resumed_training_tells_the_steps_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    from srlm_stages.training.callbacks import Reporter

    history = [{"loss": 1.0 / step, "step": step} for step in (1, 2)]
    state: Any = SimpleNamespace(is_world_process_zero=True, log_history=history, global_step=2, max_steps=9)
    Reporter("train", tracked=True).on_train_begin(None, state, None)
    assert [row_of(line) for line in capsys.readouterr().out.splitlines() if row_of(line)] == [
        {"loss": 1.0, "step": 1.0},
        {"loss": 0.5, "step": 2.0},
    ]
    state.is_world_process_zero = False
    Reporter("train", tracked=True).on_train_begin(None, state, None)
    assert capsys.readouterr().out == ""
    assert [row_of(line) for line in ("STEP {", "STEP 1", 'STEP {"loss": 1}', "CHECKPOINT step=1")] == [None] * 4


def test_gpus_train_in_the_ways_of_cpus(tmp_path: Path) -> None:
    """tests/gpu runs where there is a GPU alone: that its list of trainings can be made is seen here."""
    from gpu.gpu_training import BUSY, setting
    from stages.training.sharded_training import PLACES, WAYS

    made = {(way, place): setting(tmp_path, way, place) for way in (*WAYS, *BUSY) for place in PLACES}
    assert all(config.process.parallelism == place for (_, place), config in made.items())
    assert {made[way, "FSDP"].process.micro_batch_size for way in BUSY} == {4}
