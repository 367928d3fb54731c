"""The search of settings inside `choose`: variants of a candidate, by continued fits, within some seconds.

A variant's fit is scored on the validation rows at two rungs of its steps. It goes on from there, or is dropped, by
asynchronous successive halving; the candidate's own whole fit counts as the first trial. Likely settings come first,
then optuna's sampler proposes (`running.proposals`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from harness.choose.candidates import Candidate
from harness.choose.runner import RUNGS
from harness.choose.search import SHORTEST_FIT_SECONDS, Search
from harness.choose.tried import Tried, share_of, share_of_steps, share_upwards, value_at
from harness.forecast import SEED_NOISE
from harness.methods import Choice, Method, Range, Rung
from harness.planning import label_of
from harness.records import Budget, Record
from harness.running import Proposals
from harness.support import describe_duration
from harness.tasks import Task

_MOST_TRIALS: Final = 12
"""Maximum number of variants; half as many are drawn at random before the sampler's model proposes."""

_SHARE_FOR_HARDER: Final = 0.4
"""Share of the time left that a variant that trains harder may take, while other methods are still to be tried."""

_SEED: Final = 0

_USUAL_BLOCKS: Final = 12

_FEW_STEPS: Final = 10.0
"""Steps per class below which the default settings train too little.

On Banking77 with 512 labels (128 steps for 77 classes), `last-layers` reached 0.757 with its own 4 epochs and 0.834
with 8. On TREC, with over 20 steps per class, no other learning rate was better."""

_FASTER: Final = 3.0
"""Factor of the learning rate of the variants that are tried first."""

_TYPICAL_GAIN: Final = 0.12
"""Standard deviation, in logits, of what other settings gain or lose, before a variant is measured.

In `results/reference/*/defaults.jsonl`, learning rates of a third or three times the default gained -0.10 logits on
SST-2 and TREC with 512 labels (13 fits of six methods; standard deviation 0.10). With 128 labels they gained more."""

_HARDER: Final = 0.2
"""Logits that training harder gains where there are few steps per class; also their standard deviation."""

_CONFIDENCE: Final = 0.674490
"""Standard deviations above 0 of a variant's gain from which it takes the candidate's place: chances of 3 in 4."""


def search_settings(search: Search, candidate: Candidate, seconds: float, most: int = _MOST_TRIALS) -> list[Candidate]:
    """Run variants of a candidate within so many seconds; return those that should take its place, best first.

    Every fit is noted in `search.tried`. A variant is left out unless it was better on the same validation rows by
    more than chance, and has time for its last fit. It should rank above the candidate, whatever other tasks say.

    Args:
        search: the search.
        candidate: a candidate that trains inside the transformer; its whole fit on a fold is known.
        seconds: seconds for all variants together.
        most: maximum number of variants.
    """
    base = _whole_fit(search, candidate)
    if base is None or not search.tries_settings or not candidate.method.search_space:
        return []
    trials = _Trials(search, candidate, base, search.now() + min(seconds, search.left))
    trials.run(most)
    return trials.better()


def tune_leader(search: Search) -> None:
    """Search the settings of the method that is expected to do best, in the time that its last fits do not need.

    The best variant takes its place among `search.entrants`.
    """
    known = [candidate for candidate in search.entrants if search.measured(candidate)]
    if not known or search.favourite is not None:
        return
    leader = known[int(search.rivals(known, search.left).mean.argmax())]
    if leader.is_cheap:
        return
    found = search_settings(search, leader, search.left - last_fits_seconds(search, leader))
    if found:
        search.entrants = [found[0] if candidate is leader else candidate for candidate in search.entrants]


def train_harder(search: Search, candidate: Candidate) -> Candidate:
    """Return a candidate, or a variant that trains harder and is better, where its own steps are few for the classes.

    It is called after a candidate's first whole fit, since dearer methods are then compared with the better variant.

    Args:
        search: the search; the variant takes the candidate's place among its entrants.
        candidate: the candidate that was fitted last.
    """
    task = search.folds[0]
    is_new = candidate.known_as in (None, candidate.method) and len(search.measured(candidate)) == 1
    if candidate.is_cheap or not is_new or not trains_little(candidate.method, len(task.train_labels), task.n_strata):
        return candidate
    found = search_settings(search, candidate, _SHARE_FOR_HARDER * search.left, most=1)
    if found:
        search.entrants = [found[0] if one is candidate else one for one in search.entrants]
    return found[0] if found else candidate


def likely_settings(method: Method, n_rows: int, n_classes: int) -> list[dict[str, Any]]:
    """Return variants of a method's settings that are worth trying first on a task, best first.

    Args:
        method: the method; only settings of its search space are varied.
        n_rows: number of training rows.
        n_classes: number of classes.
    """
    longer, faster = {"epochs": 2.0}, {"learning_rate": _FASTER}
    scarce = trains_little(method, n_rows, n_classes)
    # A space may have no value near twice the epochs, and the next one may take too long: half more follows.
    order = [longer, {"epochs": 1.5}, faster, {**longer, **faster}] if scarce else [longer, {"k": 1.5}]
    found = []
    for factors in order:
        settings = {name: getattr(method, name) for name in method.search_space}
        if not set(factors) <= set(settings):
            continue
        for name, factor in factors.items():
            settings[name] = _moved(method.search_space[name], settings[name], factor)
        if settings != {name: getattr(method, name) for name in settings} and settings not in found:
            found.append(settings)
    return found


