"""Predictions as columns of a table: a class, its probability and those of others; a number; labels; or tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.support import UsageError, plain, text
from harness.tasks import Floats

PREDICTION = "prediction"
PROBABILITY = "probability"
WORDS = "words"
"""Column of the words that tags belong to: a text is split into them."""

GIVEN_FROM = 0.5
"""Score from which a label is given."""

_DIGITS = 7
"""Significant digits of a predicted number, as many as float32 has."""


def class_columns(labels: Sequence[str], form: str = "classes") -> dict[str, str]:
    """Return the column that holds the probability of each class, by class: `probability_billing` for `billing`.

    For label sets it holds each label's score, `score_billing`, which is no probability: it is moved so that the
    threshold is 0.5.

    A name is one line without control characters, and no two are equal: a repeated one gets a number (`.1`).
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        name = f"{'score' if form == 'labels' else PROBABILITY}_{plain(label)}"
        unique, number = name, 0
        while unique in taken:
            number += 1
            unique = f"{name}.{number}"
        taken.add(unique)
        found[label] = unique
    return found


def check_top(top: int, labels: Sequence[str]) -> None:
    """Refuse to list more classes than there are, or none.

    Raises:
        UsageError: `top` is not from 1 to the number of classes.
    """
    if not 1 <= top <= len(labels):
        raise UsageError(
            f"--top {top} was given; expected a number from 1 to {len(labels)}, since the model has "
            f"{text.counted(len(labels), 'class', 'classes')}."
        )


def check_asked(form: str, *, probabilities: bool, top: int | None) -> None:
    """Refuse columns that answers of a form do not have.

    Raises:
        UsageError: `top` for answers other than classes, or probabilities of numbers or tags.
    """
    if top is not None and form != "classes":
        raise UsageError(f"--top {top} was given; only a model of classes ranks them.")
    if probabilities and form not in ("classes", "labels"):
        none = {"number": "a number has none", "text": "a text has none", "tags": "each word has its own"}
        what = none.get(form, "each row has its own")
        raise UsageError(f"--probabilities was given, and the model predicts {_ANSWERS[form]}: {what}. Leave it out.")


_ANSWERS = {
    **{"classes": "classes", "choices": "choices", "spans": "parts of the context"},
    **{"number": "numbers", "labels": "labels", "tags": "tags of words"},
    "text": "texts",
}
"""Answers of a saved model in words, by form."""


def prediction_columns(
    labels: Sequence[str], *, form: str = "classes", probabilities: bool = False, top: int | None = None
) -> list[str]:
    """Return the names of the columns that `tabulate_predictions` makes, in their order."""
    names = [PREDICTION]
    if form in ("classes", "choices", "spans"):
        names.append(PROBABILITY)
    if form == "tags":
        names.append(WORDS)
    for place in range(1, (top or 0) + 1):
        names += [f"top_{place}", f"top_{place}_{PROBABILITY}"]
    return [*names, *class_columns(labels, form).values()] if probabilities else names


def answers_in_words(found: Any, labels: Sequence[str], form: str, inputs: Sequence[Any] = ()) -> list[Any]:
    """Return one answer per row: a class, a choice, a text or a part of one, a number, a list of labels or of tags.

    Args:
        found: answers of the method: shape (rows, classes), (rows, choices), (rows, 1), (rows, labels), or (words of
            all rows, tags); for spans, the text and the confidence of each row, NaN if unknown; for texts, shape
            (rows, 1).
        labels: names of the classes, labels or tags.
        form: form of the answers.
        inputs: inputs of the rows: for choices pairs of a question and its choices, for tags lists of words.
    """
    if form in ("spans", "text"):
        return [str(text) for text in found[:, 0]]
    if form == "choices":
        return [choices[at] for (_, choices), at in zip(inputs, found.argmax(axis=1), strict=True)]
    if form == "number":
        return [float(f"{float(value):.{_DIGITS}g}") for value in found[:, 0]]
    if form == "labels":
        return [[labels[int(at)] for at in np.flatnonzero(row >= GIVEN_FROM)] for row in found]
    best = [labels[at] for at in found.argmax(axis=1)]
    if form != "tags":
        return best
    lengths = [len(words) for words in inputs]
    ends = np.cumsum(lengths)
    return [best[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def tabulate_predictions(
    found: Floats,
    labels: Sequence[str],
    *,
    form: str = "classes",
    inputs: Sequence[Any] = (),
    probabilities: bool = False,
    top: int | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Return columns of predictions, one value per text: answers as objects or numbers, probabilities as float32.

    Args:
        found: answers of the method, such as the probability of each class for each text, shape (texts, classes).
        labels: names of the classes, labels or tags.
        form: form of the answers.
        inputs: inputs of the rows, as for `answers_in_words`.
        probabilities: whether to add a column per class or label.
        top: number of most probable classes to add, with their probabilities; classes that tie keep the order of
            `labels`, as in the prediction itself.

    Raises:
        UsageError: `top` is not from 1 to the number of classes.
    """
    names = prediction_columns(labels, form=form, probabilities=probabilities, top=top)
    if form != "classes":
        answers = answers_in_words(found, labels, form, inputs)
        column = np.array(answers) if form == "number" else np.fromiter(answers, dtype=object, count=len(answers))
        return dict(zip(names, [column, *_beside(found, form, inputs, probabilities)], strict=True))
    classes = np.array(labels, dtype=object)
    rows = np.arange(len(found))
    order = found.argmax(axis=1)[:, None]
    if top is not None:
        check_top(top, labels)
        order = np.argsort(-found, axis=1, kind="stable")[:, :top]
    ranked = [array for place in order.T for array in (classes[place], found[rows, place])]
    columns = [*ranked[:2], *(ranked if top is not None else []), *(found.T if probabilities else [])]
    return dict(zip(names, columns, strict=True))


def _beside(found: Any, form: str, inputs: Sequence[Any], probabilities: bool) -> list[npt.NDArray[Any]]:
    """Return the columns beside the answers of other forms than classes."""
    if form == "tags":
        return [np.fromiter(map(list, inputs), dtype=object, count=len(inputs))]
    if form == "choices":
        return [found.max(axis=1) if len(found) else np.zeros(0, dtype=np.float32)]
    if form == "spans":
        return [found[:, 1].astype(np.float32)]
    return list(found.T) if probabilities else []
