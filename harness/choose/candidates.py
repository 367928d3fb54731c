"""The methods that enter a search, and the scores to expect of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.backbones import BackboneFiles
from harness.choose.encoders import backbone_effects
from harness.forecast import SEED_NOISE, Curves, Doubles, Point, place, shrunk
from harness.methods import Method, methods
from harness.planning import label_of
from harness.records import Budget, Role, prompts_model, short_backbones
from harness.tasks import Task

_KEPT_ROLES: frozenset[Role] = frozenset({"baseline", "frozen features", "fine-tuning", "prompting"})
"""Roles of methods whose models somebody may want to keep; the others measure a task or pretraining."""

HURRY_SECONDS = 60.0
"""Seconds of a search below which no penalty is chosen by cross-validation."""

PENALTY_SIZE = 100.0
FEATURES_PENALTY_SIZE = 2000.0
"""Rows times classes, per second of the search, up to which a penalty is chosen by cross-validation.

The first is for TF-IDF, the second for features: 384 numbers of 10,000 rows and 77 classes took 24 s."""

CUT_NOISE = 0.12
"""Error in logits of taking a fit with half of its steps for one with half of the labels (standard deviation)."""


MANY_LABELS = 400
SIBLINGS = 0.4
"""From MANY_LABELS labels on, differences between methods that train inside the transformer, as a share of those that
the forecast expects.

