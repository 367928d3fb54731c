"""The last stage of a search: fit the winner to all training rows in the time that is left, and save it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from harness.analysis import end_loss, guessing_loss, learned_nothing
from harness.choose.candidates import Candidate
from harness.choose.search import SHORTEST_FIT_SECONDS, Search
from harness.choose.served import with_served_in_place
from harness.choose.tried import Tried, is_clearly_better, validated, validated_share, value_at
from harness.metrics import metrics
from harness.planning import PlannedCell
from harness.records import Record
from harness.support import HarnessError
from harness.tasks import Task

_SHARE_FOR_FALLBACK: Final = 0.08
"""Share of the remaining time for the fit of a cheap fallback model, so that there is a model in any case."""

_SHARE_FOR_CHEAP_FIT: Final = 0.6
"""Share of the remaining time that a cheap method's last fit may be expected to take: estimates are rough."""


_MARGIN_AGAIN: Final = 1.3
"""Seconds that the fit of a cheap method to all rows may take, as a multiple of what its last fit leads to expect."""


class LastFit:
    """The winner's fit on all training rows, and the fallback for when it fails.

    Args:
        search: what was tried, and the time that is left.
        aside: folder for fallback models.
        grace: seconds past the deadline before a fit is stopped: prediction or saving may take longer than expected.

    Attributes:
        expected: expected score of each method by its label, once `fit` was called.
        missed: reason why a method was not saved in spite of a higher rank, by its label.
    """

    def __init__(self, search: Search, aside: Path, grace: float) -> None:
        self._search = search
        self._aside = aside
        self._grace = grace
        self._safe: tuple[Record, Candidate] | None = None
        self._safe_folder = aside
        self._tries = 0
        self.expected: dict[str, float] = {}
        self.missed: dict[str, str] = {}

    def make_sure(self) -> None:
        """Fit the best cheap method that takes little time, and keep the model as a fallback."""
        search = self._search
        cheap = [(c, self._total_seconds(c)) for c, _ in self._ranked() if c.is_cheap and not c.is_served]
        if not cheap:
            return
        quick = [candidate for candidate, takes in cheap if takes <= _SHARE_FOR_FALLBACK * search.left]
        candidate = quick[0] if quick else min(cheap, key=lambda one: one[1])[0]
        if self._safe is not None and (candidate is self._safe[1] or not quick):
            return
        planned = self._as_much_as_fits(candidate)
        if planned is None:
            return
        self._tries += 1
        folder = self._aside / f"model-{self._tries}"
        record = search.runner.run(planned, search.task, search.end, folder)
        if record is not None and record.status == "ok":
            self._safe, self._safe_folder = (record, candidate), folder

    def fit(self, folder: Path) -> tuple[Record, Candidate]:
        """Fit and save the method with the highest expected score that can be fitted in time; else the fallback.

        Raises:
            HarnessError: no method was fitted in time, and there is no fallback.
        """
        search, safe = self._search, self._safe
        ranked = self._ranked()
        self.expected = {candidate.label: expected for candidate, expected in ranked}
        for candidate, expected in ranked:
            hope = f"{candidate.label} is expected to reach {expected:.3f}"
            if safe is not None and candidate is safe[1]:
                search.say(f"{hope}, and was fitted to {self._rows(safe[0].cell.n_train)} rows before")
                break
            planned = self._as_much_as_fits(candidate) if candidate.is_cheap else self._in_time(candidate)
            if planned is None:
                self.missed[candidate.label] = "no time was left for its last fit"
                continue
            search.say(f"{hope}: fitting it to {self._rows(planned.cell.n_train)} rows")
            record = search.runner.run(planned, search.task, search.end + self._grace, folder)
            why = self._why_useless(record, candidate)
            if record is not None and why is None:
                return record, candidate
            self.missed[candidate.label] = f"its last fit {why}"
            search.say(f"{candidate.label}: the fit {why}")
            if folder.exists():
                shutil.rmtree(folder)
        if safe is None:
            why = "; ".join(f"{label}: {reason}" for label, reason in {**search.out, **self.missed}.items())
            raise HarnessError(
                f"No method gave a model within the time{': ' + why if why else ''}. Give a longer --within, or add "
                "cheap methods such as tfidf and linear-probe."
            )
        if folder.exists():  # empty before, or just written by a fit that was late
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self._safe_folder, folder)
        return safe

    def again(self, candidate: Candidate, scored: Record, folder: Path) -> Record | None:
        """Fit the winner to all rows, test rows included, and let that model take the place of the scored one.

        It does so only if the fit ends whole, in time, and did not go wrong: see `_went_wrong`. Return its record, else
        None, and the folder keeps the scored model.

        Args:
            candidate: the winner.
            scored: record of its fit to the training rows, which the test rows scored.
            folder: folder of the scored model.
        """
        search, task = self._search, self._search.everything
        if candidate.is_served:  # more requests, and no training that more rows would improve
            return None
        if task is None or scored.cell.n_train < search.n_rows:
            return None
        if scored.cost.stopped_by == "train_seconds":  # the same time would cut the longer fit even more
            return None
        n, more = len(task.train_labels), len(task.train_labels) / search.n_rows
        took = scored.provenance.wall_seconds or scored.cost.total_seconds or 0.0
        needs = _MARGIN_AGAIN * more * took if candidate.is_cheap else search.again_seconds(candidate)
        if needs > search.left:
            search.say(f"no time is left to fit {candidate.label} to the test rows too")
            return None
        search.say(f"fitting {candidate.label} to all {n:,} rows, test rows included; the score is from before")
        budget = search.budget(None if candidate.is_cheap else search.left - search.overhead_of(candidate))
        planned = search.plan(candidate, task, None, budget)
        made = self._aside / "all-rows"
        record = search.runner.run(planned, task, search.end, made, is_kept=False)
        why = None if record is None else _went_wrong(record, scored) or _learned_nothing(record, task)
        if record is None or why is not None or not made.exists():
            search.say(f"the scored model is kept: the fit to all rows {why or 'did not end in time'}")
            return None
        shutil.rmtree(folder)
        shutil.move(made, folder)
        return record

    def _why_useless(self, record: Record | None, candidate: Candidate) -> str | None:
        """Return why a last fit gives no model to save, in words; None where it gives one. No test label is read."""
        if record is None:
            return "had no time"
        if record.status != "ok":
            return f"ended with '{record.status.replace('_', ' ')}'"
        return None if candidate.is_cheap else _learned_nothing(record, self._search.task)

    def _ranked(self) -> list[tuple[Candidate, float]]:
        """Return the methods with their expected scores, best first."""
        search = self._search
        known = [
            c for c in search.entrants if search.measured(c) or (c is search.favourite and c.label not in search.out)
        ]
        if not known:
            return []
        mean = search.last_rivals(known).mean
        metric, facts = search.task.metric, search.task.provenance
        expected = [value_at(metric, search.belief.back(float(value)), facts) for value in mean]
        ranked = self._clear_winner_first([(known[i], expected[i]) for i in np.argsort(-mean, kind="stable")])
        return with_served_in_place(search, ranked, self.missed)

    def _clear_winner_first(self, ranked: list[tuple[Candidate, float]]) -> list[tuple[Candidate, float]]:
        """Return the ranking, led by the method that validated best if it is clearly better than the expected best.

        Other tasks may say little about this one. A difference beyond chance on its own rows overrules them.
        """
        fits = {candidate.label: self._search.measured(candidate) for candidate, _ in ranked}
        scores = {label: found for label, own in fits.items() if (found := validated_share(own)) is not None}
        best = max(scores, key=lambda label: scores[label], default=None)
        if best is None or not is_clearly_better(fits[best], fits[ranked[0][0].label]):
            return ranked
        return sorted(ranked, key=lambda one: one[0].label != best)

    def _total_seconds(self, candidate: Candidate) -> float:
        """Return the seconds of fitting a cheap method to all rows and predicting the test rows."""
        return self._search.cheap_seconds(candidate)

    def _whole(self, candidate: Candidate, n_train: int | None = None) -> PlannedCell:
        """Return the cell that fits a candidate to `n_train` rows (None is all) without a limit on its time."""
        search = self._search
        return search.plan(candidate, search.task, n_train, search.budget())

    def _as_much_as_fits(self, candidate: Candidate) -> PlannedCell | None:
        """Return the cell that fits a cheap method to as many rows as the time allows; None where these are few."""
        search = self._search
        allowed, needs = _SHARE_FOR_CHEAP_FIT * search.left, self._total_seconds(candidate)
        if needs <= allowed or (candidate.is_prompted and needs <= search.left):
            return self._whole(candidate)
        if candidate.is_prompted:  # fewer rows would not make its predictions quicker
            return None
        n = int(search.n_rows * allowed / needs)
        return None if n < max(search.task.n_strata, 50) else self._whole(candidate, n)

    def _in_time(self, candidate: Candidate) -> PlannedCell | None:
        """Return the cell that trains a candidate for the time that is left; None where that is too short."""
        search = self._search
        seconds = search.left - search.predict_seconds(candidate) - search.overhead_of(candidate)
        if seconds < SHORTEST_FIT_SECONDS / 2:
            return None
        n_train = search.readable(candidate, search.task, seconds)
        return search.plan(candidate, search.task, n_train, search.budget(seconds))

    def _rows(self, n: int) -> str:
        everything = self._search.n_rows
        return f"all {n:,}" if n == everything else f"{n:,} of {everything:,}"


