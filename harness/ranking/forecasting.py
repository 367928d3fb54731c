"""Forecast what full fine-tuning would reach with a backbone, from its frozen features and its size.

The log-odds z of the accuracy of backbone b on task t with n labels are modelled as

    z = w · x(b, t, n) + u_t + v_b + r_tb + noise

where x holds the signals of the features and covariates of the backbone, u_t is an effect of the task that all its
backbones share, v_b an effect of the backbone that all tasks share, and r_tb what is left. All are Gaussian, so that
the forecast is exact algebra on the shipped measurements (`measured.csv`). The prior means and spreads below were set
before the model saw a measurement; they matter, because few backbones were measured.
"""

from __future__ import annotations

import csv
import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.ranking.measuring import Signals

Doubles = npt.NDArray[np.float64]

_WEIGHTS: Final[dict[str, tuple[float, float]]] = {
    "constant": (0.5, 0.7),
    "log-odds of the probe": (0.35, 0.2),
    "log-odds of the probe on layer means": (0.35, 0.2),
    "log-odds of the share that LogME explains": (0.15, 0.15),
    "log-odds of the H-score": (0.1, 0.1),
    "log of labels per encoded row": (0.3, 0.15),
    "powers of ten of the blocks' parameters": (0.4, 0.3),
    "causal": (-0.3, 0.4),
    "causal, per log of labels": (0.15, 0.15),
}
"""Terms of x, with the mean and the standard deviation of the weight's prior.

A probe's log-odds differ between backbones about as much as those of fine-tuning do. More labels help both. A larger
backbone fine-tunes better than its frozen features say. A causal one fine-tunes worse on few labels, since its features
were not made for a text as a whole, and catches up with more labels.
"""

_TASK_SD: Final = 0.5
_BACKBONE_SD: Final = 0.2
_BOTH_SD: Final = 0.25
_SEED_SD: Final = 0.12
"""Standard deviations, in log-odds, of u, v, r and of the draw of training rows and initial weights."""

_USUAL_PARAMETERS: Final = 10**7.5
_USUAL_LABELS: Final = 256.0
_QUANTILE_80: Final = 1.2815515655446004
_N_DRAWS: Final = 4000


@dataclass(frozen=True)
class Point:
    """One backbone on one task with one number of labels.

    Attributes:
        task: name of the task.
        backbone: name of the backbone.
        signals: figures of its frozen features.
        block_parameters: parameters of its blocks, without embeddings.
        is_causal: whether each token sees only those before it.
        n_train: labels of the fine-tuning.
        score: measured accuracy of full fine-tuning; None for a question.
        n_test: rows that it was measured on.
        n_seeds: number of seeds that it is the mean of.
    """

    task: str
    backbone: str
    signals: Signals
    block_parameters: float
    is_causal: bool
    n_train: int
    score: float | None = None
    n_test: int = 1000
    n_seeds: int = 1


@dataclass(frozen=True)
class Forecast:
    """Expected accuracy of full fine-tuning.

    Attributes:
        score: median of the forecast.
        low, high: 80 % interval.
        best: probability that no other backbone of the question reaches more.
    """

    score: float
    low: float
    high: float
    best: float


def forecast(questions: Sequence[Point], evidence: Sequence[Point] | None = None) -> list[Forecast]:
    """Return the forecast of each question; the questions are about one task.

    Args:
        questions: backbones on a task.
        evidence: measured points; None takes the shipped ones. Those of the task itself are left out.
    """
    if not questions:
        return []
    known = shipped_points() if evidence is None else evidence
    tasks = {point.task for point in questions}
    known = [point for point in known if point.score is not None and point.task not in tasks]
    mean, covariance = _posterior(list(questions), known)
    noise = np.diag(np.full(len(questions), _SEED_SD**2))
    draws = np.random.default_rng(0).multivariate_normal(mean, covariance + noise, size=_N_DRAWS, method="eigh")
    best = np.bincount(draws.argmax(axis=1), minlength=len(questions)) / _N_DRAWS
    spread = np.sqrt(np.diag(covariance) + _SEED_SD**2)
    return [
        Forecast(*map(_score_of, (middle, middle - _QUANTILE_80 * sd, middle + _QUANTILE_80 * sd)), best=float(share))
        for middle, sd, share in zip(mean, spread, best, strict=True)
    ]


