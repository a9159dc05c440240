"""What a reader should know before believing the figures: findings in words, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt

from srlm_contract.rows import PEOPLE

from ..judging.metrics import MIN_PROMPTS
from .collect import Collected
from .figures import Figures, ModelFigures
from .finding import LEVELS, Finding, merged
from .findings_run import few_comparisons, few_pairs, gates, recipe, state

#: Share of all verdicts with one score from which on the scores have collapsed.
COLLAPSE_SHARE = 0.7
#: Fewest verdicts or rows about which anything is said.
MIN_ROWS = 16
#: Length of answers relative to the model before (or M1) that is worth a word.
GROWTH = 1.25
SHRINKING = 0.7
MIN_PARSE_RATE = 0.9
MAX_TIE_RATE = 0.3
MAX_TRUNCATED = 0.2
#: Comparisons below which not even position is spoken of.
MIN_COMPARED = 4
#: Share of comparisons decided by position (the same letter in both orders), and of unreadable ones.
POSITION_SHARE = 0.5
MAX_UNREADABLE = 0.1
#: Spearman correlation of score and length among the candidates of a prompt.
LENGTH_CORRELATION = 0.5
#: DPO: all training pairs told apart at almost no loss.
LEARNT_ACCURACY, LEARNT_LOSS = 0.99, 0.1
#: Share of weights that change once cast to bfloat16.
MIN_CHANGED = 0.01
MAX_ROWS_DROPPED = 0.05
MIN_SHADOW_AGREEMENT = 0.6
#: Fall of judge accuracy that is told even inside the interval, and rise of the mean score beside it.
ACCURACY_FALL = 0.05
BETTER_MARKS = 0.3
#: Preference pairs a prompt below which most generated data is thrown away.
MIN_PAIR_YIELD = 0.25


def find(found: Collected, figures: Figures) -> list[Finding]:
    """All findings: errors, then warnings, then notes; each kind in the order of the run."""
    findings = [*state(found), *gates(found)]
    for i, model in enumerate(figures.models):
        before = figures.models[i - 1] if i else None
        findings += [*_judge(model, before), *_scores(found, model), *_lengths(figures, model, before)]
        findings += [*_comparisons(figures, model), *_data(found, model), *_training(model)]
    findings += [*few_pairs(figures), *few_comparisons(figures), *recipe(found, figures)]
    findings += [
        Finding("error", "Status and manifests disagree", f"{text}; trust the manifests.")
        for text in figures.disagreements
    ]
    findings += [Finding("warning", "Something could not be read", text) for text in found.problems]
    return sorted(merged(findings), key=lambda finding: LEVELS.index(finding.level))


def _judge(model: ModelFigures, before: ModelFigures | None) -> Iterator[Finding]:
    """The judge against people, against 'longer is better', and against its predecessor."""
    accuracy, length = model.judge.get("pairwise"), model.length_only.get("pairwise")
    if accuracy is None or accuracy.value is None:
        return
    interval = "" if accuracy.low is None else f", 95% interval {accuracy.low:.1%} to {accuracy.high:.1%}"
    stated = f"It orders {accuracy.value:.1%} of {accuracy.n} human-ordered pairs right{interval}"
    worse_than_a_coin = accuracy.high is not None and accuracy.high < 0.5
    told = None
    if length is not None and length.value is not None:
        compared = f"{stated}; taking the longer answer is right in {length.value:.1%}."
        if accuracy.high is not None and accuracy.high < length.value:
            told = Finding("warning", "The judge does worse than “longer wins”:", compared, model.name)
        elif accuracy.value <= length.value:
            told = Finding("warning", "The judge does no better than “longer wins”:", compared, model.name)
        elif accuracy.low is not None and accuracy.low <= length.value:
            told = Finding("note", "The judge is not clearly better than “longer wins”:", compared, model.name)
    if worse_than_a_coin and (told is None or told.level == "note"):
        text = f"{stated}. Score ties count as wrong."
        yield Finding("warning", "The judge is worse than a coin:", text, model.name)
    elif told is not None:
        coin = " A coin would do better, too; score ties count as wrong." if worse_than_a_coin else ""
        yield replace(told, figures=told.figures + coin)
    earlier = before.judge.get("pairwise") if before is not None else None
    if before is None or earlier is None or earlier.value is None:
        return
    fall = earlier.value - accuracy.value
    if fall <= ACCURACY_FALL:
        return
    clear = accuracy.high is None or accuracy.high < earlier.value
    text = f"Pairwise accuracy fell from {earlier.value:.1%} to {accuracy.value:.1%} (n={accuracy.n}{interval})."
    marks = (before.heldout_scores.mean_score, model.heldout_scores.mean_score)
    if marks[0] is not None and marks[1] is not None and marks[1] - marks[0] >= BETTER_MARKS:
        text += f" Yet it gives the same held-out answers better marks: {marks[1]:.2f} instead of {marks[0]:.2f}."
        clear = True
    yield Finding("warning" if clear else "note", f"{model.name} judges worse than {before.name}", text)


def _scores(found: Collected, model: ModelFigures) -> Iterator[Finding]:
    """The distribution of scores, and how many verdicts could be read."""
    total = sum(model.verdicts.values())
    if total >= MIN_ROWS:
        score, count = max(model.verdicts.items(), key=lambda item: (item[1], item[0]))
        if count / total >= COLLAPSE_SHARE:
            yield Finding(
                "warning",
                f"Scores collapse to {score} on the way to",
                f"{count} of {total} verdicts about the candidates ({count / total:.0%}) are a {score}; "
                "pairs then come from few prompts.",
                model.name,
            )
    metrics = model.metrics
    if metrics.parse_rate is not None and metrics.parse_rate < MIN_PARSE_RATE:
        yield Finding(
            "warning",
            "Many verdicts cannot be read on the way to",
            f"{metrics.parse_rate:.1%} have a readable score; use judging.constrain or scorer ExpectedScore.",
            model.name,
            "minParseRate",
        )
    if metrics.free_parse_rate is not None and metrics.free_parse_rate < 0.5 and found.spec.judging.constrain != "None":
        yield Finding(
            "note",
            "The judge keeps the format only when forced, on the way to",
            f"Without the constraint {metrics.free_parse_rate:.1%} of its verdicts have a readable score.",
            model.name,
        )
    follows = model.score_length
    if follows.n >= MIN_PROMPTS and follows.value is not None and follows.value >= LENGTH_CORRELATION:
        yield Finding(
            "warning",
            "Longer answers get higher scores on the way to",
            f"Score and length of the candidates of a prompt correlate by {follows.value:.2f} on average over "
            f"{follows.n} prompts; preferences.lengthPenalties counters that.",
            model.name,
        )
    if metrics.tie_rate is not None and metrics.tie_rate > MAX_TIE_RATE:
        yield Finding(
            "warning",
            "The judge cannot tell many answers apart on the way to",
            f"{metrics.tie_rate:.1%} of the prompts have equal best and worst scores and give no pair; "
            "use more judging.samples or scorer ExpectedScore.",
            model.name,
            "maxTieRate",
        )
    for stage in found.of(model.iteration, "judge"):
        agreement, rows = stage.figure("shadowAgreement"), stage.figure("shadowRows")
        if agreement is not None and rows is not None and agreement < MIN_SHADOW_AGREEMENT:
            yield Finding(
                "warning",
                "The two scorers disagree:",
                f"They are within half a point in {agreement:.0%} of {rows:.0f} answers.",
                stage.id,
            )


def _lengths(figures: Figures, model: ModelFigures, before: ModelFigures | None) -> Iterator[Finding]:
    """Drift of answer lengths: over one iteration, and over all."""
    growth = model.metrics.length_growth
    if growth is None:
        growth = model.metrics.candidate_length_growth
    if before is not None and growth is not None:
        characters = _from_to(before, model)
        if growth >= GROWTH:
            title = f"Answers grew {growth - 1:.0%} from {before.name} to"
            yield Finding("warning", title, characters, model.name, "maxLengthGrowth")
        elif growth <= SHRINKING:
            yield Finding("warning", f"Answers shrank {1 - growth:.0%} from {before.name} to", characters, model.name)
    first = figures.models[0]
    if before is None or before is first or model is not figures.models[-1]:
        return
    then, now = first.lengths.mean_length, model.lengths.mean_length
    if then and now and now / then >= GROWTH and (growth is None or growth < GROWTH):
        yield Finding(
            "warning", f"Answers grew {now / then - 1:.0%} from {first.name} to {model.name}", _from_to(first, model)
        )


def _from_to(before: ModelFigures, model: ModelFigures) -> str:
    then, now = before.lengths.mean_length, model.lengths.mean_length
    if then is None or now is None:
        then, now = before.metrics.mean_length, model.metrics.mean_length
        what = "Mean length of the candidates"
    else:
        what = f"Mean length of the answers to {model.lengths.rows} validation prompts"
    if then is None or now is None:
        return "Mean answer length, as in status."
    return f"{what}: {then:,.0f} characters, then {now:,.0f}."


def _comparisons(figures: Figures, model: ModelFigures) -> Iterator[Finding]:
    """Head-to-head: can the comparison judge tell answers apart, and who wins."""
    for result in model.against.values():
        where = f"{model.name} against {result.opponent}"
        asked = result.compared + result.unreadable
        if asked and result.unreadable / asked > MAX_UNREADABLE:
            yield Finding(
                "warning",
                "Many comparisons cannot be read:",
                f"{result.unreadable} of {asked} have no verdict.",
                where,
            )
        if result.compared >= MIN_COMPARED and result.ties / result.compared >= POSITION_SHARE:
            yield Finding(
                "warning",
                "The comparison judge goes by position:",
                f"In {result.ties} of {result.compared} comparisons {figures.judge_name} says the same letter "
                "in both orders, which counts as a tie: the win rate says little.",
                where,
            )
        controlled = result.length_controlled.value
        if controlled is not None and result.win_rate is not None and result.win_rate > 0.5 >= controlled:
            yield Finding(
                "warning",
                "Wins by length:",
                f"Win rate {result.win_rate:.1%}; if both answers were equally long it would be {controlled:.1%}.",
                where,
            )
        own = result.preference
        if own.value is not None and own.low is not None and own.low > 0:
            yield Finding(
                "note",
                "Prefers its own answers:",
                f"Its own choices give it a win rate {100 * own.value:.1f} percentage points higher than those of "
                f"{figures.judge_name} do (95% interval from {100 * own.low:.1f}, n={own.n}).",
                where,
            )
        if result.win_rate is not None and result.win_rate < 0.5:
            # Beyond chance: a sign test on the decided comparisons, in its normal approximation.
            clear = result.losses - result.wins > 1.96 * sqrt(result.losses + result.wins)
            yield Finding(
                "warning" if clear and result.opponent != PEOPLE else "note",  # not to beat people is no fault
                "Loses head to head:" if clear else "Loses head to head, within chance:",
                f"Win rate {result.win_rate:.1%} ({result.wins} wins, {result.ties} ties as half, "
                f"{result.losses} losses), judged by {figures.judge_name}.",
                where,
            )


def _data(found: Collected, model: ModelFigures) -> Iterator[Finding]:
    """Candidates cut off, pairs too few."""
    for stage in found.of(model.iteration, "generate"):
        cut, answers = stage.figure("truncated"), stage.figure("candidates")
        if cut and answers and cut / answers > MAX_TRUNCATED:
            yield Finding(
                "warning",
                "Many candidates are cut by the length limit:",
                f"{cut:.0f} of {answers:.0f} ({cut / answers:.0%}); raise generation.sampling.maxTokens.",
                stage.id,
            )
    pairs, prompts = model.metrics.pairs, model.metrics.prompts
    paired = found.spec.preferences.strategy == "PreferencePairs"
    if paired and pairs is not None and prompts and pairs / prompts < MIN_PAIR_YIELD:
        yield Finding(
            "warning",
            "Few prompts give a pair on the way to",
            f"{pairs} pairs from {prompts} prompts; the section on data counts the causes.",
            model.name,
            "minPairs",
        )


def _training(model: ModelFigures) -> Iterator[Finding]:
    figures = model.training
    accuracy, loss = figures.get("rewardAccuracy"), figures.get("loss")
    if accuracy is not None and loss is not None and accuracy >= LEARNT_ACCURACY and loss <= LEARNT_LOSS:
        yield Finding(
            "note",
            "Training pairs are learnt by heart:",
            f"Reward accuracy {accuracy:.1%} at a loss of {loss:.4f} in the last quarter of the steps: "
            "fewer epochs or a lower learning rate leave more to generalise.",
            model.name,
        )
    changed = figures.get("changedWeights")
    if changed is not None and changed < MIN_CHANGED:
        yield Finding(
            "warning",
            "Training hardly changed the model:",
            f"{changed:.2%} of the weights differ once cast to bfloat16; raise the learning rate or train longer.",
            model.name,
        )
    rows, dropped = figures.get("rows"), figures.get("rowsDropped")
    if rows and dropped and dropped / rows > MAX_ROWS_DROPPED:
        yield Finding(
            "warning",
            "Rows were too long for training:",
            f"{dropped:.0f} of {rows:.0f} were left out; raise maxLength of the training.",
            model.name,
        )
