"""The race of the methods that train inside the transformer: successive halving, with longer fits in each round."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from harness.choose.candidates import CUT_NOISE, Candidate
from harness.choose.search import SHORTEST_FIT_SECONDS, Search
from harness.support import describe_duration, text

_SHARE_FOR_LAST_FIT: Final = 0.5
"""Share of the time after the cheap methods that is kept for the winner's last fit, if it can use that much."""

_LEAST_SHARE: Final = 0.25
"""Shortest fit of the race as a share of the last fit: otherwise fewer methods enter, in longer fits."""

_LEAST_STEPS: Final = 100
"""Steps below which a fit inside the transformer is useless: methods take 120 however few labels there are."""

_MOST_ENTRANTS: Final = 8

_FOLD_SHARE: Final = 0.8
"""Approximate share of the rows that the race fits to."""


def run_race(search: Search) -> None:
    """Run successive halving: short fits of the promising methods, then longer ones of the better half.

    The number of entrants maximises the winner's expected score, given the time that the race takes from the last fit.
    Where no race is worth its time, the method that is expected to do best gets all of it (`Search.favourite`).
    """
    trained = _those_that_fit(search)
    if not trained:
        return
    predict_seconds = search.predict_seconds()
    left = search.left - predict_seconds
    trained, last = _entering(search, trained, left)
    if not trained:
        return
    left -= last
    n_rungs = _rungs(len(trained))
    stop = search.now() + left
    least = max(SHORTEST_FIT_SECONDS, _LEAST_SHARE * last)
    n_folds = len(search.folds)
    search.say(
        f"the race: {', '.join(candidate.label for candidate in trained)}; {text.counted(n_rungs, 'round')} in "
        f"{describe_duration(left)}"
    )
    for rung in range(n_rungs):
        until = search.now() + (stop - search.now()) / (n_rungs - rung)
        for i, candidate in enumerate(trained):
            slice_ = max(least, (until - search.now()) / (len(trained) - i) - search.overhead)
            if search.now() + slice_ + search.overhead > stop + 0.1 * left:
                search.say(f"{candidate.label}: no time left in the race")
                continue
            _fit(search, candidate, rung % n_folds, slice_, stop)
        last_seconds = search.end - max(stop, search.now()) - predict_seconds - search.overhead
        trained = _better_half(search, [c for c in trained if c.label not in search.out], last_seconds)
        if len(trained) < 2 and n_folds == 1:
            return


def _rungs(n: int) -> int:
    """Return the number of rounds of a race of n whose better half goes on each time: at least 1."""
    return max(1, math.ceil(math.log2(n))) if n > 1 else 1


def _those_that_fit(search: Search) -> list[Candidate]:
    """Return the methods that train inside the transformer and fit into memory."""
    found = []
    for candidate in search.entrants:
        if candidate.is_cheap or candidate.label in search.out:
            continue
        needs = search.too_large(candidate)
        if needs is not None:
            search.out[candidate.label] = f"needs about {needs / 1e9:.1f} GB"
            search.say(f"{candidate.label} needs about {needs / 1e9:.1f} GB: does not fit")
            continue
        found.append(candidate)
    return found


def _entering(search: Search, trained: list[Candidate], left: float) -> tuple[list[Candidate], float]:
    """Return who enters the race, and the seconds that are kept for the last fit; nobody enters a useless race."""
    cheap = search.measured_cheap()
    if cheap:  # otherwise any model is better than none
        trained = [c for c in trained if search.uncut(c).steps_within(left - search.overhead) >= _LEAST_STEPS]
    rivals = [*trained, *cheap]
    places = range(len(trained))
    direct = search.rivals(rivals, left - search.overhead)
    favourite = int(np.argmax(direct.mean))
    entering: list[int] = []
    worth, kept = direct.best_of([], []), left
    n_rows = search.folds[0].n_test * min(2, len(search.folds))
    first = search.rivals(rivals, _SHARE_FOR_LAST_FIT * left)
    noise = search.noise(first, n_rows)
    order = first.order(places, noise, _MOST_ENTRANTS)
    has_time = False
    for n in range(1, len(order) + 1):
        chosen = order[:n]
        uncut = max(search.uncut_seconds(trained[i]) for i in chosen) + search.overhead
        last = min(uncut, _SHARE_FOR_LAST_FIT * left)
        slice_ = (left - last) / (_rungs(n) * n) - search.overhead
        if slice_ < max(SHORTEST_FIT_SECONDS, _LEAST_SHARE * last):
            break
        has_time = True
        noises = []
        for i in chosen:
            share = min(1.0, slice_ / max(_FOLD_SHARE * search.uncut_seconds(trained[i]), 1e-9))
            noises.append(noise + (CUT_NOISE * math.log2(1 / share)) ** 2)
        found = search.rivals(rivals, last - search.overhead).best_of(chosen, noises)
        # Validate the favourite where that takes no time from the last fit.
        if found > worth or (found == worth and favourite in places and not entering):
            worth, entering, kept = found, chosen, last
    if not entering and favourite in places and left - search.overhead >= SHORTEST_FIT_SECONDS:
        search.favourite = trained[favourite]
        search.say(
            f"no race: {search.favourite.label} is expected to do best, and a race would take too much of its time"
        )
    elif not entering and has_time:
        leader = rivals[favourite]
        search.say(f"no race: {leader.label} is expected to do best, and a race would hardly change that")
    elif not entering:
        search.say("no time for a race: the cheap methods decide")
    return [trained[i] for i in entering], kept


def _fit(search: Search, candidate: Candidate, fold: int, seconds: float, stop: float) -> None:
    """Fit one entrant on a fold, unless it has used all the fold's rows already."""
    task = search.folds[fold]
    if any(tried.fold == fold and tried.n_train >= len(task.train_labels) for tried in search.measured(candidate)):
        return
    until = min(search.end, stop + search.overhead + 5.0)
    search.run(candidate, fold, until, seconds, n=search.readable(candidate, task, seconds))


def _better_half(search: Search, candidates: list[Candidate], last_seconds: float) -> list[Candidate]:
    """Return the better half of those fitted in a round, less those that are unlikely to win.

    Args:
        search: the search.
        candidates: methods fitted in this round.
        last_seconds: seconds of training of the last fit.
    """
    known = [candidate for candidate in candidates if search.measured(candidate)]
    if len(known) < 2:
        return known
    found = search.rivals([*known, *search.measured_cheap()], last_seconds)
    order = sorted(range(len(known)), key=lambda i: -found.mean[i])
    half = order[: math.ceil(len(known) / 2)]
    kept = [known[i] for i in half if not found.is_beaten(i)]
    dropped = [c.label for c in known if c not in kept]
    if dropped:
        search.say(f"dropped: {', '.join(dropped)}")
    return kept
