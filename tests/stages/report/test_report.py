"""The report of finished, unfinished and failed runs over S3: figures, lineage, safety of untrusted text, bounds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import FileEntry, content_digest
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.errors import Temporary
from srlm_contract.keys import artifact_key
from srlm_contract.rows import Judgement
from srlm_contract.spec.storage import Place
from srlm_contract.status import Condition, Failure, IterationStatus, RunStatus, StageStatus
from srlm_contract.tasks import ReportParams, StageResult, StorageLocation
from srlm_stages.report import examples as report_examples
from srlm_stages.report.examples import Sample
from srlm_stages.report.lenient import read_status
from srlm_stages.report.lineage import Lineage
from support.report_world import EVIL, PINS, MadeRun, evil_run, make_run, report_task, spec
from support.s3_world import CREDENTIALS, s3_endpoint
from support.stage_world import World


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_endpoint(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="module")
def finished(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """M1 to M3 with a report; tests only read it."""
    root = tmp_path_factory.mktemp("finished")
    made = make_run(World(root, S3Store.open(Place(uri="s3://world/finished", endpoint_url=endpoint))), spec())
    made.report()
    return made


@pytest.fixture
def world(endpoint: str, tmp_path: Path) -> World:
    return World(tmp_path, S3Store.open(Place(uri=f"s3://world/{tmp_path.name}", endpoint_url=endpoint)))


class Text(HTMLParser):
    """Texts, tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = ""
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def table(page: str, section: str) -> dict[str, list[str]]:
    """Rows of the first table with figures in a section, by their heading."""
    body = page.split(f'<section id="{section}">')[1].split("</section>")[0]
    body = body.split('<table class="figures')[1].split("</table>")[0]
    rows = {}
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL):
        heading, *cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        rows[heading] = cells
    return rows


