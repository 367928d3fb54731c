"""Where a classifier is wrong: scores by class, confusions and confident errors, in the report and after a choice."""

from __future__ import annotations

import csv
import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from harness import read_records, run
from harness.analysis.diagnostics import (
    NO_ANSWER,
    ClassAnswers,
    confident_errors,
    confusion_matrix,
    confusions,
    per_class,
)
from harness.api.known_rows import known_texts
from harness.data.spec import TaskSpec
from harness.data.table import table_task
from harness.records.record import Predictions, Record, Score
from harness.records.validation import check_predictions
from harness.report.known_rows import KnownRows
from harness.report.views.base import ReportData, in_order
from harness.report.write import write_report
from harness.tasks.base import Task, kinds
from tests.pages import outside_scripts
from tests.record_factory import make_record
from tests.toys import write_toy_table

NAMES = ("alpha", "beta", "gamma")


def random_answers(n_classes: int = 5, n_rows: int = 300, n_fits: int = 3) -> ClassAnswers:
    draw = np.random.default_rng(0)
    target = draw.integers(0, n_classes - 1, n_rows)  # the last class has no test row
    predicted = np.where(draw.random((n_fits, n_rows)) < 0.7, target, draw.integers(0, n_classes, (n_fits, n_rows)))
    return ClassAnswers(predicted, target, n_classes, draw.random((n_fits, n_rows)).astype(np.float16))


def record_of(predicted: list[int], target: list[int], seed: int = 0, **changes: object) -> Record:
    """A record of these answers, with the names of three classes."""
    right = float(np.mean(np.array(predicted) == target))
    changes.setdefault("confidence", np.full(len(target), 0.75, dtype=np.float16))
    confidence = changes.pop("confidence")
    record = make_record("tfidf", int(changes.pop("n_train", 32)), seed, backbone=None)  # type: ignore[call-overload]
    return dataclasses.replace(
        record,
        score=Score("accuracy", right, None, None, True, len(target)),
        predictions=Predictions("rows", np.array(predicted), np.array(target), confidence),  # type: ignore[arg-type]
        provenance=dataclasses.replace(
            record.provenance,
            dataset={"n_classes": 3, "class_names": list(changes.pop("names", NAMES))},  # type: ignore[call-overload]
        ),
        **changes,  # type: ignore[arg-type]
    )


def csv_of(records: list[Record], name: str) -> pd.DataFrame:
    view = dict(in_order())[name]
    assert view.csv is not None
    return view.csv(ReportData(records))


# ---- the figures


def test_scores_by_class_are_those_of_scikit_learn() -> None:
    answers = random_answers()
    found = per_class(answers).sort_values("index")
    each = [
        sklearn_metrics.precision_recall_fscore_support(
            answers.target, predicted, labels=range(answers.n_classes), zero_division=np.nan
        )
        for predicted in answers.predicted
    ]
    for position, name in enumerate(("precision", "recall", "f1")):
        expected = np.stack([one[position] for one in each])[:, :-1].mean(axis=0)
        assert found[name].to_numpy(float)[:-1] == pytest.approx(expected)
    assert found["n_test"].tolist() == each[0][3].tolist()
    assert found["recall"].isna().tolist() == [False, False, False, False, True]


def test_the_lowest_recall_comes_first_and_classes_without_rows_last() -> None:
    found = per_class(random_answers())
    known = found["recall"].dropna()
    assert known.is_monotonic_increasing
    assert found["index"].iloc[-1] == 4


def test_a_class_that_no_fit_predicts_has_no_precision() -> None:
    found = per_class(ClassAnswers(np.array([[0, 0]]), np.array([0, 1]), 2)).set_index("index")
    assert pd.isna(found["precision"][1])
    assert (found["recall"][1], found["f1"][1]) == (0.0, 0.0)


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    answers = random_answers()
    expected = np.mean(
        [
            sklearn_metrics.confusion_matrix(answers.target, one, labels=range(answers.n_classes))
            for one in answers.predicted
        ],
        axis=0,
    )
    assert confusion_matrix(answers) == pytest.approx(expected)
    pairs = confusions(answers)
    wrong = {(f"class {i}", f"class {j}"): n for (i, j), n in np.ndenumerate(expected) if i != j and n}
    assert dict(zip(zip(pairs["true"], pairs["predicted"], strict=True), pairs["n"], strict=True)) == pytest.approx(
        wrong
    )
    assert pairs["n"].is_monotonic_decreasing
    first = pairs.iloc[0]
    assert first["share"] == pytest.approx(first["n"] / (answers.target == int(first["true"][-1])).sum())


