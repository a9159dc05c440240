"""Which engines a pod keeps open, and how long they must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from srlm_stages.pod import CHAIN_TOKENS, Pod


class Engines:
    """Opens engines of so many tokens, and knows what is open."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self.log: list[str] = []

    def ask(self, model: str, needed: int, longest: int = 100_000) -> None:
        outer = self

        class Engine:
            def close(self) -> None:
                outer.log.append(f"close {model}")

        def load(length: int) -> Engine:
            self.log.append(f"open {model} {length}")
            return Engine()

        self._pod.engine((Path(model), "{}"), needed, longest, load)


def test_a_stage_keeps_one_engine_as_long_as_it_is_long_enough(tmp_path: Path) -> None:
    with Pod(tmp_path) as pod:
        engines = Engines(pod)
        for needed in (512, 256, 640):
            engines.ask("M1", needed)
        engines.ask("M2", 128)
    assert engines.log == ["open M1 512", "close M1", "open M1 640", "close M1", "open M2 128", "close M2"]


@pytest.mark.parametrize("gpu", [False, True])
def test_a_chain_keeps_its_model_beside_a_judge_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr("srlm_stages.pod.has_gpu", lambda: gpu)
    with Pod(tmp_path, chained=True) as pod:
        engines = Engines(pod)
        engines.ask("M2", 512)
        engines.ask("M1", 128, longest=2048)
        engines.ask("M2", 4000)
        after = list(engines.log)
        engines.ask("M0", CHAIN_TOKENS + 128)
    opened = [f"open M2 {CHAIN_TOKENS}", "open M1 2048"]
    if gpu:
        assert after == [opened[0], "close M2", opened[1], "close M1", opened[0]]
    else:
        assert after == opened
        assert engines.log[2:4] == ["close M1", f"open M0 {CHAIN_TOKENS + 128}"], "the one that was asked last stays"
    assert len([line for line in engines.log if "close" in line]) == len(engines.log) / 2, "all are closed at the end"


def test_a_folder_is_known_by_kind_and_content(tmp_path: Path) -> None:
    asked: list[Path] = []

    def fetch(place: Path) -> Path:
        asked.append(place)
        return place

    pod = Pod(tmp_path)
    one = pod.folder("inputs", "sha256:1", "candidates", fetch)
    assert pod.folder("inputs", "sha256:1", "data", fetch) == one
    assert pod.folder("inputs", "sha256:2", "candidates", fetch) != one
    assert pod.folder("models", "sha256:1", "candidates", fetch) != one
    assert len(asked) == 3
    assert one.name == "candidates", "what messages call it"
