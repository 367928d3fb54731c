"""An ensemble of the whole fits of a search, where it is better than the best of them by more than chance."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.choose.prediction_cost import milliseconds, milliseconds_together
from harness.choose.runner import answers_of
from harness.choose.tried import Tried, share_of_steps
from harness.choose.weights import Gain, expected_gain, fitted_weights
from harness.records import Predictions, Score
from harness.saved import load_model, write_ensemble
from harness.support import HarnessError, text
from harness.tasks import Floats, Ints

if TYPE_CHECKING:
    from harness.choose.candidates import Candidate
    from harness.choose.search import Search

_LEAST_ROWS: Final = 100
"""Validation rows below which no ensemble is tried: so few rows hardly tell its weights from chance."""

_WHOLE: Final = 0.95
"""Share of its steps that a member has taken at least."""

_LOADING_SECONDS: Final = 8.0
"""Seconds of importing the libraries into this process, to score an ensemble; they took 3 to 6 s."""

_MEMBER_SECONDS: Final = 1.0
"""Seconds of copying, checking and loading one member."""


@dataclass(frozen=True)
class Ensemble:
    """Fits of a search whose class probabilities are averaged.

    Attributes:
        members: the fits on one fold; those inside the transformer have a saved model.
        weights: weight of each member; they sum to 1.
        temperatures: temperature of each member's probabilities.
        gain: gain over the best single fit that validation rows lead to expect.
        milliseconds: time of predicting one text; members on frozen features of one backbone share them.
        best_milliseconds: the same for the best single fit.
    """

    members: tuple[Tried, ...]
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    gain: Gain
    milliseconds: float
    best_milliseconds: float

    @property
    def label(self) -> str:
        """Name of the ensemble in messages."""
        return f"ensemble of {', '.join(member.candidate.label for member in self.members)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the ensemble as plain values."""
        return {
            "members": [
                {"method": one.candidate.label, "weight": weight, "milliseconds": milliseconds(one)}
                for one, weight in zip(self.members, self.weights, strict=True)
            ],
            "gain": self.gain.metric,
            "milliseconds": self.milliseconds,
        }

    def in_words(self, metric: str) -> str:
        """Return its weights, its gain and its cost in one sentence."""
        parts = ", ".join(f"{one.candidate.label} {w:.2f}" for one, w in zip(self.members, self.weights, strict=True))
        return (
            f"ensemble of {parts}: {metric} {self.gain.metric:+.3f} against the best single fit on "
            f"{text.counted(self.gain.n_rows, 'validation row')}, cross-fitted; {self.milliseconds:.1f} ms a text to "
            f"predict, against {self.best_milliseconds:.1f}"
        )


@dataclass(frozen=True)
class ScoredEnsemble:
    """An ensemble whose members are fitted, with its score on the test rows.

    Attributes:
        found: the ensemble.
        folders: folder of each member's saved model; that of the winner holds its last fit.
        score: score on the test rows.
        predictions: predictions of the test rows.
    """

    found: Ensemble
    folders: tuple[Path, ...]
    score: Score
    predictions: Predictions

    def write(self, folder: Path, aside: Path) -> None:
        """Save the ensemble in place of the model that lies in a folder, which may be one of its members.

        Args:
            folder: folder of the winner's model.
            aside: folder on the same file system for what is made meanwhile.
        """
        made = aside / "ensemble"
        _write(self.found, self.folders, made)
        shutil.rmtree(folder)
        shutil.move(made, folder)


def find_ensemble(search: Search) -> Ensemble | None:
    """Return the ensemble that is better than the best single fit by more than chance; None where there is none.

    Its members are whole fits on one fold whose class probabilities of the validation rows were kept. No limit on the
    time of predicting a text is exceeded.
    """
    members = _eligible(search) if search.task.kind.form == "classes" else []  # weights are fitted to probabilities
    if len(members) < 2:
        return None
    fold = search.folds[members[0].fold]
    if fold.n_test < _LEAST_ROWS:
        return None
    answers = [_answers(search, member) for member in members]
    right = fold.test_labels

    def metric(probabilities: Floats, labels: Ints) -> float:
        return fold.kind.measure(fold, probabilities, labels)

    best = max(members, key=lambda member: member.score or 0.0)
    while True:
        weights, temperatures = fitted_weights(answers, right)
        used = [i for i, weight in enumerate(weights) if weight > 0]
        if len(used) < 2:
            return None
        takes = milliseconds_together([members[i] for i in used])
        if search.most_milliseconds is None or takes <= search.most_milliseconds:
            break
        # Leave out the member that gives the least weight for its time, until the rest is quick enough.
        worst = min(used, key=lambda i: weights[i] / max(milliseconds(members[i]), 1e-9))
        answers = [one for i, one in enumerate(answers) if i != worst]
        members = [one for i, one in enumerate(members) if i != worst]
    gain = expected_gain(answers, right, metric)
    if not gain.is_above_noise:
        return None
    return Ensemble(
        tuple(members[i] for i in used),
        tuple(float(weights[i]) for i in used),
        tuple(temperatures[i] for i in used),
        gain,
        takes,
        milliseconds(best),
    )


