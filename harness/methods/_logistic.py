"""Logistic regression whose regularisation is chosen on the training labels alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat

from harness.backbones import BackboneFiles
from harness.data import folds
from harness.methods._answers import ClassWeights, read_state, why_no_class_weights, why_no_threshold
from harness.methods._label_logistics import (
    SCIKIT_LEARN_WEIGHTS,
    LabelLogistics,
    choose_for_labels,
    fit_label_logistics,
)
from harness.methods._ridge import Ridge, choose_ridge_penalty, fit_ridge
from harness.methods.base import Method
from harness.methods.bench import Bench
from harness.methods.restoring import Expected, check_tensors
from harness.tasks import Floats, Ints, Rows, words_of
from harness.training import balanced_weights


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted logistic regression.

    Attributes:
        weights: shape (classes, features); rows of unseen classes are 0, and their bias is very low.
        bias: shape (classes,).
        n_iterations: number of iterations of the solver.
    """

    weights: Floats
    bias: Floats
    n_iterations: int

    def probabilities(self, features: Any) -> Floats:
        """Return probabilities of shape (rows, classes); `features` is dense or sparse, shape (rows, features).

        For choices, shape (rows, choices, features), the softmax is over the choices that a row has.
        """
        if features.ndim == 3:
            return _softmax_of_choices(features @ self.weights[0])
        logits = np.asarray(features @ self.weights.T) + self.bias
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


_UNSEEN_BIAS = -30.0

_FOLDS_OF_WORDS = 3
"""Maximum number of folds where the rows of a regression are words: there are many, and each fit takes seconds."""

_FOLDS_OF_THRESHOLD = 2
"""Maximum number of folds where only a threshold is to be chosen."""

_SPARSE_ITERATIONS = 50
"""Rough number of iterations of the solver of a ridge regression on sparse features."""


def fit_logistic(
    features: Any,
    labels: Ints,
    n_classes: int,
    inverse_penalty: float,
    start: Logistic | None = None,
    *,
    class_weights: ClassWeights = "none",
) -> Logistic:
    """Fit a multinomial (two classes: binomial) logistic regression with an L2 penalty, by scikit-learn's L-BFGS.

    Args:
        features: dense or sparse, shape (rows, features); for choices, shape (rows, choices, features), with NaN
            where a row has fewer.
        labels: class indices, or the index of the right choice, shape (rows,).
        n_classes: number of classes of the task; classes without rows are never predicted.
        inverse_penalty: scikit-learn's C.
        start: solution for a neighbouring penalty, to start from.
        class_weights: weights of the rows of a class.
    """
    if features.ndim == 3:
        return _fit_choices(features, labels, inverse_penalty, start)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(labels)
    weights = np.zeros((n_classes, features.shape[1]), dtype=np.float32)
    bias = np.full(n_classes, _UNSEEN_BIAS, dtype=np.float32)
    if len(seen) == 1:
        bias[seen] = 0.0
        return Logistic(weights, bias, 0)
    model = LogisticRegression(
        C=inverse_penalty,
        max_iter=1000,
        tol=1e-4,
        warm_start=start is not None,
        class_weight=SCIKIT_LEARN_WEIGHTS[class_weights],
    )
    if start is not None:
        model.classes_ = seen
        if len(seen) == 2:
            model.coef_ = (start.weights[seen[1]] - start.weights[seen[0]])[None, :].astype(features.dtype)
            model.intercept_ = np.array([start.bias[seen[1]] - start.bias[seen[0]]], dtype=features.dtype)
        else:
            model.coef_ = start.weights[seen].astype(features.dtype)
            model.intercept_ = start.bias[seen].astype(features.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, labels)
    if len(seen) == 2:  # scikit-learn has one row for two classes: half with each sign gives equal probabilities
        weights[seen] = np.stack([-model.coef_[0] / 2, model.coef_[0] / 2])
        bias[seen] = np.array([-model.intercept_[0] / 2, model.intercept_[0] / 2])
    else:
        weights[seen] = model.coef_
        bias[seen] = model.intercept_
    return Logistic(weights, bias, int(np.max(model.n_iter_)))


