"""The race of the methods that train inside the transformer: by halves, in ever longer fits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from harness.advice import SEED_NOISE, Floats, logit_variance
from harness.choose.candidates import CUT_NOISE, Belief, Candidate
from harness.choose.runner import Runner
from harness.choose.tried import Tried, labels_used, share_of_steps, summarised, uncut_fit
from harness.choose.worth import LEAST_STEPS, Rivals, Uncut, rungs
from harness.records import Budget
from harness.support import describe_duration
from harness.tasks import Task

SHARE_FOR_LAST_FIT: Final = 0.5
"""Of the time left after the cheap methods, that is kept for the winner's own fit, where it can use so much."""

LEAST_SECONDS: Final = 4.0
LEAST_SHARE: Final = 0.25
"""Seconds of training, and the share of what the last fit will have, that tell anything of a method that trains inside
the transformer: fewer entrants in longer fits, where all of them cannot have so much."""

MOST_ENTRANTS: Final = 8
RESTART_SECONDS: Final = 8.0
"""Of a fit that a new worker runs: it imports the libraries and reads the backbone and the data again."""

FOLD_SHARE: Final = 0.8
"""Of the rows that the race fits to, about."""

STARTING_SECONDS: Final = 2.0
"""Of a fit, before its first step and after its last: importing, copying weights, predicting; until it is measured."""


