"""A served model in a search: which rows it answers, what that costs, and how it compares with the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.backbones import ServedModel
from harness.choose.candidates import Candidate
from harness.choose.folds import validation_folds
from harness.choose.runner import answers_of
from harness.choose.tried import Tried, validated_share
from harness.cost import REQUEST_SECONDS, Requests, requests_of, together
from harness.metrics import metrics
from harness.support import describe_duration, text
from harness.tasks import Floats, Ints, Task

if TYPE_CHECKING:
    from harness.choose.search import Search

MOST_ROWS: Final = 200
"""Maximum number of validation rows that a served model is asked about: each is a request or more."""

_LEAST_ROWS: Final = 50
_SHARE_FOR_ROWS: Final = 0.15
"""Minimum number of these rows, and share of the search's time that answering them with one method may take."""


def served_fold(task: Task, fold: Task, served: Sequence[ServedModel], within: float) -> Task:
    """Return the fold whose validation rows served models are asked about: some of those of the first fold.

    Args:
        task: the task.
        fold: its first fold.
        served: the served models.
        within: seconds of the whole search.
    """
    each = max(
        REQUEST_SECONDS * (max(1, task.n_outputs) if one.offer.echoes else 1) / one.endpoint.concurrency
        for one in served
    )
    cap = max(_LEAST_ROWS, min(MOST_ROWS, int(_SHARE_FOR_ROWS * within / each)))
    if fold.n_test <= cap:
        return fold
    small = validation_folds(task, cap)[0]
    name = f"{fold.name}-of-{cap}"  # tasks are known by name
    return dataclasses.replace(small, spec=small.spec.model_copy(update={"name": name}))


def why_not_asked(search: Search, candidate: Candidate, share: float) -> str | None:
    """Return why a served model is not asked about validation rows: the time or a limit is too small; None if it is.

    The test rows count too: without their answers, it could not be saved with a score.

    Args:
        search: the search.
        candidate: a method on a served model.
        share: share of the remaining time that the validation rows may take.
    """
    files = candidate.files
    assert isinstance(files, ServedModel)
    fold = search.fold_of(candidate, 0)
    asked, last = (requests_of(search.plan(candidate, task), task) for task in (fold, search.task))
    if asked is None or last is None:
        return None
    pace = _seconds_of_a_request(search, files)
    seconds, more = pace * asked.n, pace * last.n
    if seconds > share * search.left or seconds + more > search.left:
        rows = text.counted(fold.n_test, "validation row")
        return f"answering {rows} would take about {describe_duration(seconds)}"
    both = together([asked, last])
    return None if both is None else _why_too_dear(files, both)


def _why_too_dear(files: ServedModel, needed: Requests) -> str | None:
    from harness.serving import spent_on

    endpoint = files.endpoint
    if endpoint.max_cost is None and endpoint.max_tokens is None:
        return None
    tokens, price = spent_on(endpoint)
    what = f"{needed.n:,} requests for validation and test rows"
    if endpoint.max_cost is not None and needed.price is not None and price + needed.price > endpoint.max_cost:
        return (
            f"{what} would cost about {text.price(needed.price)} {needed.currency}, and of --max-cost "
            f"{endpoint.max_cost:g} stored answers have cost {text.price(price)}"
        )
    wanted = needed.prompt_tokens + needed.completion_tokens
    if endpoint.max_tokens is not None and tokens + wanted > endpoint.max_tokens:
        return (
            f"{what} would take about {wanted:,.0f} tokens, and of --max-tokens {endpoint.max_tokens:,} stored answers "
            f"have taken {tokens:,}"
        )
    return None


def _seconds_of_a_request(search: Search, files: ServedModel) -> float:
    """Return the seconds of a request beside others: as measured in this search, else an assumption."""
    for tried in reversed(search.tried):
        served, cost = tried.record.facts.served, tried.record.cost
        if tried.candidate.files == files and served is not None and served.n_requests:
            return ((cost.predict_seconds or 0.0) + (cost.fit_seconds or 0.0)) / served.n_requests
    return REQUEST_SECONDS / files.endpoint.concurrency


def with_served_in_place(
    search: Search, ranked: list[tuple[Candidate, float]], missed: dict[str, str]
) -> list[tuple[Candidate, float]]:
    """Return the ranking with the best served model first if it leads on the rows that it answered, else last.

    A served model answers fewer rows than others predict. So it is compared with the best of the others on the same
    rows. Where both are equal, the other is taken: its predictions need no requests.

    Args:
        search: the search.
        ranked: methods with their expected scores, best first.
        missed: reason why a method was not saved in spite of a higher rank, by its label; a reason may be added.
    """
    served = [pair for pair in ranked if pair[0].is_served]
    others = [pair for pair in ranked if not pair[0].is_served]
    if not served or not others:
        return ranked
    served.sort(key=lambda pair: -(validated_share(search.measured(pair[0])) or 0.0))
    best, rival = served[0][0], others[0][0]
    found = on_same_rows(search, best, rival)
    if found is None:
        return ranked
    own, against, n_rows = found
    said = f"on the {n_rows:,} validation rows that both answered"
    if own > against:
        missed.setdefault(rival.label, f"{best.label} is better {said}: {abs(own):.3f} against {abs(against):.3f}")
        return [served[0], *others, *served[1:]]
    missed.setdefault(best.label, f"{rival.label} is as good or better {said}: {abs(against):.3f} and {abs(own):.3f}")
    return [*others, *served]


def on_same_rows(search: Search, one: Candidate, other: Candidate) -> tuple[float, float, int] | None:
    """Return the metric of two methods on the validation rows of the first fold that both answered, and their number.

    The sign of the metric is such that higher is better. None where one of them has no known answers.
    """
    fits = [next((t for t in search.measured(c) if t.fold == 0), None) for c in (one, other)]
    if fits[0] is None or fits[1] is None:
        return None
    tasks = [search.fold_of(candidate, 0) for candidate in (one, other)]
    rows = [np.arange(task.n_test) if task.test_index is None else task.test_index for task in tasks]
    common, at_one, at_other = np.intersect1d(rows[0], rows[1], return_indices=True)
    answers = [_answers(search.aside, fit, task) for fit, task in zip(fits, tasks, strict=True) if fit is not None]
    if not len(common) or answers[0] is None or answers[1] is None:
        return None
    found = [
        _upwards(task, some[at], at)
        for task, some, at in zip(tasks, answers, (at_one, at_other), strict=True)
        if some is not None
    ]
    return found[0], found[1], len(common)


def _upwards(task: Task, answers: Floats, at: Ints) -> float:
    value = task.kind.measure(task, answers, task.test_labels[at])
    return value if metrics.get(task.metric).higher_is_better else -value


def _answers(folder: Path | None, tried: Tried, task: Task) -> Floats | None:
    """Return the class probabilities of a fit's validation rows; those of a record from before are 0 and 1."""
    path = None if folder is None else answers_of(folder, tried.record.cell.id)
    if path is not None and path.is_file():
        found: Floats = np.load(path, allow_pickle=False)
        return found if found.ndim == 2 and len(found) == task.n_test else None
    predictions = tried.record.predictions
    if predictions is None or not task.has_classes or metrics.get(task.metric).inputs[0] == "scores":
        return None
    return np.eye(task.n_outputs, dtype=np.float32)[np.asarray(predictions.predicted, dtype=np.int64)]