class TestFinishedRun:
    def test_figures_are_those_of_status(self, finished: MadeRun) -> None:
        shown = table(finished.page(), "models")
        metrics = [i.metrics for i in finished.status.iterations]
        assert shown[""] == ["M1", "M2", "M3"]
        assert shown["pairs"] == ["–", *(f"{m.pairs}" for m in metrics[1:])]
        assert shown["judge agrees with people"] == [f"{m.judge_accuracy:.1%}" for m in metrics]
        assert shown["… pairs of answers"] == [f"{m.judge_accuracy_pairs}" for m in metrics]
        assert shown["… “longer wins” agrees"] == [f"{m.length_only_accuracy:.1%}" for m in metrics]
        assert shown["win rate"] == ["–", *(f"{m.win_rate:.1%}" for m in metrics[1:])]
        assert shown["candidates&#39; mean score (0–5)"] == ["–", *(f"{m.mean_score:.2f}" for m in metrics[1:])]
        assert shown["held-out mean score (0–5)"] == [f"{m.heldout_score:.2f}" for m in metrics]
        assert shown["answer length (characters)"] == [f"{m.answer_length:,.0f}" for m in metrics]
        assert shown["training loss"] == [f"{m.loss:.4f}" for m in metrics]
        assert shown["DPO reward margin"] == ["–", *(f"{m.reward_margin:.4f}" for m in metrics[1:])]
        assert shown["tokens"] == [f"{m.tokens:,}" for m in metrics]

    def test_figures_without_status_are_the_same(self, finished: MadeRun) -> None:
        """The manifests alone give every figure that status has, times and GPU-seconds apart."""
        before = table(finished.page(), "models")
        finished.report("bare", status={})
        after = table(finished.page("bare"), "models")
        for timed in ("time", "GPU-seconds"):
            before.pop(timed)
        assert after == before

    def test_judge_measures_have_counts_and_intervals_as_evaluated(self, finished: MadeRun) -> None:
        evaluated = finished.manifests["2/evaluate"]
        assert evaluated.statistics["judgeAccuracy"] == pytest.approx(2 / 3)
        rows = table(finished.page(), "judge")
        assert rows["M3"][0] == "66.7%\ntoo few\nn=6", "of two prompts"
        assert list(rows) == ["", "M1", "“longer wins”", "M2", "M3"]  # once, since it is the same for all
        assert rows["“longer wins”"][0].startswith("33.3%")
        assert rows["M3"][2] == "–"  # no answer was scored a perfect 5
        assert "There are 6 answers to 2 prompts." in Text(finished.page()).text

    def test_win_matrix_is_complete(self, finished: MadeRun) -> None:
        page = finished.page()
        matrix = page.split('<table class="matrix">')[1].split("</table>")[0]
        cells = re.findall(r'<td class="(\w+)">(.*?)</td>', matrix)
        assert [text for _, text in cells] == ["", "50.0%", "50.0%", "50.0%", "", "50.0%", "50.0%", "50.0%", ""]
        assert table(page, "wins")["M3 against M1"] == [
            "2 / 2 / 2\n0 unreadable", "50.0%\ntoo few\nn=6", "–\n\nn=6", "33.3%\ntoo few\nn=6", "+50.0%\ntoo few\nn=6",
        ]  # fmt: skip
        assert "Win rates by kind of prompt" in page

    def test_cost_is_the_sum_of_the_stages(self, finished: MadeRun) -> None:
        rows = table(finished.page(), "cost")
        status = finished.status
        assert rows["all"][-1] == f"{status.tokens:,}"
        assert rows["all"][-2] == f"{status.gpu_seconds:,.0f}"
        train = [s for i in status.iterations for s in i.stages if s.stage == "train"]
        assert rows["train"][0] == str(len(train)) == "2"

    def test_gpu_seconds_that_status_no_longer_itemises_are_told(self, finished: MadeRun) -> None:
        status = finished.status.model_copy(update={"gpu_seconds": finished.status.gpu_seconds + 500})
        finished.report("more", status=status.wire(defaults=False))
        rows = table(finished.page("more"), "cost")
        assert rows["earlier iterations, not itemised"][-2] == "500"
        assert rows["all"][-2] == f"{status.gpu_seconds:,.0f}"

    def test_causes_of_dropped_prompts_are_counted(self, finished: MadeRun) -> None:
        page = finished.page()
        rows = table(page, "scores")
        assert rows["prompts asked for"] == ["9", "9"]
        assert rows["… dropped: similar"] == ["3", "3"]
        assert rows["prompts accepted"] == ["4", "4"]

    def test_examples_show_candidates_side_by_side(self, finished: MadeRun) -> None:
        page = finished.page()
        group = page.split("<h3>Candidates by M1, on the way to M2")[1].split("<h3>")[0]
        assert group.count('<article class="example">') == 4
        assert group.count('class="answer chosen"') == group.count('class="answer rejected"') == 4
        assert group.count("4 of 4 prompts") == 1
        assert "Score: 4" in group

    def test_validation_prompts_show_all_models(self, finished: MadeRun) -> None:
        group = finished.page().split("<h3>Validation prompts, answered by every model")[1]
        assert "6 of 6 prompts" in group
        assert "win against M1" in group

    def test_the_top_says_what_came_of_it(self, finished: MadeRun) -> None:
        cards = re.findall(
            r'<span class="name">(.*?)</span><b>(.*?)</b><span class="note">(.*?)</span>', finished.page()
        )
        first, *_, last = [i.metrics for i in finished.status.iterations]
        assert cards[0][:2] == (
            "Judge agrees with people", f"{first.judge_accuracy:.1%} → {last.judge_accuracy:.1%}"
        )  # fmt: skip
        assert "n=6, “longer wins” 33.3%" in cards[0][2]
        assert cards[1] == ("M3 against M1", "50.0%", "2 wins, 2 ties, 2 losses; ties count half")
        assert cards[2] == ("Mean answer length", "73 → 109", "M1 → M3: characters, validation prompts, +49%")
        assert cards[3] == ("Preference pairs", "8", "from 8 prompts, 2 iterations")

    def test_every_plot_is_there_and_named(self, finished: MadeRun) -> None:
        labels = {a["aria-label"] for tag, a in Text(finished.page()).tags if tag == "svg"}
        assert labels >= {
            "When each stage of iteration 0 ran",
            "Agreement of each model's judgements with people",
            "Rank correlation of each model's judgements with people",
            "Wins, ties and losses of each model",
            "Scores of the candidates",
            "Scores of the same human answers",
            "Lengths of the models' answers",
            "Loss, supervised by training step",
            "Loss, preferences by training step",
            "Reward margin by training step",
            "Reward accuracy by training step",
            "Gradient norm by training step",
            "Tokens per second by training step",
        }

    def test_same_run_same_page_and_the_result_names_it(self, finished: MadeRun) -> None:
        """The same apart from the time it was made."""
        page, lineage = finished.page(), finished.world.store.get("runs/default/world/lineage.json").data
        result = finished.report()
        made = re.compile(r"Made [\d :-]+ UTC")
        assert made.sub("", finished.page()) == made.sub("", page)
        assert finished.world.store.get("runs/default/world/lineage.json").data == lineage
        assert result.manifest_uri == "s3://world/finished/runs/default/world/report.html"
        assert result.statistics["artifacts"] == len(finished.manifests) == 21
        assert result.statistics["models"] == 3
        assert result.statistics["bytes"] < 1_000_000
        assert result.key == ""

    def test_status_that_contradicts_the_manifests_is_an_error_finding(self, finished: MadeRun) -> None:
        status = finished.status.wire(defaults=False)
        status["iterations"][1]["metrics"]["pairs"] = 77
        finished.report("other", status=status)
        page = finished.page("other")
        assert "Status and manifests disagree" in page
        assert "M2 pairs: status 77, manifests 4" in page