In the reference results with 512 labels and more, each task left out in turn, differences were 0.16 logits off (root
mean square; full, last-layers, LoRA) where 0.42 were expected. Test rows and seeds make 0.22."""


_ON_SERVED: frozenset[str] = frozenset({"zero-shot", "few-shot"})
"""Names of the methods that a served model is tried with, unless others are asked for: each costs requests."""


def prompts_language_model(method: Method | type[Method]) -> bool:
    """Return whether a method prompts a language model; `label-similarity` compares vectors of an encoder instead."""
    return prompts_model(method.role, method.name)


@dataclass(frozen=True)
class Candidate:
    """A method that could win.

    Attributes:
        method: as configured.
        label: for messages.
        is_cheap: whether a fit takes no steps inside the transformer: nothing, or features that all such share.
        known_as: the configuration of which it is a quicker form, and whose measurements speak for it; None is itself.
        files: its backbone; None where it uses none.
    """

    method: Method
    label: str
    is_cheap: bool
    known_as: Method | None = None
    files: BackboneFiles | None = None

    @property
    def is_prompted(self) -> bool:
        """Whether it prompts a language model: its predictions cost most, and no training shortens them."""
        return prompts_language_model(self.method)

    @property
    def is_served(self) -> bool:
        """Whether it asks a served model: each answer is a request, which may cost money."""
        return self.files is not None and self.files.architecture == "served"

    @property
    def reads_features(self) -> bool:
        """Whether it reads frozen features, which all such methods on a backbone share."""
        return self.is_cheap and self.files is not None and not self.is_prompted

    @property
    def reads_texts(self) -> bool:
        """Whether a prediction reads a text once with its backbone, and nothing else."""
        return bool(self.method.serves) and not self.is_prompted

    @property
    def reads_rows(self) -> bool:
        """Whether a fit reads the training rows with its backbone."""
        return self.method.workload(100, Budget(), 12).encoded > 0

    def labels_of(self, n_train: float) -> float:
        """Return the labels that a fit to so many rows learns from: none for a method that uses no labels."""
        return n_train if self.method.uses_labels else 0.0

    def is_measured_by(self, point: Point) -> bool:
        """Whether a point is of this configuration; settings that the point leaves out had their defaults."""
        known = self.known_as or self.method
        if point.name != known.name or point.is_cut:
            return False
        return {**type(known)().config(), **point.config} == known.config()


def find_candidates(
    asked: Sequence[Method] | None,
    task: Task,
    backbones: Sequence[BackboneFiles],
    device: str,
    *,
    within: float = math.inf,
) -> list[Candidate]:
    """Return the methods that serve a task: those asked for, or all that may be worth keeping, with default settings.

    Args:
        asked: configured methods; None is all that are candidates and not experimental.
        task: the task.
        backbones: the backbones; a method that uses one is a candidate with each of them.
        device: `cpu` or `cuda`.
        within: seconds of the search. Penalties are fixed where choosing them by cross-validation would take too much
            of it.
    """
    is_own = asked is None
    if asked is not None:
        quicker = asked = list(asked)
    else:
        known = [methods.get(name) for name in methods.names()]
        asked = [cls() for cls in known if cls.role in _KEPT_ROLES and cls.is_candidate and not cls.experimental]
        size = len(task.train_labels) * max(1, task.n_outputs)

        def hurries(one: Method) -> bool:
            return within < HURRY_SECONDS or size > within * (FEATURES_PENALTY_SIZE if one.serves else PENALTY_SIZE)

        quicker = [one.in_a_hurry() if hurries(one) else one for one in asked]
    short = short_backbones((files.name, files.fingerprint) for files in backbones)
    found = []
    for method, known_as in zip(quicker, asked, strict=True):
        label = label_of(type(method), method.config())
        work = method.workload(100, Budget(), 12)
        for files in backbones if method.serves else (None,):
            if is_own and files is not None and files.architecture == "served" and method.name not in _ON_SERVED:
                continue
            if method.why_not(task, files, device) is not None:
                continue
            named = f"{label} on {short[files.name, files.fingerprint]}" if files and len(backbones) > 1 else label
            found.append(Candidate(method, named, work.texts_per_step == 0, known_as, files))
    return found


@dataclass(frozen=True)
class Measured:
    """A candidate's score on validation rows.

    Attributes:
        n_train: number of labels that the fits made full use of.
        n_folds: number of fits.
        n_rows: number of validation rows of all fits; for other metrics than accuracy, the rows that they are worth.
        score: accuracy over all these rows, or the share of the way to the best value of another metric.
        halvings: how often a budget halved the steps of the fits (a logarithm to base 2).
    """

    candidate: Candidate
    n_train: float
    n_folds: int
    n_rows: int
    score: float
    halvings: float = 0.0


class Belief:
    """Expected scores of candidates, from results on other tasks and from the fits so far.

    Args:
        prior: points of other tasks of the kind.
        classes: number of classes of the task.
        backbone: the backbone that the points are taken to speak of; None where all candidates have one.

    Attributes:
        kin: methods that train inside the transformer, of which one differs less than others do; without any, those
            that are asked about.
    """

    TASK = "\0yours"

    def __init__(self, prior: Iterable[Point], classes: int, backbone: BackboneFiles | None = None) -> None:
        self._backbone = backbone
        self._classes = classes
        self._points = [point for point in prior if point.metric == "accuracy"]
        self._labels: dict[str, str] = {}
        self._curves = Curves(self._points)
        self.kin: Sequence[Candidate] = ()

    def expect(
        self,
        entrants: Sequence[Candidate],
        sizes: Sequence[float],
        tried: Sequence[Measured],
    ) -> tuple[Doubles, Doubles]:
        """Return mean, shape (m,), and covariance, shape (m, m), of the logits of the scores of m candidates.

        Args:
            entrants: the candidates.
            sizes: number of labels that the fit of each would make full use of.
            tried: scores on validation rows.
        """
        candidates = [*entrants, *(one.candidate for one in tried)]
        labels = [*sizes, *(one.n_train for one in tried)]
        kin = self.kin or list({id(one): one for one in candidates if not one.is_cheap}.values())
        most = max(labels)
        mean, covariance = self._curves.predict(
            [
                place(n, self._classes, self.TASK, self._label(one), one.method.role)
                for one, n in zip(
                    [*candidates, *kin, *candidates], [*labels, *[most] * (len(kin) + len(labels))], strict=True
                )
            ]
        )
        alike = _draws_together(np.array([not one.is_cheap for one in candidates]), labels, len(kin))
        of_backbones = backbone_effects(candidates, self._backbone)
        mean, covariance = mean[: len(candidates)] + of_backbones[0], alike @ covariance @ alike.T + of_backbones[1]
        if not tried:
            return mean, covariance
        n = len(entrants)
        seen = np.array([self._curves.scale.there(shrunk(one.score, one.n_rows)) for one in tried])
        if not self._points:
            mean = np.full(len(candidates), np.mean(seen))
        of_fits = np.array([SEED_NOISE**2 / one.n_folds + (CUT_NOISE * one.halvings) ** 2 for one in tried])
        n_rows = np.array([float(one.n_rows) for one in tried])
        right = n_rows * np.array([one.score for one in tried])
        values, of_rows = counts_as_normal(right, n_rows, mean[n:], covariance[n:, n:] + np.diag(of_fits))
        weights = np.linalg.solve(covariance[n:, n:] + np.diag(of_fits + of_rows), covariance[n:, :n]).T
        return mean[:n] + weights @ (values - mean[n:]), covariance[:n, :n] - weights @ covariance[n:, :n]

    def _label(self, candidate: Candidate) -> str:
        """Return the label of the candidate's points; one that no point bears where it has none."""
        label = label_of(type(candidate.method), candidate.method.config())
        if label not in self._labels:
            own = (point.method for point in self._points if candidate.is_measured_by(point))
            self._labels[label] = next(own, f"\0{label}")
        return self._labels[label]

    def back(self, value: float) -> float:
        """Return the accuracy of a logit."""
        return self._curves.scale.back(value)