def _went_wrong(record: Record, scored: Record) -> str | None:
    """Return why a fit to all rows is worse than the fit before it, in words; None where it is as good.

    It predicts rows that it was trained on, so it should not do worse on them than the scored model did.
    """
    if record.status != "ok" or record.score is None or scored.score is None:
        return f"ended with '{record.status.replace('_', ' ')}'"
    if record.cost.stopped_by == "train_seconds":
        return "was cut short"
    found, limit = record.score.value, scored.score.low if record.score.higher_is_better else scored.score.high
    limit = scored.score.value if limit is None else limit
    if found < limit if record.score.higher_is_better else found > limit:
        return f"reached {found:.3f} on rows that it was trained on, worse than the scored model on new ones"
    return None


def _learned_nothing(record: Record, task: Task) -> str | None:
    """Return in words that a fit to a task learned nothing; None where it learned something. Reads no test label."""
    guessing = guessing_loss(task.train_strata) if task.has_classes else 0.0
    if not learned_nothing(record, guessing):
        return None
    return (
        f"learned nothing: it gives nearly all texts one class, at a training loss of {end_loss(record):.2f}, where "
        f"guessing has {guessing:.2f}. The learning rate is too high for this backbone"
    )


def why_not_the_best(
    saved: str, tried: Sequence[Tried], expected: Mapping[str, float], missed: Mapping[str, str], metric: str
) -> str | None:
    """Return why the saved method is not the one that validated best, in a few sentences; None where it is.

    Args:
        saved: label of the saved method.
        tried: all fits on validation rows.
        expected: score that each method was expected to reach on new rows, by its label.
        missed: why the last fit of a method came to nothing, by its label.
        metric: the task's main metric.
    """
    fits: dict[str, list[Tried]] = {}
    for one in tried:
        fits.setdefault(one.candidate.label, []).append(one)
    scores = {label: found for label, own in fits.items() if (found := validated(own)) is not None}
    sign = 1 if metrics.get(metric).higher_is_better else -1
    best = max(scores, key=lambda label: sign * scores[label][0], default=saved)
    if best == saved or (saved in scores and sign * scores[saved][0] >= sign * scores[best][0]):
        return None
    value, n_rows = scores[best]
    own = f"which validated at {scores[saved][0]:.3f}" if saved in scores else "which was not validated"
    said = f"{best} validated best, with {metric} {value:.3f} on {n_rows:,} rows. Saved is {saved}, {own}"
    if best in missed:
        return f"{said}, because {missed[best]}."
    if {saved, best} <= expected.keys() and sign * expected[saved] >= sign * expected[best]:
        return (
            f"{said}, because it is expected to do better on new rows: {expected[saved]:.3f}, against "
            f"{expected[best]:.3f} of {best}. The estimate uses other tasks, the number of validation rows and the "
            "labels available."
        )
    return f"{said}, because it was fitted before the others and no better method was fitted in time."
