"""The fits of a search, and how many labels a fit is worth if its time cut it short."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.choose.candidates import Candidate, Measured
from harness.choose.metric_noise import rows_worth
from harness.methods import DROPPED
from harness.metrics import metrics
from harness.records import Budget, Record


@dataclass(frozen=True)
class Tried:
    """One fit of a search.

    Attributes:
        candidate: the method.
        record: its record.
        n_train: number of labels that the fit is worth: fewer than it was given if its budget cut it short.
        fold: position of the fold whose rows validate.
        seconds: duration by the clock.
        folder: folder of the saved model; None where it was not saved.
    """

    candidate: Candidate
    record: Record
    n_train: float
    fold: int
    seconds: float
    folder: Path | None = None

    @property
    def is_dropped(self) -> bool:
        """Whether the fit was dropped at a rung."""
        return self.record.status == "out_of_time" and (self.record.error or "").startswith(DROPPED)

    @property
    def outcome(self) -> str:
        """What became of the fit, in a word or two."""
        return "dropped" if self.is_dropped else self.record.status.replace("_", " ")

    @property
    def score(self) -> float | None:
        """Share of the way from the metric's worst value to its best on the validation rows; None without a score."""
        score = self.record.score
        return share_of(score.metric, score.value, self._facts) if score is not None else None

    @property
    def _facts(self) -> Mapping[str, Any]:
        return self.record.provenance.dataset

    @functools.cached_property
    def rows_worth(self) -> float:
        """Number of validation rows that the score is worth (`metric_noise.rows_worth`); 0 without a score."""
        score = self.record.score
        return 0.0 if score is None else rows_worth(self.record, *_ends(score.metric, self._facts))


def share_of(metric: str, value: float, facts: Mapping[str, Any]) -> float:
    """Return a score as a share of the way from the metric's worst value to its best: an accuracy is its own.

    Args:
        metric: name of the metric.
        value: the score; one that is worse than the worst counts as 0.
        facts: facts about the task's data (`Task.provenance`).
    """
    worst, best = _ends(metric, facts)
    return min(1.0, max(0.0, (value - worst) / (best - worst)))


def share_upwards(metric: str, value: float, facts: Mapping[str, Any]) -> float:
    """Return `share_of` a score whose sign is such that higher is better, as at the rungs of a fit."""
    return share_of(metric, value if metrics.get(metric).higher_is_better else -value, facts)


def value_at(metric: str, share: float, facts: Mapping[str, Any]) -> float:
    """Return the score at a share of the way from the metric's worst value to its best."""
    worst, best = _ends(metric, facts)
    return worst + share * (best - worst)


def _ends(metric: str, facts: Mapping[str, Any]) -> tuple[float, float]:
    """Return the worst and the best value of a metric; an error has no upper end, so the mean's error is its worst."""
    spec = metrics.get(metric)
    if spec.high is not None:
        return (spec.low, spec.high) if spec.higher_is_better else (spec.high, spec.low)
    worst = facts.get(f"{metric}_of_mean")
    return (float(worst) if worst else 1.0), spec.low


def validated(fits: Iterable[Tried]) -> tuple[float, int] | None:
    """Return the score over the validation rows of all folds, and the number of these rows.

    Fits that used fewer than 70 % of the labels of the largest are left out. Return None where no fit has a score.
    """
    scored = [tried for tried in fits if tried.record.score is not None]
    if not scored:
        return None
    most = max(tried.n_train for tried in scored)
    scores = [tried.record.score for tried in scored if tried.record.score and tried.n_train >= 0.7 * most]
    n_rows = sum(score.n_test for score in scores)
    return float(sum(score.n_test * score.value for score in scores) / n_rows), n_rows


def validated_share(fits: Iterable[Tried]) -> float | None:
    """Return `validated`'s score as a share of the way to the metric's best value; None where no fit has a score."""
    fits = list(fits)
    found = validated(fits)
    if found is None:
        return None
    record = next(tried.record for tried in fits if tried.record.score is not None)
    assert record.score is not None
    return share_of(record.score.metric, found[0], record.provenance.dataset)


_CLEARLY: Final = 1.644854
"""Standard errors by which one score must be above another to be clearly better: one-sided, at a level of 5 %."""

_LIKE_LABELS: Final = 0.9
"""Share of the labels of one fit that another must have made use of, for their scores to be comparable."""


def is_clearly_better(one: Sequence[Tried], other: Sequence[Tried]) -> bool:
    """Return whether one method validated better than another by more than chance, on as many labels or fewer.

    The scores are compared as shares of independent rows (Agresti and Caffo, 2000). The rows are in fact the same, so
    the test errs on the side of no difference. A metric that is no mean over rows counts as one over the rows that it
    is worth.

    Args:
        one: fits of one method.
        other: fits of another.
    """
    found = [validated(fits) for fits in (one, other)]
    labels = [max((tried.n_train for tried in fits), default=0.0) for fits in (one, other)]
    may_improve = any(tried.candidate.method.uses_labels for tried in other)
    if None in found or (may_improve and labels[1] < _LIKE_LABELS * labels[0]):
        return False
    metric, facts = next(
        (t.record.score.metric, t.record.provenance.dataset) for t in one if t.record.score is not None
    )
    shares, variances = [], []
    for fits, (value, n_rows) in zip((one, other), (score for score in found if score is not None), strict=True):
        share = (share_of(metric, value, facts) * n_rows + 1) / (n_rows + 2)
        scored = [tried for tried in fits if tried.record.score is not None]
        every = sum(tried.record.score.n_test for tried in scored if tried.record.score is not None)
        worth = n_rows * sum(tried.rows_worth for tried in scored) / every
        shares.append(share)
        variances.append(share * (1 - share) / (worth + 2))
    return shares[0] - shares[1] > _CLEARLY * math.sqrt(sum(variances))


