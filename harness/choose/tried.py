"""What was tried in a race, and what each fit is worth where its time cut it short."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.choose.candidates import Candidate, Measured
from harness.choose.worth import Uncut, labels_worth
from harness.metrics import metrics
from harness.records import Budget, Record


@dataclass(frozen=True)
class Tried:
    """One fit of the race.

    Attributes:
        candidate: what was fitted.
        record: what came of it.
        n_train: labels that the fit is worth: fewer than it was given, where its budget cut it short.
        fold: of the validation rows.
        seconds: by the clock.
    """

    candidate: Candidate
    record: Record
    n_train: float
    fold: int
    seconds: float

    @property
    def score(self) -> float | None:
        """Share of the way from the metric's worst value to its best on the validation rows; None without a score."""
        return share_of(self.record.score.metric, self.record.score.value) if self.record.score is not None else None


def share_of(metric: str, value: float) -> float:
    """Return a score as a share of the way from the metric's worst value to its best: an accuracy is its own."""
    low, high = _ends(metric)
    return (value - low) / (high - low)


def value_at(metric: str, share: float) -> float:
    """Return the score at a share of the way from the metric's worst value to its best."""
    low, high = _ends(metric)
    return low + share * (high - low)


def _ends(metric: str) -> tuple[float, float]:
    spec = metrics.get(metric)
    assert spec.high is not None  # every metric of classes has two ends
    return spec.low, spec.high


def validated(fits: Iterable[Tried]) -> tuple[float, int] | None:
    """Return the score over the validation rows of all folds, of the fits that made use of most labels, and the rows.

    None where no fit came to a score.
    """
    scored = [tried for tried in fits if tried.record.score is not None]
    if not scored:
        return None
    most = max(tried.n_train for tried in scored)
    scores = [tried.record.score for tried in scored if tried.record.score and tried.n_train >= 0.7 * most]
    n_rows = sum(score.n_test for score in scores)
    return float(sum(score.n_test * score.value for score in scores) / n_rows), n_rows


CLEARLY: Final = 1.644854
"""Standard errors by which one score must be above another to be clearly better: one-sided, at a level of 5 %."""

_LIKE_LABELS: Final = 0.9
"""Share of the labels of one fit that another must have made use of, for their scores to be comparable."""


def is_clearly_better(one: Sequence[Tried], other: Sequence[Tried]) -> bool:
    """Return whether one method validated better than another by more than chance, on as many labels or fewer.

    The scores are compared as shares of independent rows (Agresti and Caffo, 2000). The rows are in fact the same, so
    the test errs on the side of no difference.

    Args:
        one: fits of one method.
        other: fits of another.
    """
    found = [validated(fits) for fits in (one, other)]
    labels = [max((tried.n_train for tried in fits), default=0.0) for fits in (one, other)]
    if None in found or labels[1] < _LIKE_LABELS * labels[0]:
        return False
    metric = next(tried.record.score.metric for tried in one if tried.record.score is not None)
    shares, variances = [], []
    for value, n_rows in (score for score in found if score is not None):
        share = (share_of(metric, value) * n_rows + 1) / (n_rows + 2)
        shares.append(share)
        variances.append(share * (1 - share) / (n_rows + 2))
    return shares[0] - shares[1] > CLEARLY * math.sqrt(sum(variances))


def summarised(fits: Iterable[Tried]) -> list[Measured]:
    """Fits of one candidate that made use of the same number of labels, on several folds, as one measurement."""
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
        found.append(Measured(members[0].candidate, labels, len(members), sum(rows), right / sum(rows), short))
    return found


def labels_used(record: Record, candidate: Candidate) -> float:
    """Labels that a fit is worth, where a budget of seconds cut it short."""
    n_train = record.cell.n_train
    if record.cost.stopped_by != "train_seconds" or not record.curve:
        return n_train
    return labels_worth(n_train, share_of_steps(record, candidate), epochs_of(candidate))


def share_of_steps(record: Record, candidate: Candidate) -> float:
    """Of the steps that the fit would have taken uncut."""
    if record.cost.stopped_by != "train_seconds" or not record.curve:
        return 1.0
    whole = candidate.method.workload(record.cell.n_train, Budget(), 12).steps
    return 1.0 if whole <= 0 else min(1.0, record.curve[-1].step / whole)


def epochs_of(candidate: Candidate) -> float:
    """Passes over the labels that a whole fit makes."""
    return float(candidate.method.config().get("epochs", 1.0))


def uncut_fit(candidate: Candidate, n_rows: int, seconds: float) -> Uncut:
    """A candidate's fit to `n_rows`, that is expected to take so many seconds of training."""
    work = candidate.method.workload(n_rows, Budget(), 12)
    stepping = work.steps * work.texts_per_step * work.passes_per_text
    reading = seconds * work.encoded / (work.encoded + stepping) if stepping else 0.0
    return Uncut(n_rows, seconds, reading, float(work.steps) if stepping else 0.0, epochs_of(candidate))
