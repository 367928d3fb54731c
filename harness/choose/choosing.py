"""Choose a method for a user's own data within a time: split, try, fit the winner, score it once, fit it again."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.analysis import NO_PRICES, Prices, tidy_frame
from harness.choose.candidates import HURRY_SECONDS, Belief, Candidate, find_candidates, prompts_language_model
from harness.choose.cheap import try_cheap_methods
from harness.choose.encoders import block_weights
from harness.choose.ensemble import Ensemble, score_ensemble
from harness.choose.evaluation import EVALUATION, Evaluation, evaluate, write_evaluation
from harness.choose.folds import PERIOD, validation_cap, validation_folds, with_test_rows
from harness.choose.in_use import InUse, in_use
from harness.choose.last_fit import LastFit, why_not_the_best
from harness.choose.runner import Runner
from harness.choose.search import Search
from harness.choose.served import served_fold
from harness.choose.settings import tune_leader
from harness.choose.tried import Tried, share_of
from harness.choose.whole_fits import run_whole_fits
from harness.forecast import Point, gather
from harness.methods import methods as known_methods
from harness.metrics import IN_UNITS, metrics
from harness.records import Record, Score
from harness.saved import CARD, card, read_description
from harness.schedule import Claims
from harness.store import Store
from harness.support import UsageError, text, uncollected
from harness.tasks import Task, summarise_data

if TYPE_CHECKING:
    import pandas as pd

    from harness.backbones import BackboneFiles, ServedModel
    from harness.methods import Method
    from harness.schedule import Executor

_SHORTEST_SEARCH_SECONDS: Final = 10.0
"""Shortest time for a search; starting Python, the libraries and a worker takes most of it."""

_GRACE: Final = 0.03
"""Share of the whole time by which the last fit may be late before the fallback is saved.