def summarised(fits: Iterable[Tried]) -> list[Measured]:
    """Return one measurement for all fits of a candidate to about the same number of labels."""
    groups: dict[tuple[int, int], list[Tried]] = {}
    for tried in fits:
        if tried.score is not None:
            key = (id(tried.candidate), round(2 * math.log2(max(tried.n_train, 1.0))))
            groups.setdefault(key, []).append(tried)
    found = []
    for members in groups.values():
        rows = [tried.record.score.n_test for tried in members if tried.record.score is not None]
        right = sum(n * (tried.score or 0.0) for n, tried in zip(rows, members, strict=True))
        labels = sum(tried.n_train for tried in members) / len(members)
        share = sum(share_of_steps(tried.record, tried.candidate) for tried in members) / len(members)
        short = math.log2(1 / max(share, 1e-3))
        worth = max(1, round(sum(tried.rows_worth for tried in members)))
        found.append(Measured(members[0].candidate, labels, len(members), worth, right / sum(rows), short))
    return found


def labels_used(record: Record, candidate: Candidate) -> float:
    """Return the number of labels that a fit is worth: fewer than it was given if its time cut it short."""
    n_train = record.cell.n_train
    if record.cost.stopped_by != "train_seconds" or not record.curve:
        return n_train
    return labels_worth(n_train, share_of_steps(record, candidate), _epochs_of(candidate))


def share_of_steps(record: Record, candidate: Candidate) -> float:
    """Return the share of its steps that a fit took before its time was up."""
    if record.cost.stopped_by != "train_seconds" or not record.curve:
        return 1.0
    whole = candidate.method.workload(record.cell.n_train, Budget(), 12).steps
    return 1.0 if whole <= 0 else min(1.0, record.curve[-1].step / whole)


def _epochs_of(candidate: Candidate) -> float:
    """Return the number of passes over the labels of a fit without a budget."""
    return float(candidate.method.config().get("epochs", 1.0))


def uncut_fit(candidate: Candidate, n_rows: int, seconds: float) -> Uncut:
    """Return a candidate's fit to `n_rows`, which is expected to take so many seconds of training."""
    work = candidate.method.workload(n_rows, Budget(), 12)
    stepping = work.steps * work.texts_per_step * work.passes_per_text
    reading = seconds * work.encoded / (work.encoded + stepping) if stepping else 0.0
    return Uncut(n_rows, seconds, reading, float(work.steps) if stepping else 0.0, _epochs_of(candidate))


_CUT_EXPONENT: Final = 0.15
"""Exponent of the share of steps in the labels that a fit is worth, if it read each label at least once.

On TREC, SMS spam and SST-2 one epoch instead of four lost at most 1.2 points (docs/explanation/choosing.md)."""


def labels_worth(n_train: float, share: float, epochs: float) -> float:
    """Return the number of labels that a fit with a share of its steps is worth.

    The number is little lower if each label was read at least once, else it falls in proportion.

    Args:
        n_train: labels of the fit.
        share: share of the steps without a budget; more than 1 counts as 1.
        epochs: passes over the labels without a budget.
    """
    share = min(1.0, max(share, 0.0))
    once = 1 / max(epochs, 1.0)
    whole = math.pow(max(share, once), _CUT_EXPONENT)
    return n_train * whole * min(1.0, share / once)


_SHARE_FOR_READING: Final = 0.4
"""Share of a fit's time for encoding its texts before its first step; where that is too little, it gets fewer."""


@dataclass(frozen=True)
class Uncut:
    """A fit to all rows without a budget, and the part of it that a time allows.

    Attributes:
        n_rows: number of training rows.
        seconds: duration of the training.
        reading: seconds of these for encoding texts before the first step; 0 where no texts are encoded.
        steps: steps inside the transformer; 0 where there are none.
        epochs: passes over the rows.
    """

    n_rows: int
    seconds: float
    reading: float
    steps: float
    epochs: float

    def rows_within(self, seconds: float) -> int:
        """Return how many rows to give it."""
        if self.reading <= 0:
            return self.n_rows
        return max(1, min(self.n_rows, int(_SHARE_FOR_READING * seconds * self.n_rows / self.reading)))

    def steps_within(self, seconds: float) -> float:
        """Return how many steps it takes."""
        n = self.rows_within(seconds)
        return self.steps * min(self._share(n, seconds) * n / self.n_rows, 1.0)

    def labels_within(self, seconds: float) -> float:
        """Return how many labels it is worth."""
        n = self.rows_within(seconds)
        return labels_worth(n, self._share(n, seconds), self.epochs)

    def _share(self, n: int, seconds: float) -> float:
        """Return the share that it takes of the steps of a fit to n rows without a budget."""
        of_rows = n / self.n_rows
        return max(0.1, seconds - of_rows * self.reading) / max((self.seconds - self.reading) * of_rows, 1e-9)
