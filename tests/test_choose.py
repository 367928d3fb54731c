"""Choosing within a time: what is held out stays held out, what is saved is what is scored, and time is kept."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from harness import load_model
from harness.backbones.locate import BackboneFiles
from harness.choose import Chosen, choose_within
from harness.choose.candidates import Belief, Candidate, Measured, find_candidates
from harness.choose.cheap import _affordable_words, _seconds_again, _why_skip, try_cheap_methods
from harness.choose.evaluation import EVALUATION, evaluate, write_evaluation
from harness.choose.folds import PERIOD, validation_cap, validation_folds, with_test_rows
from harness.choose.last_fit import _went_wrong
from harness.choose.search import Rivals, Search
from harness.choose.tried import Tried, Uncut, labels_worth
from harness.choose.whole_fits import choose_step
from harness.cli.choose import _show
from harness.data.table import table_task
from harness.forecast.evidence import Point, gather
from harness.methods.base import Method
from harness.methods.configure import parse_methods
from harness.records.record import Predictions, Record
from harness.schedule.local import LocalWorkers
from harness.store.reading import reference_records
from harness.store.store import Store
from harness.support.errors import DataError, HarnessError, UsageError
from harness.tasks.base import Task, kinds
from tests.commands import run_cli
from tests.record_factory import make_record
from tests.searches import search_of
from tests.toys import write_toy_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choose")
    write_toy_table(folder / "toy.csv")
    return folder / "toy.csv"


@pytest.fixture(scope="module")
def chosen(table: Path, tiny: BackboneFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chosen, Task, Path]:
    """One choice among four methods, shared by the tests that look at what came of it."""
    folder = tmp_path_factory.mktemp("chosen")
    rows = list(csv.reader(table.open(newline="")))
    wrong = {row: rows[row + 1][1] for row in range(10, len(rows) - 1, 10)}  # else words are right on every row
    noisy = [(text, wrong.get(row, label)) for row, (text, label) in enumerate(rows)]
    with (folder / "noisy.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(noisy)
    task = prepared(folder / "noisy.csv")
    began = time.monotonic()
    with LocalWorkers("cpu", None) as workers, Store.open(folder / "store.sqlite") as store:
        found = choose_within(
            task, [tiny], workers, store, folder / "model", within=120.0, began=began,
            methods=parse_methods(["tfidf", "linear-probe", "full", "lora"]), refit=False,
        )  # fmt: skip
    return found, task, folder


def prepared(path: Path) -> Task:
    return kinds.get("classification").prepare(table_task(path, "text", "label"), None)


# ---- what is held out


def test_folds_share_no_row_nor_text_and_none_of_the_test(toy: Task) -> None:
    test = set(toy.test.texts)
    folds = validation_folds(toy)
    validated: list[int] = []
    for fold in folds:
        fits, validates = (set(index.tolist()) for index in (fold.train_index, fold.test_index))  # type: ignore[union-attr]
        assert not fits & validates
        texts = [{toy.train.texts[row] for row in rows} for rows in (fits, validates)]
        assert not texts[0] & texts[1]
        assert not (texts[0] | texts[1]) & test
        assert set(fold.train_strata.tolist()) == set(toy.train_strata.tolist())
        assert (fold.test_labels == toy.train_labels[fold.test_index]).all()
        assert (fold.train_labels == toy.train_labels[fold.train_index]).all()
        validated += validates
    assert len(validated) == len(set(validated))
    assert len(folds) == PERIOD
    assert len({fold.data for fold in folds} | {toy.data}) == PERIOD + 1


def test_a_rare_class_is_always_trained_on(tmp_path: Path) -> None:
    rows = [(f"a text with number {i}", "often" if i % 2 else "also") for i in range(60)]
    rows += [(f"odd one {i}", "rare") for i in range(3)]
    with (tmp_path / "rare.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("text", "label"), *rows])
    task = prepared(tmp_path / "rare.csv")
    for fold in validation_folds(task):
        assert set(fold.train_strata.tolist()) == {0, 1, 2}


def test_copies_of_a_text_stay_together_and_cost_no_other_text(tmp_path: Path) -> None:
    rows = [(f"text {i % 100}", f"class {i % 4}") for i in range(1000)]  # ten copies of each of a hundred texts
    with (tmp_path / "copies.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("text", "label"), *rows])
    task = prepared(tmp_path / "copies.csv")
    n_texts = len({task.train.texts[row] for row in task.pool_index})
    folds = validation_folds(task)
    assert len(folds) == PERIOD  # by its texts it is a small table
    for fold in folds:
        fits, validates = ({task.train.texts[row] for row in index} for index in (fold.pool_index, fold.test_index))  # type: ignore[union-attr]
        assert not fits & validates
        assert len(fits) + len(validates) == n_texts
        assert len(fits) >= 0.75 * n_texts


def test_rows_beyond_the_cap_are_trained_on(toy: Task) -> None:
    fold = validation_folds(toy, cap=10)[0]
    assert len(fold.test_labels) == 10
    dropped = len(toy.train_labels) - len(fold.train_labels) - 10
    texts = {toy.train.texts[row] for row in fold.test_index}  # type: ignore[union-attr]
    assert dropped == sum(toy.train.texts[row] in texts for row in toy.pool_index) - 10


def test_validation_rows_follow_the_time() -> None:
    assert [validation_cap(seconds) for seconds in (20, 300, 3600)] == [300, 750, 1000]


# ---- what is believed


def test_belief_follows_what_was_measured_and_doubts_fits_that_were_cut() -> None:
    entrants = [Candidate(method, method.name, False) for method in parse_methods(["full", "lora"])]
    belief = Belief([], 2)
    few = [Measured(entrants[0], 200, 1, 900, 0.9), Measured(entrants[1], 200, 1, 900, 0.8)]
    mean, _ = belief.expect(entrants, [200, 200], few)
    # Methods of one role share most of what is believed of them: the better one is drawn a little towards the other.
    assert 0.88 < belief.back(float(mean[0])) < 0.9
    whole = [replace(one, n_train=1000) for one in few]
    mean, covariance = belief.expect(entrants, [1000, 1000], whole)
    # With many labels such methods are believed to differ by less than one validation says, the better by as much.
    assert 0.87 < belief.back(float(mean[0])) < 0.9
    assert mean[0] > mean[1]
    cut = [Measured(entrants[0], 1000, 1, 900, 0.9, halvings=4.0), whole[1]]
    _, doubtful = belief.expect(entrants, [1000, 1000], cut)
    assert doubtful[0, 0] > covariance[0, 0]


def test_what_cannot_serve_is_no_candidate(toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles) -> None:
    names = {candidate.label for candidate in find_candidates(None, toy, [tiny], "cpu")}
    assert {"tfidf", "linear-probe", "setfit", "full", "lora"} <= names
    assert not {"majority", "from-scratch", "zero-shot", "few-shot", "qlora"} & names
    assert "setfit" not in {candidate.label for candidate in find_candidates(None, toy, [tiny_llama], "cpu")}
    assert {candidate.label for candidate in find_candidates(None, toy, [], "cpu")} == {"tfidf"}
    hurried = {candidate.label for candidate in find_candidates(None, toy, [tiny], "cpu", within=30)}
    assert "tfidf[c=10.0]" in hurried


def test_what_a_race_is_worth_is_what_simulated_races_gain() -> None:
    """Against draws of what candidates would reach, and of measurements, whose posteriors are worked out one by one."""
    rng = np.random.default_rng(1)
    mean, covariance = np.array([0.2, 0.1, 0.0]), 0.09 * np.eye(3) + 0.02
    noises = [0.04, 0.02]
    truths = rng.multivariate_normal(mean, covariance, 20_000)
    seen = truths[:, [0, 2]] + rng.normal(size=(20_000, 2)) * np.sqrt(noises)
    gain = covariance[:, [0, 2]] @ np.linalg.inv(covariance[np.ix_([0, 2], [0, 2])] + np.diag(noises))
    picked = (mean + (seen - mean[[0, 2]]) @ gain.T).argmax(axis=1)
    rivals = Rivals(mean, covariance)
    assert rivals.best_of([0, 2], noises) == pytest.approx(truths[np.arange(20_000), picked].mean(), abs=0.01)
    assert rivals.best_of([], []) == 0.2
    assert rivals.best_of([0, 2], [1e9, 1e9]) == pytest.approx(0.2, abs=1e-3)


def test_a_rival_that_is_known_well_counts_where_the_leader_may_turn_out_worse() -> None:
    """The expected maximum of a normal value with mean 0 and of a fixed one, 0.3 below, in closed form."""
    found = Rivals(np.array([-0.3, 0.0]), np.diag([1e-12, 0.25])).best_of([1], [0.0])
    z = 0.3 / 0.5
    assert found == pytest.approx(-0.3 + 0.3 * norm.cdf(z) + 0.5 * norm.pdf(z), abs=0.01)


def test_cheap_methods_that_will_hardly_come_out_ahead_are_left_out(minilm: BackboneFiles) -> None:
    """By what others measured: on 5,000 labels of two classes class means are far behind what is trained inside."""
    trained = ["full", "last-layers", "gradual-unfreezing", "discriminative"]
    names = ["tfidf", "linear-probe", "head", "prototypes", *trained]
    entrants = [
        Candidate(one, one.name, one.name not in trained, files=minilm if one.serves else None)
        for one in parse_methods(names)
    ]
    by_name = {one.label: one for one in entrants}
    points = [p for p in gather(reference_records()).points if p.kind == "classification" and p.task != "sst2"]

    def race(prior: list[Point], light_seconds: float = 0.1, **reached: float) -> Search:
        found = search_of(entrants, Belief(prior, 2), 300, folds=[SimpleNamespace(n_test=750)])
        found.runner.light_seconds = lambda _: light_seconds  # type: ignore[assignment, method-assign]
        for name, score in reached.items():
            record = make_record(name.replace("_", "-"), 5000, 0, accuracy=score, n_test=750)
            found.tried.append(Tried(by_name[record.cell.method], record, 5000, 0, 1.0))
        return found

    known = race(points, tfidf=0.81, linear_probe=0.82)
    assert _why_skip(known, by_name["prototypes"]) == "unlikely to win"
    assert _why_skip(known, by_name["head"]) is None
    few = race(points, tfidf=0.81)
    assert _why_skip(few, by_name["prototypes"]) is None  # too little is known of the task
    unknown = race([], tfidf=0.81, linear_probe=0.82)
    assert _why_skip(unknown, by_name["prototypes"]) is None  # and here of the methods
    slow = race(points, light_seconds=250.0, tfidf=0.81, linear_probe=0.82)
    assert _why_skip(slow, by_name["head"]) == "not worth their time"


def test_a_model_is_put_aside_before_a_transformer_is_tried() -> None:
    """And with nine seconds left none is, as it takes most of them to start: words alone."""
    entrants = [Candidate(one, one.name, True) for one in parse_methods(["linear-probe", "tfidf"])]
    folds = [SimpleNamespace(n_test=300, n_strata=2, n_outputs=2, train_labels=np.zeros(5000))]

    def steps(left: float, names: list[str]) -> list[str]:
        done: list[str] = []

        def run(planned: Method, *_: object, **__: object) -> Record:
            done.append(planned.name)
            return make_record(planned.name, 5000, 0, accuracy=0.8)

        entering = [one for one in entrants if one.label in names]
        search = search_of(entering, Belief([], 2), left, folds=folds, seconds=20.0, say=done.append)
        search.runner.run = run  # type: ignore[assignment, method-assign]
        try_cheap_methods(search, lambda: done.append("put aside"))
        return [step for step in done if " on 200 " not in step]

    assert steps(60, ["tfidf", "linear-probe"]) == ["tfidf", "put aside", "linear-probe"]
    assert steps(9, ["tfidf", "linear-probe"])[:2] == ["tfidf", "put aside"]
    assert "only methods on words" in steps(9, ["tfidf", "linear-probe"])[2]
    assert steps(9, ["linear-probe"]) == ["linear-probe"]  # all that was asked for


def test_words_of_many_classes_are_learnt_from_fewer_rows_where_a_transformer_follows() -> None:
    """10,000 rows of 77 classes take TF-IDF some forty seconds: of 300 it may have nine; of two classes one will do."""
    words, probe = [Candidate(one, one.name, True) for one in parse_methods(["tfidf[c=10]", "linear-probe"])]

    def rows(classes: int, entrants: list[Candidate], *, is_safe: bool = False) -> int | None:
        labels = np.zeros(10_000)
        fold = cast(Task, SimpleNamespace(n_strata=classes, n_outputs=classes, train_labels=labels))
        search = search_of(entrants, Belief([], classes), 300, folds=[fold])
        return _affordable_words(search, words, fold, is_safe=is_safe)

    assert rows(77, [words, probe]) == pytest.approx(0.03 * 300 * 20_000 / 77, rel=0.01)
    assert rows(2, [words, probe]) is None
    assert rows(77, [words]) is None  # it is all that there is
    assert rows(77, [words, probe], is_safe=True) is None


def test_features_of_another_fold_are_charged_only_where_rows_are_not_encoded_yet(
    toy: Task, tiny: BackboneFiles
) -> None:
    (entrant,) = [Candidate(one, one.name, True, files=tiny) for one in parse_methods(["linear-probe"])]
    folds = validation_folds(toy)
    n_train = len(folds[0].train_labels)
    search = search_of([entrant], Belief([], 2), 300, folds=folds)

    def again(n: int) -> float:
        record = make_record("linear-probe", n, 0)
        cost = replace(record.cost, encode_seconds=50.0, predict_seconds=5.0, tune_seconds=1.0, fit_seconds=1.0)
        search.tried = [Tried(entrant, replace(record, cost=cost), n, 0, 57.0)]
        return _seconds_again(search, 0)

    assert again(n_train) == pytest.approx(2.1)  # choosing a penalty and the fit: folds are of the same texts
    assert again(n_train - 1) == pytest.approx(57.1)


def test_a_fit_that_reads_all_labels_once_is_worth_little_less() -> None:
    assert labels_worth(1000, 1.0, 4) == 1000
    assert labels_worth(1000, 3.0, 4) == 1000
    assert 700 < labels_worth(1000, 0.25, 4) < 1000
    assert labels_worth(1000, 0.025, 4) == pytest.approx(labels_worth(1000, 0.25, 4) / 10)


def test_what_reads_all_texts_before_its_first_step_is_given_those_that_leave_it_time() -> None:
    """40 s of 200 are reading; the rest are 400 steps of four epochs."""
    whole = Uncut(n_rows=1600, seconds=200.0, reading=40.0, steps=400.0, epochs=4.0)
    assert whole.rows_within(200) == 1600
    assert whole.labels_within(200) == whole.labels_within(500) == 1600
    assert whole.steps_within(200) == 400
    assert whole.rows_within(50) == 800  # 20 s of reading, 30 s of steps of 0.4 s
    assert whole.steps_within(50) == pytest.approx(75)
    assert whole.labels_within(50) == pytest.approx(labels_worth(800, 75 / 200, 4))
    at_once = Uncut(1600, 160.0, 0.0, 400.0, 4.0)
    assert (at_once.rows_within(1), at_once.steps_within(40)) == (1600, 100)


def test_who_would_not_get_going_is_no_favourite() -> None:
    """Ten seconds of a fit of 400 are 40 steps: whatever is believed of `full`, that makes nothing of it."""
    entrants = [Candidate(one, one.name, one.name == "tfidf") for one in parse_methods(["tfidf", "full"])]
    points = [p for p in gather(reference_records()).points if p.kind == "classification" and p.task != "trec"]
    record = make_record("tfidf", 5000, 0, accuracy=0.7, n_test=750)

    def favourite(left: float) -> Candidate | None:
        search = search_of(entrants, Belief(points, 6), left, folds=[SimpleNamespace(n_test=750)])
        search.tried.append(Tried(entrants[0], record, 5000, 0, 1.0))
        assert choose_step(search, entrants[1:]) is None
        return search.favourite

    assert favourite(12) is None
    assert favourite(100) is entrants[1]


# ---- what comes of it


def test_the_score_is_the_saved_models(chosen: tuple[Chosen, Task, Path]) -> None:
    found, task, folder = chosen
    model = load_model(found.folder, "cpu")
    right = [task.label_names[k] for k in task.test_labels]
    predicted = model.predict(list(task.test.texts))
    assert found.score.value == pytest.approx(np.mean([a == b for a, b in zip(predicted, right, strict=True)]))
    assert found.score.value > 0.8  # words tell the classes apart
    text = (found.folder / "README.md").read_text()
    assert f"accuracy {found.score.value:.3f}" in text
    assert found.method in text
    assert not list(folder.glob(".*model*"))  # nothing half-written is left behind


def test_it_keeps_within_its_time_and_tries_words_features_and_training(chosen: tuple[Chosen, Task, Path]) -> None:
    found, _, _ = chosen
    assert found.seconds <= 120 * 1.05
    # One of the two that train a random transformer is tried. It is far behind the words, so the other is not.
    labels = {tried.candidate.label for tried in found.tried}
    assert {"tfidf", "linear-probe"} < labels <= {"tfidf", "linear-probe", "full", "lora"}


def test_all_that_was_tried_is_in_the_store(chosen: tuple[Chosen, Task, Path]) -> None:
    found, task, folder = chosen
    with Store.open(folder / "store.sqlite", create=False) as store:
        records = {record.id: record for record in store.records()}
    assert {tried.record.id for tried in found.tried} <= set(records)
    assert found.record.id in records
    assert {record.suite for record in records.values()} == {"choose"}
    scored_on_the_test = [record for record in records.values() if record.cell.task == task.name]
    assert len(scored_on_the_test) <= 2  # the winner, and what was put aside in case it fails


def test_a_fit_that_fails_leaves_the_one_that_was_made_sure_of(
    table: Path, tiny: BackboneFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.choose.last_fit import LastFit

    monkeypatch.setattr(LastFit, "_in_time", lambda *_: None)
    monkeypatch.setattr(LastFit, "_ranked", lambda self: [(c, 0.5) for c in reversed(self._search.entrants)])
    said: list[str] = []
    with LocalWorkers("cpu", None) as workers, Store.open(tmp_path / "store.sqlite") as store:
        found = choose_within(
            prepared(table), [tiny], workers, store, tmp_path / "model", within=120.0, began=time.monotonic(),
            methods=parse_methods(["tfidf", "full"]), say=said.append,
        )  # fmt: skip
    assert found.method == "tfidf"
    assert load_model(tmp_path / "model", "cpu").description.method == "tfidf"


def test_too_little_time_for_all_rows_fits_some(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.choose import cheap
    from harness.choose.last_fit import LastFit

    monkeypatch.setattr(cheap, "WORDS_A_SECOND", 0.0)
    monkeypatch.setattr(LastFit, "_total_seconds", lambda self, _: 2 * self._search.left)
    task = prepared(table)
    said: list[str] = []
    with LocalWorkers("cpu", None) as workers, Store.open(tmp_path / "store.sqlite") as store:
        found = choose_within(
            task, [], workers, store, tmp_path / "model", within=60.0, began=time.monotonic(),
            methods=parse_methods(["tfidf"]), say=said.append,
        )  # fmt: skip
    assert found.record.cell.n_train == int(0.3 * len(task.train_labels))
    assert found.tried[0].record.cell.n_train == max(50, 2 * task.n_strata)
    assert any(f"fitted to {found.record.cell.n_train} of {len(task.train_labels)} rows" in line for line in said)
    assert load_model(tmp_path / "model", "cpu").description.method == "tfidf"


def test_the_saved_model_is_fitted_to_held_out_rows_once_they_have_scored_it(table: Path, tmp_path: Path) -> None:
    """Its test score is that of a fit without them, the saved model that of a fit to every row of the file."""
    task = prepared(table)
    said: list[str] = []
    with LocalWorkers("cpu", None) as workers, Store.open(tmp_path / "store.sqlite") as store:
        found, scored = (
            choose_within(
                task, [], workers, store, tmp_path / f"model-{refit}", within=60.0, began=time.monotonic(),
                methods=parse_methods(["tfidf"]), refit=refit, say=said.append,
            )
            for refit in (True, False)
        )  # fmt: skip
        n_records = len(list(store.records()))
    assert (found.refit, scored.refit) == (True, False)
    assert found.score.value == scored.score.value
    texts = list(task.test.texts)
    right = np.array([task.label_names[k] for k in task.test_labels])
    before, after = (
        np.mean(np.array(load_model(one.folder, "cpu").predict(texts)) == right) for one in (scored, found)
    )
    assert before == pytest.approx(found.score.value)
    assert after >= before
    n_all = len(task.train_labels) + task.n_test
    assert any(f"to all {n_all} rows, test rows included; the score is from before" in line for line in said)
    assert f"all {n_all}, test rows included" in (found.folder / "README.md").read_text()
    assert "The saved one is the same method, fitted to these rows too." in (found.folder / EVALUATION).read_text()
    assert load_model(found.folder, "cpu").description.task == task.name
    assert n_records == len(found.tried) + 1  # a score on rows that were trained on is not kept


def test_all_rows_are_the_training_rows_and_the_test_rows(toy: Task) -> None:
    both = with_test_rows(toy)
    rows = zip(both.train.texts, both.train_labels.tolist(), strict=True)
    parts = [(toy.train.texts[row], int(label)) for row, label in zip(toy.pool_index, toy.train_labels, strict=True)]
    parts += [(text, int(label)) for text, label in zip(toy.test.texts, toy.test_labels, strict=True)]
    assert sorted(rows) == sorted(parts)
    assert both.data != toy.data
    assert both.train.key != toy.train.key
    assert len(both.train_digests) == len(set(both.train_digests)) == len(parts)


def test_a_last_fit_that_went_wrong_does_not_replace_the_scored_model() -> None:
    scored = make_record("full", 100, 0, accuracy=0.9, n_test=200)
    assert _went_wrong(make_record("full", 130, 0, accuracy=0.99, n_test=200), scored) is None
    assert "on rows that it was trained on" in str(
        _went_wrong(make_record("full", 130, 0, accuracy=0.5, n_test=200), scored)
    )
    cut = make_record("full", 130, 0, accuracy=0.99, n_test=200)
    cut = replace(cut, cost=replace(cut.cost, stopped_by="train_seconds"))
    assert _went_wrong(cut, scored) == "was cut short"


# ---- what is refused


def test_what_makes_no_sense_is_refused_before_anything_runs(table: Path, tmp_path: Path) -> None:
    given = ("choose", "--data", str(table), "--save", str(tmp_path / "model"))
    assert "nothing can be trained" in run_cli(*given, "--within", "1s", cwd=tmp_path, code=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    said = run_cli("choose", "--data", str(table), "--save", "full", "--within", "1m", cwd=tmp_path, code=2)
    assert "which exists and is not empty" in said
    assert "Unknown method" in run_cli(*given, "--within", "1m", "--methods", "fool", cwd=tmp_path, code=2)
    lines = ["text,label", *(f"the same text,{'ab'[i % 2]}" for i in range(40))]
    (tmp_path / "same.csv").write_text("\n".join(lines))
    with pytest.raises((DataError, UsageError, HarnessError)):
        validation_folds(prepared(tmp_path / "same.csv"))


def test_predict_adds_two_columns_and_overwrites_nothing(chosen: tuple[Chosen, Task, Path], tmp_path: Path) -> None:
    found, task, _ = chosen
    model = str(found.folder)
    texts = list(task.test.texts[:5])
    with (tmp_path / "new.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("id", "body"), *((i, text) for i, text in enumerate(texts))])
    said = run_cli("predict", "--model", model, "--data", "new.csv", "--text", "body", "--out", "out.csv", cwd=tmp_path)
    assert "5 predictions" in said
    with (tmp_path / "out.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["body"] for row in rows] == texts
    assert list(rows[0]) == ["id", "body", "prediction", "probability"]
    assert [row["prediction"] for row in rows] == load_model(model, "cpu").predict(texts)
    again = ("predict", "--model", model, "--data", "out.csv", "--text", "body", "--out", "o.csv")
    assert "has a column 'prediction' already" in run_cli(*again, cwd=tmp_path, code=2)
    same = ("predict", "--model", model, "--data", "new.csv", "--text", "body", "--out", "new.csv")
    assert "is a file that this command reads" in run_cli(*same, cwd=tmp_path, code=2)
    other = ("predict", "--model", model, "--data", "new.csv", "--text", "bod", "--out", "o.csv")
    assert "no column 'bod'" in run_cli(*other, cwd=tmp_path, code=2)


# ---- where the saved model is wrong


def test_the_evaluation_is_on_rows_that_the_model_was_not_trained_on(chosen: tuple[Chosen, Task, Path]) -> None:
    found, task, folder = chosen
    assert found.evaluation is not None
    trained = {task.train.texts[row] for row in task.pool_index}
    rows = list(csv.reader((folder / "noisy.csv").open(newline="")))[1:]
    held_out = [(text, label) for text, label in rows if text not in trained]
    assert len(held_out) >= found.score.n_test == int(found.evaluation.per_class["n_test"].sum())
    predicted = load_model(found.folder, "cpu").predict(task.test.texts)
    right = [task.label_names[label] for label in task.test_labels]
    precision, recall, f1, support = precision_recall_fscore_support(right, predicted, labels=task.label_names)
    table = found.evaluation.per_class.set_index("class").loc[list(task.label_names)]
    assert table["precision"].tolist() == pytest.approx(precision)
    assert table["recall"].tolist() == pytest.approx(recall)
    assert table["f1"].tolist() == pytest.approx(f1)
    assert table["n_test"].tolist() == support.tolist()
    counts = confusion_matrix(right, predicted, labels=task.label_names)
    worst = found.evaluation.confusions.iloc[0]
    assert worst["n"] == (counts - np.diag(np.diag(counts))).max()
    for row in found.evaluation.errors.itertuples():
        assert (row.text, row.true) in held_out
        assert row.text not in trained
        assert predicted[row.row] == row.predicted != row.true == right[row.row]


def test_the_evaluation_lies_beside_the_model_and_the_model_loads_without_it(
    chosen: tuple[Chosen, Task, Path], tmp_path: Path
) -> None:
    found, _, _ = chosen
    assert found.evaluation is not None
    shown = (found.folder / EVALUATION).read_text("utf-8")
    assert f"on {found.score.n_test} test rows" in shown
    assert "The test rows were held out from the data: a quarter of each class" in shown
    assert "The model was not trained on them." in shown
    worst = found.evaluation.errors.iloc[0]
    assert f"| {worst['true']} | {worst['predicted']} | {worst['text']} |" in shown
    assert f"`{EVALUATION}`" in (found.folder / "README.md").read_text()
    shutil.copytree(found.folder, tmp_path / "copy")
    (tmp_path / "copy" / EVALUATION).unlink()  # as models saved by version 0.1 are
    assert load_model(tmp_path / "copy", "cpu").labels == load_model(found.folder, "cpu").labels


def test_the_command_names_the_weakest_classes_and_the_worst_confusion(chosen: tuple[Chosen, Task, Path]) -> None:
    found, _, _ = chosen
    console = Console(record=True, width=300, file=io.StringIO())
    _show(console, found, found.folder, "text", "store")
    shown = console.export_text()
    assert found.evaluation is not None
    first = found.evaluation.per_class.iloc[0]
    assert f"Weakest by recall: {first['class']} ({first['n_right']:.0f} of {first['n_test']} right)" in shown
    assert "Most frequent confusion (right → predicted): " in shown
    assert f"Scores by class and the most confident errors: {found.folder / EVALUATION}" in shown
    encoded = json.loads(json.dumps(found.evaluation.to_dict(), allow_nan=False))
    assert encoded["per_class"][0]["class"] == first["class"]


def test_an_evaluation_of_hostile_texts_is_harmless(tmp_path: Path, toy: Task) -> None:
    hostile = "<script>x</script> | a **b** \x1b[2J\n\n# heading " + "y" * 10_000
    texts = [hostile] * toy.n_test
    task = replace(toy, test=replace(toy.test, texts=texts), label_names=("<b>", "| x", "c"))
    target = toy.test_labels
    predictions = Predictions(toy.test_rows, (target + 1) % 3, target, np.full(len(target), 0.9, dtype=np.float16))
    found = evaluate(predictions, task)
    assert found is not None
    write_evaluation(found, tmp_path, hostile[:60], "accuracy 0.000")
    shown = (tmp_path / EVALUATION).read_text("utf-8")
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "\x1b" not in shown
    assert shown.count("\n#") == 3
    assert max(map(len, shown.splitlines())) < 500
    assert all("\n" not in line and "\x1b" not in line for line in found.in_words())


def test_predictions_of_other_rows_are_not_evaluated(toy: Task) -> None:
    target = toy.test_labels
    other = Predictions("other rows", target, target)
    assert evaluate(other, toy) is None
    right = evaluate(replace(other, rows=toy.test_rows), toy)
    assert right is not None
    assert right.in_words() == []
