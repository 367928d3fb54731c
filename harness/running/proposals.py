"""Settings to try next: the method's own, likely ones, then those that optuna's TPE sampler proposes.

A trial that is scored at rungs may be dropped there, by asynchronous successive halving (Li et al., 2020,
arXiv:1810.05934) as optuna implements it: it goes on while it is in the better half of all trials at that rung.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from harness.methods import Choice, Method, Range

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

_MOST_REPEATS = 20

HALVING: Final = 2
"""Ratio of the shares of neighbouring rungs, and of the trials at a rung to those that go on."""


class Proposals:
    """Settings to try: the method's own, then likely ones, then those of optuna, none of them twice.

    Args:
        method: the method, with its search space.
        seed: seed of the sampler.
        n_trials: number of trials; half of them, ten at most, are drawn at random.
        likely: settings to try after the method's own, most likely first; each names all of the search space.
        n_rungs: number of rungs of a trial before its end, each at half of the share of the next.
    """

    def __init__(
        self,
        method: Method,
        seed: int,
        n_trials: int,
        *,
        likely: Sequence[Mapping[str, Any]] = (),
        n_rungs: int = 0,
    ) -> None:
        self._space = method.settings_to_try()
        self._distributions = {name: _distribution(setting) for name, setting in self._space.items()}
        self._study = make_study(seed, n_trials, n_rungs)
        self._queue: list[dict[str, Any]] = [{name: getattr(method, name) for name in self._space}, *map(dict, likely)]
        self._values: dict[str, float] = {}
        self._asked: Trial | None = None
        self._scores_rungs = n_rungs > 0

    def next(self) -> dict[str, Any] | None:
        """Return settings that have not been tried; None once nothing new is proposed, since the space is small."""
        while self._queue:
            settings = self._queue.pop(0)
            if repr(settings) in self._values:
                continue
            inside = {name: _position(self._space[name], value) for name, value in settings.items()}
            self._asked = None
            if None not in inside.values():
                self._study.enqueue_trial(inside)
                self._asked = self._study.ask(self._distributions)
            elif self._scores_rungs:  # the sampler cannot learn from it, but the rungs of others are compared with its
                self._asked = self._study.ask()
            return settings
        for _ in range(_MOST_REPEATS):
            self._asked = self._study.ask(self._distributions)
            proposed = self._asked.params
            settings = {name: _setting(setting, proposed[name]) for name, setting in self._space.items()}
            if repr(settings) not in self._values:
                return settings
            self._study.tell(self._asked, self._values[repr(settings)])
        return None

    def goes_on(self, rung: int, value: float) -> bool:
        """Take the value of the present trial at a rung, numbered from 0; return whether the trial goes on."""
        if self._asked is None:
            return True
        self._asked.report(value, HALVING**rung)
        return not self._asked.should_prune()

    def learn(self, settings: Mapping[str, Any], value: float | None, *, dropped: bool = False) -> None:
        """Tell the sampler the result of the settings proposed last.

        Args:
            settings: the settings.
            value: their value, greater is better; None where they could not be fitted.
            dropped: whether the value is that of a rung, where the trial was dropped.
        """
        found = self._values[repr(dict(settings))] = -math.inf if value is None else value
        if self._asked is None:
            return
        if dropped:
            from optuna.trial import TrialState

            self._study.tell(self._asked, state=TrialState.PRUNED)
        else:
            self._study.tell(self._asked, found)


def make_study(seed: int, n_trials: int, n_rungs: int = 0) -> Study:
    """Return a study that maximises: half of the trials, ten at most, are drawn at random; TPE proposes the others."""
    import optuna
    from optuna.pruners import NopPruner, SuccessiveHalvingPruner

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=max(2, min(10, n_trials // 2)))
    pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALVING) if n_rungs else NopPruner()
    return optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)


def _distribution(setting: Choice | Range) -> BaseDistribution:
    """Return a setting for optuna; a choice by position, since optuna's choices are only numbers and words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(setting, Choice):
        return CategoricalDistribution(range(len(setting.values)))
    if _is_whole(setting):
        return IntDistribution(int(setting.low), int(setting.high), log=setting.log)
    return FloatDistribution(setting.low, setting.high, log=setting.log)


def _setting(setting: Choice | Range, proposed: Any) -> Any:
    """Return the value for a proposal; three digits of a number are enough, and can be typed."""
    if isinstance(setting, Choice):
        return setting.values[proposed]
    if _is_whole(setting):
        return proposed
    return min(max(float(f"{proposed:.3g}"), setting.low), setting.high)


def _position(setting: Choice | Range, value: Any) -> Any:
    """Return the proposal for a value, the inverse of `_setting`; None where there is none."""
    if isinstance(setting, Choice):
        return setting.values.index(value) if value in setting.values else None
    return value if isinstance(value, int | float) and setting.low <= value <= setting.high else None


def _is_whole(setting: Range) -> bool:
    return isinstance(setting.low, int) and isinstance(setting.high, int)