def _fit_choices(features: Floats, labels: Ints, inverse_penalty: float, start: Logistic | None = None) -> Logistic:
    """Fit a conditional logistic regression (McFadden, 1974): one weight vector, a softmax over each row's choices.

    Like scikit-learn, it minimises C times the sum of the rows' log losses plus half the squared length of the
    weights, by scipy's L-BFGS. There is no bias: it would be the same for all choices.

    Args:
        features: shape (rows, choices, features), with NaN where a row has fewer choices.
        labels: index of the right choice, shape (rows,).
        inverse_penalty: C.
        start: solution for a neighbouring penalty, to start from.
    """
    from scipy.optimize import minimize

    values = np.nan_to_num(features).astype(np.float64)
    missing = np.isnan(features[..., 0])
    rows = np.arange(len(labels))

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        probabilities = _softmax_of_choices(np.where(missing, np.nan, values @ weights)).astype(np.float64)
        right = np.clip(probabilities[rows, labels], 1e-12, 1.0)
        probabilities[rows, labels] -= 1.0
        gradient = inverse_penalty * np.einsum("rc,rcf->f", probabilities, values) + weights
        return float(-inverse_penalty * np.log(right).sum() + 0.5 * weights @ weights), gradient

    first = np.zeros(features.shape[2]) if start is None else start.weights[0].astype(np.float64)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return Logistic(found.x.astype(np.float32)[None, :], np.zeros(1, dtype=np.float32), int(found.nit))


def _softmax_of_choices(scores: npt.NDArray[Any]) -> Floats:
    """Return probabilities over the choices of each row, 0 where the score is NaN; shape (rows, choices)."""
    shifted = np.exp(np.nan_to_num(scores - np.nanmax(scores, axis=1, keepdims=True), nan=-np.inf))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True)
class _ChosenPenalty:
    """The chosen penalty and the work of choosing it.

    Attributes:
        inverse_penalty: scikit-learn's C.
        n_iterations: iterations of the solver over all rows; one on a part of the rows counts as that part.
    """

    inverse_penalty: float
    n_iterations: float


def choose_penalty(
    features: Any,
    labels: Ints,
    n_classes: int,
    grid: tuple[float, ...],
    n_folds: int,
    default: float,
    lone_classes: Collection[int] = (),
    fold_of: Ints | None = None,
    class_weights: ClassWeights = "none",
) -> _ChosenPenalty:
    """Return the C of the grid with the least log loss over folds dealt by the protocol's fixed rule.

    The log loss distinguishes penalties on a few dozen rows; the accuracy does not. Where a class has a single row,
    nothing can be held out, and the result is `default`. Folds never hold out rows of `lone_classes`, which no test
    row has either. Penalties are tried from the strongest down, and each fold starts from its last solution. The
    search ends when the loss rises: it has one minimum along the path, and weak penalties take most of the time.
    `fold_of` gives the fold of each row, shape (rows,), where that rule does not hold.
    With `class_weights`, the log loss weighs the rows as the fits do.
    """
    if fold_of is None:
        strata = labels if features.ndim == 2 else np.zeros_like(labels)  # the index of the right choice is no class
        may_validate = ~np.isin(strata, list(lone_classes))
        counts = np.bincount(strata[may_validate], minlength=n_classes)
        n_folds = min(n_folds, int(counts[counts > 0].min(initial=n_folds)))
        if n_folds < 2 or not may_validate.any():
            return _ChosenPenalty(default, 0.0)
        fold_of = np.where(may_validate, folds(strata, n_folds), -1)
    n_folds = int(fold_of.max()) + 1
    parts = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(n_folds)]
    last: list[Logistic | None] = [None] * n_folds
    weights = balanced_weights(labels, n_classes) if class_weights == "balanced" else None
    best, best_loss, iterations = default, math.inf, 0.0
    for inverse_penalty in sorted(grid):
        loss = 0.0
        for fold, (inside, outside) in enumerate(parts):
            fitted = fit_logistic(
                features[inside], labels[inside], n_classes, inverse_penalty, last[fold], class_weights=class_weights
            )
            last[fold] = fitted
            iterations += fitted.n_iterations * len(inside) / len(labels)
            right = fitted.probabilities(features[outside])[np.arange(len(outside)), labels[outside]]
            logs = np.log(np.clip(right, 1e-7, 1.0))
            loss -= float(logs.sum() if weights is None else weights[labels[outside]] @ logs)
        if loss > best_loss:
            break
        best, best_loss = inverse_penalty, loss
    return _ChosenPenalty(best, iterations)


def _one_blas_thread() -> AbstractContextManager[object]:
    """Limit BLAS to one thread inside a block.

    The solver's products of a matrix with a few vectors are bound by memory. With a second thread, a fit on 2,048
    rows of 384 features was measured to take 15 to 30 times as long.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def _start_solver() -> None:
    """Import scikit-learn and start its solver, which the first fit would otherwise pay for."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    features = TfidfVectorizer(dtype=np.float32).fit_transform(["one two", "two three", "three four", "four five"])
    labels = np.array([0, 1, 0, 1])
    fit_logistic(features, labels, 2, 1.0)
    fit_logistic(features.toarray(), labels, 2, 1.0)


