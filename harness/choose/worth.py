"""What a race is worth: how much better its winner is expected to be, for the time that it takes from the last fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.advice import Floats

_DRAWS: Final = 2000

DOUBT: Final = 1.281552
"""A candidate is dropped when its chance to come out ahead of the leader is a tenth, by belief."""

CUT_EXPONENT: Final = 0.15
"""A fit that reads all labels at least once, with a share of its steps, is worth one on that share of its labels to
this power: on TREC, SMS spam and SST-2 one epoch of four lost 0.0 to 1.5 points (docs/choosing.md)."""


def labels_worth(n_train: float, share: float, epochs: float) -> float:
    """Labels that a fit with a share of its steps is worth: little fewer while it reads each once, else in proportion.

    Args:
        n_train: labels.
        share: of the steps that it would take uncut; 1 at the most counts.
        epochs: passes over the labels that it would make uncut.
    """
    share = min(1.0, max(share, 0.0))
    once = 1 / max(epochs, 1.0)
    whole = math.pow(max(share, once), CUT_EXPONENT)
    return n_train * whole * min(1.0, share / once)


SHARE_FOR_READING: Final = 0.4
"""Of a fit's time, that may go into reading all of its texts before its first step; else it is given fewer."""

LEAST_STEPS: Final = 100
"""Steps without which a fit inside the transformer comes to nothing: methods take 120 however few labels there are."""


@dataclass(frozen=True)
class Uncut:
    """The fit to all rows that nothing would cut short, and what of it is done within a time.

    Attributes:
        n_rows: training rows.
        seconds: of training.
        reading: of these, that go into encoding texts before the first step; 0 where features are there already.
        steps: inside the transformer; 0 where there are none.
        epochs: passes over the rows.
    """

    n_rows: int
    seconds: float
    reading: float
    steps: float
    epochs: float

    def rows_within(self, seconds: float) -> int:
        """Rows that it can be given."""
        if self.reading <= 0:
            return self.n_rows
        return max(1, min(self.n_rows, int(SHARE_FOR_READING * seconds * self.n_rows / self.reading)))

    def steps_within(self, seconds: float) -> float:
        """Steps that it takes."""
        n = self.rows_within(seconds)
        return self.steps * min(self._share(n, seconds) * n / self.n_rows, 1.0)

    def labels_within(self, seconds: float) -> float:
        """Labels that it is worth."""
        n = self.rows_within(seconds)
        return labels_worth(n, self._share(n, seconds), self.epochs)

    def _share(self, n: int, seconds: float) -> float:
        """Of the steps of an uncut fit to n rows."""
        of_rows = n / self.n_rows
        return max(0.1, seconds - of_rows * self.reading) / max((self.seconds - self.reading) * of_rows, 1e-9)


def rungs(n: int) -> int:
    """Rounds of a race of n, whose better half goes on each time: 1 at least."""
    return max(1, math.ceil(math.log2(n))) if n > 1 else 1


@dataclass(frozen=True)
class Rivals:
    """What is believed of candidates, as logits of what each would reach.

    Attributes:
        mean: shape (m,).
        covariance: shape (m, m).
    """

    mean: Floats
    covariance: Floats

    def best_of(self, raced: Sequence[int], noises: Sequence[float]) -> float:
        """Expected logit of whoever is ahead once some have been measured; of who is ahead now, where none are.

        Args:
            raced: positions of those that are measured.
            noises: variance of each measurement.
        """
        if not raced:
            return float(self.mean.max())
        at = np.asarray(raced)
        across = self.covariance[:, at]
        seen = across[at] + np.diag(np.asarray(noises, dtype=np.float64))
        gain = across @ np.linalg.solve(seen, across.T)  # covariance of the means that will be believed
        values, vectors = np.linalg.eigh((gain + gain.T) / 2)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))
        draws = np.random.default_rng(0).standard_normal((_DRAWS, len(values)))
        draws = np.concatenate([draws, -draws])  # whoever cannot be told apart gains nothing by luck
        return float((self.mean + draws @ root.T).max(axis=1).mean())

    def is_beaten(self, i: int) -> bool:
        """Whether the chance that one comes out ahead of the leader is less than a tenth."""
        top = int(np.argmax(self.mean))
        variance = self.covariance[i, i] + self.covariance[top, top] - 2 * self.covariance[i, top]
        return bool(self.mean[top] - self.mean[i] > DOUBT * math.sqrt(max(float(variance), 0.0)))

    def order(self, eligible: Sequence[int], noise: float, most: int) -> list[int]:
        """Whom to race first: each next is who adds most, so that kin of one who is in comes later.

        Args:
            eligible: positions of those that may enter.
            noise: variance of a measurement.
            most: how many are named.
        """
        chosen: list[int] = []
        while len(chosen) < min(most, len(eligible)):
            rest = [i for i in eligible if i not in chosen]
            chosen.append(max(rest, key=lambda i: self.best_of([*chosen, i], [noise] * (len(chosen) + 1))))
        return chosen
