"""Folds of a task: tasks made of its training rows, some to fit on and some to validate on, without its test rows."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from harness.data import cap_test_rows, drop_overlap, order_fingerprint, overlap_key, row_digests, training_order
from harness.tasks import Ints, Task

PERIOD: Final = 5
"""Number of parts that each class is dealt into; one part validates in a fold."""

_VALIDATION_CAP: Final = 1000
"""Maximum number of validation rows of a fold: two methods that so many cannot tell apart differ by little."""

_LEAST_CAP = 300
_ROWS_A_SECOND = 2.5
"""Validation rows per second of the search: each method that trains inside the transformer reads them anew."""


def validation_cap(within: float) -> int:
    """Return the maximum number of validation rows of a fold in a search of so many seconds."""
    return int(min(_VALIDATION_CAP, max(_LEAST_CAP, _ROWS_A_SECOND * within)))


_FOLDS: Final = ((400, 5), (1500, 3))
"""Numbers of folds up to a number of training rows: few rows tell little, and are quickly fitted again."""


def n_folds(n_train: int) -> int:
    """Return how many folds are worth their time."""
    return next((n for most, n in _FOLDS if n_train <= most), 1)


def validation_folds(task: Task, cap: int = _VALIDATION_CAP) -> list[Task]:
    """Return the folds of a classification task, as tasks whose test rows are validation rows.

    Texts of a class are dealt to the folds in turn, all copies of one together, in an order that follows from their
    content. One text of a class with fewer texts than folds is always trained on. Rows with the text of a validation
    row are not trained on; rows beyond the cap are.

    Args:
        task: a classification task.
        cap: maximum number of validation rows of a fold.
    """
    order = training_order(task.train_strata, task.train_digests, 0, "stratified")
    keys = [overlap_key(task.train.texts[int(row)]) for row in task.pool_index]
    dealt: dict[str, int] = {}  # a text's fold; a text with two labels goes by the first
    groups = task.kind.validation_groups(task.train_strata)
    for group in np.unique(groups):
        members = order[groups[order] == group]
        texts = [key for key in dict.fromkeys(keys[row] for row in members) if key not in dealt]
        dealt |= {key: rank % PERIOD if len(texts) >= PERIOD else rank - 1 for rank, key in enumerate(texts)}
    fold = np.array([dealt[key] for key in keys], dtype=np.int64)
    return [_fold(task, fold, k, cap) for k in range(n_folds(len(dealt))) if (fold == k).any()]


def _fold(task: Task, fold: Ints, k: int, cap: int) -> Task:
    outside = np.flatnonzero(fold == k).astype(np.int64)
    capped = cap_test_rows([task.train_digests[int(row)] for row in outside], cap)
    validates = outside[capped]
    inside = np.setdiff1d(np.arange(len(fold), dtype=np.int64), validates)
    keep, _ = drop_overlap(_texts(task, inside), _texts(task, validates))
    # A class whose every text is among the validation rows (under another label) would be gone from training.
    lost = np.setdiff1d(task.train_strata[inside], task.train_strata[inside[keep]])
    fits = inside[keep | np.isin(task.train_strata[inside], lost)]
    data = hashlib.sha256(f"{task.data}/validation {k} of {PERIOD}, texts, at most {cap}".encode()).hexdigest()
    return dataclasses.replace(
        task,
        spec=task.spec.model_copy(update={"name": f"{task.name}-validation-{k}"}),
        data=data,
        train_index=task.pool_index[fits],
        train_labels=task.train_labels[fits],
        train_strata=task.train_strata[fits],
        train_digests=[task.train_digests[row] for row in fits],
        test=task.train,  # the same split: texts encoded for one fold serve the others, and the last fit
        test_index=task.pool_index[validates],
        test_labels=task.train_labels[validates],
        test_rows=order_fingerprint(task.train_digests[row] for row in validates),
        n_test_available=len(outside),
        provenance={**task.provenance, "validation_fold": k, "n_pool": len(fits)},
    )


def _texts(task: Task, rows: Ints) -> list[str]:
    return [task.train.texts[int(row)] for row in task.pool_index[rows]]


_CHECKED_ROWS: Final = 200
"""Maximum number of rows that the fit to all rows predicts: a fit that went wrong shows on rows that it learned."""


def with_test_rows(task: Task) -> Task:
    """Return a task that trains on all rows: the training rows and the test rows, which it must not be scored on.

    Its test rows are some of these rows. A score on them tells only whether the fit went wrong.
    """
    rows = task.test_rows_to_predict.index
    texts = [*_texts(task, np.arange(len(task.train_labels))), *(task.test.texts[int(row)] for row in rows)]
    labels = np.concatenate([task.train_labels, task.test_labels])
    strata = labels if task.has_classes else task.kind.strata(labels, task.label_names)
    train = dataclasses.replace(
        task.train,
        key=f"{task.data}/all rows",
        texts=texts,
        fields={role: _both(task, values, task.test.fields[role]) for role, values in task.train.fields.items()},
        prompts=None if task.train.prompts is None else _both(task, task.train.prompts, task.test.prompts or ()),
    )
    checked = np.arange(len(task.train_labels), len(labels), dtype=np.int64)[:_CHECKED_ROWS]
    names = [*task.train_digests, *row_digests([task.test.texts[int(row)] for row in rows], task.test_labels.tolist())]
    return dataclasses.replace(
        task,
        data=hashlib.sha256(f"{task.data}/with its test rows".encode()).hexdigest(),
        train=train,
        train_index=None,
        train_labels=labels,
        train_strata=strata.astype(np.int64),
        train_digests=names,
        test=train,
        test_index=checked,
        test_labels=labels[checked],
        test_rows=order_fingerprint(names[int(row)] for row in checked),
        n_test_available=len(checked),
        provenance={**task.provenance, "n_pool": len(labels), "trained_on_test_rows": len(rows)},
    )


def _both(task: Task, trained: Sequence[Any], tested: Sequence[Any]) -> list[Any]:
    """Return the values of the pool and of the test rows."""
    return [
        *(trained[int(row)] for row in task.pool_index),
        *(tested[int(row)] for row in task.test_rows_to_predict.index),
    ]