def test_a_prediction_that_names_no_class_is_an_error_of_its_own() -> None:
    answers = ClassAnswers(np.array([[NO_ANSWER, 1]]), np.array([0, 1]), 2, names=("a", "b"))
    assert confusions(answers)[["true", "predicted", "n"]].to_numpy().tolist() == [["a", "no answer", 1.0]]
    assert confusion_matrix(answers).tolist() == [[0, 0], [0, 1]]
    assert per_class(answers).set_index("class")["recall"].to_dict() == {"a": 0.0, "b": 1.0}


def test_errors_that_fits_share_come_before_those_of_one_fit() -> None:
    answers = ClassAnswers(
        predicted=np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 2, 0]]),
        target=np.zeros(4, dtype=int),
        n_classes=3,
        confidence=np.array([[0.5, 0.875, 0.5, 1], [0.75, 1, 0.5, 1], [0.25, 1, 0.625, 1]]),
        names=NAMES,
    )
    found = confident_errors(answers)
    assert found["row"].tolist() == [0, 1, 2]  # 1.5, 0.875 and 0.625 of 3
    assert found["predicted"].tolist() == ["beta", "beta", "gamma"]
    assert found["probability"].tolist() == [0.5, 0.875, 0.625]
    assert found["n_wrong"].tolist() == [3, 1, 1]
    assert len(confident_errors(answers, most=2)) == 2


def test_without_probabilities_the_errors_of_every_fit_are_shown() -> None:
    found = confident_errors(ClassAnswers(np.array([[1, 1, 0], [1, 0, 0]]), np.zeros(3, dtype=int), 2))
    assert found["row"].tolist() == [0]
    assert found["probability"].isna().all()


# ---- which answers a report shows


def test_the_best_at_the_largest_size_is_shown_with_all_its_seeds() -> None:
    target = [0, 1, 2, 0]
    best = [record_of([0, 1, 2, wrong], target, seed, n_train=128) for seed, wrong in ((0, 1), (1, 2))]
    other = make_record("majority", 128, 0, backbone=None)
    worse = dataclasses.replace(record_of([1, 1, 1, 1], target), cell=other.cell, family=other.family)
    small = record_of(target, target)  # better, and with fewer labels
    found = csv_of([small, *best, worse], "confusions")
    assert set(found["variant"]) == {"tfidf"}
    assert set(found["n_train"]) == {128}
    assert set(found["n_seeds"]) == {2}
    assert found[["true", "predicted", "n"]].to_numpy().tolist() == [["alpha", "beta", 0.5], ["alpha", "gamma", 0.5]]


def test_the_order_of_records_does_not_matter() -> None:
    records = [record_of([0, 1, 1], [0, 1, 2], n_train=n) for n in (32, 512, 128)]
    expected = csv_of(records, "per_class")
    assert set(expected["n_train"]) == {512}
    pd.testing.assert_frame_equal(csv_of(records[::-1], "per_class"), expected)
    pd.testing.assert_frame_equal(csv_of([records[1], records[0], records[2]], "per_class"), expected)


def test_records_on_other_rows_than_the_first_are_not_mixed() -> None:
    records = [record_of([0, 1, 1], [0, 1, 2]), record_of([0, 1], [0, 1], seed=1)]
    other = dataclasses.replace(records[1].predictions, rows="other")  # type: ignore[type-var]
    mixed = [records[0], dataclasses.replace(records[1], predictions=other)]
    assert csv_of(mixed, "per_class").empty


def test_records_of_version_0_1_name_no_classes() -> None:
    found = csv_of([record_of([0, 1, 1], [0, 1, 2], names=())], "per_class")
    assert found["class"].tolist() == ["class 2", "class 1", "class 0"]


