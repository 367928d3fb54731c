"""One search for a method under one clock: its limits, the fits so far, and the scores that they lead to expect."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import scipy.linalg

from harness.backbones import BackboneFiles
from harness.choose.candidates import Belief, Candidate
from harness.choose.prediction_cost import rule_out_slow
from harness.choose.runner import Runs
from harness.choose.tried import Tried, Uncut, labels_used, share_of_steps, summarised, uncut_fit
from harness.cost import FIXED_SECONDS
from harness.forecast import SEED_NOISE, Doubles, logit_variance
from harness.methods import Rung
from harness.planning import PlannedCell
from harness.records import Budget
from harness.support import describe_duration, text
from harness.tasks import Task

STARTING_SECONDS: Final = 2.0
"""Seconds of a fit outside its training (importing, copying weights, predicting), until they are measured."""

_FRESH_WORKER_SECONDS: Final = 8.0
"""The same for a fit on a new worker, which imports the libraries and reads the backbone and the data again."""

SHORTEST_FIT_SECONDS: Final = 4.0
"""Shortest training inside the transformer that tells anything about a method."""

_FIRST_PACE: Final = 1.7
"""Seconds of training inside the transformer, as a multiple of what the speed of reading texts leads to expect.

Reading is done in batches of like lengths. In the reference results `full` had 0.5 to 1.0 of its speed."""

_PACE_OF_ADDED: Final = 1.3
"""The same for methods that add parameters, as a multiple of that of others: their small layers take more calls."""

_READING_SECONDS: Final = 3.0
"""Seconds until a worker has read one more backbone."""

_LEAST_PACE: Final = 0.5
_MOST_PACE: Final = 6.0

_MARGIN: Final = 1.05
"""Seconds kept for a last fit, as a multiple of what it is expected to take."""

_DRAWS: Final = 2000

_FAR: Final = 6.0
"""Standard deviations of its posterior mean behind the leader from which a candidate never leads."""

_DOUBT: Final = 1.281552
"""Standard deviations behind the leader beyond which a method's chance to win is below a tenth."""


