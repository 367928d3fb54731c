"""`harness labels`: what more labels would buy, from curves in closed form, from a tiny run, and for bad input."""

from __future__ import annotations

import csv
import dataclasses
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.advice.labels_held_out import LABEL_RULES, validate_labels
from harness.backbones.locate import BackboneFiles
from harness.cli.labels import conclusions, crossing_in_words, needed_in_words
from harness.forecast.own_curve import BENDS, OWN_CURVES, OwnCurve, Scores
from harness.forecast.slopes import Slopes
from harness.labels.answer import Crossing, Interval, LabelsNeeded
from harness.labels.measuring import MeasuredCurve, check_scored, parts_of, sizes_of
from harness.labels.outlook import answer_labels, crossings
from harness.support import DataError, HarnessError, UsageError
from harness.tasks import Task, kinds
from tests.record_factory import make_record
from tests.toys import write_toy_table

N_DRAWS = 1000


def exact(level: float, slope: float, spread: float = 0.0, bend: float = BENDS[3]) -> OwnCurve:
    """A curve that is known, or known but for its level: nearly straight in the logarithm of labels."""
    off = spread * np.random.default_rng(0).standard_normal(N_DRAWS)
    ones = np.ones(N_DRAWS)
    return OwnCurve(1000, 125, level + off, slope * ones, bend * ones, 0.0, 1e6, 1.0, OWN_CURVES, ones)


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_a_crossing_is_where_the_lines_meet() -> None:
    (found,) = crossings({"probe": exact(1.0, 0.1), "full": exact(0.9, 0.3)}, 1000)
    assert (found.leader, found.follower) == ("probe", "full")
    assert found.labels.value == pytest.approx(1000 * math.exp(0.1 / 0.2), rel=0.05)
    assert found.chance == 1.0
    assert found.labels.is_told


def test_a_crossing_that_may_be_anywhere_is_not_told() -> None:
    (found,) = crossings({"probe": exact(1.0, 0.10, 0.3), "full": exact(0.97, 0.15)}, 1000)
    assert not found.labels.is_told
    said = crossing_in_words(found, 8000)
    assert "cannot be told" in said
    assert f"a chance of {100 * found.chance:.0f} %" in said


def test_lines_that_do_not_meet_have_no_crossing() -> None:
    assert crossings({"probe": exact(1.0, 0.1), "full": exact(0.5, 0.1)}, 1000) == []
    assert crossings({"probe": exact(1.0, 0.1)}, 1000) == []


def curve(method: str, shares: tuple[float, ...], n_rows: float = 1e5) -> MeasuredCurve:
    sizes = (125.0, 250.0, 500.0, 1000.0)
    scores = tuple(Scores(n, (share,), n_rows, 1.0) for n, share in zip(sizes, shares, strict=True))
    return MeasuredCurve(method, method, scores, 1.0)


def test_methods_scored_on_fewer_rows_are_named(task: Task) -> None:
    whole = replace(curve("a", line(1.0, 0.3)), n_scored=300)
    found = asked(task, whole, replace(curve("b", line(0.2, 0.3)), n_scored=100))
    assert found.n_scored == 300
    assert any("fewer rows" in said and "b (100)" in said and "a (" not in said for said in conclusions(found))
    assert not any("fewer rows" in said for said in conclusions(asked(task, whole)))


def test_a_change_of_the_leader_below_the_labels_there_are_is_said_only_if_told(task: Task) -> None:
    found = asked(task, curve("a", line(1.0, 0.3)), curve("b", line(0.2, 0.3)))
    vague = Crossing("b", "a", Interval(300.0, 130.0, math.inf, is_told=False), 0.7)
    told = Crossing("b", "a", Interval(300.0, 200.0, 400.0), 0.99)
    later = Crossing("b", "a", Interval(math.inf, 1500.0, math.inf, is_told=False), 0.4)
    for one, is_said in ((vague, False), (told, True), (later, True)):
        assert (
            any("ahead of" in said or "overtakes" in said for said in conclusions(replace(found, crossings=(one,))))
            == is_said
        )


def line(level: float, slope: float) -> tuple[float, ...]:
    return tuple(1 / (1 + math.exp(-(level + slope * math.log(n / 1000)))) for n in (125, 250, 500, 1000))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "toy.csv"
    write_toy_table(path)
    return path


@pytest.fixture(scope="module")
def task(table: Path) -> Task:
    from harness.api.own_data import own_task

    spec = own_task(table, "text", "label")
    return kinds.get(spec.kind).prepare(spec, None)


def asked(task: Task, *measured: MeasuredCurve, min_score: float | None = None) -> LabelsNeeded:
    return answer_labels(task, 1000, measured, Slopes([]), min_score=min_score)


