"""Tables as people have them: blank rows, rare classes, labels written in two ways, columns that hold no classes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.backbones.locate import BackboneFiles
from harness.backbones.tokenizer import token_counts
from harness.data.files import read_rows
from harness.data.rows import overlap_key
from harness.data.sampling import parse_size
from harness.data.source import load_splits
from harness.data.table import table_task
from harness.measure.device import Device
from harness.methods._logistic import choose_penalty
from harness.methods.configure import parse_methods
from harness.planning.plan import plan_cells
from harness.records.record import Budget
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.support.errors import DataError, DataWarning, UsageError
from harness.tasks.base import Task
from harness.tasks.summary import count_cut, summarise_data
from tests.commands import run_cli
from tests.tables import MANY, ROWS, fingerprint, prepared, tickets

BLANK = [("", "a"), ("   ", "b"), ("no label here", ""), ("nor here", " \t"), ("", ""), (" ", " ")]
CASES = Path(__file__).parent / "fixtures"


def warnings_of(path: Path) -> list[str]:
    return list(prepared(path).provenance.get("warnings", []))


# ---- blank rows


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_blank_rows_are_left_out_and_change_nothing_else(tmp_path: Path, ending: str) -> None:
    clean = prepared(tickets(tmp_path / "clean.csv", MANY))
    mixed = [row for pair in zip(MANY, [*BLANK, *MANY[:0]] * 20, strict=False) for row in pair]
    mixed = [*mixed, *MANY[len(mixed) // 2 :]] if len(mixed) // 2 < len(MANY) else mixed
    messy = prepared(tickets(tmp_path / f"messy.{ending}", mixed))
    n = Counter(mixed)
    assert messy.data == clean.data
    assert (messy.train_digests, messy.test_rows) == (clean.train_digests, clean.test_rows)
    assert messy.provenance["left_out"] == {
        "no label": n[BLANK[2]] + n[BLANK[3]],
        "no text": n[BLANK[0]] + n[BLANK[1]],
        "no text and no label": n[BLANK[4]] + n[BLANK[5]],
    }
    assert "left_out" not in clean.provenance
    with pytest.raises(DataError, match=r"(line|row)s? [0-9, ]+.*is empty"):
        prepared(tmp_path / f"messy.{ending}", strict=True)


def test_lines_are_named_as_the_file_has_them_after_rows_are_left_out(tmp_path: Path) -> None:
    rows = [*BLANK, ("one text", "a"), ("one text", "b"), *MANY]
    (warning,) = warnings_of(tickets(tmp_path / "t.csv", rows))
    assert "1 text has several labels (lines 8, 9)" in warning


def test_a_table_without_any_usable_row_is_refused(tmp_path: Path) -> None:
    for rows in ([("", "")] * 3, [("text", "")] * 3, [("", "a"), ("", "b")]):
        with pytest.raises(DataError, match=r"none of its rows has a text in column 'body' and a label in column"):
            prepared(tickets(tmp_path / "t.csv", rows))


# ---- rare classes


def test_a_rare_class_is_trained_on_and_not_scored(tmp_path: Path) -> None:
    rare = [("the only one of its kind", "rare"), ("twice the same", "copied"), ("twice  the same", "copied")]
    task = prepared(tickets(tmp_path / "t.csv", [*MANY, *rare]))
    names = np.array(task.label_names)
    assert task.label_names == ("a", "b", "copied", "rare")
    assert set(names[task.test_labels]) == {"a", "b"}
    assert Counter(names[task.train_labels]) == {"a": 30, "b": 30, "copied": 2, "rare": 1}
    assert [task.label_names[at] for at in task.unscored] == ["copied", "rare"]
    assert task.class_rows == (40, 40, 2, 1)
    assert task.lone_classes == (3,)
    clean = prepared(tickets(tmp_path / "clean.csv", MANY))
    assert task.data != clean.data
    assert task.test_rows == clean.test_rows  # the other classes are held out as before
    assert prepared(tmp_path / "clean.csv", strict=True).data == clean.data
    with pytest.raises(DataError, match=r"the class 'copied' has only 2 examples of the same text.*'rare'"):
        prepared(tmp_path / "t.csv", strict=True)


def test_a_class_of_the_training_file_alone_is_not_scored_and_one_of_the_test_file_alone_is_refused(
    tmp_path: Path,
) -> None:
    train = tickets(tmp_path / "train.csv", [*MANY[:60], ("odd", "rare"), ("old 1", "old"), ("old 2", "old")])
    task = prepared(train, test=tickets(tmp_path / "test.csv", [*MANY[60:], *BLANK]))
    assert [task.label_names[at] for at in task.unscored] == ["old", "rare"]
    assert task.provenance["left_out"] == {"no label": 2, "no text": 2, "no text and no label": 2}
    with pytest.raises(DataError, match="'rare' has a single example"):
        prepared(train, test=tickets(tmp_path / "test.csv", MANY[60:]), strict=True)
    with pytest.raises(DataError, match=r"the label ' A' occurs in the test rows only. Did you mean 'a'\?"):
        prepared(train, test=tickets(tmp_path / "other.csv", [*MANY[60:], ("x", " A")]))


def test_a_class_whose_texts_are_held_out_under_another_label_keeps_them(tmp_path: Path) -> None:
    shared = [(text, "other") for text, label in MANY if label == "a"]
    for text, label in shared:
        task = prepared(tickets(tmp_path / "t.csv", [*MANY, (text, label)]))
        other = task.label_names.index("other")
        assert (task.train_labels == other).sum() == 1
        assert not {overlap_key(one) for one in task.train.texts} & {overlap_key(one) for one in task.test.texts}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", " ", *"abcdefgh", "a  b", "a b"]), st.sampled_from(["", "x", "y", "z", "X", "w"])
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_table_is_refused_plainly_or_splits_cleanly(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tickets(tmp_path / "t.jsonl", rows)
    try:
        task = prepared(path)
    except DataError:
        return
    usable = [(text, label) for text, label in rows if text.strip() and label.strip()]
    train, test = ({overlap_key(text) for text in source.texts} for source in (task.train, task.test))
    assert not train & test
    assert train | test == {overlap_key(text) for text, _ in usable}
    assert set(task.train_strata.tolist()) == set(range(len(task.label_names)))  # every class is learnt
    assert set(task.label_names) == {label for _, label in usable}
    assert set(task.unscored) == set(range(len(task.label_names))) - set(task.test_labels.tolist())
    assert sum(task.provenance.get("left_out", {}).values()) == len(rows) - len(usable)
    summary = summarise_data(task)
    dropped = summary.n_copies_of_test
    assert summary.n_rows == len(usable) == summary.n_train + summary.n_test_available + dropped
    assert sum(count for _, count in summary.classes) == len(usable)


# ---- the protocol with a rare class


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return prepared(tickets(tmp_path_factory.mktemp("rare") / "t.csv", [*MANY, ("the only one", "rare")]))


def test_sizes_take_a_rare_class_as_far_as_it_goes(rare: Task, cpu: Device) -> None:
    cells = {
        size: plan_cells(
            tasks=[rare], backbones={}, methods=parse_methods(["tfidf"]), sizes=[parse_size(size)], seeds=[0],
            budgets=[Budget()], device="cpu",
        )[0].cell
        for size in ("8/class", "16/class", "16", "all")
    }  # fmt: skip
    assert {size: cell.n_train for size, cell in cells.items()} == {"8/class": 17, "16/class": 33, "16": 16, "all": 61}
    runner = Worker(cpu, None)
    drawn = {}
    for size, cell in cells.items():
        rows = runner.training_rows(rare, cell.n_train, 0, cell.draw)
        drawn[size] = set(rows.index.tolist())
        counts = Counter(rows.known_labels.tolist())
        if size.endswith("/class"):
            n = int(size.split("/")[0])
            assert counts == {0: n, 1: n, 2: 1}
        assert counts[2] == 1
    assert drawn["8/class"] < drawn["16/class"]
    assert drawn["16"] < drawn["all"]
    with pytest.raises(UsageError, match="class 'a' has only 30 training rows; ask for at most 30/class"):
        plan_cells(
            tasks=[rare], backbones={}, methods=parse_methods(["tfidf"]), sizes=[parse_size("31/class")], seeds=[0],
            budgets=[Budget()], device="cpu",
        )  # fmt: skip


def test_a_penalty_is_chosen_by_folds_although_a_class_has_one_row() -> None:
    """As scikit-learn's own folds choose it, the row of the rare class in every fold's training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    generator = np.random.default_rng(0)
    labels = np.array([0, 1] * 20 + [2])
    features = generator.normal(size=(41, 6)) + np.eye(3, 6)[labels]
    grid = (0.001, 0.1, 10.0)
    assert choose_penalty(features, labels, 3, grid, 4, default=7.0).inverse_penalty == 7.0
    chosen = choose_penalty(features, labels, 3, grid, 4, default=7.0, lone_classes=(2,)).inverse_penalty
    losses = []
    for c in grid:
        loss = 0.0
        for fold in range(4):
            outside = np.array([at for at in range(40) if at // 2 % 4 == fold])
            inside = np.setdiff1d(np.arange(41), outside)
            model = LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(features[inside], labels[inside])
            loss += log_loss(labels[outside], model.predict_proba(features[outside]), labels=[0, 1, 2]) * len(outside)
        losses.append(loss)
    assert chosen == grid[int(np.argmin(losses))]


def test_methods_and_folds_serve_a_rare_class(rare: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """Tuning, early stopping and choosing never validate on it; metrics are over what occurs in the test."""
    from harness.choose.folds import validation_folds

    for fold in validation_folds(rare):
        assert 2 in fold.train_strata
        assert 2 not in fold.test_labels
    names = [
        "tfidf",
        "linear-probe",
        "head[tune=2,epochs=1]",
        "full[patience=1,epochs=2,min_steps=8]",
        "knn",
        "prototypes",
    ]
    cells = plan_cells(
        tasks=[rare], backbones={rare.name: (tiny,)}, methods=parse_methods(names), sizes=[parse_size("all")],
        seeds=[0], budgets=[Budget()], device="cpu",
    )  # fmt: skip
    runner = Worker(cpu, None)
    for planned in cells:
        record = runner.run(Job(planned, tiny if planned.cell.backbone else None, "t"), rare)
        assert record.status == "ok", (planned.label(), record.error)
        assert record.score is not None
        assert record.predictions is not None
        assert record.predictions.classes[1].tolist() == rare.test_labels.tolist()
        assert record.provenance.dataset["n_classes_not_scored"] == 1
        if planned.method.name == "tfidf":
            # The folds' choice: where nothing can be held out, it is 10.
            assert record.facts.penalty == 100.0


# ---- what is warned of


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["billing", " Billing ", "post"], r"2 labels that differ only in case, spaces.*' Billing ' \(27\)"),
        (["01", "1", "2"], r"2 labels that differ .*'01' \(27\), '1' \(27\)"),
        (["1.0", "1", "2"], r"2 labels that differ "),
        (["True", "1", "0"], r"2 labels that differ "),
        (["true", "TRUE", "false"], r"2 labels that differ "),
        (["ﬁne", "fine", "bad"], r"2 labels that differ "),
        (["a b", "a  b", "c"], r"2 labels that differ "),
        (["a", "b", "a|b"], r"1 label that looks like several labels joined: 'a\|b'; 26 rows"),
        (["a", "b", "b, a"], r"several labels joined: 'b, a'"),
        (["a;b", "a;c", "b;c"], r"3 labels that look like several"),
        ([str(at * at) for at in range(25)], r"25 different whole numbers from 0 to 576.*regression"),
        (["['a', 'b']", "a", "b"], r"1 label that looks like several"),
        (["nan", "a", "b"], r"stand for a missing value: 'nan' \(27\)"),
        (["Food, drink and tobacco", "Health", "Food"], None),
        (["3.9", "3.10", "unknown"], None),
        ([str(at) for at in range(30)], None),
        (["yes", "no", "-1"], None),
    ],
)
def test_labels_that_look_wrong_are_named(tmp_path: Path, labels: list[str], said: str | None) -> None:
    rows = [(f"text {at}", labels[at % len(labels)]) for at in range(max(80, 4 * len(labels)))]
    found = warnings_of(tickets(tmp_path / "t.csv", rows))
    if said is None:
        assert found == []
    else:
        assert len(found) == 1
        assert re.search(said, found[0])
        assert found[0].startswith("t.csv: column 'queue'")


