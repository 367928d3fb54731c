"""Few-shot classification with contextual calibration: divide by the answer to a text without content."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy.typing as npt

from harness.methods._demonstrations import draw, show
from harness.methods._in_context import DemonstratingMethod, FittedPrompt, restored, run_in_fit
from harness.methods._served_prompt import ServedPrompt
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.tasks import Form, Rows


@method
class CalibratedFewShot(DemonstratingMethod):
    """Few-shot, with each class's probability divided by its mean for content-free texts ("N/A", "", "[MASK]").

    A language model favours some words whatever the text: those of the last demonstrations, of the most frequent class,
    of its pretraining. Its answer to a text without content measures this bias, which is then divided out:

        p(c | x)  is proportional to  q(c | x) / mean of q(c | content-free text)

    q is the probability that `few-shot` gives.

    Attributes:
        choose: `random` or `balanced` over the classes; drawn with the cell's seed, the same for all rows.
    """

    name = "calibrated-few-shot"
    trains = "one factor per class, from content-free texts"
    source = "Zhao et al., 2021, arXiv:2102.09690"
    search_space: ClassVar[SearchSpace] = {"k": Choice((2, 4, 8, 16)), "choose": Choice(("random", "balanced"))}

    calibrates: ClassVar[bool] = True
    forms: ClassVar[frozenset[Form]] = frozenset({"classes"})  # the factors belong to classes

    choose: Literal["random", "balanced"] = "balanced"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Choose the demonstrations, and run the content-free texts after them."""
        with bench.working("fit"):
            seed = bench.seeded("demonstrations")
            chosen = draw(rows.known_strata, bench.n_strata, self.k, self.choose, seed)
            demonstrations = show(rows, chosen, bench, self.wording(bench))
        if bench.served is not None:
            return ServedPrompt(self, bench, demonstrations, calibrated=True)
        fitted = FittedPrompt(self, bench, demonstrations)
        fitted.calibration = run_in_fit(fitted.content_free, fitted.likelihood, bench)
        return fitted

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved demonstrations and probabilities."""
        return restored(self, tensors, state, bench, calibrated=True)