class TestLineage:
    def test_names_every_artifact_of_the_run_with_files_and_producer(self, finished: MadeRun) -> None:
        lineage = Lineage.parse(finished.lineage())
        assert [a.node for a in lineage.artifacts] == list(finished.manifests)
        for artifact in lineage.artifacts:
            manifest = finished.manifests[artifact.node]
            assert artifact.content_digest == manifest.content_digest
            assert artifact.files == manifest.files
            assert artifact.producer == manifest.producer
            assert artifact.timings == manifest.timings
            assert artifact.inputs == manifest.inputs
            assert artifact.uri == f"s3://world/finished/artifacts/{artifact.stage}/{artifact.key}/manifest.json"
        assert lineage.spec == finished.spec
        assert lineage.pins == PINS
        assert lineage.missing == ()

    def test_keys_and_digests_can_be_worked_out_from_it_alone(self, finished: MadeRun) -> None:
        """That is what makes a run repeatable: the file says all that went into every key."""
        lineage = finished.lineage()
        for artifact in lineage["artifacts"]:
            parameters = artifact["parameters"] | {"iteration": artifact["iteration"], "rows": lineage["rowSchema"]}
            digests = {}
            for name, source in artifact["inputs"].items():
                place = f"{source['uri']}#{source['file']}" if source.get("file") else source.get("uri")
                pinned = source.get("revision", "")
                outside = pinned if pinned.startswith("sha256:") else f"{place}@{pinned}"
                digests[name] = source.get("contentDigest", outside)
            key = artifact_key(artifact["stage"], artifact["revision"], parameters, digests, artifact["seed"])
            assert key == artifact["key"]
            files = [FileEntry.parse(f) for f in artifact["files"]]
            assert content_digest(files) == artifact["contentDigest"]

    def test_models(self, finished: MadeRun) -> None:
        models = finished.lineage()["models"]
        assert [(m["name"], m["node"]) for m in models] == [("M1", "0/sft"), ("M2", "1/train"), ("M3", "2/train")]
        assert models[2]["artifact"]["contentDigest"] == finished.manifests["2/train"].content_digest

    def test_templates_and_versions(self, finished: MadeRun) -> None:
        pins = PINS.model_copy(update={"rubric": "sha256:" + "7" * 64, "chat_template": "chatml"})
        finished.report("pinned", pins=pins)
        lineage = finished.lineage("pinned")
        assert lineage["templates"] == {"chatTemplate": "chatml", "rubric": "sha256:" + "7" * 64}
        assert {"python", "matplotlib", "self-rewarding-operator"} <= set(lineage["software"])
        assert lineage["stageRevisions"]["judge"] >= 1