@dataclass
class Search:
    """The state that all stages of a search share: cheap methods, whole fits, last fit.

    Args:
        runner: runs the fits.
        task: the user's data.
        folds: tasks whose test rows are validation rows.
        entrants: methods that may win.
        belief: expected scores, from other tasks and from the fits so far.
        end: deadline on the clock of `runner`; the last fit and its prediction end before it.
        most_bytes: limit on the memory of a fit; None is no limit.
        say: called with each line of the reasoning.

    Attributes:
        favourite: the method that gets all of the time where no fit before its last is worth its time.
        tried: the fits so far.
        out: reason why a method is out, by its label.
        overhead: seconds of a fit outside its training.
        aside: folder for the models of whole fits; None keeps none.
        everything: the task with its test rows among its training rows, for a last fit that is not scored; None where
            there is no such fit.
        first: the backbone that the first stage reads texts with, of several; None is any.
        pace: seconds of training inside the transformer, as a multiple of what reading texts leads to expect.
        tries_settings: whether other settings of the best method are tried; fits are then scored at rungs too.
        most_milliseconds: limit on the milliseconds of predicting one text; None is no limit.
        served_fold: the fold whose validation rows served models are asked about; None is the first.
    """

    runner: Runs
    task: Task
    folds: Sequence[Task]
    entrants: list[Candidate]
    belief: Belief
    end: float
    most_bytes: int | None
    say: Callable[[str], None]
    favourite: Candidate | None = None
    tried: list[Tried] = field(default_factory=list)
    out: dict[str, str] = field(default_factory=dict)
    overhead: float = STARTING_SECONDS
    aside: Path | None = None
    everything: Task | None = None
    first: BackboneFiles | None = None
    pace: float = _FIRST_PACE
    tries_settings: bool = False
    _overheads: dict[str | None, float] = field(default_factory=dict)
    most_milliseconds: float | None = None
    served_fold: Task | None = None

    def __post_init__(self) -> None:
        self.belief.kin = [candidate for candidate in self.entrants if not candidate.is_cheap]

    def now(self) -> float:
        """Return the time on the clock of the runs, in seconds."""
        return self.runner.now()

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.end - self.now()

    @property
    def n_rows(self) -> int:
        """Number of all training rows."""
        return len(self.task.train_labels)

    def fold_of(self, candidate: Candidate, fold: int) -> Task:
        """Return the fold that a candidate is fitted to: one with fewer validation rows for a served model."""
        return self.served_fold if candidate.is_served and self.served_fold is not None else self.folds[fold]

    def measured(self, candidate: Candidate) -> list[Tried]:
        """Return the fits of a candidate that have a score."""
        return [tried for tried in self.tried if tried.candidate is candidate and tried.score is not None]

    def measured_cheap(self) -> list[Candidate]:
        """Return the cheap methods that have a score."""
        return [candidate for candidate in self.entrants if candidate.is_cheap and self.measured(candidate)]

    def run(
        self,
        candidate: Candidate,
        fold: int,
        until: float,
        seconds: float | None = None,
        *,
        n: int | None = None,
        quietly: bool = False,
        at_rung: Callable[[Rung], bool] | None = None,
    ) -> None:
        """Fit a candidate on `n` rows of a fold (None is all), within `seconds` of training, and note the result.

        Args:
            candidate: the candidate.
            fold: position of the fold.
            until: time after which the fit is stopped.
            seconds: seconds of training; None is no limit.
            n: number of rows; None is all.
            quietly: whether to say nothing of a fit that went well.
            at_rung: returns whether the fit goes on from a rung; None lets it go on.
        """
        task = self.fold_of(candidate, fold)
        planned = self.plan(candidate, task, n, self.budget(seconds))
        expected = self.runner.estimate(self.plan(candidate, task, n))
        folder = None
        if self.aside is not None and not candidate.is_cheap:
            folder = self.aside / f"fit-{len(self.tried) + 1}"
        began = self.now()
        if self.tries_settings and not candidate.is_cheap:
            record = self.runner.run(planned, task, until, folder, must_save=False, at_rung=at_rung or _go_on)
        else:
            record = self.runner.run(planned, task, until, folder, must_save=False)
        took = self.now() - began
        if record is None:
            self.out[candidate.label] = f"was stopped after {describe_duration(took)}"
            self.overhead = max(self.overhead, _FRESH_WORKER_SECONDS)
            self.say(f"{candidate.label}: stopped after {describe_duration(took)}, to keep within the time")
            return
        if folder is not None and not folder.exists():  # a record from before
            folder = None
        self.tried.append(Tried(candidate, record, labels_used(record, candidate), fold, took, folder))
        if self.tried[-1].is_dropped:
            self.say(f"{candidate.label}: {record.error} It took {describe_duration(took)}")
            return
        if record.status != "ok":
            self.out[candidate.label] = record.status.replace("_", " ")
            why = f" ({record.error.splitlines()[0]})" if record.status == "failed" and record.error else ""
            self.say(f"{candidate.label}: {record.status.replace('_', ' ')}{why}; out")
            self.overhead = max(self.overhead, _FRESH_WORKER_SECONDS)  # the worker may have gone with it
            return
        spent = record.cost.train_seconds or 0.0
        share = share_of_steps(record, candidate)
        if not candidate.is_cheap and took > spent:  # a record from before takes no time
            self.overhead = self._overheads[_weights(candidate)] = max(1.0, took - spent)
            whole = share * expected.train_seconds * _pace_of(candidate)
            if expected.basis == "formula" and whole > 0:
                self.pace = min(_MOST_PACE, max(_LEAST_PACE, spent / whole))
        if self.most_milliseconds is not None:
            rule_out_slow(self, self.tried[-1])
        if quietly:
            return
        cut = "" if share >= 0.95 else f", cut short at {100 * share:.0f} % of its steps"
        assert record.score is not None
        self.say(
            f"{candidate.label}: {record.score.value:.3f} on {text.counted(record.score.n_test, 'validation row')} in "
            f"{describe_duration(took) if took >= 10 else f'{took:.1f} s'}{cut}"
        )

    def plan(
        self, candidate: Candidate, task: Task, n_train: int | None = None, budget: Budget | None = None
    ) -> PlannedCell:
        """Return the cell of a candidate on `n_train` rows of a task (None is all)."""
        return self.runner.plan(task, candidate.method, n_train, budget, files=candidate.files)

    def budget(self, seconds: float | None = None) -> Budget:
        """Return a budget of so many seconds of training (None is no limit), within the limit on memory."""
        rounded = None if seconds is None else max(1.0, round(seconds, 1))
        return Budget(train_seconds=rounded, peak_memory_bytes=self.most_bytes)

    def too_large(self, candidate: Candidate) -> float | None:
        """Return the bytes that a method is expected to need if they exceed the limit; None where it fits."""
        if self.most_bytes is None:
            return None
        needs = self.runner.estimate(self.plan(candidate, self.folds[0])).peak_bytes
        return needs if needs > self.most_bytes else None

    def predict_seconds(self, candidate: Candidate) -> float:
        """Return the seconds of predicting the test rows with a candidate's whole transformer.

        They come from the cheap methods on its backbone. Before any has run on it, they are the expected ones.
        """
        own = [tried for tried in self.tried if tried.candidate.files == candidate.files]
        rates = [
            tried.record.cost.predict_seconds / tried.record.score.n_test
            for tried in own
            if tried.record.score is not None and tried.record.cost.predict_seconds and tried.candidate.reads_texts
        ]
        if rates:
            return 1.3 * float(np.median(rates)) * self.task.n_test
        if own or not self.has_several:
            return 0.0
        found = self.runner.estimate(self.plan(candidate, self.task))
        return max(0.0, found.seconds - found.train_seconds)

    def overhead_of(self, candidate: Candidate) -> float:
        """Return the seconds of a candidate's fit outside its training; a backbone that has not run is read first."""
        known = self._overheads.get(_weights(candidate))
        if known is not None or not self.has_several or candidate.files is None:
            return self.overhead if known is None else known
        was_read = any(tried.candidate.files == candidate.files for tried in self.tried)
        return self.overhead if was_read else 2 * self.overhead + _READING_SECONDS

    @functools.cached_property
    def has_several(self) -> bool:
        """Whether the candidates have several backbones."""
        return len({_weights(candidate) for candidate in self.entrants if not candidate.is_served} - {None}) > 1

    def uncut_seconds(self, candidate: Candidate) -> float:
        """Return the seconds of training that a candidate's fit to all rows would take without a budget."""
        return self.train_seconds(candidate, self.task)

    def train_seconds(self, candidate: Candidate, task: Task) -> float:
        """Return the seconds of training that a candidate's fit to all rows of a task would take without a budget."""
        found = self.runner.estimate(self.plan(candidate, task))
        if candidate.is_cheap or found.basis != "formula":
            return found.train_seconds
        return found.train_seconds * self.pace * _pace_of(candidate)

    def last_seconds(self, candidate: Candidate) -> float:
        """Return the seconds of a candidate's whole fit to all training rows, with predicting the test rows."""
        if candidate.is_cheap:
            return self.cheap_seconds(candidate)
        return _MARGIN * self.uncut_seconds(candidate) + self.predict_seconds(candidate) + self.overhead_of(candidate)

    def again_seconds(self, candidate: Candidate) -> float:
        """Return the seconds of a candidate's fit to the test rows too, after its last fit; infinite where none is."""
        if self.everything is None:
            return math.inf
        more = len(self.everything.train_labels) / max(1, self.n_rows)
        if candidate.is_cheap:
            return more * self.cheap_seconds(candidate)
        return _MARGIN * more * self.uncut_seconds(candidate) + self.overhead_of(candidate)

    def cheap_seconds(self, candidate: Candidate) -> float:
        """Return the seconds of fitting all rows and predicting the test rows; validation rows are encoded already."""
        measured = self.measured(candidate)
        if not measured or not candidate.method.serves:
            return self.runner.estimate(self.plan(candidate, self.task, None, self.budget())).seconds
        record = max((tried.record for tried in measured), key=lambda record: record.cell.n_train)
        cost, n_test = record.cost, record.score.n_test if record.score is not None else 1
        more = self.n_rows / max(1, record.cell.n_train)
        reading = (cost.predict_seconds or 0.0) / max(1, n_test)
        n_unread = max(0, self.n_rows - record.cell.n_train - n_test) if candidate.reads_rows else 0
        return (
            more * ((cost.tune_seconds or 0.0) + (cost.fit_seconds or 0.0))
            + reading * (n_unread + self.task.n_test)
            + FIXED_SECONDS
        )

    def labels_within(self, candidate: Candidate, left: float) -> float:
        """Return the number of labels that a last fit is worth that ends within so many seconds."""
        if candidate.is_cheap:
            return candidate.labels_of(self.n_rows)
        return self.uncut(candidate).labels_within(
            max(1.0, left - self.predict_seconds(candidate) - self.overhead_of(candidate))
        )

    def uncut(self, candidate: Candidate) -> Uncut:
        """Return a candidate's fit to all rows without a budget."""
        return uncut_fit(candidate, self.n_rows, self.uncut_seconds(candidate))

    def readable(self, candidate: Candidate, task: Task, seconds: float) -> int | None:
        """Return how many rows to give a method that reads all texts before its first step; None is all."""
        n = self.uncut(candidate).rows_within(seconds)
        return None if n >= len(task.train_labels) else max(n, task.n_strata, 32)

    def rivals(self, candidates: Sequence[Candidate], seconds: float) -> Rivals:
        """Return what candidates are expected to reach in fits of so many seconds to all rows."""
        sizes = [one.labels_of(self.uncut(one).labels_within(max(1.0, seconds))) for one in candidates]
        return Rivals(*self.belief.expect(candidates, sizes, summarised(self.tried)))

    def last_rivals(self, candidates: Sequence[Candidate]) -> Rivals:
        """Return what candidates are expected to reach in last fits that take all of the time that is left."""
        sizes = [self.labels_within(candidate, self.left) for candidate in candidates]
        return Rivals(*self.belief.expect(candidates, sizes, summarised(self.tried)))

    def noise(self, rivals: Rivals, n_rows: int) -> float:
        """Return the variance of the best rival's measured logit on so many rows."""
        return self.noise_at(float(rivals.mean.max()), n_rows)

    def noise_at(self, logit: float, n_rows: int) -> float:
        """Return the variance of a measured logit on so many rows."""
        return logit_variance(self.belief.back(logit), n_rows) + SEED_NOISE**2


