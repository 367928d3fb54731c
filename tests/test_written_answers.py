"""Answers that a language model writes: numbers, label sets, tags and parts of a text, plain or as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.methods import methods
from harness.support.errors import UnreadableError
from harness.tasks import Rows, Source, TextAnswers, Unscaled, kinds
from harness.tasks._label_answers import is_plain, read_labels
from harness.tasks._number_answers import in_digits, read_number
from harness.tasks.question_answering import read_span
from harness.testing.laboratory import lab
from harness.training.generative import GenerativeModel

NAMES = ("joy", "great joy", "anger", "c++", "neutral")


def rows_of(labels: Any = None, **fields: list[Any]) -> Rows:
    n_rows = len(next(iter(fields.values())))
    texts = [str(value) for value in next(iter(fields.values()))]
    return Rows(Source("toy/test", texts, fields), np.arange(n_rows), labels)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        (" -5.25.", -5.25),
        ("Number:-5", -5),
        ("\u22125", -5),
        ("minus 3", -3),
        ("- 5", 5),  # a list
        ("1,234.5", 1234.5),
        ("about 1,234,567 euros", 1234567),
        ("1.5E+3 m", 1500),
        ("1e-5", 1e-5),
        ("9" * 15, 1e15 - 1),
        ("3.14159265358979323846", 3.141592653589793),
        ("$1,234.50", 1234.5),
        ("4 out of 5", 4),
        ("5kg", 5),
        ("45%", 45),
        ("On 2024-05-01 it was 5", 5),
        ('{"number": 4.5}', 4.5),
        ('{"number": "1,000"}', 1000),
        ('```json\n{"number": 4.5}\n```', 4.5),
        ('Sure: {"number": -2} as asked', -2),
        ("```\n7\n```", 7),
    ],
)
def test_the_first_number_is_read(written: str, value: float) -> None:
    assert read_number(written) == value


@pytest.mark.parametrize(
    "written",
    [
        *("", "none", "nan", "twelve", "2024-05-01", "10/5/2024", "12:30", "3-4", "4/5", "4 / 5", "10k", "5M", "3rd"),
        *("1.234,5", "1,5", "1,00,000", "1.234.567", "1 234 567", "1'234", "1.5 million", "1.2 x 10^3", "H2O", "v2.5"),
        *("1e999", "1e40", '{"number": NaN}', '{"number": true}', '{"number": null}', "is,-5"),
        *("1" * 16, "-4" + "3" * 15 + ".5", "1,000,000,000,000,000", '{"number": 1000000000000000}'),
    ],
)
def test_what_may_be_another_number_is_not_read(written: str) -> None:
    assert read_number(written) is None


@given(st.floats(-1e30, 1e30, allow_nan=False))
@example(1234567.89)
@example(1e-10)
@example(-0.00012345678)
@example(2.0**40)
@example(1e15 - 0.125)
def test_a_number_in_words_is_read_as_the_same_number(value: float) -> None:
    read = read_number(in_digits(value))
    assert read is not None
    assert abs(read - value) <= 5.1e-6 * abs(value)
    assert float(value).is_integer() is False or abs(value) >= 1e15 or read == value


def test_unreadable_numbers_are_the_median_of_the_demonstrations_or_the_middle_of_the_scale() -> None:
    rows = rows_of(text=["a", "b", "c"])
    regression, similarity = kinds.get("regression"), kinds.get("similarity")
    found, n_unread = regression.read_replies(["1", "no idea", "2"], rows, (), ["10", "30", "1,000"])
    assert (found.tolist(), n_unread) == ([[1], [30], [2]], 1)
    found, n_unread = regression.read_replies(["1", "no idea", "2"], rows, ())
    assert (found.tolist(), n_unread) == ([[1], [0], [2]], 1)
    found, n_unread = similarity.read_replies(["1", "no idea", "2"], rows, ())
    assert isinstance(found, Unscaled)
    assert (found.values.tolist(), n_unread) == ([1, 2.5, 2], 1)
    found, _ = similarity.read_replies(["1", "no idea", "2"], rows, (), ["0.2", "0.4"])  # on the target's own scale
    assert found[1, 0] == pytest.approx(0.3)
    with pytest.raises(UnreadableError, match="no number in 2 of 3 answers, such as 'no idea'"):
        regression.read_replies(["1", "no idea", "none"], rows, ())
    found, n_unread = regression.read_replies(["x", "no idea", "none"], rows, (), ["4"])
    assert (found.tolist(), n_unread) == ([[4]] * 3, 3)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("joy, anger", ["joy", "anger"]),
        ("Great Joy", ["great joy"]),  # and not `joy`, which is a part of it
        ("great joy and joy.", ["great joy", "joy"]),
        ("- joy\n- c++\n\nText: anger", ["joy", "c++"]),
        ("The labels are:\njoy", ["joy"]),
        ("joy\nText: I am angry\nLabels: anger", ["joy"]),
        ("joy, bliss", ["joy"]),
        ('["joy", "ANGER", "bliss"]', ["joy", "anger"]),
        ('```json\n{"labels": ["neutral"]}\n```', ["neutral"]),
        ('{\n "labels": [\n  "joy"\n ]\n}', ["joy"]),
        ("none", []),
        ("None.", []),
        ("[]", []),
        ('{"labels": []}', []),
        ("bliss", None),
        ("enjoyment", None),
        ("", None),
        ('["bliss"]', None),
    ],
)
def test_labels_are_read_whole_and_the_longest_first(written: str, expected: list[str] | None) -> None:
    found = read_labels(written, NAMES)
    assert (None if found is None else {NAMES[at] for at in found}) == (None if expected is None else set(expected))


name = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(str.strip)
words = st.lists(
    st.sampled_from(["a", "b", "a b", "a, b", "none", "None", "b a", "-a", "1. a", "[a]", '"']), min_size=1
)


@given(st.data(), st.lists(name, min_size=2, max_size=5, unique=True) | words)
def test_a_set_in_words_is_read_as_the_same_set(data: st.DataObject, names: list[str]) -> None:
    names = list(dict.fromkeys(names))
    flags = np.array([data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))], dtype=np.uint8)
    kind = kinds.get("multi-label")
    rows = rows_of(flags, text=["x"])
    [written] = kind.in_words(rows, names)
    scores, n_unread = kind.read_replies([written], rows, names)
    assert n_unread == 0
    assert np.array_equal(scores, flags)


def test_names_that_commas_would_confuse_are_asked_for_as_json() -> None:
    assert is_plain(NAMES)
    for names in (("a", "b", "a, b"), ("none", "b"), ("Joy", "joy"), (" a", "b")):
        assert not is_plain(names)
        asked = kinds.get("multi-label").question(names)
        assert asked is not None
        assert "JSON list" in asked[0]
        assert json.dumps(list(names)) in asked[0]


@pytest.mark.parametrize(
    ("written", "expected", "is_part"),
    [
        ("the Eiffel Tower", "the Eiffel  Tower", True),
        ('"Eiffel Tower".', "Eiffel  Tower", True),
        ("paris.", "Paris", True),
        ("U.S.", "U.S.", True),
        ('{"answer": "Paris"}', "Paris", True),
        ("```\nParis\n```", "Paris", True),
        ("Berlin.", "Berlin.", False),
        ("", "", False),
    ],
)
def test_a_span_is_read_as_its_context_spells_it(written: str, expected: str, is_part: bool) -> None:
    assert read_span(written, "Visit the Eiffel  Tower in Paris, not the U.S.") == (expected, is_part)


def test_answers_outside_of_their_context_are_counted() -> None:
    rows = rows_of(question=["q", "q"], context=["in Paris", "in Rome"])
    found, n_unread = kinds.get("question-answering").read_replies(["Paris.", "Paris."], rows, ())
    assert isinstance(found, TextAnswers)
    assert (list(found.texts), n_unread) == (["Paris", "Paris."], 1)


@pytest.mark.parametrize(
    ("kind", "names", "value"),
    [
        ("regression", (), {"number": -2.5}),
        ("similarity", (), {"number": 3}),
        ("multi-label", NAMES, {"labels": ["joy", "c++"]}),
        ("multi-label", NAMES, {"labels": []}),
        ("token-classification", ("O", "B-LOC", "I-LOC"), {"entities": [{"type": "LOC", "text": "New York"}]}),
        ("token-classification", ("O", "B-LOC", "I-LOC"), {"entities": []}),
        ("question-answering", (), {"answer": "New York"}),
    ],
)
@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "Here it is: {}"])
def test_answers_of_a_schema_are_read(kind: str, names: tuple[str, ...], value: dict[str, Any], form: str) -> None:
    asked = kinds.get(kind)
    schema = asked.schema(names)
    assert schema is not None
    jsonschema.validate(value, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)
    if kind in ("multi-label", "token-classification"):
        strange = {"labels": ["x"], "entities": [{"type": "x", "text": "y"}]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: strange[key] for key in value}, schema)
    fields = {"tokens": [("in", "New", "York")], "context": ["in New York"], "text": ["x"]}
    rows = rows_of(**fields)
    for indent in (None, 2):
        written = form.format(json.dumps(value, indent=indent))
        found, n_unread = asked.read_replies([written], rows, names, ["1"])
        assert n_unread == 0
        if kind == "multi-label":
            assert {names[at] for at in np.flatnonzero(found[0])} == set(value["labels"])
        elif kind == "token-classification":
            tags = [names[at] for at in found.argmax(axis=1)]
            assert tags == (["O", "B-LOC", "I-LOC"] if value["entities"] else ["O"] * 3)
        elif kind == "question-answering":
            assert list(found.texts) == ["New York"]
        else:
            assert found.tolist() == [[value["number"]]]


@pytest.mark.parametrize("kind", ["classification", "multiple-choice", "translation", "generation"])
def test_other_kinds_have_no_schema(kind: str) -> None:
    assert kinds.get(kind).schema(("a", "b")) is None


@pytest.mark.parametrize("kind", ["regression", "similarity", "multi-label"])
@pytest.mark.parametrize("name", ["zero-shot", "few-shot"])
def test_a_prompt_answers_with_what_it_writes(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = lab().task(kinds.get(kind))
    right = task.kind.in_words(Rows(task.test, np.arange(48), task.test_labels), task.label_names)
    asked = []

    def answer(model: Any, prompts: Any, bench: Any, precision: str, shared: Any = None) -> TextAnswers:
        asked.append(bench.reply.max_new_tokens)
        return TextAnswers([*right[:-1], "no idea"])

    monkeypatch.setattr(GenerativeModel, "answer", answer)
    bench = lab().bench(task, lab().backbone("causal"))
    method = methods.get(name)()
    fitted = method.fit(lab().rows(task, 8 if name == "few-shot" else 0), bench)
    answers = fitted.predict(task.test_rows_to_predict, bench)
    task.kind.check(task, answers, 48)
    assert isinstance(answers, Unscaled) == ((kind, name) == ("similarity", "zero-shot"))
    assert bench.ledger.remarks["unreadable_answers"] == "1 of 48"
    assert ("scores" in bench.ledger.remarks) == (kind == "multi-label")
    measured = {"regression": "mae", "similarity": "spearman", "multi-label": "micro_f1"}[kind]
    scored = dataclasses.replace(task, spec=task.spec.model_copy(update={"metric": measured}))
    assert (task.kind.measure(scored, answers, task.test_labels) < 0.6) == (kind == "regression")
    template = method.wording(bench).template
    assert ("from 0 to 5" in template) == ((kind, name) == ("similarity", "zero-shot"))


def test_errors_in_the_targets_units_need_a_stated_scale() -> None:
    files = lab().backbone("causal")
    zero, few = (methods.get(name)() for name in ("zero-shot", "few-shot"))
    task = lab().task(kinds.get("similarity"), metric="rmse")
    assert "from 0 to 5; 'rmse' is in the units of the target" in str(zero.why_not(task, files, "cpu"))
    assert few.why_not(task, files, "cpu") is None
    worded = lab().task(kinds.get("similarity"), metric="rmse", prompt="{first} and {second}, from 0 to 5:")
    assert zero.why_not(worded, files, "cpu") is None
    assert zero.why_not(lab().task(kinds.get("similarity")), files, "cpu") is None
    assert zero.why_not(lab().task(kinds.get("regression")), files, "cpu") is None