# ---- the rendered report


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task, list[Record]]:
    """A run of two methods on a table whose labels are partly wrong: its report, its task, its records."""
    folder = tmp_path_factory.mktemp("diagnostics")
    write_toy_table(folder / "toy.csv")
    rows = list(csv.reader((folder / "toy.csv").open(newline="")))
    with (folder / "noisy.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        for i, (text, label) in enumerate(rows):
            writer.writerow((text, rows[i + 1][1] if i and i % 9 == 0 and i + 1 < len(rows) else label))
    found = run(
        data=folder / "noisy.csv", methods=["tfidf", "majority"], sizes=["all"], seeds=[0, 1],
        store=folder / "store.sqlite", reports=folder / "reports", progress=False,
    )  # fmt: skip
    assert found.report is not None
    task = kinds.get("classification").prepare(table_task(folder / "noisy.csv", "text", "label"), None)
    return found.report.parent, task, read_records(folder / "store.sqlite")


def test_a_run_shows_what_scikit_learn_computes_from_its_records(ran: tuple[Path, Task, list[Record]]) -> None:
    folder, task, records = ran
    table = pd.read_csv(folder / "per_class.csv").set_index("class")
    pairs = pd.read_csv(folder / "confusions.csv")
    assert sorted(table.index) == sorted(task.label_names)
    own = [record.predictions.classes for record in records if record.cell.method == "tfidf"]  # type: ignore[union-attr]
    assert len(own) == 2
    for i, name in enumerate(task.label_names):
        recall = [sklearn_metrics.recall_score(t, p, labels=[i], average=None)[0] for p, t in own]
        precision = [sklearn_metrics.precision_score(t, p, labels=[i], average=None)[0] for p, t in own]
        assert table.loc[name, "recall"] == pytest.approx(np.mean(recall))
        assert table.loc[name, "precision"] == pytest.approx(np.mean(precision))
    n_wrong = np.mean([(p != t).sum() for p, t in own])
    assert pairs["n"].sum() == pytest.approx(n_wrong)


def test_confident_errors_quote_the_rows_that_they_are_about(ran: tuple[Path, Task, list[Record]]) -> None:
    folder, task, _ = ran
    errors = pd.read_csv(folder / "confident_errors.csv")
    assert 0 < len(errors) <= 10
    labelled = {tuple(row) for row in csv.reader((folder.parents[1] / "noisy.csv").open(newline=""))}
    for row in errors.itertuples():
        assert (row.text, row.true) in labelled
        assert row.true != row.predicted
        assert row.text == task.test.texts[row.row]


def test_the_report_and_the_page_show_all_three(ran: tuple[Path, Task, list[Record]]) -> None:
    folder, _, _ = ran
    markdown = (folder / "report.md").read_text("utf-8")
    page = outside_scripts((folder / "report.html").read_text("utf-8"))
    errors = pd.read_csv(folder / "confident_errors.csv")
    assert "### Where tfidf is wrong" in markdown
    assert "| class | test rows | predicted rows | precision | recall | F1 |" in markdown
    assert "![Confusions of tfidf" in markdown
    assert (folder / "figures" / "noisy-confusions.png").exists()
    assert f"| {errors['true'][0]} | {errors['predicted'][0]} | {errors['text'][0]} |" in markdown
    (more,) = re.findall(r'<details class="part" id="more">(.*?)</details>', page, re.DOTALL)
    (panel,) = re.findall(r'<div data-panel="\d+">', more)  # one task, hence one panel
    in_order_of_the_page = [
        "The best of this panel at its largest size is tfidf with",
        "Most frequent confusion of tfidf (right → predicted): ",
        "its most confident errors are often wrong labels",
    ]
    places = [more.index(words) for words in (panel, *in_order_of_the_page)]  # raises where words are missing
    assert places == sorted(places)
    assert f">{html.escape(errors['text'][0])}</td>" in more


def test_without_the_data_rows_are_numbered(ran: tuple[Path, Task, list[Record]], tmp_path: Path) -> None:
    _, task, records = ran
    page = write_report(records, tmp_path / "out", ("png",))
    told, markdown = page.read_text("utf-8"), page.with_name("report.md").read_text("utf-8")
    errors = pd.read_csv(tmp_path / "out" / "confident_errors.csv")
    assert errors["text"].isna().all()
    assert f"| {errors['true'][0]} | {errors['predicted'][0]} | test row {errors['row'][0]} |" in markdown
    assert "runs nothing twice" in told
    assert "runs nothing twice" in markdown
    assert not any(text in told or text in markdown for text in task.test.texts)


def test_texts_of_other_rows_are_not_shown(ran: tuple[Path, Task, list[Record]]) -> None:
    _, task, records = ran
    lent = known_texts([task])
    assert lent[task.test_rows].fields[0] == task.test.texts
    assert ReportData(records, lent).winners.popitem()[1].known is not None
    (rows,) = lent.values()
    fewer = {task.test_rows: dataclasses.replace(rows, fields=(rows.fields[0][1:],))}
    assert ReportData(records, fewer).winners.popitem()[1].known is None
    assert ReportData(records, {"other rows": rows}).winners.popitem()[1].known is None
    relabelled = dataclasses.replace(task, provenance={**task.provenance, "from": "hub"})
    assert known_texts([relabelled]) == {}


def test_both_texts_of_a_pair_are_quoted(tmp_path: Path) -> None:
    with (tmp_path / "pairs.csv").open("w", newline="") as handle:
        rows = [(f"first {i}", "second " * 200 + str(i), "is" if i % 2 else "not") for i in range(60)]
        csv.writer(handle).writerows([("a", "b", "label"), *rows])
    spec = TaskSpec.model_validate(
        {
            "name": "pairs",
            "kind": "text-pair",
            "data": {"files": {"train": str(tmp_path / "pairs.csv")}},
            "columns": {"first": "a", "second": "b"},
            "description": "pairs",
        }
    )
    task = kinds.get("text-pair").prepare(spec, None)
    (known,) = known_texts([task]).values()
    shown = known.excerpt(0)
    assert shown.startswith(f"{task.test.fields['first'][0]} ‖ second second")
    assert len(shown) <= 201 + 3


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> | pipe **bold** [x](javascript:alert(3)) `c` $m$"
    "\x1b[2J\u202e\n# h"
)


