"""Users' own files of every kind: which kind is guessed, what is left out, noted and refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.api.own_data import own_task
from harness.data import held_out
from harness.data.guessing import guess_kind
from harness.data.held_out import hold_out_groups, hold_out_label_sets, hold_out_numbers
from harness.data.rows import hold_out, overlap_key
from harness.support.errors import DataError, UsageError
from harness.support.spelling import as_caller_spells
from harness.tasks import Task, kinds
from tests.commands import run_cli

WORDS = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "zeta"]
LABELS = ("alpha", "beta", "omega")


def sentences(n: int) -> list[list[str]]:
    draw = np.random.default_rng(0)
    return [[*draw.choice(WORDS, size=5).tolist(), str(at)] for at in range(n)]


ROWS: dict[str, list[dict[str, Any]]] = {
    "regression": [{"body": " ".join(w), "price": 2.5 * w.count("alpha")} for w in sentences(60)],
    "similarity": [
        {"a": " ".join(w[:3]), "b": " ".join(w[3:]), "score": len({*w[:3]} & {*w[3:]}) + 0.5} for w in sentences(60)
    ],
    "multi-label": [{"body": " ".join(w), "tags": sorted({*w} & {*LABELS})} for w in sentences(60)],
    "token-classification": [
        {"words": w, "ner": ["B-X" if word == "alpha" else "O" for word in w]} for w in sentences(60)
    ],
    "question-answering": [
        {"q": "which?", "c": " ".join(w), "answers": {"text": [w[0]], "answer_start": [0]}} for w in sentences(60)
    ],
    "multiple-choice": [{"q": f"which of {w[5]}?", "c": w[:3], "key": "1"} for w in sentences(60)],
    "text-pair": [{"a": " ".join(w[:3]), "b": " ".join(w[3:]), "same": w[0] == w[3]} for w in sentences(60)],
    "classification": [{"body": " ".join(w), "first": w[0]} for w in sentences(60)],
}
COLUMNS = {
    "regression": ("body", "price"),
    "similarity": ("a,b", "score"),
    "multi-label": ("body", "tags"),
    "token-classification": ("words", "ner"),
    "question-answering": ("q,c", "answers"),
    "multiple-choice": ("q,c", "key"),
    "text-pair": ("a,b", "same"),
    "classification": ("body", "first"),
}


def file_of(folder: Path, rows: list[dict[str, Any]], ending: str = "jsonl") -> Path:
    path = folder / f"t.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


def prepared(data: Any, text: Any, label: Any, **options: Any) -> Task:
    spec = own_task(data, text, label, **options)
    return kinds.get(spec.kind).prepare(spec, None)


# ---- which kind


@pytest.mark.parametrize("kind", list(ROWS))
def test_the_kind_is_guessed_and_the_same_from_every_format(tmp_path: Path, kind: str) -> None:
    text, label = COLUMNS[kind]
    task = prepared(file_of(tmp_path, ROWS[kind]), text, label)
    assert task.kind.name == kind
    assert ("kind_because" in task.provenance) == (kind not in ("classification", "text-pair"))
    sources: list[Any] = [pd.DataFrame(ROWS[kind]), file_of(tmp_path, ROWS[kind], "parquet")]
    if kind in ("regression", "similarity", "multi-label", "token-classification"):
        sources.append(file_of(tmp_path, ROWS[kind], "csv"))  # with lists as pandas writes them
    for data in sources:
        other = prepared(data, text, label)
        assert (other.kind.name, other.data, other.test_rows) == (kind, task.data, task.test_rows)
        assert prepared(data, text, label, kind=kind).data == task.data  # as if it were named


def test_lists_of_labels_in_three_forms_are_the_same_task(tmp_path: Path) -> None:
    rows = ROWS["multi-label"]
    listed = prepared(file_of(tmp_path, rows), "body", "tags")
    joined = [{**row, "tags": "; ".join(row["tags"])} for row in rows]
    flags = [{"body": row["body"], **{name: int(name in row["tags"]) for name in LABELS}} for row in rows]
    assert prepared(file_of(tmp_path, joined, "csv"), "body", "tags", label_separator=";").data == listed.data
    assert prepared(file_of(tmp_path, flags, "csv"), "body", ",".join(LABELS)).data == listed.data
    assert prepared(pd.DataFrame(flags), "body", list(LABELS), kind="multi-label").data == listed.data


def test_guesses_that_are_not_plain_stay_with_classes() -> None:
    def guess(values: list[Any], texts: list[Any] | None = None) -> str:
        return guess_kind({"t": texts or ["x"] * len(values), "l": values}, ["t"], ["l"]).kind

    assert guess([1, 2, 3]) == guess(["1", "2"]) == guess([1.0, 2.0]) == "classification"
    assert guess([1.5, "x"]) == guess(["v1.5", "v1.6"]) == guess(["1,5", "2,5"]) == "classification"
    assert guess([]) == guess([None, ""]) == "classification"
    assert guess(["1.5", "2"]) == guess([1, 2.5, None]) == guess([".5", "-3e-2"]) == "regression"
    assert guess(["['a']", "[]"]) == guess([["a"], []]) == "multi-label"
    assert guess([["a"], "b"]) == "classification"
    assert guess([["O", "B"], ["O"]], [["x", "y"], ["z"]]) == "token-classification"
    assert guess([[{"start": 0, "end": 1, "label": "P"}], []]) == "token-classification"
    assert guess([["O"], ["O"]], [["x", "y"], ["z"]]) == "classification"


def test_one_bad_row_does_not_hide_the_kind(tmp_path: Path) -> None:
    """Else 59 prices and a typing error would be 60 classes."""
    prices = file_of(tmp_path, [*ROWS["regression"], {**ROWS["regression"][0], "price": "cheap"}], "csv")
    with pytest.raises(DataError, match="line 62: the target in column 'price' is 'cheap'"):
        prepared(prices, "body", "price")
    short = file_of(tmp_path, [*ROWS["token-classification"], {"words": ["a", "b"], "ner": ["O"]}])
    with pytest.raises(DataError, match="line 61: column 'words' has 2 tokens and column 'ner' has 1 tag"):
        prepared(short, "words", "ner")


def test_the_columns_of_a_kind_need_not_be_named(tmp_path: Path) -> None:
    rows = [
        dict(zip(("question", "context", "answers"), row.values(), strict=True)) for row in ROWS["question-answering"]
    ]
    path = file_of(tmp_path, rows)
    task = prepared(path, None, None)
    assert task.kind.name == "question-answering"
    assert "'question', 'context'" in task.provenance["kind_because"]
    assert prepared(path, None, None, kind="question-answering").data == task.data
    with pytest.raises(DataError, match="there is no column 'text'"):
        own_task(file_of(tmp_path, ROWS["regression"]))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"kind": "regresion"}, "Did you mean 'regression'"),
        ({"kind": "similarity"}, r"a similarity task reads 2 columns \(first, second\)"),
        ({"kind": "similarity", "text": None}, "without --text; expected the columns of first and second"),
        ({"label": "price,body2", "kind": "regression"}, "one column of labels.*--kind multi-label"),
        ({"label_separator": "|", "kind": "regression"}, "one label a row.*--kind multi-label"),
        ({"label_separator": ""}, "--label-separator '' was given"),
        ({"label": "price,price"}, "several different ones"),
        ({"label": "body"}, "expected different columns"),
        ({"metric": "accuracy"}, "--metric accuracy was given; expected one of rmse.*regression"),
        ({"name": "a b"}, "--name 'a b' was given"),
        ({"max_length": 3}, "--max-length 3 was given"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        own_task(file_of(tmp_path, ROWS["regression"]), **{"text": "body", "label": "price", **options})


# ---- rows


@pytest.mark.parametrize(
    "kind", ["regression", "similarity", "multi-label", "token-classification", "question-answering"]
)
def test_rows_without_a_text_or_a_label_are_left_out_and_change_nothing_else(tmp_path: Path, kind: str) -> None:
    text, label = COLUMNS[kind]
    clean = prepared(file_of(tmp_path, ROWS[kind]), text, label)
    column = text.split(",")[-1]
    first, second, third, *rest = ROWS[kind]
    bad = [{**first, label: None}, {**second, column: "  "}, {**third, label: float("nan"), column: None}]
    path = file_of(tmp_path, [bad[0], first, second, bad[1], bad[2], third, *rest])
    messy = prepared(path, text, label)
    assert messy.provenance["left_out"] == {"no label": 1, "no text": 1, "no text and no label": 1}
    assert (messy.data, messy.test_rows) == (clean.data, clean.test_rows)
    with pytest.raises(DataError, match=r"lines? [0-9, ]+: "):
        prepared(path, text, label, strict=True)


@pytest.mark.parametrize(
    ("kind", "row", "rule"),
    [
        ("regression", {"price": "cheap"}, "line 61: .*'cheap'"),
        ("regression", {"price": float("inf")}, "line 61: the target in column 'price' is inf"),
        ("regression", {"price": True}, "line 61: "),
        ("similarity", {"score": [1]}, "line 61: the target in column 'score' is .*expected a number"),
        ("multi-label", {"tags": [""]}, "line 61: label 1 of"),
        ("multi-label", {"tags": [["x"]]}, "line 61: label 1 of"),
        ("multi-label", {"tags": [7]}, "line 61: column 'tags' holds .*another type"),
        ("multi-label", {"tags": "alpha"}, "line 61: "),
        ("token-classification", {"ner": ["O"]}, "line 61: "),
        ("token-classification", {"words": ["a", None], "ner": ["O", "O"]}, "line 61: "),
        ("question-answering", {"answers": {"text": ["absent"], "answer_start": [0]}}, "line 61: the answer 'absent'"),
    ],
)
def test_rows_that_break_a_rule_are_refused_by_row_before_anything_is_trained(
    tmp_path: Path, kind: str, row: dict[str, Any], rule: str
) -> None:
    text, label = COLUMNS[kind]
    path = file_of(tmp_path, [*ROWS[kind], {**ROWS[kind][0], **row}])
    with pytest.raises(DataError, match=rule):
        prepared(path, text, label, kind=kind)
    with pytest.raises(DataError, match=rule.replace("line 61", "position 60")):
        prepared(pd.DataFrame([*ROWS[kind], {**ROWS[kind][0], **row}]), text, label, kind=kind)


def test_constant_targets_and_empty_label_sets_are_refused(tmp_path: Path) -> None:
    same = file_of(tmp_path, [{**row, "price": 2.5} for row in ROWS["regression"]])
    with pytest.raises(DataError, match=r"every row has the target 2\.5"):
        prepared(same, "body", "price")
    none = file_of(tmp_path, [{**row, "tags": []} for row in ROWS["multi-label"]])
    with pytest.raises(DataError, match="no row has a label in column 'tags'"):
        prepared(none, "body", "tags")
    with pytest.raises(DataError, match=r"none of its rows has a value in the columns 'body' and 'price'"):
        prepared(file_of(tmp_path, [{"body": "x", "price": None}]), "body", "price", kind="regression")


def test_labels_of_one_row_and_few_numbers_are_noted(tmp_path: Path) -> None:
    rows = [*ROWS["multi-label"], {"body": "odd one", "tags": ["Alpha", "rare"]}]
    (alike, once) = prepared(file_of(tmp_path, rows), "body", "tags").provenance["warnings"]
    assert "'Alpha' (1)" in alike
    assert "differ only in case" in alike
    assert "2 labels in a single row: 'Alpha', 'rare'" in once
    wrong = [{**row, "tags": "|".join(row["tags"]) or "none"} for row in rows[:-1]]
    separated = prepared(file_of(tmp_path, wrong, "csv"), "body", "tags", label_separator=",")
    assert "every row exactly one label" in separated.provenance["warnings"][0]
    flags = [{"body": f"text {at}", "x": at % 2, "y": at % 3 == 0, "z": 0} for at in range(30)]
    (never,) = prepared(pd.DataFrame(flags), "body", "x,y,z").provenance["warnings"]
    assert "no row has a 1 in column 'z'" in never
    stars = [{"body": row["body"], "stars": at % 5} for at, row in enumerate(ROWS["regression"])]
    (few,) = prepared(file_of(tmp_path, stars), "body", "stars", kind="regression").provenance["warnings"]
    assert "5 different whole numbers, from 0 to 4" in few
    assert "kind='classification'" in as_caller_spells(few)


# ---- the held-out test


def test_a_single_group_is_held_out_as_a_single_class() -> None:
    texts = [f"text  {at % 30}" for at in range(50)]
    np.testing.assert_array_equal(hold_out_groups(texts, [0] * 50), hold_out(texts, [""] * 50))


def test_numbers_are_held_out_over_their_whole_range() -> None:
    draw = np.random.default_rng(1)
    numbers = draw.exponential(size=400)
    texts = [f"text {at}" for at in range(400)]
    held = hold_out_numbers(texts, numbers.tolist())
    assert held.sum() == 100
    edges = np.quantile(numbers, [0, 0.2, 0.4, 0.6, 0.8, 1])
    assert [int(held[(numbers >= low) & (numbers <= high)].sum()) for low, high in itertools.pairwise(edges)] == [
        20
    ] * 5
    order = draw.permutation(400)
    again = hold_out_numbers([texts[at] for at in order], numbers[order].tolist())
    np.testing.assert_array_equal(again, held[order])


@pytest.mark.parametrize("most_work", [held_out._MOST_WORK, 0])
def test_each_label_is_held_out_in_its_share(most_work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "_MOST_WORK", most_work)
    draw = np.random.default_rng(2)
    flags = draw.random((600, 8)) < np.linspace(0.02, 0.5, 8)
    sets = [[f"label {at}" for at in np.flatnonzero(row)] for row in flags]
    texts = [f"text {at}" for at in range(600)]
    held = hold_out_label_sets(texts, sets)
    assert abs(held.mean() - 0.25) < 0.01
    for column in flags.T:
        assert abs(held[column].sum() - 0.25 * column.sum()) <= (1 if most_work else 0.08 * column.sum() + 1)
    order = draw.permutation(600)
    np.testing.assert_array_equal(
        hold_out_label_sets([texts[at] for at in order], [sets[at] for at in order]), held[order]
    )


_TEXTS = st.sampled_from(["", " ", *"abcdefgh", "a  b", "a b"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(_TEXTS, st.sampled_from([None, "", "x", [], ["x"], ["x", "y"], ["z", "y"], "['x']"])), max_size=25
    )
)
def test_any_table_of_label_sets_is_refused_plainly_or_splits_cleanly(
    tmp_path: Path, rows: list[tuple[str, Any]]
) -> None:
    try:
        task = prepared(
            file_of(tmp_path, [{"t": text, "l": labels} for text, labels in rows]), "t", "l", kind="multi-label"
        )
    except DataError:
        return
    usable = {overlap_key(text) for text, labels in rows if text.strip() and labels is not None}
    train, test = ({overlap_key(text) for text in source.texts} for source in (task.train, task.test))
    assert (train & test, train | test) == (set(), usable)
    assert task.train_labels.any(axis=0).all()  # every label is learnt
    assert len(task.test_labels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_TEXTS, st.sampled_from([None, "", 1, 2.5, "3", "-1e3", "x", 7, float("nan")])), max_size=25))
def test_any_table_of_numbers_is_refused_plainly_or_splits_cleanly(tmp_path: Path, rows: list[tuple[str, Any]]) -> None:
    try:
        task = prepared(
            file_of(tmp_path, [{"t": text, "l": str(n) if isinstance(n, float) else n} for text, n in rows]),
            "t",
            "l",
            kind="regression",
        )
    except DataError:
        return
    train, test = ({overlap_key(text) for text in source.texts} for source in (task.train, task.test))
    assert not train & test
    assert np.isfinite(task.train_labels).all()
    assert np.isfinite(task.test_labels).all()
    assert (
        Counter(task.provenance.get("left_out", {})).total()
        == len(rows) - task.provenance["n_rows"]["train"] - task.provenance["n_rows"]["test"]
    )


# ---- the command line


def test_the_command_line_says_the_kind_that_it_guessed(tmp_path: Path) -> None:
    path = file_of(tmp_path, ROWS["regression"])
    shared = ("--data", path, "--text", "body", "--label", "price", "--methods", "majority", "--no-probe")
    said = run_cli("plan", *shared, cwd=tmp_path)
    assert "Kind: regression, since every 'price' is a number and some have a fraction; --kind names another." in said


def test_kinds_whose_models_cannot_be_saved_are_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    path = file_of(tmp_path, [{"de": f"Satz {at}", "en": f"sentence {at}"} for at in range(60)])
    columns = ("--kind", "translation", "--text", "de", "--label", "en")
    said = run_cli("choose", "--data", path, *columns, "--within", "60s", "--save", "model", cwd=tmp_path, code=2)
    assert "a task of the kind 'translation', for which choose has no search" in said
    assert not (tmp_path / "model").exists()


def test_values_of_another_kind_point_to_that_kind(tmp_path: Path) -> None:
    for data in (pd.DataFrame(ROWS["regression"]), file_of(tmp_path, ROWS["regression"])):
        with pytest.raises(DataError, match="use --kind regression, or --kind similarity"):
            own_task(data, "body", "price", kind="classification")
    with pytest.raises(DataError, match="for --kind token-classification"):
        own_task(file_of(tmp_path, ROWS["token-classification"]), "words", "ner", kind="classification")