def test_gains_and_scores_agree_with_the_line_through_exact_scores(task: Task) -> None:
    found = asked(task, curve("a", line(1.0, 0.3)), curve("b", line(0.2, 0.3)))
    assert [one.method for one in found.methods] == ["a", "b"]
    one = found["a"]
    assert one.measured[1000] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-3)
    assert one.scores[1].value == pytest.approx(1 / (1 + math.exp(-1)), abs=0.01)
    expected = 100 * (1 / (1 + math.exp(-1 - 0.3 * math.log(2))) - 1 / (1 + math.exp(-1)))
    assert one.gains[2].low < expected < one.gains[2].high
    assert one.gains[2].value == pytest.approx(expected, abs=1.0)
    assert one.gains[4].value > one.gains[2].value
    assert found["a"].best[4] > 0.9
    assert sum(each.best[2] for each in found.methods) == pytest.approx(1.0)


def test_labels_for_a_score_bracket_the_inverse_of_the_line(task: Task) -> None:
    target = 1 / (1 + math.exp(-1.15))
    needed = asked(task, curve("a", line(1.0, 0.3)), min_score=target)["a"].needed
    assert needed is not None
    assert needed.labels.low < 1000 * math.exp(0.15 / 0.3) < needed.labels.high


def test_labels_for_a_score_already_reached_and_for_one_out_of_reach(task: Task) -> None:
    reached = asked(task, curve("a", line(1.0, 0.1)), min_score=0.6)
    assert "with the labels there are" in needed_in_words(reached["a"], reached)
    never = asked(task, curve("a", line(-1.0, 0.02)), min_score=0.999)
    assert "does not reach" in needed_in_words(never["a"], never)
    assert never.to_dict()["methods"][0]["needed"]["labels"]["value"] is None


def test_a_score_below_the_whole_interval_is_reached_even_where_the_number_cannot_be_told(task: Task) -> None:
    found = asked(task, curve("a", line(1.0, 0.2)), min_score=0.6)
    own = found["a"]
    assert own.needed is not None
    wide = dataclasses.replace(own.needed, labels=Interval(40.0, 7.0, float(found.n_labels), is_told=False))
    said = needed_in_words(dataclasses.replace(own, needed=wide), found)
    assert said == f"a reaches {found.metric} 0.6 with the labels there are."


def test_wide_gains_are_not_told(task: Task) -> None:
    noisy = asked(task, curve("a", (0.55, 0.62, 0.58, 0.66), n_rows=25.0))
    assert not noisy["a"].gains[4].is_told
    exactly = asked(task, curve("a", line(1.0, 0.2)))
    assert exactly["a"].gains[2].is_told


def test_conclusions_name_the_rival_and_the_missing_prior(task: Task) -> None:
    found = asked(task, curve("a", line(1.0, 0.1)), curve("b", line(0.9, 0.3)))
    said = " ".join(conclusions(found))
    assert "b" in said
    assert "No learning curve of another task" in said


def test_crossing_in_words() -> None:
    told = Crossing("probe", "full", Interval(903.0, 612.0, 1490.0), 0.9)
    assert crossing_in_words(told, 8000) == "From about 900 labels on, full overtakes probe (80 %: 610 to 1,500)."


def test_parts_score_every_row_once(task: Task) -> None:
    parts = parts_of(task)
    names = {part.task.name for part in parts}
    assert len(names) == len(parts) == 5
    scored = [text for part in parts for text in part.task.test_rows_to_predict.texts]
    assert len(scored) == len(task.train_labels) + task.n_test
    for part in parts:
        sizes = sizes_of(part.task)
        assert sizes == sorted(sizes)
        assert sizes[-1] == len(part.task.train_labels)
        assert 4 <= sizes[-1] / sizes[0] <= 8.1


METHODS = "tfidf,prototypes"


@pytest.fixture(scope="module")
def found(table: Path, tiny: BackboneFiles, tmp_path_factory: pytest.TempPathFactory) -> LabelsNeeded:
    return harness.labels_needed(
        data=table,
        methods=METHODS,
        backbone=tiny.folder,
        store=tmp_path_factory.mktemp("store") / "s.sqlite",
        min_score=0.9,
        device="cpu",
        progress=False,
    )


def test_a_small_run_answers(found: LabelsNeeded) -> None:
    assert {one.method for one in found.methods} == {"tfidf", "prototypes"}
    assert found.n_labels == 400
    assert found.n_scored == 400
    assert found.n_prior > 20
    for one in found.methods:
        assert len(one.measured) == 4
        for interval in (*one.scores.values(), *one.gains.values()):
            assert interval.low <= interval.value <= interval.high
        assert one.scores[1].low >= 0
        assert one.scores[4].high <= 1
        assert one.gains[2].low >= 0
        assert one.scores[1].low - 0.05 <= one.measured[max(one.measured)] <= one.scores[1].high + 0.05


def test_a_second_run_takes_the_recorded_fits(table: Path, tmp_path: Path) -> None:
    said = [
        harness.labels_needed(data=table, methods="tfidf", store=tmp_path / "s.sqlite", device="cpu", progress=False)
        for _ in range(2)
    ]
    assert said[0]["tfidf"].scores == said[1]["tfidf"].scores
    records = harness.read_records(tmp_path / "s.sqlite")
    assert len(records) == 20


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("text", "label"), *rows])
    return path


WORDS = ("red", "green", "blue", "cold", "warm", "old", "new", "fast")


def words(generator: random.Random) -> str:
    return " ".join(generator.choice(WORDS) for _ in range(8))