class LogisticMethod(Method):
    """Base class of methods that fit a logistic regression: its settings and the choice of its penalty.

    Attributes:
        c: scikit-learn's inverse penalty; None chooses it from `c_grid` by folds of the training rows.
        c_grid: penalties to choose from.
        folds: maximum number of folds.
        threshold: score from which on a label is given, where answers are label sets; None chooses it by the folds.
        class_weights: `balanced` multiplies a row's loss by rows / (classes * rows of its class), as scikit-learn's
            `class_weight` does, so that rare classes count as much as frequent ones. For label sets it weighs the rows
            with and without each label, for tags the words of each tag. Probabilities are then those of classes of
            equal size.
    """

    newer_settings: ClassVar[frozenset[str]] = frozenset({"threshold", "class_weights"})
    c_without_folds: ClassVar[float]
    """Inverse penalty for training rows that cannot be held out, because a class has a single row."""

    c: float | None = Field(default=None, gt=0)
    c_grid: tuple[PositiveFloat, ...] = Field(default=(0.01, 0.1, 1.0, 10.0, 100.0), min_length=1)
    folds: int = Field(default=5, ge=2)
    threshold: float | None = Field(default=None, gt=0, lt=1)
    class_weights: ClassWeights = "none"

    def in_a_hurry(self) -> Self:
        """Return the same method with a fixed penalty."""
        return self.model_copy(update={"c": self.c_without_folds})

    @property
    def fits_per_cell(self) -> int:
        """Number of fits in a cell: one per penalty and fold, unless the penalty is given, and the last."""
        return 1 + self.folds * len(self.c_grid) if self.c is None else 1

    def warm_up(self) -> None:
        """Import scikit-learn and start its solver."""
        _start_solver()

    def fit_linear(self, features: Any, rows: Rows, bench: Bench) -> Linear:
        """Fit the linear model for the task's form of answers, and enter the spending in the ledger.

        Args:
            features: dense or sparse, shape (rows, features).
            rows: the training rows.
            bench: the cell's bench.
        """
        if bench.kind.form == "number":
            return self.fit_numbers(features, rows, bench)
        if bench.kind.form == "labels":
            return self.fit_labels(features, rows, bench)
        if bench.kind.form == "tags":
            return self.fit_tags(features, rows, bench)
        return self.fit_penalised(features, rows.known_labels, bench)

    def fit_tags(self, features: Any, rows: Rows, bench: Bench) -> Logistic:
        """Fit a logistic regression on words; folds hold out whole sentences.

        Args:
            features: dense or sparse, shape (words of all rows, features).
            rows: the training rows, whose labels are arrays of tags.
            bench: the cell's bench.
        """
        fold_of = None
        if len(rows) > 1:
            of_rows = np.empty(len(rows), dtype=np.int64)
            of_rows[np.argsort(rows.known_strata, kind="stable")] = np.arange(len(rows)) % min(
                self.folds, _FOLDS_OF_WORDS, len(rows)
            )
            fold_of = np.repeat(of_rows, words_of(rows))
        return self.fit_penalised(features, np.concatenate(list(rows.known_labels)), bench, fold_of)

    def fit_numbers(self, features: Any, rows: Rows, bench: Bench) -> Ridge:
        """Fit a ridge regression: choose its penalty unless it is given, and enter the spending in the ledger.

        Args:
            features: dense or sparse, shape (rows, features).
            rows: the training rows, whose labels are numbers.
            bench: the cell's bench.
        """
        targets, chosen, n_fits = rows.known_labels, self.c, 0.0
        if chosen is None:
            with bench.working("tune"), _one_blas_thread():
                chosen, n_fits = choose_ridge_penalty(
                    features, targets, rows.known_strata, self.c_grid, self.folds, default=1.0
                )
        with bench.working("fit"), _one_blas_thread():
            model = fit_ridge(features, targets, chosen)
        # The normal equations of dense features take rows * features^2 products; sparse ones are solved in iterations.
        width = features.shape[1] if isinstance(features, np.ndarray) else _SPARSE_ITERATIONS
        bench.ledger.train_flops += 2.0 * (1 + n_fits) * features.size * width
        bench.ledger.state(penalty=chosen)
        return model

    def fit_labels(self, features: Any, rows: Rows, bench: Bench) -> LabelLogistics:
        """Fit one logistic regression for each label, choose a penalty for all, and the threshold.

        The threshold is chosen on scores for rows that the model of a fold was not fitted on.
        """
        labels, threshold = rows.known_labels, 0.5 if bench.ranks_by_scores else self.threshold
        with bench.working("tune"), _one_blas_thread():
            chosen = choose_for_labels(
                features,
                labels,
                grid=self.c_grid if self.c is None else (self.c,),
                n_folds=self.folds if self.c is None else min(self.folds, _FOLDS_OF_THRESHOLD),
                default=self.c_without_folds,
                threshold=threshold,
                measure=bench.measure,
                class_weights=self.class_weights,
            )
        with bench.working("fit"), _one_blas_thread():
            model = fit_label_logistics(features, labels, chosen.inverse_penalty, self.class_weights, chosen.threshold)
        bench.ledger.train_flops += 4.0 * (model.n_iterations + chosen.n_iterations) * features.size
        bench.ledger.state(penalty=chosen.inverse_penalty)
        return model

    def why_unsupported(self, kind: str, files: BackboneFiles | None, device: str) -> str | None:
        """Refuse also settings that the kind's answers give no meaning."""
        reason = super().why_unsupported(kind, files, device) or why_no_class_weights(self.class_weights, kind)
        return reason or why_no_threshold(self.threshold, kind)

    def fit_penalised(self, features: Any, labels: Ints, bench: Bench, fold_of: Ints | None = None) -> Logistic:
        """Choose the penalty unless it is given, fit, and enter the spending in the ledger.

        Args:
            features: dense or sparse, shape (rows, features).
            labels: class indices, shape (rows,).
            bench: the cell's bench.
            fold_of: fold of each row, shape (rows,); None deals folds by class.
        """
        chosen, choice_iterations = self.c, 0.0
        if chosen is None:
            with bench.working("tune"), _one_blas_thread():
                choice = choose_penalty(
                    features,
                    labels,
                    bench.n_outputs,
                    self.c_grid,
                    self.folds,
                    default=self.c_without_folds,
                    lone_classes=bench.lone_classes,
                    fold_of=fold_of,
                    class_weights=self.class_weights,
                )
            chosen, choice_iterations = choice.inverse_penalty, choice.n_iterations
        with bench.working("fit"), _one_blas_thread():
            model = fit_logistic(features, labels, bench.n_outputs, chosen, class_weights=self.class_weights)
        # A pass of the solver is one product of the features with the weights and one with the gradient; the size of
        # a sparse matrix is the number of its stored values.
        n_scores = bench.n_outputs if features.ndim == 2 else 1
        bench.ledger.train_flops += 4.0 * (model.n_iterations + choice_iterations) * features.size * n_scores
        bench.ledger.state(penalty=chosen)
        return model


