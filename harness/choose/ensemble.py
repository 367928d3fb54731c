"""An ensemble of the whole fits of a search, where it is better than the best of them by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.choose.search import Search
    from harness.choose.tried import Tried


@dataclass(frozen=True)
class Ensemble:
    """Fits of a search whose class probabilities are averaged.

    Attributes:
        members: the fits; each has a saved model.
        weights: weight of each member; they sum to 1.
        gain: expected gain over the best single fit, in the main metric.
        milliseconds: expected time of predicting one text.
    """

    members: tuple[Tried, ...]
    weights: tuple[float, ...]
    gain: float
    milliseconds: float


def find_ensemble(search: Search) -> Ensemble | None:
    """Return the ensemble that is better than the best single fit by more than chance; None where there is none."""
    return None
