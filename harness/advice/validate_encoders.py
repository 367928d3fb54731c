"""Validation of expected probes: results of encoders are held out, expected from the rest, and compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from harness.forecast import EncoderModel, clean, from_logit, to_logit
from harness.records import PublishedEncoder
from harness.support import UsageError, text

N_KNOWN: Final = 3
"""Number of tasks that each held-out encoder has been measured on."""

N_ANCHORS: Final = 20
"""Number of encoders whose results on a held-out task are known."""

_RANK: Final = 2
_RIDGE: Final = 1.0


@dataclass(frozen=True)
class HeldOut:
    """Errors of one way to hold out results; all in points of accuracy (0 to 100).

    Attributes:
        held_out: what was held out.
        n_known: number of other tasks that each encoder is known on.
        n_results, n_encoders, n_tasks: number of results that were expected, and of their encoders and tasks.
        error: mean absolute error.
        coverage: share of 80 % intervals that held the published accuracy.
        additive_error, low_rank_error: mean absolute errors of two baselines: the encoder's mean plus the task's, and
            two factors fitted by alternating least squares, both of logits. None where neither can answer.
        error_by_task: mean absolute error of each task.
    """

    held_out: str
    n_known: int
    n_results: int
    n_encoders: int
    n_tasks: int
    error: float
    coverage: float
    additive_error: float | None
    low_rank_error: float | None
    error_by_task: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Guess:
    encoder: str
    task: str
    accuracy: float
    expected: float
    is_inside: bool
    additive: float | None
    low_rank: float | None


def validate_encoders(
    encoders: Sequence[PublishedEncoder], *, n_known: int = N_KNOWN, seed: int = 0
) -> tuple[HeldOut, ...]:
    """Hold out encoders, then tasks, and compare what is expected with what was published.

    - Encoders: spreads are fitted to a random half of the encoders, and each encoder of the other half is expected from
      `n_known` of its tasks, drawn at random, and the rest of the table. The halves change places.
    - The same without any known task: by covariates and publisher alone.
    - Tasks: each task in turn is known for `N_ANCHORS` encoders only, and expected for all others.

    Results on tasks that an encoder was trained on are left out throughout.

    Raises:
        UsageError: there are too few encoders or tasks.
    """
    kept = [clean(encoder) for encoder in encoders]
    kept = [encoder for encoder in kept if encoder.results]
    tasks = {result.task for encoder in kept for result in encoder.results}
    if len(kept) < 2 * N_ANCHORS or len(tasks) <= n_known:
        raise UsageError(
            f"The table has {text.counted(len(kept), 'encoder')} and {text.counted(len(tasks), 'task')}; validation "
            f"needs at least {2 * N_ANCHORS} encoders and {n_known + 1} tasks."
        )
    draws = np.random.default_rng(seed)
    halves = _halves(kept, draws)
    with_some, with_none = [], []
    for about, held in (halves, halves[::-1]):
        names = {encoder.name for encoder in about}
        model = EncoderModel(kept, about=names)
        baselines = _Baselines(about)
        for encoder in held:
            scores = {result.task: result.accuracy for result in encoder.results}
            with_none += _guesses(model, None, encoder.name, scores, {})
            if len(scores) > n_known:
                known = {task: scores[task] for task in _drawn(scores, n_known, draws)}
                with_some += _guesses(model, baselines, encoder.name, scores, known)
    by_task = [guess for task in sorted(tasks) for guess in _without_task(kept, task, n_known, draws)]
    return (
        _summary("encoder", n_known, with_some),
        _summary("encoder", 0, with_none),
        _summary("task", n_known, by_task),
    )


def _halves(
    encoders: Sequence[PublishedEncoder], draws: np.random.Generator
) -> tuple[list[PublishedEncoder], list[PublishedEncoder]]:
    order = draws.permutation(len(encoders))
    return [encoders[i] for i in order[::2]], [encoders[i] for i in order[1::2]]


def _drawn(scores: Mapping[str, float], n: int, draws: np.random.Generator) -> list[str]:
    names = sorted(scores)
    return [names[i] for i in draws.permutation(len(names))[:n]]


def _without_task(
    encoders: Sequence[PublishedEncoder], task: str, n_known: int, draws: np.random.Generator
) -> list[_Guess]:
    """Return guesses for a task that only some encoders have been measured on."""
    measured = [encoder for encoder in encoders if any(result.task == task for result in encoder.results)]
    if len(measured) < 2 * N_ANCHORS:
        return []
    order = draws.permutation(len(measured))
    held = {measured[i].name for i in order[N_ANCHORS:]}
    shown = [_less(encoder, task) if encoder.name in held else encoder for encoder in encoders]
    model, baselines = EncoderModel(shown), _Baselines(shown)
    found = []
    for encoder in measured:
        others = {result.task: result.accuracy for result in encoder.results if result.task != task}
        if encoder.name not in held or len(others) < n_known:
            continue
        known = {name: others[name] for name in _drawn(others, n_known, draws)}
        accuracy = next(result.accuracy for result in encoder.results if result.task == task)
        found += _guesses(model, baselines, encoder.name, {task: accuracy}, known)
    return found


def _less(encoder: PublishedEncoder, task: str) -> PublishedEncoder:
    return replace(encoder, results=tuple(result for result in encoder.results if result.task != task))


def _guesses(
    model: EncoderModel,
    baselines: _Baselines | None,
    name: str,
    scores: Mapping[str, float],
    known: Mapping[str, float],
) -> list[_Guess]:
    expected = model.expected(name, known=known)
    found = []
    for task, accuracy in scores.items():
        if task in known or task not in expected:
            continue
        one = expected[task]
        additive, low_rank = (None, None) if baselines is None else baselines.expected(task, known)
        is_inside = one.low <= accuracy <= one.high
        found.append(_Guess(name, task, accuracy, one.accuracy, is_inside, additive, low_rank))
    return found


def _summary(held_out: str, n_known: int, guesses: Sequence[_Guess]) -> HeldOut:
    def error(name: str, of: Sequence[_Guess]) -> float | None:
        values = [abs(getattr(g, name) - g.accuracy) for g in of if getattr(g, name) is not None]
        return 100 * float(np.mean(values)) if values else None

    of_task: defaultdict[str, list[_Guess]] = defaultdict(list)
    for guess in guesses:
        of_task[guess.task].append(guess)
    return HeldOut(
        held_out,
        n_known,
        len(guesses),
        len({guess.encoder for guess in guesses}),
        len(of_task),
        error("expected", guesses) or 0.0,
        float(np.mean([guess.is_inside for guess in guesses])) if guesses else 0.0,
        error("additive", guesses),
        error("low_rank", guesses),
        {task: error("expected", of) or 0.0 for task, of in sorted(of_task.items())},
    )


class _Baselines:
    """Two plain ways to complete a table of logits, for comparison."""

    def __init__(self, encoders: Sequence[PublishedEncoder]) -> None:
        self._tasks = sorted({result.task for encoder in encoders for result in encoder.results})
        index = {task: i for i, task in enumerate(self._tasks)}
        self._table = np.full((len(encoders), len(self._tasks)), np.nan)
        for i, encoder in enumerate(encoders):
            for result in encoder.results:
                self._table[i, index[result.task]] = to_logit(result.accuracy)
        known = ~np.isnan(self._table)
        self._means = np.array([self._table[known[:, j], j].mean() for j in range(len(self._tasks))])
        self._fit_means(known)
        self._factors = self._fit_factors(known)

    def expected(self, task: str, known: Mapping[str, float]) -> tuple[float | None, float | None]:
        """Return the accuracy that each baseline expects of an encoder with known results."""
        if task not in self._tasks or not known:
            return None, None
        at = [self._tasks.index(name) for name in known]
        residual = np.array([to_logit(value) for value in known.values()]) - self._means[at]
        j = self._tasks.index(task)
        own = _ridge(self._factors[at], residual)
        return (
            from_logit(float(self._means[j] + residual.mean())),
            from_logit(float(self._means[j] + own @ self._factors[j])),
        )

    def _fit_means(self, known: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        """Fit the means of tasks and encoders together, since encoders are not measured on all tasks."""
        for _ in range(20):
            gaps = self._table - self._means
            own = np.array([gaps[i, known[i]].mean() if known[i].any() else 0.0 for i in range(len(gaps))])
            less = self._table - own[:, None]
            self._means = np.array([less[known[:, j], j].mean() for j in range(len(self._tasks))])

    def _fit_factors(self, known: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Fit factors of tasks to the logits less the tasks' means, by alternating least squares."""
        gaps = self._table - self._means
        factors = np.linspace(1, -1, len(self._tasks))[:, None] ** np.arange(_RANK)
        for _ in range(30):
            own = np.array([_ridge(factors[known[i]], gaps[i, known[i]]) for i in range(len(gaps))])
            factors = np.array([_ridge(own[known[:, j]], gaps[known[:, j], j]) for j in range(len(self._tasks))])
        return factors


def _ridge(inputs: Any, values: Any) -> Any:
    return np.linalg.solve(inputs.T @ inputs + _RIDGE * np.eye(_RANK), inputs.T @ values)