def counts_as_normal(right: Doubles, n_rows: Doubles, mean: Doubles, covariance: Doubles) -> tuple[Doubles, Doubles]:
    """Return normal measurements of logits that stand for counts of right rows (Laplace's approximation).

    With them, the normal posterior has the mode and the curvature of the exact one. The usual variance of a logit
    fails here: it is very large for a score of 1, and so the prior would pull that score far down.

    Args:
        right: number of rows that each predicted correctly, shape (m,); may be fractions, for other metrics.
        n_rows: number of rows that each was measured on, shape (m,).
        mean: prior mean of the logits, shape (m,).
        covariance: prior covariance of the logits, shape (m, m).

    Returns:
        Values and variances, each of shape (m,).
    """
    precision = np.linalg.inv(covariance)

    def log_posterior(logits: Doubles) -> float:
        likely = right @ logits - n_rows @ np.logaddexp(0.0, logits)
        return float(likely - 0.5 * (logits - mean) @ precision @ (logits - mean))

    def measured(logits: Doubles) -> tuple[Doubles, Doubles]:
        chance = 1 / (1 + np.exp(-logits))
        curvature = np.maximum(n_rows * chance * (1 - chance), 1e-9)
        return logits + (right - n_rows * chance) / curvature, 1 / curvature

    logits = mean.copy()
    for _ in range(_MOST_NEWTON_STEPS):
        values, variances = measured(logits)
        step = mean + covariance @ np.linalg.solve(covariance + np.diag(variances), values - mean) - logits
        while log_posterior(logits + step) < log_posterior(logits) and np.abs(step).max() > _CONVERGED:
            step = step / 2
        logits = logits + step
        if np.abs(step).max() <= _CONVERGED:
            break
    return measured(logits)


_MOST_NEWTON_STEPS = 100
_CONVERGED = 1e-9


def _draws_together(trained: npt.NDArray[np.bool_], sizes: Sequence[float], n_kin: int) -> Doubles:
    """Return a matrix that shrinks differences between methods that train inside the transformer.

    The forecast expects differences as large as over all sizes and methods. With many labels, good methods differ
    by little more than test rows and seeds do: see `SIBLINGS`. Only the difference from the mean of its kin shrinks,
    not what more labels add.

    Args:
        trained: whether each of m candidates trains inside the transformer.
        sizes: number of labels of each.
        n_kin: number of methods that such candidates are compared with.

    Returns:
        Shape (m, m + n_kin + m), for values of the candidates, of their kin at the largest size, and of the candidates
        at that size.
    """
    m = len(trained)
    found = np.hstack([np.eye(m), np.zeros((m, n_kin + m))])
    if n_kin < 2:
        return found
    for i in np.flatnonzero(trained & (np.asarray(sizes, dtype=np.float64) >= MANY_LABELS)):
        found[i, m : m + n_kin] += (1 - SIBLINGS) / n_kin
        found[i, m + n_kin + i] -= 1 - SIBLINGS
    return found