def test_hostile_texts_and_classes_are_harmless(tmp_path: Path) -> None:
    target = [0, 1, 2, 0, 1, 2]
    names = ("</details><script>", HOSTILE, "=cmd()")
    records = [record_of([1, 2, 0, 1, 2, 0], target, seed, names=names) for seed in (0, 1)]
    texts = {"rows": KnownRows(([HOSTILE, "x " * 100_000, "=1+1|", "\ud800", "", HOSTILE],))}
    written = write_report(records, tmp_path / "out", ("png",), texts)
    markdown = written.with_name("report.md").read_text("utf-8")
    page = outside_scripts(written.read_text("utf-8"))
    assert page.count("<details") == page.count("</details>")
    for shown in (markdown, page):
        assert "<script>alert" not in shown
        assert "<img src=x" not in shown
        assert not {"\x1b", "\u202e", "\ud800"} & set(shown)
    assert "\\| pipe \\*\\*bold\\*\\* \\[x\\](javascript:alert(3)) \\`c\\`" in markdown
    table = markdown.split("| label | predicted | text |")[1].split("\n\n")[0]
    assert len(table.splitlines()) == 2 + 6  # no text breaks out of its row
    assert max(map(len, markdown.splitlines())) < 3000
    for row in csv.reader((tmp_path / "out" / "confident_errors.csv").open(newline="", encoding="utf-8")):
        assert not row[-1].startswith("=")
        assert len(row[-1]) <= 201


def test_many_classes_get_tables_of_the_weakest_and_of_the_most_frequent_confusions(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    target = np.repeat(np.arange(30), 4)
    record = record_of(np.where(draw.random(120) < 0.5, target, (target + 1) % 30).tolist(), target.tolist())
    dataset = {"n_classes": 30, "class_names": [f"intent {i}" for i in range(30)]}
    record = dataclasses.replace(record, provenance=dataclasses.replace(record.provenance, dataset=dataset))
    written = write_report([record], tmp_path / "out", ("png",))
    markdown = written.with_name("report.md").read_text("utf-8")
    assert "The 20 classes with the lowest recall, of 30; per_class.csv has all of them." in markdown
    assert "| right class | predicted as | test rows | share of the class |" in markdown
    assert not list((tmp_path / "out" / "figures").glob("*confusions*"))
    assert len(pd.read_csv(tmp_path / "out" / "per_class.csv")) == 30


def test_a_record_keeps_the_names_of_its_classes(ran: tuple[Path, Task, list[Record]], tmp_path: Path) -> None:
    _, task, records = ran
    for record in records:
        assert record.provenance.dataset["class_names"] == list(task.label_names)
        check_predictions(record)
    with (tmp_path / "long.csv").open("w", newline="") as handle:
        rows = [(f"text {i}", f"{'x' * 1500} {i % 3}") for i in range(40)]
        csv.writer(handle).writerows([("text", "label"), *rows])
    long = kinds.get("classification").prepare(table_task(tmp_path / "long.csv", "text", "label"), None)
    assert "class_names" not in long.provenance