def _go_on(_: Rung) -> bool:
    """Let every fit go on."""
    return True


def _weights(candidate: Candidate) -> str | None:
    return None if candidate.files is None else candidate.files.fingerprint


def _pace_of(candidate: Candidate) -> float:
    """Return the pace of a candidate as a multiple of that of methods that add no parameters."""
    return _PACE_OF_ADDED if candidate.method.family == "auxiliary parameters" else 1.0


@dataclass(frozen=True)
class Rivals:
    """Expected scores of candidates, as logits with a joint normal distribution.

    Attributes:
        mean: shape (m,).
        covariance: shape (m, m).
    """

    mean: Doubles
    covariance: Doubles

    def best_of(self, fitted: Sequence[int], noises: Sequence[float]) -> float:
        """Return the expected logit of the leader once some are measured, or of the leader now if none are.

        Args:
            fitted: positions of those that are measured.
            noises: variance of each measurement.
        """
        if not fitted:
            return float(self.mean.max())
        at = np.asarray(fitted)
        across = self.covariance[:, at]
        seen = across[at] + np.diag(np.asarray(noises, dtype=np.float64))
        # The posterior means have the covariance root @ root.T, whose rank is the number of measurements.
        root = scipy.linalg.solve_triangular(scipy.linalg.cholesky(seen, lower=True), across.T, lower=True).T
        reach = _FAR * np.linalg.norm(root, axis=1)
        may_lead = self.mean + reach >= (self.mean - reach).max()  # the leader may turn out worse than expected
        draws = np.random.default_rng(0).standard_normal((_DRAWS, len(at)))
        draws = np.concatenate([draws, -draws])  # equal candidates gain nothing by the luck of the draws
        return float((self.mean[may_lead] + draws @ root[may_lead].T).max(axis=1).mean())

    def is_beaten(self, i: int) -> bool:
        """Return whether a candidate's chance to beat the leader is less than a tenth."""
        top = int(np.argmax(self.mean))
        variance = self.covariance[i, i] + self.covariance[top, top] - 2 * self.covariance[i, top]
        return bool(self.mean[top] - self.mean[i] > _DOUBT * math.sqrt(max(float(variance), 0.0)))
