"""The first stage of a search: methods on words, on frozen features, and prompts, before a transformer is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from harness.choose.candidates import Candidate
from harness.choose.search import STARTING_SECONDS, Search
from harness.choose.served import why_not_asked
from harness.choose.tried import summarised, value_at
from harness.support import describe_duration, text
from harness.tasks import Task

_SHARE_FOR_CHEAP: Final = 0.6
"""Share of the remaining time that all cheap methods together may take."""

_SHARE_FOR_FEATURES: Final = 0.2
"""Share of the remaining time for encoding texts; where that is too little, fewer rows are encoded."""

_FIRST_READING_SECONDS: Final = 6.0
"""Seconds until a worker encodes its first text: it imports the architecture and reads the backbone (2 to 6 s)."""

WORDS_A_SECOND: Final = 20_000.0
"""Rows times classes per second of a logistic regression on TF-IDF with a fixed penalty: half of the speed of two
server cores (10,000 rows of 77 classes took them 20 s)."""

_SHARE_FOR_WORDS: Final = 0.03
"""Share of the remaining time for TF-IDF where a transformer follows; where that is too little, it gets fewer rows.
Its score shows whether words are enough; if so, the last fit uses all rows."""

_SHARE_FOR_PROMPT: Final = 0.2
"""Share of the remaining time that answering the validation rows with one prompt may be expected to take."""

_SHARE_FOR_FOLD: Final = 0.06
"""Share of the remaining time that running the cheap methods on another fold may take."""


def try_cheap_methods(search: Search, after_words: Callable[[], None] | None = None) -> None:
    """Run the methods that take no steps inside the transformer; texts are encoded once.

    Fewer rows are used where encoding all would take too long. Methods that are unlikely to win, and those that would
    cost the last fit more than they tell, are skipped.

    Args:
        search: the search.
        after_words: called once the methods without a transformer have run, before texts are encoded.
    """
    first = (None, search.first)
    cheap = [c for c in search.entrants if c.is_cheap and (c.is_prompted or search.first is None or c.files in first)]
    cheap.sort(key=lambda c: (c.is_prompted, bool(c.method.serves), c.method.name != "linear-probe"))
    stop = search.now() + _SHARE_FOR_CHEAP * search.left
    n_train: int | None = None
    skipped: dict[str, list[str]] = {}
    for fold in range(len(search.folds)):
        if fold and _seconds_again(search, fold - 1) > _SHARE_FOR_FOLD * search.left:
            return  # the other methods make better use of the time
        for candidate in cheap:
            if candidate.label in search.out or search.now() > stop or (fold and candidate.is_served):
                continue
            if fold == 0 and not candidate.is_prompted and (why := _why_skip(search, candidate)):
                search.out[candidate.label] = f"was skipped: {why}"
                skipped.setdefault(why, []).append(candidate.label)
                continue
            if candidate.is_prompted:
                _try_prompt(search, candidate, fold, stop)
                continue
            if candidate.method.serves and n_train is None:
                if after_words is not None and search.tried:
                    after_words()
                n_train = _affordable_rows(search, candidate)
                if n_train == 0:
                    search.say(
                        "encoding the texts with the transformer would take too long: only methods on words are tried"
                    )
                    search.overhead = STARTING_SECONDS + _FIRST_READING_SECONDS
                    return  # prompts read longer texts than these
            if not candidate.method.serves:
                n = _affordable_words(search, candidate, search.folds[fold], is_safe=after_words is not None)
            else:
                n = None if fold or n_train == len(search.folds[0].train_labels) else n_train
            until = min(stop + 1.0, search.end) if search.tried else search.end  # any model is better than none
            search.run(candidate, fold, until, n=n, quietly=fold > 0)
        for why, labels in skipped.items() if fold == 0 else ():
            search.say(f"skipped, {why}: {', '.join(labels)}")
    if len(search.folds) > 1:
        found = sorted((m for m in summarised(search.tried) if m.n_folds > 1), key=lambda m: -m.score)
        if found:
            metric, facts = search.folds[0].metric, search.task.provenance
            said = ", ".join(f"{m.candidate.label} {value_at(metric, m.score, facts):.3f}" for m in found)
            search.say(f"over {found[0].n_folds} folds, {found[0].n_rows:,} rows: {said}")


def _try_prompt(search: Search, candidate: Candidate, fold: int, stop: float) -> None:
    """Have a language model answer the validation rows of a fold, where that takes little of the time.

    No other model's prompts tell how well this one answers, so that no prompt is skipped for a low expected score.

    Args:
        search: the search.
        candidate: a method that prompts.
        fold: position of the fold.
        stop: time after which the first stage ends.
    """
    if candidate.is_served:
        why_not = why_not_asked(search, candidate, _SHARE_FOR_PROMPT)
        if why_not is not None:
            search.out[candidate.label] = f"was skipped: {why_not}"
            search.say(f"skipped, {why_not}: {candidate.label}")
            return
        search.run(candidate, fold, min(stop + 1.0, search.end) if search.tried else search.end)
        return
    task = search.folds[fold]
    needs = search.runner.estimate(search.plan(candidate, task)).seconds
    last = search.runner.estimate(search.plan(candidate, search.task)).seconds
    if needs > _SHARE_FOR_PROMPT * search.left or needs + last > search.left:
        why = f"answering {text.counted(task.n_test, 'validation row')} would take about {describe_duration(needs)}"
        if fold == 0:
            search.out[candidate.label] = f"was skipped: {why}"
            search.say(f"skipped, {why}: {candidate.label}")
        return
    search.run(candidate, fold, min(stop + 1.0, search.end) if search.tried else search.end, quietly=fold > 0)


def _why_skip(search: Search, candidate: Candidate) -> str | None:
    """Return why a cheap method is not worth a fit, once others are measured; None where it is."""
    known = search.measured_cheap()
    if len(known) < 2 or not any(c.reads_features for c in known):
        return None
    trained = [
        c for c in search.entrants if not c.is_cheap and c.label not in search.out and search.too_large(c) is None
    ]
    rivals = [candidate, *known, *trained]
    seconds = search.left - search.overhead
    direct = search.rivals(rivals, seconds)
    if direct.is_beaten(0):
        return "unlikely to win"
    later = search.rivals(rivals, seconds - _seconds_on_features(search, candidate))
    if later.best_of([0], [search.noise(direct, search.folds[0].n_test)]) < direct.best_of([], []):
        return "not worth their time"
    return None


def _seconds_on_features(search: Search, candidate: Candidate) -> float:
    """Return the seconds of a method on frozen features on the first fold, now that its texts are encoded.

    A method without a network is assumed to take as long as the slowest logistic regression so far.
    """
    light = search.runner.light_seconds(search.plan(candidate, search.folds[0]))
    if light:
        return light
    costs = [t.record.cost for t in search.tried if t.candidate.reads_features and not t.record.curve]
    return max(((cost.tune_seconds or 0.0) + (cost.fit_seconds or 0.0) for cost in costs), default=0.0)


def _seconds_again(search: Search, fold: int) -> float:
    """Return the seconds of repeating a fold's fits on another fold, with all libraries imported.

    Folds share their texts, so features are encoded already, unless only some of the rows were.
    """
    known = [tried.record for tried in search.tried if tried.fold == fold and not tried.candidate.is_served]
    n_train = len(search.folds[fold].train_labels)
    fewer = [
        t.record.cost
        for t in search.tried
        if t.fold == fold and t.candidate.reads_features and t.candidate.method.uses_labels
        and t.record.cell.n_train < n_train
    ]  # fmt: skip
    features = max(((cost.encode_seconds or 0.0) + (cost.predict_seconds or 0.0) for cost in fewer), default=0.0)
    prompts = [
        t.record.cost for t in search.tried if t.fold == fold and t.candidate.is_prompted and not t.candidate.is_served
    ]
    answering = sum(cost.predict_seconds or 0.0 for cost in prompts)
    fits = sum((r.cost.tune_seconds or 0.0) + (r.cost.fit_seconds or 0.0) + 0.1 for r in known)
    return features + answering + fits


def _affordable_words(search: Search, candidate: Candidate, task: Task, *, is_safe: bool) -> int | None:
    """Return how many rows of a fold TF-IDF can fit within its share of the time; None is all of them.

    The time grows with the number of classes, and with the penalties that are tried.

    Args:
        search: the search.
        candidate: a method without a transformer.
        task: the fold.
        is_safe: whether its model is kept as a fallback; it may then take longer, as where no transformer follows.
    """
    method = candidate.method
    is_all = is_safe or not any(one.method.serves for one in search.entrants)
    share = _SHARE_FOR_FEATURES if is_all else _SHARE_FOR_WORDS
    n = int(share * search.left * WORDS_A_SECOND / (method.fits_per_cell * max(1, task.n_outputs)))
    n = max(n, 2 * task.n_strata, 50)
    return None if n >= len(task.train_labels) else n


def _affordable_rows(search: Search, candidate: Candidate) -> int:
    """Return how many training rows can be encoded beside the validation rows; 0 where these are too few."""
    task = search.folds[0]
    needed = search.runner.estimate(search.plan(candidate, task)).seconds
    share = _SHARE_FOR_FEATURES if search.tried else _SHARE_FOR_CHEAP  # any model is better than none
    allowed = share * (search.left - _FIRST_READING_SECONDS)
    if needed <= allowed:
        return len(task.train_labels)
    everything = len(task.train_labels) + task.n_test
    n = int(everything * allowed / needed) - task.n_test
    least = max(task.n_strata, 50)
    return 0 if n < least else n