class TestUnfinishedRun:
    def test_before_preflight_there_is_a_page(self, world: World) -> None:
        made = MadeRun(world, spec(), RunStatus(phase="Pending"), pins=None)
        result = made.report()
        text = Text(made.page()).text
        assert result.statistics["artifacts"] == 0
        assert "No stage has started yet." in text
        assert "Preflight has not pinned the outside sources yet." in text
        assert "No stage is planned: preflight has not passed." in text
        findings = Text(made.page().split('<section id="findings">')[1].split("</section>")[0]).text
        assert findings.startswith("Findings Nothing stands out.")
        assert "hf://example/small-model" in text
        assert made.lineage()["artifacts"] == []

    def test_in_the_middle_of_an_iteration(self, world: World) -> None:
        made = make_run(world, spec(), until="1/pairs", phase="Running")
        made.report()
        page = made.page()
        assert table(page, "models")["candidates"] == ["–", "16"]
        assert "No two models have been compared yet." in page
        assert "Candidates by M1, on the way to M2" in page
        lineage = made.lineage()
        assert [m["name"] for m in lineage["models"]] == ["M1"]
        assert f"10 of {len(lineage['artifacts']) + len(lineage['missing'])} planned stages are done." in page
        missing = {m["node"]: m["state"] for m in lineage["missing"]}
        assert missing["1/pairs"] == "Pending"
        assert "2/train" in missing

    def test_a_failed_run_says_why_and_what_to_do(self, world: World) -> None:
        made = make_run(world, spec(), until="1/pairs", phase="Failed")
        failed = StageStatus(
            name="pairs", stage="pairs", state="Failed", attempt=3,
            last_failure=Failure(
                reason="NoPairs", message="no preference pair is left of 4 prompts", at="2026-11-20T10:00:00Z"
            ),
        )  # fmt: skip
        last = made.status.iterations[-1]
        iterations = (*made.status.iterations[:-1], last.model_copy(update={"stages": (*last.stages, failed)}))
        stalled = Condition(
            type="Stalled", status="True", reason="AttemptsExhausted", message="stage pairs failed 3 times",
            last_transition_time="2026-11-20T10:00:00Z",
        )  # fmt: skip
        made.status = made.status.model_copy(update={"iterations": iterations, "conditions": (stalled,)})
        made.report()
        text = Text(made.page()).text
        assert "The run is stalled: AttemptsExhausted" in text
        assert "1/pairs failed: NoPairs" in text
        assert "no preference pair is left of 4 prompts. " in text
        assert "Look at tie rate, truncated answers and minMargin." in text
        found = {m["node"]: m.get("reason") for m in made.lineage()["missing"]}
        assert found["1/pairs"] == "NoPairs: no preference pair is left of 4 prompts"

    def test_failed_preflight(self, world: World) -> None:
        failed = StageStatus(
            name="preflight", stage="preflight", state="Failed", attempt=1,
            last_failure=Failure(reason="ModelNotUsable", message="there is no such model", at="2026-11-20T10:00:00Z"),
        )  # fmt: skip
        made = MadeRun(world, spec(), RunStatus(phase="Failed", preflight_stage=failed), pins=None)
        made.report()
        text = Text(made.page()).text
        assert "preflight failed: ModelNotUsable" in text
        assert "Correct baseModel." in text

    def test_without_pins_artifacts_are_found_by_the_keys_in_status(self, world: World) -> None:
        made = make_run(world, spec(iterations=1))
        status = made.status.model_copy(update={"preflight": RunStatus().preflight})
        made.report(pins=None, status=status.wire(defaults=False))
        assert len(made.lineage()["artifacts"]) == len(made.manifests)
        assert table(made.page(), "models")["pairs"] == ["–", "4"]

    def test_status_without_stage_details_loses_no_artifact(self, world: World) -> None:
        """Status keeps the details of the last iterations only."""
        made = make_run(world, spec(iterations=1))
        bare = tuple(IterationStatus(name=i.name, metrics=i.metrics) for i in made.status.iterations)
        made.report(status=made.status.model_copy(update={"iterations": bare}).wire(defaults=False))
        assert len(made.lineage()["artifacts"]) == len(made.manifests)