Its training ends in time, but prediction or saving may take longer than expected."""

_WRITING_SECONDS: Final = 2.0
"""Seconds kept for writing an ensemble after its winner was fitted to all rows."""

_CLOSING_SECONDS: Final = (1.0, 3.0)
_CLOSING_SHARE: Final = 0.01
"""Least and most seconds kept for the end of a search, and their share of its time between: the README, the table, and
ending the processes. With a model of 109 million parameters they took 2.0 s."""


@dataclass(frozen=True)
class Chosen:
    """The result of a search.

    Attributes:
        method: label of the winner.
        score: score on test rows that no decision has seen, of the model that was fitted to all other rows.
        record: record of the fit that was scored.
        folder: folder of the saved model.
        tried: all fits on validation rows.
        seconds: duration of the search, from `began`.
        why: reason why another method is saved than the one that validated best; None where it is that one.
        evaluation: where the scored model is wrong on the test rows.
        refit: whether the saved model was fitted anew, to the test rows too, after the score was taken.
        ensemble: the ensemble that was saved; None where one method was. Then `record` is of its member that got the
            last fit, and `refit` is about that member.
        in_use: what predictions cost with the method of the last fit, beside the best prompted or trained rival.
    """

    method: str
    score: Score
    record: Record = field(repr=False)
    folder: Path
    tried: tuple[Tried, ...] = field(repr=False)
    seconds: float
    why: str | None = None
    evaluation: Evaluation | None = field(default=None, repr=False)
    refit: bool = False
    ensemble: Ensemble | None = field(default=None, repr=False)
    in_use: InUse | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values; `tried` has one entry for each fit, with its score on validation rows."""
        return {
            "method": self.method,
            "score": dataclasses.asdict(self.score),
            "folder": self.folder,
            "seconds": self.seconds,
            "why": self.why,
            "refit": self.refit,
            "ensemble": None if self.ensemble is None else self.ensemble.to_dict(),
            "in_use": None if self.in_use is None else self.in_use.to_dict(),
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "tried": [
                {
                    "method": one.candidate.label,
                    "fold": one.fold,
                    "status": one.record.status,
                    "score": None if one.record.score is None else one.record.score.value,
                    "n_validation": None if one.record.score is None else one.record.score.n_test,
                    "n_labels": one.n_train,
                    "seconds": one.seconds,
                }
                for one in self.tried
            ],
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per fit that was tried, with the columns of `tidy_frame`."""
        return tidy_frame(tried.record for tried in self.tried)


def check_time(seconds: float) -> None:
    """Refuse a time that is too short to train anything.

    Raises:
        UsageError: it is too short.
    """
    if seconds < _SHORTEST_SEARCH_SECONDS:
        raise UsageError(
            f"Within {seconds:g} s nothing can be trained: starting alone takes about {_SHORTEST_SEARCH_SECONDS:g} s. "
            "Give --within 20s or more."
        )


def choose_within(
    task: Task,
    backbones: Sequence[BackboneFiles],
    workers: Executor,
    store: Store,
    folder: Path,
    *,
    within: float,
    began: float,
    methods: Sequence[Method] | None = None,
    most_bytes: int | None = None,
    prior: Callable[[], list[Record]] | None = None,
    refit: bool = True,
    settings: bool = True,
    most_milliseconds: float | None = None,
    prices: Prices = NO_PRICES,
    served: Sequence[ServedModel] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Chosen:
    """Find the best method for a classification task within a time, and save it fitted.

    No decision uses the test rows: methods are compared on folds of the training rows. The winner is fitted on all
    training rows and scored once on the test rows. If there is time, it is then fitted to all rows and saved.

    Args:
        task: the prepared task.
        backbones: the backbones; each method that uses one is tried with those that it has time for.
        workers: where fits run.
        store: where every fit is recorded.
        folder: where the model is saved; must not exist, or be empty.
        within: seconds for the whole search.
        began: when that time began, by `time.monotonic`.
        methods: methods that may win; None is all that may be worth keeping: prompts too, where a backbone is a
            language model, and methods that use no labels.
        most_bytes: limit on the memory of a fit; None is no limit.
        prior: returns records of other tasks, from which scores are predicted.
        refit: whether the saved model is fitted to held-out test rows too, after they scored it, if there is time.
        settings: whether other settings of the best method are tried, where there is time for it.
        most_milliseconds: limit on the milliseconds of predicting one text; None is no limit.
        prices: what the machine and tokens cost, for the costs of predictions in the answer.
        served: served models, which are asked about few validation rows, within their limits of money and tokens.
        say: called with each line of the reasoning.

    Raises:
        UsageError: too little time, no method that serves the task, a folder with something in it.
        HarnessError: nothing could be fitted; the message says why.
    """
    check_time(within)
    check_save_folder(folder)
    end = began + within - min(max(_CLOSING_SHARE * within, _CLOSING_SECONDS[0]), _CLOSING_SECONDS[1])
    folds = validation_folds(task, validation_cap(within))
    if not folds:
        raise UsageError(
            f"{text.counted(len(task.train_labels), 'training row')} cannot be divided into rows to learn from and "
            "rows to choose by. Label a few more of each class."
        )
    device = workers.device
    entrants = find_candidates(methods, task, [*backbones, *served], device.kind, within=within)
    if not entrants:
        raise UsageError(
            "None of the named methods serves this task and backbone. `harness methods` lists them with their needs."
        )
    points, first = _prior(prior, backbones, task)
    asked = served_fold(task, folds[0], served, within) if served else None
    tasks = {one.name: one for one in (task, *folds, *([] if asked is None else [asked]))}
    with Claims(store, device.name) as claims:
        runner = Runner(workers, store, claims, tasks, [*backbones, *served])
        search = Search(runner, task, folds, entrants, Belief(points, task.n_outputs, first), end, most_bytes, say)
        search.most_milliseconds = most_milliseconds
        search.served_fold = asked
        if refit and task.provenance.get("held_out"):  # rows that the user gave to test on stay test rows
            search.everything = with_test_rows(task)
        say(
            f"{text.counted(len(task.train_labels), 'row')} to learn from, {folds[0].n_test:,} of them to validate on"
            + (f", in {len(folds)} folds" if len(folds) > 1 else "")
            + f"; {text.counted(task.n_test, 'test row')} that no decision sees"
        )
        with tempfile.TemporaryDirectory(dir=_nearest_folder(folder), prefix=".choose-") as aside:
            search.tries_settings = settings
            runner.answers = Path(aside)
            record, winner, last = search_within(search, Path(aside), folder, within)
            # Ensembles have no prompts among their members: none is better than a prompt that won.
            together = None if winner.is_prompted else score_ensemble(search, winner, folder, device.kind)
            if together is not None:
                search.end -= _WRITING_SECONDS
            refitted = last.again(winner, record, folder) is not None
            if together is not None:
                together.write(folder, Path(aside))
    assert record.score is not None
    tried, label, score = tuple(search.tried), winner.label, record.score
    why = why_not_the_best(label, tried, last.expected, last.missed, task.metric)
    found = evaluate(record.predictions, task)
    if together is not None:
        why, found = None, evaluate(together.predictions, task)
        label, score = together.found.label, together.score
    took = time.monotonic() - began
    ensemble = None if together is None else together.found
    costs = in_use(winner, record, tried, prices)
    chosen = Chosen(label, score, record, folder, tried, took, why, found, refitted, ensemble, costs)
    _write_card(chosen, task)
    return chosen


def search_within(search: Search, aside: Path, folder: Path, within: float) -> tuple[Record, Candidate, LastFit]:
    """Run all stages of a search; return the record of the fit that was saved, its method, and the last stage.

    Args:
        search: the search, with nothing tried yet.
        aside: folder for models that may not be kept.
        folder: folder of the saved model.
        within: seconds of the whole search.

    Raises:
        HarnessError: nothing could be fitted; the message says why.
    """
    search.aside = aside
    last = LastFit(search, aside, _GRACE * within)
    # With little time a transformer may not finish, so a fallback is fitted before texts are encoded.
    try_cheap_methods(search, last.make_sure if within < HURRY_SECONDS else None)
    last.make_sure()
    if any(not candidate.is_cheap for candidate in search.entrants):
        run_whole_fits(search)
        tune_leader(search)
    record, winner = last.fit(folder)
    return record, winner, last


def check_save_folder(folder: Path) -> None:
    """Refuse a folder for the model that exists and is not empty.

    Raises:
        UsageError: it is a file, or is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"--save '{folder}' was given, which exists and is not empty. Name a new folder, or an empty one."
        )


