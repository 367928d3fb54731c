"""Choose a method for a user's own data within a time: split, race, fit the winner on everything, score it once."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.advice import Point, gather
from harness.analysis import tidy_frame
from harness.choose.candidates import HURRY_SECONDS, Belief, Candidate, candidates
from harness.choose.cheap import CheapMethods
from harness.choose.folds import validation_cap, validation_folds
from harness.choose.race import LEAST_SECONDS as LEAST_FIT
from harness.choose.race import Race
from harness.choose.runner import Runner
from harness.choose.tried import Tried, is_clearly_better, validated, value_at
from harness.choose.why import why_not_the_best
from harness.cost import FIXED_SECONDS
from harness.planning import PlannedCell
from harness.records import Budget, Record, Score
from harness.saved import CARD, card, read_description
from harness.schedule import Claims
from harness.store import Store
from harness.support import HarnessError, UsageError, uncollected
from harness.tasks import Task, summarise

if TYPE_CHECKING:
    import pandas as pd

    from harness.backbones import BackboneFiles
    from harness.methods import Method
    from harness.schedule import Executor

LEAST_SECONDS: Final = 10.0
"""Starting alone takes most of that: Python, the libraries, a process that trains."""

SHARE_FOR_SAFETY: Final = 0.08
"""Of the time left, that fitting a cheap method first may take: there is a model then, whatever comes."""

GRACE: Final = 0.03
"""Of all the time, by which the last fit may be late before it is given up for what was put aside: its training ends in
time, but predicting or saving may take longer than they were expected to."""

LEAVES: Final = 0.6
"""Of the time left, that a cheap method's fit may be expected to take: estimates from small fits are rough."""

CLOSING_SECONDS: Final = 1.0
"""Kept for what comes after the last fit: the README, the table, ending the worker."""


@dataclass(frozen=True)
class Chosen:
    """What came of it.

    Attributes:
        method: label of the winner.
        score: of the saved model, on test rows that no decision has seen.
        record: of the fit that was saved.
        folder: the saved model.
        tried: all that was fitted on the way.
        seconds: that everything took, from `began`.
        why: why another method is saved than the one that validated best; None where it is that one.
    """

    method: str
    score: Score
    record: Record = field(repr=False)
    folder: Path
    tried: tuple[Tried, ...] = field(repr=False)
    seconds: float
    why: str | None = None

    def to_frame(self) -> pd.DataFrame:
        """Return one row per fit that was tried, with the columns of `tidy_frame`."""
        return tidy_frame(tried.record for tried in self.tried)


def check_time(seconds: float) -> None:
    """Refuse a time that nothing can be trained in.

    Raises:
        UsageError: it is too short.
    """
    if seconds < LEAST_SECONDS:
        raise UsageError(
            f"Within {seconds:g} s nothing can be trained: starting alone takes about {LEAST_SECONDS:g} s. "
            f"Give --within 20s or more."
        )