class TestVariants:
    def test_a_branch_names_the_model_it_started_from(self, world: World) -> None:
        first = make_run(world, spec(1), until="1/evaluate")
        start = first.manifests["1/train"].ref
        made = make_run(world, spec(1, seed=3, branchFrom={"run": "other", "model": "M2"}), branch=start)
        made.report(branch=start)
        lineage = made.lineage()
        assert lineage["branch"] == start.wire()
        assert lineage["models"][0]["artifact"] == start.wire()
        assert "node" not in lineage["models"][0] or lineage["models"][0]["node"] == ""
        assert [m["node"] for m in lineage["models"][1:]] == ["1/train"]
        assert lineage["missing"] == []
        assert "outside this run" in made.page()

    def test_positives_are_marked(self, world: World) -> None:
        made = make_run(world, spec(1, preferences={"strategy": "PositiveOnly"}))
        made.report()
        page = made.page()
        assert 'class="answer positive"' in page
        assert "train on positives" in page
        assert table(page, "scores")["… answers below preferences.positives.minScore"] == ["4"]

    def test_a_chosen_checkpoint_is_the_model(self, world: World) -> None:
        made = make_run(world, spec(1, training={"choose": {"enabled": True}, "checkpointEverySteps": 2}))
        made.report()
        assert table(made.page(), "models")["checkpoint chosen (step)"] == ["–", "4"]
        assert [m["node"] for m in made.lineage()["models"]] == ["0/sft", "1/choose"]

    def test_baselines_stand_before_m1_and_m1_meets_them(self, world: World) -> None:
        made = make_run(world, spec(1, evaluation={"baselines": ["M0", "SFT"]}))
        made.report()
        page = made.page()
        models = table(page, "models")
        assert models[""] == ["M0", "SFT", "M1", "M2"]
        assert models["win rate"] == ["50.0%", "50.0%", "–", "50.0%"]
        assert models["pairs"] == ["–", "–", "–", "4"]
        assert {"M1 against M0", "M1 against SFT"} <= set(table(page, "wins"))
        assert list(table(page, "judge")) == ["", "M0", "“longer wins”", "SFT", "M1", "M2"]
        assert "Status and manifests disagree" not in page

    def test_budget_and_spending_stand_side_by_side(self, world: World) -> None:
        made = make_run(world, spec(1, budget={"gpuSeconds": 5000, "tokens": 123456}), until="0/select")
        made.report()
        text = Text(made.page()).text
        assert f"GPU-seconds {made.status.gpu_seconds:,.0f} of 5,000" in text
        assert f"tokens {made.status.tokens:,} of 123,456" in text

    def test_without_evaluation(self, world: World) -> None:
        made = make_run(world, spec(1, evaluation={"enabled": False}))
        made.report()
        assert "evaluation or held-out examples are turned off" in made.page()

    def test_what_another_run_made_is_named(self, finished: MadeRun) -> None:
        iterations = []
        for iteration in finished.status.iterations:
            stages = tuple(s.model_copy(update={"reused": True, "started_at": None}) for s in iteration.stages)
            iterations.append(iteration.model_copy(update={"stages": stages}))
        status = finished.status.model_copy(update={"iterations": tuple(iterations)})
        finished.report("second", status=status.wire(defaults=False))
        page = finished.page("second")
        assert table(page, "loop")["train"] == ["", "reused", "reused"]
        assert "reused from default/world" in page
        assert all(a["reused"] for a in finished.lineage("second")["artifacts"])