def _eligible(search: Search) -> list[Tried]:
    """Return the whole fits with known probabilities on the fold that has most of them, the latest of each method."""
    if search.aside is None:
        return []
    by_fold: dict[int, dict[int, Tried]] = {}
    entrants = {id(candidate) for candidate in search.entrants}
    for tried in search.tried:
        if tried.score is None or id(tried.candidate) not in entrants or tried.candidate.is_prompted:
            continue  # a prompt takes many times the time of the other members together
        if share_of_steps(tried.record, tried.candidate) < _WHOLE or not (tried.candidate.is_cheap or tried.folder):
            continue
        if answers_of(search.aside, tried.record.cell.id).is_file():
            by_fold.setdefault(tried.fold, {})[id(tried.candidate)] = tried
    most = max(by_fold, key=lambda fold: (len(by_fold[fold]), -fold), default=None)
    return [] if most is None else list(by_fold[most].values())


def _answers(search: Search, member: Tried) -> Floats:
    assert search.aside is not None
    found: Floats = np.load(answers_of(search.aside, member.record.cell.id), allow_pickle=False)
    return found


def score_ensemble(search: Search, winner: Candidate, folder: Path, device: str) -> ScoredEnsemble | None:
    """Find an ensemble, finish its members and score it once on the test rows; None where none is worth it.

    The winner takes part with its last fit, other members inside the transformer with their fit on the fold. Methods on
    words or frozen features are fitted to all training rows, which takes seconds.

    Args:
        search: the search, after its last fit.
        winner: the method of the last fit.
        folder: folder of its saved model.
        device: `cpu` or `cuda`.
    """
    found = find_ensemble(search)
    if found is None or search.aside is None:
        return None
    search.say(found.in_words(search.task.metric))
    needs = _LOADING_SECONDS + found.milliseconds * search.task.n_test / 1000
    for member in found.members:
        is_refitted = member.candidate is not winner and member.candidate.is_cheap
        needs += _MEMBER_SECONDS + (search.cheap_seconds(member.candidate) if is_refitted else 0.0)
    if needs > search.left:
        search.say(f"no time is left for it: {winner.label} is saved")
        return None
    finished = _finish(search, found, winner, folder)
    if finished is None:
        return None
    made = search.aside / "ensemble-to-score"
    try:
        _write(found, finished, made)
        answers = load_model(made, device).probabilities(search.task.test_rows_to_predict.texts)
    except HarnessError as error:
        search.say(f"the ensemble cannot be used: {error}")
        return None
    predictions = search.task.kind.decode(search.task, answers)
    score = search.task.kind.score(search.task, predictions)
    return ScoredEnsemble(found, finished, score, predictions)


def _finish(search: Search, found: Ensemble, winner: Candidate, folder: Path) -> tuple[Path, ...] | None:
    """Return the folder of each member's final model; None where one could not be fitted."""
    assert search.aside is not None
    finished: list[Path] = []
    for place, member in enumerate(found.members):
        candidate = member.candidate
        if candidate is winner:
            finished.append(folder)
        elif member.folder is not None and not candidate.is_cheap:
            finished.append(member.folder)
        else:
            made = search.aside / f"member-{place + 1}"
            planned = search.plan(candidate, search.task, None, search.budget())
            record = search.runner.run(planned, search.task, search.end, made)
            if record is None or record.status != "ok" or not made.exists():
                search.say(f"{candidate.label} could not be fitted to all rows: {winner.label} is saved alone")
                return None
            finished.append(made)
    return tuple(finished)


def _write(found: Ensemble, folders: Sequence[Path], made: Path) -> None:
    write_ensemble(made, list(zip(folders, found.weights, found.temperatures, strict=True)))
