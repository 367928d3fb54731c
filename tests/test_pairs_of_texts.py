"""Pairs of texts in a user's own table: read, chosen for, saved and predicted, each column in its place."""

from __future__ import annotations

import csv
import random
import time
from pathlib import Path

import pandas as pd
import pytest

from harness import load_model
from harness.api.predictions import predict_file
from harness.backbones.locate import BackboneFiles
from harness.choose import Chosen, choose_within
from harness.choose.evaluation import EVALUATION
from harness.data.frames import text_columns
from harness.data.table import table_task
from harness.methods.configure import parse_methods
from harness.schedule.local import LocalWorkers
from harness.store.store import Store
from harness.support.errors import DataError, UsageError
from harness.tasks.base import Task, kinds
from tests.commands import run_cli

WORDS = ["apple", "boat", "cloud", "drum", "eagle", "flute", "grape", "horse"]


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("premise", "hypothesis", "relation"), *rows])
    return path


def pairs(n: int = 160) -> list[tuple[str, str, str]]:
    """Return pairs whose class depends on which of the two texts names the drum: no bag of their words tells it."""
    draw = random.Random(0)
    rows = []
    for at in range(n):
        other = f"{draw.choice(WORDS)} number {at}"
        named = f"the drum {at}"
        rows.append((named, other, "first") if at % 2 else (other, named, "second"))
    return rows


def prepared(path: Path) -> Task:
    spec = table_task(path, "premise,hypothesis", "relation")
    return kinds.get(spec.kind).prepare(spec, None)


@pytest.fixture(scope="module")
def chosen(tiny: BackboneFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chosen, Task, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    task = prepared(write(folder / "pairs.csv", pairs()))
    with LocalWorkers("cpu", None) as workers, Store.open(folder / "store.sqlite") as store:
        found = choose_within(
            task, [tiny], workers, store, folder / "model", within=60.0, began=time.monotonic(),
            methods=parse_methods(["full"]), refit=False,
        )  # fmt: skip
    return found, task, folder


def test_two_columns_make_a_task_of_pairs_with_each_text_in_its_role(tmp_path: Path) -> None:
    path = write(tmp_path / "nli.csv", [*pairs(), ("alone", "", "first"), ("no", "label", " ")])
    spec = table_task(path, "premise,hypothesis", "relation")
    assert spec.kind == "text-pair"
    task = kinds.get("text-pair").prepare(spec, None)
    assert task.label_names == ("first", "second")
    assert task.provenance["left_out"] == {"no label": 1, "no text": 1}
    there = {(one, two): label for one, two, label in pairs()}
    for source, labels in ((task.train, task.train_labels), (task.test, task.test_labels)):
        both = list(zip(source.fields["first"], source.fields["second"], strict=True))
        assert [task.label_names[label] for label in labels] == [there[pair] for pair in both]


def test_a_frame_and_a_file_with_the_same_pairs_are_the_same_task(tmp_path: Path) -> None:
    path = write(tmp_path / "nli.csv", pairs())
    of_frame = table_task(pd.read_csv(path), ["premise", "hypothesis"], "relation")
    assert kinds.get("text-pair").prepare(of_frame, None).data == prepared(path).data


def test_a_column_whose_name_has_a_comma_is_given_in_a_list() -> None:
    frame = pd.DataFrame({"said, at last": ["one", "two", "three", "four"] * 2, "label": ["a", "b"] * 4})
    assert table_task(frame, ["said, at last"], "label").columns.text == "said, at last"


@pytest.mark.parametrize("text", ["a,b,c", "a,a", ",b", "", [], ["a", "b", "c"], [""]])
def test_anything_but_one_or_two_columns_is_refused(text: str | list[str]) -> None:
    with pytest.raises(UsageError, match="or two different ones joined by a comma for pairs"):
        text_columns(text)


def test_wrong_pairs_are_refused_with_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "nli.csv", pairs())
    with pytest.raises(UsageError, match="'relation' was named for both text and label"):
        table_task(path, "premise,relation", "relation")
    with pytest.raises(DataError, match="no column 'hypotheses'"):
        table_task(path, "premise,hypotheses", "relation")
    same = write(tmp_path / "same.csv", [("one", "two", str(at % 2)) for at in range(20)])
    with pytest.raises(DataError, match="all texts in columns 'premise' and 'hypothesis' are the same"):
        table_task(same, "premise,hypothesis", "relation")


def test_the_saved_model_reads_pairs_in_their_order_and_scores_what_was_said(
    chosen: tuple[Chosen, Task, Path],
) -> None:
    found, task, folder = chosen
    model = load_model(folder / "model", "cpu")
    given = list(zip(task.test.fields["first"], task.test.fields["second"], strict=True))
    right = [task.label_names[label] for label in task.test_labels]
    predicted = model.predict(given)
    assert sum(map(str.__eq__, predicted, right)) / len(right) == pytest.approx(found.score.value)
    assert found.score.value > 0.9  # which of the two names the drum decides, so they were not exchanged
    frame = pd.DataFrame({"p": [one for one, _ in given], "h": [two for _, two in given]})
    assert model.predict(frame, "p,h") == predicted
    assert list(model.predict_frame(frame, ["p", "h"])["prediction"]) == predicted
    assert "‖" in (folder / "model" / EVALUATION).read_text("utf-8") or found.score.value == 1.0
    assert 'model.predict([("a text", "its partner")])' in (folder / "model" / "README.md").read_text("utf-8")


def test_a_file_of_pairs_is_predicted_and_rows_without_both_texts_are_not(
    chosen: tuple[Chosen, Task, Path], tmp_path: Path
) -> None:
    model = chosen[2] / "model"
    data = write(tmp_path / "new.csv", [*pairs(6), ("alone", "", "?")])
    found = predict_file(model, data, tmp_path / "out.csv", "premise,hypothesis", device="cpu")
    assert (found.n_predicted, found.n_rows) == (6, 7)
    for text, said in (("premise", "the model reads pairs of texts. Expected two columns"), ("x,hypothesis", "'x'")):
        with pytest.raises((DataError, UsageError), match=said):
            predict_file(model, data, tmp_path / "other.csv", text, device="cpu")


def test_the_model_refuses_what_is_no_pair(chosen: tuple[Chosen, Task, Path]) -> None:
    model = load_model(chosen[2] / "model", "cpu")
    with pytest.raises(UsageError, match="text 0 is of type str, not a pair of texts, text 1 is blank"):
        model.predict(["one text", ("one", " ")])  # type: ignore[list-item]


def test_a_comparison_of_methods_takes_pairs_too(tmp_path: Path) -> None:
    write(tmp_path / "nli.csv", pairs())
    said = run_cli(
        "run", "--data", "nli.csv", "--text", "premise,hypothesis", "--label", "relation", "--methods", "tfidf",
        "--sizes", "32", "--seeds", "0", cwd=tmp_path,
    )  # fmt: skip
    assert "tfidf" in said
