"""What was tried in a race, and what each fit is worth where its time cut it short."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.choose.candidates import Candidate, Measured
from harness.choose.worth import Uncut, labels_worth
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
        """Accuracy on the validation rows; None where it came to none."""
        return self.record.score.value if self.record.score is not None else None


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
