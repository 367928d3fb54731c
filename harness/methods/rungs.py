"""Rungs of a fit: points of its training at which it is scored, and goes on or is dropped.

A fit that goes on is the same, bit for bit, as one without rungs: scoring changes no weight, no mode, and no random
state. So a search may stop poor fits early and pay nothing for the good ones but the scoring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, get_args

from harness.measure import Phase
from harness.methods.bench import Bench, Ledger
from harness.support import OutOfTimeError
from harness.tasks import Answers, Rows

if TYPE_CHECKING:
    from torch import nn


DROPPED: Final = "Dropped after"
"""Beginning of the error of a fit that ended at a rung."""


@dataclass(frozen=True)
class Rung:
    """The state of a fit at one point of its training.

    Attributes:
        share: share of the fit's steps.
        step: number of optimiser steps.
        seconds: counted seconds of training, with those of scoring.
        score: the task's main metric on the cell's test rows, with its sign such that higher is better.
    """

    share: float
    step: int
    seconds: float
    score: float


class DroppedError(OutOfTimeError):
    """A fit ended at a rung, because whoever asked for it had seen enough."""


@dataclass(frozen=True, eq=False)
class Rungs:
    """Where a fit is scored, on what, and who decides.

    Attributes:
        shares: shares of the fit's steps, above 0 and below 1, rising.
        rows: rows to predict, without labels.
        score: returns the score of their answers, greater is better.
        decide: returns whether the fit goes on.
    """

    shares: tuple[float, ...]
    rows: Rows
    score: Callable[[Answers], float]
    decide: Callable[[Rung], bool]

    def at_steps(self, limit: int) -> dict[int, float]:
        """Return the share of each rung by its step, in a fit of `limit` steps."""
        steps = {max(1, round(share * limit)): share for share in self.shares}
        return {step: share for step, share in steps.items() if step < limit}

    def climb(
        self, share: float, step: int, bench: Bench, model: nn.Module, predict: Callable[[Bench], Answers]
    ) -> float:
        """Score the fit at a rung and return the score; its seconds count as tuning.

        Args:
            share: share of the fit's steps.
            step: number of steps so far.
            bench: bench of the fit.
            model: the model in training; its modes and the random state are left as they were.
            predict: returns the answers of the model for `rows`, on a bench of its own.

        Raises:
            DroppedError: the fit does not go on.
        """
        with _undisturbed(model, bench), bench.clock.paused():
            aside = replace(bench, clock=bench.clock.aside(), ledger=Ledger(), rungs=None)
            with aside.clock.phase("tune"):
                answers = predict(aside)
                score = self.score(answers)
            for phase in get_args(Phase):
                to: Phase = phase if phase in ("load", "warmup", "measure") else "tune"
                bench.clock.charge_all(aside.clock, phase, to)
        with bench.clock.phase("measure"):  # waiting for the decision is nobody's time
            goes_on = self.decide(Rung(share, step, bench.clock.train_seconds, score))
        if not goes_on:
            raise DroppedError(f"{DROPPED} {100 * share:.0f} % of its steps, at {score:.3f}.")
        return score


@contextmanager
def _undisturbed(model: nn.Module, bench: Bench) -> Iterator[None]:
    """Restore the mode of every module, and the random state of torch, after the block."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    there = bench.device.torch_device()
    try:
        with torch.random.fork_rng(devices=[there] if there.type == "cuda" else []):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