class TestDamage:
    def test_a_damaged_manifest_is_named_and_the_rest_is_shown(self, world: World) -> None:
        made = make_run(world, spec(iterations=1))
        manifest = made.manifests["1/evaluate"]
        world.store.put(f"artifacts/evaluate/{manifest.key}/manifest.json", b"{}")
        made.report()
        text = Text(made.page()).text
        assert "Something could not be read 1/evaluate: artifact evaluate/" in text
        assert "Candidates by M1, on the way to M2" in text
        assert {m["node"]: m["reason"] for m in made.lineage()["missing"]}["1/evaluate"].startswith(
            "artifact evaluate/"
        )

    def test_damaged_rows_are_named_and_the_rest_is_shown(self, world: World) -> None:
        made = make_run(world, spec(iterations=1))
        manifest = made.manifests["1/judge"]
        entry = manifest.files[1]
        world.store.put(f"artifacts/judge/{manifest.key}/parts/{entry.part}/{entry.path}", b"x" * entry.size)
        result = made.report()
        text = Text(made.page()).text
        assert "1/judge: artifact judge/" in text
        assert result.statistics["artifacts"] == len(made.manifests)

    def test_a_store_that_is_away_is_no_empty_report(self, world: World, tmp_path: Path) -> None:
        made = make_run(world, spec(iterations=1), until="0/select")
        gone = S3Store.open(Place(uri="s3://world/finished", endpoint_url="http://127.0.0.1:9"), attempts=1)
        with pytest.raises(Temporary):
            MadeRun(World(tmp_path / "gone", gone), made.spec, made.status).report()


