"""What a search is expected to end with, by the seconds that are left and the fits that may come before its last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.choose.candidates import Candidate
from harness.choose.search import SHORTEST_FIT_SECONDS, Rivals, Search
from harness.choose.tried import summarised

_LEAST_STEPS: Final = 100
"""Steps below which a fit inside the transformer is useless: methods take 120 however few labels there are."""

_OUT_OF_REACH: Final = -50.0
"""Logit of a method that cannot be fitted in the time."""

MOST_FITS: Final = 8
"""Maximum number of fits that are planned ahead."""

_MOST_RIVALS: Final = 14
"""Maximum number of methods of which fits are planned: the most promising."""


@dataclass(frozen=True)
class Step:
    """A whole fit that may come next.

    Attributes:
        candidate: the method.
        fold: position of the fold whose rows validate.
        seconds: expected duration by the clock.
    """

    candidate: Candidate
    fold: int
    seconds: float


class Outlook:
    """Expected scores of all that may win, by the seconds that are left for the last fit.

    A method's last fit is whole where the time allows, and is followed by one on all rows where the time allows both.

    Args:
        search: the search.
        candidates: those that may win.
        left: seconds that are left now; all of them are at hand for a last fit that would be cut short.
    """

    def __init__(self, search: Search, candidates: Sequence[Candidate], left: float) -> None:
        m, n = len(candidates), search.n_rows
        self.candidates = list(candidates)
        self.left = left
        self.last = np.array([search.last_seconds(candidate) for candidate in candidates])
        self.again = np.array([search.again_seconds(candidate) for candidate in candidates])
        n_all = n if search.everything is None else len(search.everything.train_labels)
        cut = [search.labels_within(candidate, left) for candidate in candidates]
        whole = [one.labels_of(size) for size in (n, n_all) for one in candidates]
        mean, covariance = search.belief.expect([*candidates] * 3, [*whole, *cut], summarised(search.tried))
        self._mean, self._covariance = mean, covariance
        useless = [not _is_useful(search, candidate, left) for candidate in candidates]
        self._mean[2 * m :][useless] = _OUT_OF_REACH

    def rivals(self, left: float) -> Rivals:
        """Return the expected scores of last fits that begin with so many seconds left."""
        m = len(self.candidates)
        whole, twice = self.last <= left, self.last + self.again <= left
        places = np.arange(m) + m * np.where(twice, 1, np.where(whole, 0, 2))
        mean = self._mean[places].copy()
        if left < self.left - 1e-9:  # a fit comes before: a last fit that it cuts short is not what was asked for
            mean[~whole] = _OUT_OF_REACH
        return Rivals(mean, self._covariance[np.ix_(places, places)])

    def spread(self) -> np.ndarray:
        """Return the standard deviation of each candidate's whole last fit, shape (m,)."""
        return np.sqrt(np.diag(self._covariance)[: len(self.candidates)])


def _is_useful(search: Search, candidate: Candidate, left: float) -> bool:
    """Return whether a last fit that the time cuts short makes anything of a candidate."""
    if candidate.is_cheap:
        return True
    seconds = left - search.overhead_of(candidate)
    return seconds >= SHORTEST_FIT_SECONDS and search.uncut(candidate).steps_within(seconds) >= _LEAST_STEPS


def plan_ahead(search: Search, outlook: Outlook, steps: Sequence[Step]) -> tuple[list[Step], float]:
    """Return the fits that are worth their time, and by how many logits they raise the expected score.

    Fits are added one by one, the one with the most gain for its seconds first. Of the sets so made, the one with the
    highest expected score counts. No fit enters that would leave too little for its own last fit.

    Args:
        search: the search.
        outlook: what is expected without them.
        steps: fits that may come next, at most one of each candidate.
    """
    position = {id(candidate): i for i, candidate in enumerate(outlook.candidates)}
    start = outlook.rivals(outlook.left)
    begun = best = start.best_of([], [])
    noises = {id(step): _noise(search, start, position[id(step.candidate)], step) for step in steps}
    kept: list[Step] = []
    chosen: list[Step] = []
    value, spent = begun, 0.0
    while len(chosen) < MOST_FITS:
        options = []
        for step in steps:
            after = outlook.left - spent - step.seconds
            i = position[id(step.candidate)]
            if step in chosen or after < outlook.last[i]:
                continue
            entering = [*chosen, step]
            found = outlook.rivals(after).best_of(
                [position[id(one.candidate)] for one in entering], [noises[id(one)] for one in entering]
            )
            gain = found - value
            options.append((gain / step.seconds if gain > 0 else gain * step.seconds, found, step))
        if not options:
            break
        _, value, step = max(options, key=lambda option: option[0])
        chosen.append(step)
        spent += step.seconds
        if value > best:
            best, kept = value, list(chosen)
    return kept, best - begun


def _noise(search: Search, rivals: Rivals, i: int, step: Step) -> float:
    """Return the variance of a candidate's measured logit on a fold."""
    mean = rivals.mean[i] if rivals.mean[i] > _OUT_OF_REACH else float(rivals.mean.max())
    return search.noise_at(float(mean), search.folds[step.fold].n_test)


def promising(outlook: Outlook) -> list[Candidate]:
    """Return the candidates whose fits are planned, the most promising first."""
    hopes = outlook.rivals(outlook.left).mean + outlook.spread()
    order = np.argsort(-hopes, kind="stable")
    return [outlook.candidates[int(i)] for i in order][:_MOST_RIVALS]


def next_step(search: Search, candidate: Candidate) -> Step | None:
    """Return a candidate's whole fit on the next fold that it was not fitted on; None where it was on all."""
    done = {tried.fold for tried in search.measured(candidate)}
    fold = next((k for k in range(len(search.folds)) if k not in done), None)
    if fold is None:
        return None
    if candidate.is_cheap:
        seconds = search.runner.estimate(search.plan(candidate, search.folds[fold])).seconds
    else:
        seconds = search.train_seconds(candidate, search.folds[fold])
    seconds += search.overhead_of(candidate)
    return Step(candidate, fold, seconds) if math.isfinite(seconds) else None