Linear = Logistic | Ridge | LabelLogistics
"""A fitted linear model, by the form of answers: classes and choices, a number, label sets."""


def answers_of(model: Linear, features: Any) -> Floats:
    """Return the model's answers in the form that the kind asks for, from dense or sparse features."""
    if isinstance(model, Ridge):
        return model.estimates(features)
    return model.scores(features) if isinstance(model, LabelLogistics) else model.probabilities(features)


def linear_state(model: Linear) -> dict[str, Any]:
    """Return what is saved beside the tensors: the threshold of label sets."""
    return {"answers": {"threshold": model.threshold}} if isinstance(model, LabelLogistics) else {}


def restore_linear(tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], width: int, bench: Bench) -> Linear:
    """Return the fitted linear model from its saved tensors and state.

    Raises:
        UsageError: they do not fit the task; the message names the tensor or number.
    """
    check_tensors(tensors, expected_logistic(1 if bench.kind.form == "choices" else bench.n_outputs, width))
    weights, bias = tensors["weights"], tensors["bias"]
    if bench.kind.form == "number":
        return Ridge(weights, bias)
    if bench.kind.form == "labels":
        return LabelLogistics(weights, bias, read_state(state.get("answers"), bench)["threshold"])
    return Logistic(weights, bias, 0)


def logistic_tensors(model: Linear) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors that are saved for a linear model."""
    return {"weights": model.weights, "bias": model.bias}


def expected_logistic(n_rows: int, width: int) -> dict[str, Expected]:
    """Return the shapes of the saved tensors: one row of weights per class, or one for all choices."""
    return {"weights": Expected((n_rows, width)), "bias": Expected((n_rows,))}