@pytest.fixture(scope="module")
def evil(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    made = evil_run(
        World(tmp_path_factory.mktemp("evil"), S3Store.open(Place(uri="s3://world/evil", endpoint_url=endpoint)))
    )
    made.report()
    return made


class TestUntrustedText:
    def test_nothing_of_it_is_markup(self, evil: MadeRun) -> None:
        page = Text(evil.page())
        assert sum(tag == "script" for tag, _ in page.tags) == 1
        assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "embed", "base", "form")]
        handlers = [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")]
        assert handlers == []
        links = [a["href"] for tag, a in page.tags if "href" in a]
        assert links
        assert all(link is not None and link.startswith("#") for link in links)
        styled = [(tag, a) for tag, a in page.tags if "style" in a]
        assert styled == []

    def test_it_is_shown_as_text(self, evil: MadeRun) -> None:
        page = Text(evil.page())
        assert "<script>document.title='owned'</script>" in page.text
        assert "{{ 7*7 }}" in page.text

    def test_control_and_direction_characters_are_made_visible(self, evil: MadeRun) -> None:
        page = evil.page()
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", page)
        assert "⟨U+202E⟩gnp.exe" in page
        assert "⟨U+0000⟩" in page

    def test_policy_allows_its_own_script_and_style_only(self, evil: MadeRun) -> None:
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', evil.page())
        assert policy is not None
        directives = dict(d.strip().split(" ", 1) for d in policy.group(1).replace("&#39;", "'").split(";"))
        assert directives["default-src"] == "'none'"
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", directives["script-src"])
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", directives["style-src"])
        assert directives["base-uri"] == directives["form-action"] == "'none'"

    def test_nothing_is_fetched(self, evil: MadeRun) -> None:
        page = Text(evil.page())
        assert not [a for _, a in page.tags if "src" in a or "srcset" in a]
        assert not [tag for tag, _ in page.tags if tag == "link"]
        assert not re.search(r"@import|url\((?!#)", evil.page().split("<style>")[1].split("</style>")[0])

    def test_lineage_is_json_with_the_text_as_it_was(self, evil: MadeRun) -> None:
        assert evil.lineage()["spec"]["generation"]["systemPrompt"] == EVIL


class TestBounds:
    def test_sample_is_the_same_in_any_order_and_never_larger(self) -> None:
        rows = [(f"prompt-{i % 50}", i) for i in range(200)]
        forward: Sample[int] = Sample(5)
        backward: Sample[int] = Sample(5)
        for prompt, row in rows:
            forward.add(prompt, row)
            assert len(forward.rows) <= 5
        for prompt, row in reversed(rows):
            backward.add(prompt, row)
        assert forward.total == backward.total == 50
        assert set(forward.rows) == set(backward.rows)
        assert all(len(found) == 4 for found in forward.rows.values())

    def test_page_stays_small_with_many_long_answers(self, world: World) -> None:
        """Long texts and many prompts are cut, and the page says how many it shows of how many."""
        made = make_run(world, spec(1), until="1/pairs", phase="Running")
        manifest = made.manifests["1/judge"]
        long = [
            Judgement(
                id=f"{i:015x}{s:x}", prompt_id=f"{i:016x}", prompt=f"Prompt {i}", answer="word " * 2000,
                verdicts=(), score=float(s % 6),
            )
            for i in range(300)
            for s in range(10)
        ]  # fmt: skip
        folder = world.root / "long"
        folder.mkdir()
        (folder / "judgements.jsonl").write_text("".join(json.dumps(r.wire()) + "\n" for r in long))
        world.store.delete([f"artifacts/judge/{manifest.key}/manifest.json"])
        longer = Produced(folder, manifest.inputs, manifest.parameters, statistics=manifest.statistics)
        world.artifacts().commit("judge", manifest.key, longer)
        result = made.report()
        page = made.page()
        assert "20 of 300 prompts" in page
        assert "2 answers between the best and the worst are not shown." in page
        assert "more characters]" in page
        assert result.statistics["bytes"] < 1_500_000

    def test_limits_hold_the_page_under_six_megabytes(self) -> None:
        most = report_examples.MAX_PROMPTS + report_examples.MAX_PROMPTS_AN_ITERATION
        verdicts = report_examples.MAX_VERDICTS * report_examples.MAX_VERDICT_TEXT
        answers = report_examples.MAX_ANSWERS * (report_examples.MAX_TEXT + verdicts)
        assert most * (answers + report_examples.MAX_TEXT) < 6_000_000


class TestStatusOfOtherVersions:
    def test_unknown_and_wrong_parts_are_left_out_and_named(self) -> None:
        status, notes = read_status(
            {
                "phase": "Running",
                "newField": {"a": 1},
                "currentModel": 7,
                "iterations": [
                    {
                        "name": "M1",
                        "stages": [{"name": "data"}, {"name": "sft", "stage": "sft", "state": "Running", "x": 1}],
                    }
                ],
            }
        )
        assert status.phase == "Running"
        assert [s.name for s in status.iterations[0].stages] == ["sft"]
        assert len(notes) == 1
        assert "newField" in notes[0]

    def test_odd_names_and_times_do_no_harm(self, finished: MadeRun) -> None:
        """Names that a plotting library would take for formulas, or XML refuses; times that are none."""
        odd = [
            {
                "name": "$\\frac{$\x07<b>",
                "stage": "judge",
                "state": "Succeeded",
                "startedAt": f"2026-11-20T09:00:0{i}Z",
                "finishedAt": end,
            }
            for i, end in enumerate(
                ("2026-11-20T09:10:00Z", "yesterday", "2026-11-20T09:10:00", "2026-11-20T08:00:00Z")
            )
        ]
        names = ("M1", "M0", "M-1", "M999999999999", "../x")
        status = {"phase": "Running", "iterations": [{"name": n, "stages": odd[:4]} for n in names]}
        result = finished.report("odd", status=status, pins=None)
        page = finished.page("odd")
        assert result.statistics["bytes"] < 500_000
        assert "$\\frac{$⟨U+0007⟩&lt;b&gt;" in page

    def test_a_good_status_comes_back_whole(self, finished: MadeRun) -> None:
        assert read_status(finished.status.wire(defaults=False)) == (finished.status, [])


def test_as_a_process_over_s3(finished: MadeRun, endpoint: str, tmp_path: Path) -> None:
    """`python -m srlm_stages report` as a pod runs it."""
    params = ReportParams(spec=finished.spec, status=finished.status.wire(defaults=False), pins=finished.pins)
    task = report_task(params).model_copy(
        update={"storage": StorageLocation(uri="s3://world/finished", endpoint_url=endpoint)}
    )
    log = tmp_path / "termination-log"
    environ: dict[str, Any] = os.environ | CREDENTIALS | {
        "SRLM_TASK": task.model_dump_json(by_alias=True), "SRLM_TERMINATION_LOG": str(log), "SRLM_POD_UID": "pod",
        "SRLM_WORK_DIR": str(tmp_path / "work"), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "srlm_stages", "report"], env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    result = StageResult.model_validate_json(log.read_bytes())
    assert result.manifest_uri == "s3://world/finished/runs/default/world/report.html"
    assert "report: s3://world/finished/runs/default/world/report.html" in done.stdout