Rows = Callable[[random.Random, int], tuple[str, str]]


@pytest.mark.parametrize(
    ("n", "row", "error", "says"),
    [
        (40, lambda g, i: (words(g), "ab"[i % 2]), UsageError, "cannot tell what more labels would buy"),
        (150, lambda g, i: (words(g), f"c{i % 50}"), UsageError, "50 classes"),
        (100, lambda g, _: (words(g), "a"), DataError, "class"),
    ],
)
def test_labels_that_cannot_tell_are_refused(
    tmp_path: Path, n: int, row: Rows, error: type[HarnessError], says: str
) -> None:
    generator = random.Random(0)
    data = write(tmp_path / "t.csv", [row(generator, i) for i in range(n)])
    with pytest.raises(error, match=says):
        harness.labels_needed(data=data, methods="tfidf", store=tmp_path / "s", device="cpu", progress=False)


def test_wrong_arguments_are_refused(table: Path, tmp_path: Path) -> None:
    def ask(**more: object) -> None:
        harness.labels_needed(data=table, store=tmp_path / "s", device="cpu", progress=False, **more)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=r"min.score"):
        ask(methods="tfidf", min_score=1.5)
    with pytest.raises(UsageError, match="within"):
        ask(methods="tfidf", within="soon")
    with pytest.raises(UsageError, match="learns from labels"):
        ask(methods="majority")


def test_rows_without_a_label_are_left_out(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with table.open(encoding="utf-8") as handle:
        rows = [(text, label) for text, label in list(csv.reader(handle))[1:]]
    data = write(tmp_path / "t.csv", [*rows, ("no label here at all", ""), ("nor here", "")])
    found = harness.labels_needed(data=data, methods="tfidf", store=tmp_path / "s", device="cpu", progress=True)
    assert found.n_labels == 400
    assert "2 rows left out (no label)" in capsys.readouterr().err


def test_label_sets_have_curves(tmp_path: Path) -> None:
    generator = random.Random(0)
    texts = [words(generator) for _ in range(240)]
    rows = [(t, "|".join(sorted({w for w in t.split() if w in ("red", "cold", "old")})) or "fast") for t in texts]
    found = harness.labels_needed(
        data=write(tmp_path / "t.csv", rows),
        label="label",
        kind="multi-label",
        label_separator="|",
        methods="tfidf",
        store=tmp_path / "s",
        device="cpu",
        progress=False,
    )
    assert found.in_points
    assert found["tfidf"].scores[4].value >= found["tfidf"].scores[1].value


@pytest.mark.parametrize(("kind", "metric"), [("translation", "chrf"), ("generation", "perplexity")])
def test_answers_in_words_are_refused(kind: str, metric: str) -> None:
    with pytest.raises(UsageError, match="no learning curves"):
        check_scored(kinds.get(kind), metric)


def test_regression_has_gains_in_units_of_the_target(tmp_path: Path) -> None:
    generator = random.Random(0)
    weights = {"red": 1.0, "green": -1.0, "blue": 0.5, "cold": 2.0, "warm": -2.0, "old": 0.1, "new": 0.3, "fast": 0.9}
    texts = [words(generator) for _ in range(240)]
    rows = [(t, f"{sum(weights[w] for w in t.split()) + generator.gauss(0, 1):.3f}") for t in texts]
    found = harness.labels_needed(
        data=write(tmp_path / "t.csv", rows),
        kind="regression",
        methods="tfidf",
        store=tmp_path / "s",
        device="cpu",
        progress=False,
    )
    (one,) = found.methods
    assert not found.higher_is_better
    assert not found.in_points
    assert one.gains[2].value >= 0
    assert one.scores[4].value <= one.scores[1].value
    assert one.scores[1].value == pytest.approx(one.measured[max(one.measured)], rel=0.15)


def grid(task: str, slope: float, seed: int) -> list[object]:
    generator = random.Random(seed)
    records = []
    for method, level in (("lora", 0.6), ("full", 0.9)):
        for n in (64, 128, 256, 1024):
            for draw in range(2):
                value = 1 / (1 + math.exp(-(level + slope * math.log(n / 256) + generator.gauss(0, 0.03))))
                data = f"{seed:032x}"
                records.append(make_record(method, n, draw, task=task, data=data, accuracy=round(value, 3)))
    return records


def test_validation_forecasts_the_largest_size_and_beats_the_last_score() -> None:
    records = [one for i, name in enumerate("abcd") for one in grid(name, 0.2 + 0.05 * i, i)]
    found = validate_labels(records)  # type: ignore[arg-type]
    assert found.tasks == ["a", "b", "c", "d"]
    assert {(t.n_seen, t.n_train) for t in found.trials} == {(256, 1024)}
    assert found.error("learning curve") < 0.5 * found.error("no change")
    assert found.coverage() >= 0.7
    assert set(found.to_dict()["mean_absolute_error_points"]) == set(LABEL_RULES)


def test_validation_needs_two_tasks() -> None:
    with pytest.raises(UsageError, match="two tasks"):
        validate_labels(grid("a", 0.2, 0))  # type: ignore[arg-type]