def choose(
    task: Task,
    files: BackboneFiles | None,
    workers: Executor,
    store: Store,
    folder: Path,
    *,
    within: float,
    began: float,
    methods: Sequence[Method] | None = None,
    most_bytes: int | None = None,
    prior: Callable[[], list[Record]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Find the best method for a classification task within a time, and save it fitted.

    Nothing is decided by the test rows: the race is run on folds of the training rows, the winner is fitted on all of
    them, and then, once, scored.

    Args:
        task: prepared.
        files: the backbone; None leaves methods that use none.
        workers: where fits run.
        store: where all that was tried is recorded.
        folder: where the model is saved; must not exist, or be empty.
        within: seconds that all of it may take.
        began: when that time began, by `time.monotonic`.
        methods: that may win; None is all that learn from labels.
        most_bytes: of memory that a fit may need; None is no limit.
        prior: gives records that say what methods reach on other tasks.
        say: is told the reasoning.

    Raises:
        UsageError: too little time, no method that serves the task, a folder with something in it.
        HarnessError: nothing could be fitted; the message says why.
    """
    check_time(within)
    check_folder(folder)
    end = began + within - CLOSING_SECONDS
    folds = validation_folds(task, validation_cap(within))
    if not folds:
        raise UsageError(
            f"{len(task.train_labels)} training rows leave none to choose by. Label a few more of each class."
        )
    device = workers.device
    entrants = candidates(methods, task, files, device.kind, within=within)
    if not entrants:
        raise UsageError("No method that was named serves this task and backbone; `harness methods` lists them.")
    points = _prior(prior, files, task)
    with Claims(store, device.name) as claims:
        runner = Runner(workers, store, claims, {one.name: one for one in (task, *folds)}, files)
        belief = Belief(points, len(task.label_names))

        def last_fit(candidate: Candidate) -> float:
            return runner.estimate(runner.plan(task, candidate.method)).train_seconds

        race = Race(runner, folds, entrants, belief, end, most_bytes, say, last_fit, len(task.train_labels))
        say(
            f"{len(task.train_labels):,} rows to learn from, of which {folds[0].n_test:,} validate"
            + (f", in {len(folds)} folds" if len(folds) > 1 else "")
            + f"; {task.n_test:,} test rows that no decision sees"
        )
        with tempfile.TemporaryDirectory(dir=_nearest_folder(folder), prefix=".choose-") as aside:
            last = _Last(race, task, Path(aside), GRACE * within)
            # With little time a transformer may come to nothing: a model is put aside before.
            CheapMethods(race).run(last.make_sure if within < HURRY_SECONDS else None)
            last.make_sure()
            if any(not candidate.is_cheap for candidate in entrants):
                race.halving(last.predict_seconds())
            record, winner = last.fit(folder)
    assert record.score is not None
    why = why_not_the_best(winner.label, race.tried, last.expected, last.missed, task.metric)
    chosen = Chosen(winner.label, record.score, record, folder, tuple(race.tried), time.monotonic() - began, why)
    _write_card(chosen, task)
    return chosen


def check_folder(folder: Path) -> None:
    """Refuse a folder that something is in.

    Raises:
        UsageError: it is a file, or is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--save '{folder}' exists already; name a folder that does not, or an empty one.")


@uncollected()
def _prior(prior: Callable[[], list[Record]] | None, files: BackboneFiles | None, task: Task) -> list[Point]:
    if prior is None:
        return []
    points = [point for point in gather(prior()).points if point.kind == task.kind.name]
    name = None if files is None else files.name
    if any(point.backbone == name for point in points):
        points = [point for point in points if point.backbone in (None, name)]
    return points


class _Last:
    """The winner's own fit, on all training rows, in the time that is left."""

    def __init__(self, race: Race, task: Task, aside: Path, grace: float) -> None:
        self._race = race
        self._task = task
        self._aside = aside
        self._grace = grace
        self._safe: tuple[Record, Candidate] | None = None
        self._safe_folder = aside
        self._tries = 0
        self.expected: dict[str, float] = {}
        self.missed: dict[str, str] = {}

    def predict_seconds(self) -> float:
        """That predicting the test rows takes with a whole transformer, by what the features of the others took."""
        rates = [
            tried.record.cost.predict_seconds / tried.record.score.n_test
            for tried in self._race.tried
            if tried.record.score is not None and tried.record.cost.predict_seconds and tried.candidate.method.serves
        ]
        return 1.3 * float(np.median(rates)) * self._task.n_test if rates else 0.0

    def make_sure(self) -> None:
        """Fit and put aside the best of the cheap methods that takes next to no time: a model, whatever comes."""
        race = self._race
        cheap = [(c, self._seconds_in_all(c)) for c, _ in self._ranked() if c.is_cheap]
        if not cheap:
            return
        quick = [candidate for candidate, takes in cheap if takes <= SHARE_FOR_SAFETY * race.left]
        candidate = quick[0] if quick else min(cheap, key=lambda one: one[1])[0]
        if self._safe is not None and (candidate is self._safe[1] or not quick):
            return
        planned = self._as_much_as_fits(candidate)
        if planned is None:
            return
        self._tries += 1
        folder = self._aside / f"model-{self._tries}"
        record = race.runner.run(planned, self._task, race.end, folder)
        if record is not None and record.status == "ok":
            self._safe, self._safe_folder = (record, candidate), folder

    def fit(self, folder: Path) -> tuple[Record, Candidate]:
        """Fit and save the best by belief; what was put aside before, where that does not come to an end."""
        race, safe = self._race, self._safe
        ranked = self._ranked()
        self.expected = {candidate.label: expected for candidate, expected in ranked}
        for candidate, expected in ranked:
            hope = f"{candidate.label} is expected to reach {expected:.3f}"
            if safe is not None and candidate is safe[1]:
                race.say(f"{hope}, and was fitted to {self._rows(safe[0].cell.n_train)} rows before the race")
                break
            planned = self._as_much_as_fits(candidate) if candidate.is_cheap else self._in_time(candidate)
            if planned is None:
                self.missed[candidate.label] = "no time for its last fit was left"
                continue
            race.say(f"{hope}: fitting it to {self._rows(planned.cell.n_train)} rows")
            record = race.runner.run(planned, self._task, race.end + self._grace, folder)
            if record is not None and record.status == "ok":
                return record, candidate
            ended = "no time" if record is None else record.status.replace("_", " ")
            self.missed[candidate.label] = f"its last fit ended with '{ended}'"
            race.say(f"{candidate.label}: {ended}")
        if safe is None:
            why = "; ".join(f"{label} {reason}" for label, reason in race.out.items())
            raise HarnessError(f"Nothing was fitted within the time{': ' + why if why else ''}. Give more of it.")
        if folder.exists():  # empty before, or what a fit that was late has just written
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self._safe_folder, folder)
        return safe

    def _ranked(self) -> list[tuple[Candidate, float]]:
        race = self._race
        known = [c for c in race.entrants if race.measured(c) or (c is race.favourite and c.label not in race.out)]
        if not known:
            return []
        time_left = race.left - self.predict_seconds() - race.overhead
        sizes = [race.labels_in_time(candidate, time_left) for candidate in known]
        mean, _ = race.believed(known, sizes)
        metric = self._task.metric
        expected = [value_at(metric, race.belief.back(float(value))) for value in mean]
        ranked = [(known[i], expected[i]) for i in np.argsort(-mean, kind="stable")]
        return self._with_what_is_clear(ranked)

    def _with_what_is_clear(self, ranked: list[tuple[Candidate, float]]) -> list[tuple[Candidate, float]]:
        """Return the ranking with what validated best in front, where that is clearly better than the expected best.

        Other tasks may say little of this one: what its own rows say beyond chance overrules them.
        """
        fits = {candidate.label: self._race.measured(candidate) for candidate, _ in ranked}
        scores = {label: found[0] for label, own in fits.items() if (found := validated(own)) is not None}
        best = max(scores, key=lambda label: scores[label], default=None)
        if best is None or not is_clearly_better(fits[best], fits[ranked[0][0].label]):
            return ranked
        return sorted(ranked, key=lambda one: one[0].label != best)

    def _seconds_in_all(self, candidate: Candidate) -> float:
        """What fitting to all rows and predicting the test rows takes; validation rows are encoded already."""
        measured = self._race.measured(candidate)
        if not measured or not candidate.method.serves:
            return self._race.runner.estimate(self._whole(candidate)).seconds
        record = max((tried.record for tried in measured), key=lambda record: record.cell.n_train)
        cost, n_test = record.cost, record.score.n_test if record.score is not None else 1
        more = len(self._task.train_labels) / max(1, record.cell.n_train)
        reading = (cost.predict_seconds or 0.0) / max(1, n_test)
        n_unread = max(0, len(self._task.train_labels) - record.cell.n_train - n_test)
        return (
            more * ((cost.tune_seconds or 0.0) + (cost.fit_seconds or 0.0))
            + reading * (n_unread + self._task.n_test)
            + FIXED_SECONDS
        )

    def _whole(self, candidate: Candidate, n_train: int | None = None) -> PlannedCell:
        """The cell that fits a candidate to all rows, or to `n_train` of them, however long it takes."""
        budget = Budget(peak_memory_bytes=self._race.most_bytes)
        return self._race.runner.plan(self._task, candidate.method, n_train, budget)

    def _as_much_as_fits(self, candidate: Candidate) -> PlannedCell | None:
        """The cell that fits a cheap method to all rows, or to as many as the time allows; None where these are few."""
        allowed, needs = LEAVES * self._race.left, self._seconds_in_all(candidate)
        if needs <= allowed:
            return self._whole(candidate)
        n = int(len(self._task.train_labels) * allowed / needs)
        return None if n < max(self._task.n_strata, 50) else self._whole(candidate, n)

    def _rows(self, n: int) -> str:
        everything = len(self._task.train_labels)
        return f"all {n:,}" if n == everything else f"{n:,} of {everything:,}"

    def _in_time(self, candidate: Candidate) -> PlannedCell | None:
        """The same, cut to the time that is left; None where that is none."""
        race = self._race
        seconds = race.left - self.predict_seconds() - race.overhead
        if seconds < LEAST_FIT / 2:
            return None
        budget = Budget(train_seconds=round(max(1.0, seconds), 1), peak_memory_bytes=race.most_bytes)
        return race.runner.plan(self._task, candidate.method, race.readable(candidate, self._task, seconds), budget)


def _nearest_folder(folder: Path) -> Path:
    """The nearest folder above that is there: on the same file system, most likely."""
    return next(parent for parent in folder.absolute().parents if parent.is_dir())


def _write_card(chosen: Chosen, task: Task) -> None:
    score, cost = chosen.score, chosen.record.cost
    spread = "" if score.low is None else f" (95 %: {score.low:.3f} to {score.high:.3f})"
    facts = {
        "task": task.spec.description,
        "data": f"{task.spec.data.label()}; {len(task.train_labels):,} training rows",
        "score": f"{score.metric} {score.value:.3f}{spread} on {score.n_test:,} test rows that no decision has seen",
        "training": f"{cost.train_seconds or 0.0:.1f} s on {chosen.record.device}; chosen among "
        f"{len({tried.candidate.label for tried in chosen.tried})} methods within {chosen.seconds:.0f} s",
    }
    if chosen.why is not None:
        facts["choice"] = chosen.why
    summary = summarise(task)
    facts["rows"] = summary.line()
    if summary.warnings:
        facts["warnings about the data"] = " ".join(summary.warnings)
    (chosen.folder / CARD).write_text(card(read_description(chosen.folder), facts), encoding="utf-8")