def trains_little(method: Method, n_rows: int, n_classes: int) -> bool:
    """Return whether a method with its own settings takes few steps for each class."""
    length = method.fit_length()
    if length is None:
        return False
    return length.of_epochs(max(1, math.ceil(n_rows / length.batch_size))) < _FEW_STEPS * max(1, n_classes)


def _moved(setting: Choice | Range, value: Any, factor: float) -> Any:
    """Return the value of the space that is closest to a multiple of a value."""
    wanted = value * factor
    if isinstance(setting, Choice):
        return min(setting.values, key=lambda one: (abs(math.log(one / wanted)), one))
    return float(f"{min(max(wanted, setting.low), setting.high):.3g}")


def _whole_fit(search: Search, candidate: Candidate) -> Tried | None:
    """Return a candidate's first fit to all of a fold's rows with all of its steps."""
    for tried in search.measured(candidate):
        is_all = tried.record.cell.n_train >= len(search.folds[tried.fold].train_labels)
        if is_all and share_of_steps(tried.record, candidate) >= 1.0:
            return tried
    return None


class _Trials:
    """Variants of one candidate.

    Args:
        search: the search.
        candidate: the candidate.
        base: its whole fit.
        end: time at which the last variant ends, on the search's clock.
    """

    def __init__(self, search: Search, candidate: Candidate, base: Tried, end: float) -> None:
        self._search = search
        self._candidate = candidate
        self._base = base
        self._end = end
        self._task: Task = search.folds[base.fold]
        n_rows, n_classes = len(self._task.train_labels), self._task.n_strata
        self._trains_little = trains_little(candidate.method, n_rows, n_classes)
        self._proposals = Proposals(
            candidate.method,
            _SEED,
            _MOST_TRIALS,
            likely=likely_settings(candidate.method, n_rows, n_classes),
            n_rungs=len(RUNGS),
        )
        self._whole: list[tuple[Candidate, Record]] = []

    def run(self, most: int) -> None:
        """Run variants until none fits into the time, at most so many; say what came of them."""
        search = self._search
        own = self._proposals.next()
        assert own is not None
        for number, rung in enumerate(rungs_of(self._base.record)):
            self._proposals.goes_on(number, rung)
        self._proposals.learn(own, self._value(self._base.record))
        n_tried, n_too_long = 0, 0
        while n_tried < most and n_too_long < _MOST_TRIALS:
            if self._end - search.now() < SHORTEST_FIT_SECONDS:
                break
            settings = self._proposals.next()
            if settings is None:
                break
            variant = self._variant(settings)
            if variant is None or not self._has_time(variant):
                self._proposals.learn(settings, None)
                n_too_long += 1
                continue
            if n_tried == 0:
                search.say(
                    f"settings of {self._candidate.label}: variants on the same rows, in "
                    f"{describe_duration(self._end - search.now())}"
                )
            n_tried += 1
            self._try(variant, settings)
        if n_tried == 0:
            search.say(f"settings of {self._candidate.label}: no time for a variant and its last fit")

    def better(self) -> list[Candidate]:
        """Return the variants that are better than the candidate by more than chance, best first."""
        found = []
        for variant, record in self._whole:
            own = expected_gain(self._base.record, record, self._prior(variant))
            if own.mean > _CONFIDENCE * own.deviation and self._last_fits_seconds(variant) <= self._search.left:
                found.append((own.mean, variant))
        found.sort(key=lambda one: -one[0])
        for mean, variant in found[:1]:
            metric, facts = self._task.metric, self._task.provenance
            gain = value_at(metric, mean, facts) - value_at(metric, 0.0, facts)
            self._search.say(
                f"{variant.label} takes the place of {self._candidate.label}: {metric} {gain:+.3f} expected"
            )
        if self._whole and not found:
            self._search.say(f"{self._candidate.label} keeps its settings: no variant is better by more than chance")
        return [variant for _, variant in found]

    def _variant(self, settings: Mapping[str, Any]) -> Candidate | None:
        """Return the candidate with other settings; None where they do not serve the task."""
        base = self._candidate
        method = type(base.method)(**{**base.method.config(), **settings})
        label = label_of(type(method), method.config())
        variant = replace(base, method=method, label=label, known_as=base.known_as or base.method)
        return None if self._search.plan(variant, self._task).unsupported is not None else variant

    def _try(self, variant: Candidate, settings: Mapping[str, Any]) -> None:
        """Fit a variant up to its end, or to the rung where it is dropped."""
        search, reached = self._search, list[Rung]()
        dropped = False

        def at_rung(rung: Rung) -> bool:
            nonlocal dropped
            dropped = not self._proposals.goes_on(
                len(reached), share_upwards(self._task.metric, rung.score, self._task.provenance)
            )
            reached.append(rung)
            return not dropped

        before = len(search.tried)
        search.run(variant, self._base.fold, self._end + search.overhead, at_rung=at_rung)
        record = search.tried[-1].record if len(search.tried) > before else None
        if record is not None and record.status == "ok":
            self._whole.append((variant, record))
            self._proposals.learn(settings, self._value(record))
        else:
            last = share_upwards(self._task.metric, reached[-1].score, self._task.provenance) if dropped else None
            self._proposals.learn(settings, last, dropped=dropped)

    def _prior(self, variant: Candidate) -> Gain:
        """Return the logits that a variant is expected to gain before it is measured."""
        ratios = []
        for name in ("learning_rate", "epochs"):
            changed, own = (getattr(one.method, name, 1.0) for one in (variant, self._candidate))
            ratios.append(changed / own)
        if self._trains_little and min(ratios) >= 1 and max(ratios) > 1:
            return Gain(_HARDER, _HARDER)
        return Gain(0.0, _TYPICAL_GAIN)

    def _value(self, record: Record) -> float:
        assert record.score is not None
        return share_of(record.score.metric, record.score.value, record.provenance.dataset)

    def _length(self, variant: Candidate) -> float:
        """Return the work of a variant's fit as a multiple of the candidate's."""
        files = self._candidate.files
        n_blocks = (None if files is None else files.n_blocks) or _USUAL_BLOCKS
        n_train = len(self._task.train_labels)
        works = [one.method.workload(n_train, Budget(), n_blocks) for one in (variant, self._candidate)]
        texts = [work.encoded + work.steps * work.texts_per_step * work.passes_per_text for work in works]
        return texts[0] / max(texts[1], 1e-9)

    def _has_time(self, variant: Candidate) -> bool:
        """Return whether a variant's fit ends in time, and its last fits would after it."""
        search = self._search
        spent = self._base.record.cost.train_seconds or search.train_seconds(self._candidate, self._task)
        needs = self._length(variant) * spent + search.overhead
        return needs <= self._end - search.now() and needs + self._last_fits_seconds(variant) <= search.left

    def _last_fits_seconds(self, variant: Candidate) -> float:
        """Return the seconds of a variant's last fits."""
        search = self._search
        return self._length(variant) * (last_fits_seconds(search, self._candidate) - search.overhead) + search.overhead