def test_one_text_with_several_labels_is_named_by_its_rows(tmp_path: Path) -> None:
    rows = [*MANY, *[(f" {text} ", "ab"[label == "a"]) for text, label in MANY[:5]], MANY[7]]
    (warning,) = warnings_of(tickets(tmp_path / "t.csv", rows))
    assert "5 texts have several labels (lines 2, 82; lines 3, 83; lines 4, 84)." in warning


@pytest.mark.parametrize(
    "labels", [["0.0", "0.2", "5.0"], ["0,5", "1", "1,5"], ["3,3", "4,5", "3"], ["1", "2", "2.5e0"], [0.5, 1.0, 2.0]]
)
@pytest.mark.parametrize("strict", [False, True])
def test_quantities_are_refused_in_every_format(tmp_path: Path, labels: list[object], strict: bool) -> None:
    rows = [(f"text {at}", labels[at % 3]) for at in range(30)]
    for ending in ["parquet"] if isinstance(labels[0], float) else ["csv", "jsonl", "parquet"]:
        with pytest.raises(
            DataError, match=r"(line|row)s? \d.*the label .* is [0-9.,e]+[,;] (a number with a|expected)"
        ):
            prepared(tickets(tmp_path / f"t.{ending}", rows), strict=strict)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("same", "ab"[at % 2]) for at in range(20)], r"all texts in column 'body' are the same \(20 rows\)"),
        ([(f"text {at}", "a") for at in range(20)], "every row has the label 'a'"),
        ([(f"text {at}", str(at // 2)) for at in range(20_002)], "10,001 different labels; expected at most 10,000"),
        ([(f"text {at}", f"id {min(at, 15)}") for at in range(20)], "15 of the 20 rows have a label .* no other row"),
        ([("one", "a"), ("one ", "a"), ("two", "b"), ("3", "b")], "fewer than two classes .* two different texts"),
    ],
)  # fmt: skip
def test_columns_that_hold_no_classes_are_refused(tmp_path: Path, rows: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        prepared(tickets(tmp_path / "t.csv", rows))


# ---- the line before anything runs


def test_the_summary_says_all_of_a_table(tmp_path: Path, tiny: BackboneFiles) -> None:
    rows = [*MANY, MANY[0], MANY[3], *BLANK, ("word " * 200, "a"), ("the only one", "rare")]
    test = [("new a", "a"), ("new b", "b"), MANY[1], ("", "a")]
    task = prepared(tickets(tmp_path / "t.csv", rows), test=tickets(tmp_path / "test.csv", test), max_length=16)
    found = summarise_data(task, tiny)
    assert (found.n_rows, found.n_train, found.n_test, found.n_test_available) == (87, 83, 3, 3)
    assert found.classes == (("a", 43), ("b", 43), ("rare", 1))
    assert (found.n_repeated, found.n_copies_of_test) == (2, 1)
    assert found.left_out == {"no label": 2, "no text": 3, "no text and no label": 2}
    assert found.unscored == ("rare",)
    assert found.cut is not None
    assert (found.cut.n_cut, found.cut.n_read, found.cut.max_length) == (1, 86, 16)
    assert found.line() == (
        "t: 87 rows (83 to learn from, 3 to test on); 3 classes: a (43), b (43), rare (1); "
        "2 rows with a repeated text; 2 rows left out (no label); 3 rows left out (no text); "
        "2 rows left out (no text and no label); 1 row left out of training (copies of test rows); "
        "trained on and not scored: rare; 1 % of the texts are cut at 16 tokens."
    )
    assert "cut" not in summarise_data(task).line()
    many = replace(found, classes=tuple((f"class {at}", 1) for at in range(9)))
    assert "9 classes: class 0 (1), class 1 (1), class 2 (1), class 3 (1) and 5 more" in many.line()


def test_cut_texts_are_counted_as_a_run_counts_them(toy: Task, tiny: BackboneFiles) -> None:
    from harness.backbones.model import load_backbone

    task = replace(toy, spec=toy.spec.model_copy(update={"max_length": 9}))
    found = count_cut(task, tiny)
    backbone = load_backbone(tiny)
    whole = [len(backbone.tokenizer(text)["input_ids"]) for text in [*toy.train.texts, *toy.test.texts]]
    assert found is not None
    assert (found.n_cut, found.n_read) == (sum(length > 9 for length in whole), len(whole))
    assert token_counts(tiny, toy.train.texts, 9) == whole[: len(toy.train.texts)]  # without the model
    assert token_counts(tiny, toy.train.texts, backbone.max_length) is None
    long = count_cut(replace(toy, spec=toy.spec.model_copy(update={"max_length": 1000})), tiny)
    assert long is not None
    assert (long.n_cut, long.max_length, long.asked) == (0, backbone.max_length, 1000)
    assert "the most that the backbone reads (not 1,000)" in replace(summarise_data(toy), cut=long).line()


def test_run_plan_and_status_say_what_a_table_holds(tmp_path: Path, tiny: BackboneFiles) -> None:
    tickets(tmp_path / "t.csv", [*MANY, *BLANK, ("the only one", "rare"), ("Cap", "A"), ("Caps", "A")])
    asked = ("--data", "t.csv", "--text", "body", "--label", "queue", "--methods", "majority,tfidf", "--sizes", "16")
    asked = (*asked, "--seeds", "0", "--metric", "macro_f1", "--max-length", "32")
    line = "t: 83 rows (62 to learn from, 21 to test on); 4 classes: a (40), b (40), A (2), rare (1)"
    warning = "Warning: t.csv: column 'queue' has 2 labels that differ only in case"
    planned = run_cli("plan", *asked, "--no-probe", cwd=tmp_path)
    assert planned.count(line) == planned.count(warning) == 1
    assert planned.index(line) < planned.index(warning) < planned.index("2 cells")
    assert re.search(r"missing[^0-9]*majority\W+1\W+t\W+t\W+tfidf\W+1\W", run_cli("status", *asked, cwd=tmp_path))
    ran = run_cli("run", *asked, cwd=tmp_path)
    assert ran.count(line) == ran.count(warning) == 1
    assert ran.index(line) < ran.index("2 cells") < ran.index("macro_f1")
    done = run_cli("status", *asked, cwd=tmp_path)
    assert "missing" not in done
    assert re.search(r"t\W+t\W+tfidf\W+1", done)
    more = run_cli("status", *asked, "--seeds", "0,1", cwd=tmp_path)
    assert re.search(r"tfidf\W+1\W+1", more)
    assert "missing" in more
    # Without a metric it is another task: nothing of it is there.
    assert "missing" in run_cli("status", *asked[:-4], cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "bleu"], "expected one of accuracy, f1, macro_f1, matthews"),
        (
            ["--metric", "f1", "--label", "three"],
            "f1 was given, which scores two classes; column 'three' has 3",
        ),
        (["--max-length", "4"], "expected at least 8 tokens"),
    ],
)
def test_options_of_a_table_are_checked(tmp_path: Path, arguments: list[str], said: str) -> None:
    rows = [(*row, "xyz"[at % 3]) for at, row in enumerate(MANY)]
    tickets(tmp_path / "t.csv", rows, ("body", "queue", "three"))
    given = ["--data", "t.csv", "--text", "body", "--label", "queue", *arguments]
    for command in (["run"], ["plan"], ["choose", "--within", "20s", "--save", "m"]):
        assert said in run_cli(*command, *given, cwd=tmp_path, code=2)
    assert "go with --data" in run_cli("run", "quickstart", "--max-length", "64", cwd=tmp_path, code=2)
    assert "go with --data" in run_cli("plan", "quickstart", "--strict", cwd=tmp_path, code=2)
    assert "Name either a suite" in run_cli("status", "--methods", "tfidf", cwd=tmp_path, code=2)