@uncollected()
def _prior(
    prior: Callable[[], list[Record]] | None, backbones: Sequence[BackboneFiles], task: Task
) -> tuple[list[Point], BackboneFiles | None]:
    """Return the points of other tasks, and the backbone that they are taken to speak of.

    It is the one with most points. If no backbone has any, it is the smallest, and all points are used.
    """
    # Prompts of other models tell nothing of how well this one answers.
    silent = {name for name in known_methods.names() if prompts_language_model(known_methods.get(name))}
    known_points = [] if prior is None else [point for point in gather(prior()).points if point.name not in silent]
    points = _points_of(known_points, task.kind.name, task.metric)
    # Without any evidence of the kind, methods are expected to differ as they do where texts have classes.
    points = points or _points_of(known_points, _BEST_KNOWN, task.metric)
    if not backbones:
        return points, None
    known = Counter(point.backbone for point in points)
    first = min(backbones, key=lambda files: (-known[files.name], block_weights(files)))
    if known[first.name]:
        points = [point for point in points if point.backbone in (None, first.name)]
    return points, first


_BEST_KNOWN: Final = "classification"
"""Kind of task with most results."""


def _points_of(points: Iterable[Point], kind: str, metric: str) -> list[Point]:
    found = (_as_share(point, metric) for point in points if point.kind == kind)
    return [point for point in found if point is not None]


def _as_share(point: Point, metric: str) -> Point | None:
    """Return a point whose score is a share of the way to the best value, as those of a search are; None for none.

    The score of another metric says nothing here, but an accuracy for metrics of classes, and Pearson's correlation r
    for the error of estimates: the best line leaves sqrt(1 - r^2) of the targets' deviation.
    """
    if point.metric == "accuracy":
        return point
    if point.metric == "pearson" and metric in IN_UNITS:
        share = 1.0 - math.sqrt(1.0 - min(1.0, max(0.0, point.score)) ** 2)
    elif point.metric == metric and metrics.get(metric).high is not None:
        share = share_of(metric, point.score, {})
    else:
        return None
    return dataclasses.replace(point, metric="accuracy", score=share, highest=1.0, higher_is_better=True)


def _nearest_folder(folder: Path) -> Path:
    """Return the nearest parent folder that exists: most likely on the same file system."""
    return next(parent for parent in folder.absolute().parents if parent.is_dir())


def _among(n_tried: int) -> str:
    return f"among {text.counted(n_tried, 'method')}" if n_tried else "by expectation alone (no method was tried)"


def _write_card(chosen: Chosen, task: Task) -> None:
    score, cost = chosen.score, chosen.record.cost
    spread = "" if score.low is None else f" (95 %: {score.low:.3f} to {score.high:.3f})"
    rows = text.counted(score.n_test, "test row")
    reached = f"{score.metric} {score.value:.3f}{spread} on {rows} that no decision has seen"
    facts = {
        "task": task.spec.description,
        "data": f"{task.spec.data.label()}; {text.counted(len(task.train_labels), 'training row')}",
        "score": reached,
        "rows trained on": f"all {len(task.train_labels) + task.n_test:,}, test rows included. The score is of the "
        "same method before it was fitted to the test rows too"
        if chosen.refit
        else f"{text.counted(chosen.record.cell.n_train, 'training row')}; no test row",
        "training": f"{cost.train_seconds or 0.0:.1f} s on {chosen.record.device}; chosen "
        f"{_among(len({tried.candidate.label for tried in chosen.tried}))} in {chosen.seconds:.0f} s",
    }
    if chosen.ensemble is not None:
        facts["choice"] = chosen.ensemble.in_words(task.metric)
        facts["rows trained on"] += (
            ". This is the member that was fitted last; others inside the transformer have learned from about "
            f"{round(100 * (1 - 1 / PERIOD))} % of the training rows, and none from test rows"
        )
    if chosen.why is not None:
        facts["choice"] = chosen.why
    if chosen.in_use is not None:
        facts["cost of predictions"] = chosen.in_use.in_words()
    if chosen.evaluation is not None:
        facts["evaluation"] = f"`{EVALUATION}`: {chosen.evaluation.contents}"
        title = f"{chosen.method} on {task.name}"
        write_evaluation(chosen.evaluation, chosen.folder, title, reached, refit=chosen.refit)
    summary = summarise_data(task)
    facts["rows"] = summary.line()
    if summary.warnings:
        facts["warnings about the data"] = " ".join(summary.warnings)
    (chosen.folder / CARD).write_text(card(read_description(chosen.folder), facts), encoding="utf-8")