def _posterior(questions: Sequence[Point], known: Sequence[Point]) -> tuple[Doubles, Doubles]:
    """Return mean and covariance of the log-odds of the questions, without the noise of a seed."""
    prior_mean = np.array([mean for mean, _ in _WEIGHTS.values()])
    asked = np.stack([terms(point) for point in questions])
    mean, covariance = asked @ prior_mean, _covariance(questions, questions)
    if not known:
        return mean, covariance
    seen = np.stack([terms(point) for point in known])
    observed = np.array([_log_odds(float(point.score or 0.0), point.n_test) for point in known])
    noise = np.array([_SEED_SD**2 / point.n_seeds + _binomial_variance(point) for point in known])
    within, across = _covariance(known, known) + np.diag(noise), _covariance(questions, known)
    gain = np.linalg.solve(within, across.T).T
    return mean + gain @ (observed - seen @ prior_mean), covariance - gain @ across.T


def _covariance(left: Sequence[Point], right: Sequence[Point]) -> Doubles:
    """Return the prior covariance of log-odds between two lists of points."""
    variance = np.array([sd**2 for _, sd in _WEIGHTS.values()])
    shared = np.stack([terms(point) for point in left]) * variance @ np.stack([terms(point) for point in right]).T
    same_task = np.array([[one.task == other.task for other in right] for one in left], dtype=np.float64)
    same_backbone = np.array([[one.backbone == other.backbone for other in right] for one in left], dtype=np.float64)
    both = _TASK_SD**2 * same_task + _BACKBONE_SD**2 * same_backbone + _BOTH_SD**2 * same_task * same_backbone
    return np.asarray(shared + both, dtype=np.float64)


def terms(point: Point) -> Doubles:
    """Return the values of the terms of `_WEIGHTS` for one point."""
    signals = point.signals
    labels = math.log(point.n_train / _USUAL_LABELS)
    return np.array(
        [
            1.0,
            _log_odds(signals.probe, signals.n_rows),
            _log_odds(signals.mean_probe, signals.n_rows),
            _log_odds(signals.explained, 50),
            _log_odds(signals.h_score / max(1, signals.n_classes - 1), 50),
            math.log(point.n_train / signals.n_rows),
            math.log10(point.block_parameters / _USUAL_PARAMETERS),
            float(point.is_causal),
            labels if point.is_causal else 0.0,
        ]
    )


def _log_odds(share: float, n_rows: int) -> float:
    """Return the log-odds of a share of so many rows, finite also for none and all of them."""
    kept = (min(1.0, max(0.0, share)) * n_rows + 0.5) / (n_rows + 1.0)
    return math.log(kept / (1.0 - kept))


def _score_of(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))


def _binomial_variance(point: Point) -> float:
    kept = _score_of(_log_odds(float(point.score or 0.0), point.n_test))
    return 1.0 / (point.n_test * kept * (1.0 - kept))


_SIGNALS: Final = ("probe", "mean_probe", "log_me", "explained", "h_score")
COLUMNS: Final = (
    *("task", "backbone", "is_causal", "block_parameters", "n_rows", "n_classes", *_SIGNALS),
    *("n_train", "score", "n_test", "n_seeds"),
)
"""Columns of `measured.csv`."""


@functools.cache
def shipped_points() -> tuple[Point, ...]:
    """Return the measurements that come with the package; `python -m tools.ranking` made them."""
    return tuple(read_points((package_files("harness.ranking") / "measured.csv").read_text(encoding="utf-8")))


def read_points(text: str) -> list[Point]:
    """Return the points of a CSV text with the columns `COLUMNS`."""
    return [
        Point(
            task=row["task"],
            backbone=row["backbone"],
            signals=Signals(int(row["n_rows"]), int(row["n_classes"]), **{name: float(row[name]) for name in _SIGNALS}),
            block_parameters=float(row["block_parameters"]),
            is_causal=row["is_causal"] == "yes",
            n_train=int(row["n_train"]),
            score=float(row["score"]),
            n_test=int(row["n_test"]),
            n_seeds=int(row["n_seeds"]),
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def write_points(points: Sequence[Point]) -> str:
    """Return the CSV text of measured points, as `read_points` takes it."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for point in points:
        signals = point.signals
        facts = (point.task, point.backbone, "yes" if point.is_causal else "no", f"{point.block_parameters:.0f}")
        figures = (f"{getattr(signals, name):.5f}" for name in _SIGNALS)
        measured = (point.n_train, f"{point.score:.5f}", point.n_test, point.n_seeds)
        table.writerow((*facts, signals.n_rows, signals.n_classes, *figures, *measured))
    return out.getvalue()