def test_the_length_and_the_metric_are_part_of_the_data(tmp_path: Path) -> None:
    path = tickets(tmp_path / "t.csv", ROWS)
    found = {
        fingerprint(table_task(path, "body", "queue", **options))
        for options in ({}, {"max_length": 64}, {"metric": "macro_f1"}, {"strict": True}, {"max_length": 128})
    }
    assert len(found) == 3


# ---- real tables


def test_a_real_table_with_injected_faults(tmp_path: Path, mirror: Path) -> None:
    """TREC's coarse questions: what is injected is what is reported, and the rest is as it was."""
    import json

    source = mirror / "datasets" / "SetFit" / "TREC-QC" / "train.jsonl"
    records = [json.loads(line) for line in source.read_text("utf-8").split("\n") if line]
    seen: set[str] = set()
    clean = []
    for record in records:
        key = overlap_key(record["text"])
        if key not in seen:
            seen.add(key)
            clean.append((record["text"], str(record["label_coarse"])))
    before = prepared(tickets(tmp_path / "clean.csv", clean))
    blank = [("", "1")] * 7 + [("text", "")] * 5 + [("", "")] * 3
    copies = clean[100:160]
    rare = [("a question of its own", "99")]
    messy = prepared(tickets(tmp_path / "messy.csv", [*blank[:8], *clean, *blank[8:], *copies, *rare]))
    assert messy.provenance["left_out"] == {"no label": 5, "no text": 7, "no text and no label": 3}
    assert messy.provenance["n_repeated_texts"] == before.provenance["n_repeated_texts"] + 60
    assert [messy.label_names[at] for at in messy.unscored] == ["99"]
    assert set(messy.test.texts) <= set(before.test.texts) | {text for text, _ in copies}
    assert len(read_rows(tmp_path / "messy.csv", ["body"]).columns["body"]) == len(clean) + 76
    assert prepared(tickets(tmp_path / "blank.csv", [*blank, *clean])).data == before.data
    assert (
        load_splits(table_task(tmp_path / "clean.csv", "body", "queue", strict=True)).provenance.get("left_out") is None
    )


def test_python_code_gets_the_warnings_of_a_table(tmp_path: Path) -> None:
    rows = [(f"text number {at}", "1" if at % 3 else "1.0") for at in range(24)]
    (tmp_path / "t.csv").write_text("body,queue\n" + "".join(f"{text},{label}\n" for text, label in rows))
    with pytest.warns(DataWarning, match="2 labels that differ only in case, spaces or the format of a number"):
        table_task(tmp_path / "t.csv", "body", "queue")