@dataclass
class Race:
    """What has been tried, and what is believed of it.

    Args:
        runner: runs the fits.
        folds: tasks whose test rows are validation rows.
        entrants: all that may win.
        belief: of what they would reach.
        end: by `time.monotonic`: of everything, the last fit and its prediction included.
        most_bytes: of memory that a method may need; None is no limit.
        say: is told the reasoning.
        last_fit: seconds that a candidate's fit on all rows would take, uncut.
        n_rows: all of them.

    Attributes:
        favourite: who gets all of the time without a race, where none is worth it.
    """

    runner: Runner
    folds: Sequence[Task]
    entrants: list[Candidate]
    belief: Belief
    end: float
    most_bytes: int | None
    say: Callable[[str], None]
    last_fit: Callable[[Candidate], float]
    n_rows: int
    favourite: Candidate | None = None
    tried: list[Tried] = field(default_factory=list)
    out: dict[str, str] = field(default_factory=dict)
    overhead: float = STARTING_SECONDS

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def measured(self, candidate: Candidate) -> list[Tried]:
        """What was tried of a candidate and came to a score."""
        return [tried for tried in self.tried if tried.candidate is candidate and tried.score is not None]

    def run(
        self,
        candidate: Candidate,
        fold: int,
        until: float,
        seconds: float | None = None,
        *,
        n: int | None = None,
        quietly: bool = False,
    ) -> bool:
        """Fit a candidate on a fold, on `n` of its rows, within `seconds` of training; whether it came to a score."""
        task = self.folds[fold]
        budget = Budget(
            train_seconds=None if seconds is None else max(1.0, round(seconds, 1)), peak_memory_bytes=self.most_bytes
        )
        planned = self.runner.plan(task, candidate.method, n, budget)
        began = time.monotonic()
        record = self.runner.run(planned, task, until)
        took = time.monotonic() - began
        if record is None:
            self.out[candidate.label] = f"was stopped after {describe_duration(took)}"
            self.overhead = max(self.overhead, RESTART_SECONDS)
            self.say(f"{candidate.label}: stopped after {describe_duration(took)}, to keep within the time")
            return False
        used = labels_used(record, candidate)
        share = share_of_steps(record, candidate)
        self.tried.append(Tried(candidate, record, used, fold, took))
        if record.status != "ok":
            self.out[candidate.label] = record.status.replace("_", " ")
            why = f" ({record.error.splitlines()[0]})" if record.status == "failed" and record.error else ""
            self.say(f"{candidate.label}: {record.status.replace('_', ' ')}{why}; out of the race")
            self.overhead = max(self.overhead, RESTART_SECONDS)  # the worker may have gone with it
            return False
        spent = record.cost.train_seconds or 0.0
        if not candidate.is_cheap and took > spent:  # not one that was recorded before
            self.overhead = max(1.0, took - spent)
        cut = "" if share >= 0.95 else f", cut short at {100 * share:.0f} % of its steps"
        assert record.score is not None
        if quietly:
            return True
        self.say(
            f"{candidate.label}: {record.score.value:.3f} on {record.score.n_test:,} validation rows in "
            f"{describe_duration(took) if took >= 10 else f'{took:.1f} s'}{cut}"
        )
        return True

    def halving(self, predict_seconds: float) -> None:
        """Successive halving: the promising in short fits, then the better half in longer ones; or no race at all.

        As many enter as are expected to make the winner best, the time that the race takes from the last fit counted
        in; where none is worth its time, whoever is expected to do best gets all of it (`favourite`).

        Args:
            predict_seconds: that predicting the test rows takes.
        """
        trained = self._that_fit()
        if not trained:
            return
        left = self.left - predict_seconds
        trained, last = self._entering(trained, left)
        if not trained:
            return
        left -= last
        n_rungs = rungs(len(trained))
        stop = time.monotonic() + left
        least = max(LEAST_SECONDS, LEAST_SHARE * last)
        n_folds = len(self.folds)
        self.say(
            f"the race: {', '.join(candidate.label for candidate in trained)}; {describe_duration(left)} for it in "
            f"{n_rungs} {'round' if n_rungs == 1 else 'rounds'}"
        )
        for rung in range(n_rungs):
            until = time.monotonic() + (stop - time.monotonic()) / (n_rungs - rung)
            for i, candidate in enumerate(trained):
                slice_ = max(least, (until - time.monotonic()) / (len(trained) - i) - self.overhead)
                if time.monotonic() + slice_ + self.overhead > stop + 0.1 * left:
                    self.say(f"{candidate.label}: no time left for it in the race")
                    continue
                self._one(candidate, rung % n_folds, slice_, stop)
            last_seconds = self.end - max(stop, time.monotonic()) - predict_seconds - self.overhead
            trained = self._better_half([c for c in trained if c.label not in self.out], last_seconds)
            if len(trained) < 2 and n_folds == 1:
                return

    def _entering(self, trained: list[Candidate], left: float) -> tuple[list[Candidate], float]:
        """Who enters the race, and the seconds that are kept for the last fit; none where it is not worth its time."""
        cheap = [c for c in self.entrants if c.is_cheap and self.measured(c)]
        if cheap:  # else something is better than nothing
            trained = [c for c in trained if self.uncut(c).steps_within(left - self.overhead) >= LEAST_STEPS]
        rivals = [*trained, *cheap]
        places = range(len(trained))
        direct = self.rivals(rivals, left - self.overhead)
        favourite = int(np.argmax(direct.mean))
        entering: list[int] = []
        worth, kept = direct.best_of([], []), left
        n_rows = self.folds[0].n_test * min(2, len(self.folds))
        first = self.rivals(rivals, SHARE_FOR_LAST_FIT * left)
        noise = self.noise(first, n_rows)
        order = first.order(places, noise, MOST_ENTRANTS)
        has_time = False
        for n in range(1, len(order) + 1):
            chosen = order[:n]
            uncut = max(self.last_fit(trained[i]) for i in chosen) + self.overhead
            last = min(uncut, SHARE_FOR_LAST_FIT * left)
            slice_ = (left - last) / (rungs(n) * n) - self.overhead
            if slice_ < max(LEAST_SECONDS, LEAST_SHARE * last):
                break
            has_time = True
            noises = []
            for i in chosen:
                share = min(1.0, slice_ / max(FOLD_SHARE * self.last_fit(trained[i]), 1e-9))
                noises.append(noise + (CUT_NOISE * math.log2(1 / share)) ** 2)
            found = self.rivals(rivals, last - self.overhead).best_of(chosen, noises)
            # Validate the favourite where that takes no time from the last fit.
            if found > worth or (found == worth and favourite in places and not entering):
                worth, entering, kept = found, chosen, last
        if not entering and favourite in places and left - self.overhead >= LEAST_SECONDS:
            self.favourite = trained[favourite]
            self.say(
                f"no race: {self.favourite.label} is expected to do best, and a race would cost it more than it tells"
            )
        elif not entering and has_time:
            leader = rivals[favourite]
            self.say(f"no race: {leader.label} is expected to do best, and a race would hardly change that")
        elif not entering:
            self.say("no time for a race: the cheap methods decide")
        return [trained[i] for i in entering], kept

    def _one(self, candidate: Candidate, fold: int, seconds: float, stop: float) -> None:
        before = [t for t in self.measured(candidate) if t.fold == fold]
        if any(t.n_train >= len(self.folds[fold].train_labels) for t in before):
            return  # it has had all that it can use here
        grace = stop + self.overhead + 5.0
        self.run(candidate, fold, min(self.end, grace), seconds, n=self.readable(candidate, self.folds[fold], seconds))

    def readable(self, candidate: Candidate, task: Task, seconds: float) -> int | None:
        """Rows to give to a method that reads all of them before its first step, so that it gets there; None is all."""
        n = self.uncut(candidate).rows_within(seconds)
        return None if n >= len(task.train_labels) else max(n, task.n_strata, 32)

    def _that_fit(self) -> list[Candidate]:
        """Those that train inside the transformer and fit into memory."""
        found = []
        for candidate in self.entrants:
            if candidate.is_cheap or candidate.label in self.out:
                continue
            needs = self.too_large(candidate)
            if needs is not None:
                self.out[candidate.label] = f"needs about {needs / 1e9:.1f} GB"
                self.say(f"{candidate.label} needs about {needs / 1e9:.1f} GB: does not fit")
                continue
            found.append(candidate)
        return found

    def too_large(self, candidate: Candidate) -> float | None:
        """Bytes that a method is expected to need, where these are too many; None where it fits."""
        if self.most_bytes is None:
            return None
        needs = self.runner.estimate(self.runner.plan(self.folds[0], candidate.method)).peak_bytes
        return needs if needs > self.most_bytes else None

    def labels_in_time(self, candidate: Candidate, seconds: float) -> float:
        """Labels that a candidate's fit on all rows is worth within so many seconds."""
        return self.uncut(candidate).labels_within(max(1.0, seconds))

    def uncut(self, candidate: Candidate) -> Uncut:
        """A candidate's fit on all rows."""
        return uncut_fit(candidate, self.n_rows, self.last_fit(candidate))

    def rivals(self, candidates: Sequence[Candidate], seconds: float) -> Rivals:
        """What is believed of what they would reach in fits of so many seconds."""
        return Rivals(*self.believed(candidates, [self.labels_in_time(c, seconds) for c in candidates]))

    def noise(self, rivals: Rivals, n_rows: int) -> float:
        """Variance of the logit of what the best of them reaches on so many rows."""
        return logit_variance(self.belief.back(float(rivals.mean.max())), n_rows) + SEED_NOISE**2

    def _better_half(self, candidates: list[Candidate], last_seconds: float) -> list[Candidate]:
        """The better half, less those that will hardly come out ahead of the best of all.

        Args:
            candidates: that were fitted in this round.
            last_seconds: that the last fit will have.
        """
        known = [candidate for candidate in candidates if self.measured(candidate)]
        if len(known) < 2:
            return known
        rivals = [*known, *(c for c in self.entrants if c.is_cheap and self.measured(c))]
        found = self.rivals(rivals, last_seconds)
        order = sorted(range(len(known)), key=lambda i: -found.mean[i])
        half = order[: math.ceil(len(known) / 2)]
        kept = [known[i] for i in half if not found.is_beaten(i)]
        dropped = [c.label for c in known if c not in kept]
        if dropped:
            self.say(f"dropped: {', '.join(dropped)}")
        return kept

    def believed(self, candidates: Sequence[Candidate], sizes: Sequence[float]) -> tuple[Floats, Floats]:
        """Mean and covariance of the logits of what they would reach at `sizes` labels."""
        return self.belief.expect(candidates, sizes, summarised(self.tried))