def last_fits_seconds(search: Search, candidate: Candidate) -> float:
    """Return the seconds of a candidate's last fit, with those of a fit to all rows where there is time for it."""
    last = search.last_seconds(candidate)
    both = last + search.again_seconds(candidate)
    return both if both <= search.left else last


def rungs_of(record: Record) -> list[float]:
    """Return the scores of a fit at its rungs, as shares of the way to the metric's best value."""
    if record.score is None:
        return []
    metric, facts = record.score.metric, record.provenance.dataset
    return [share_upwards(metric, point.validation, facts) for point in record.curve if point.validation is not None]


@dataclass(frozen=True)
class Gain:
    """What a variant is expected to gain: mean and standard deviation, as shares of the way to the best score."""

    mean: float
    deviation: float


def expected_gain(base: Record, variant: Record, prior: Gain = Gain(0.0, _TYPICAL_GAIN)) -> Gain:
    """Return the expected gain of a variant over the candidate, from one fit of each on the same rows.

    The measured difference has the error of the rows, which are paired, and that of the two fits' own chance. It is
    shrunk towards the gain that was expected before.

    Args:
        base: record of the candidate.
        variant: record of the variant.
        prior: the same in logits, before anything was measured.
    """
    assert base.score is not None
    assert variant.score is not None
    metric, n_rows = base.score.metric, max(1, base.score.n_test)
    facts = base.provenance.dataset
    shares = [share_of(metric, record.score.value, facts) for record in (base, variant) if record.score is not None]
    difference = shares[1] - shares[0]
    middle = min(max(float(np.mean(shares)), 1 / (n_rows + 2)), 1 - 1 / (n_rows + 2))
    slope = middle * (1 - middle)  # of the share in its logit
    of_rows = _variance_of_rows(base, variant, 2 * slope / n_rows)
    of_fits = 2 * (SEED_NOISE * slope) ** 2
    spread = (prior.deviation * slope) ** 2
    weight = spread / (spread + of_rows + of_fits)
    return Gain(weight * difference + (1 - weight) * prior.mean * slope, math.sqrt(spread * (1 - weight)))


def _variance_of_rows(base: Record, variant: Record, unpaired: float) -> float:
    """Return the variance of a difference of scores over rows: from the rows that only one of both has right."""
    one, other = base.predictions, variant.predictions
    if one is None or other is None or one.rows != other.rows or one.predicted is None or other.predicted is None:
        return unpaired
    right = [np.equal(*found.classes) for found in (one, other)]
    n_rows = len(right[0])
    n_apart = int((right[0] != right[1]).sum()) + 1  # one more: no pair of fits is known to be alike
    difference = (int(right[1].sum()) - int(right[0].sum())) / n_rows
    return max(n_apart / n_rows - difference**2, 0.0) / n_rows
