"""Predictions as columns of a table: the class, its probability, and the probabilities of other classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.support import UsageError, plain, text
from harness.tasks import Floats

PREDICTION = "prediction"
PROBABILITY = "probability"


def class_columns(labels: Sequence[str]) -> dict[str, str]:
    """Return the column that holds the probability of each class, by class: `probability_billing` for `billing`.

    A name is one line without control characters, and no two are equal: a repeated one gets a number (`.1`).
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        name = f"{PROBABILITY}_{plain(label)}"
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


def prediction_columns(labels: Sequence[str], *, probabilities: bool = False, top: int | None = None) -> list[str]:
    """Return the names of the columns that `tabulate_predictions` makes, in their order."""
    names = [PREDICTION, PROBABILITY]
    for place in range(1, (top or 0) + 1):
        names += [f"top_{place}", f"top_{place}_{PROBABILITY}"]
    return [*names, *class_columns(labels).values()] if probabilities else names


def tabulate_predictions(
    found: Floats, labels: Sequence[str], *, probabilities: bool = False, top: int | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Return columns of predictions, one value per text: classes as texts (objects), probabilities as float32.

    Args:
        found: probability of each class for each text, shape (texts, classes).
        labels: names of the classes.
        probabilities: whether to add a column per class.
        top: number of most probable classes to add, with their probabilities; classes that tie keep the order of
            `labels`, as in the prediction itself.

    Raises:
        UsageError: `top` is not from 1 to the number of classes.
    """
    names = np.array(labels, dtype=object)
    rows = np.arange(len(found))
    order = found.argmax(axis=1)[:, None]
    if top is not None:
        check_top(top, labels)
        order = np.argsort(-found, axis=1, kind="stable")[:, :top]
    ranked = [array for place in order.T for array in (names[place], found[rows, place])]
    columns = [*ranked[:2], *(ranked if top is not None else []), *(found.T if probabilities else [])]
    return dict(zip(prediction_columns(labels, probabilities=probabilities, top=top), columns, strict=True))
