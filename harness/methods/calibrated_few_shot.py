"""Few-shot classification with contextual calibration: divide by the answer to a text without content."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy.typing as npt

from harness.methods._choosing import Chooser
from harness.methods._demonstrations import draw, show
from harness.methods._in_context import DemonstratingMethod, FittedPrompt, restored
from harness.methods._language_model import run_in_fit
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.tasks import Form, Rows


@method
class CalibratedFewShot(DemonstratingMethod):
    """Few-shot, with each class's probability divided by its mean for content-free texts ("N/A", "", "[MASK]").

    A language model favours some words whatever the text: those of the last demonstrations, of the most frequent class,
    of its pretraining. Its answer to a text without content measures this bias, which is then divided out:

        p(c | x)  is proportional to  q(c | x) / mean of q(c | content-free text)

    q is the probability that `few-shot` gives, by the sum over a class's tokens or, with `normalise`, their mean.

    Attributes:
        calibration: `content-free` as above, or `batch`: the mean over the rows of the first call of `predict`, as
            `zero-shot` explains it.
        choose: `random` or `balanced` over the classes; drawn with the cell's seed, the same for all rows.
    """

    name = "calibrated-few-shot"
    trains = "one factor per class, from content-free texts"
    source = "Zhao et al., 2021, arXiv:2102.09690"
    search_space: ClassVar[SearchSpace] = {"k": Choice((2, 4, 8, 16)), "choose": Choice(("random", "balanced"))}

    forms: ClassVar[frozenset[Form]] = frozenset({"classes"})  # the factors belong to classes

    newer_settings: ClassVar[frozenset[str]] = frozenset({"calibration"})

    choose: Literal["random", "balanced"] = "balanced"
    calibration: Literal["content-free", "batch"] = "content-free"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Choose the wording and the demonstrations, and run the content-free texts after them."""
        chooser = Chooser(self, rows, bench)
        with bench.working("fit"):
            seed = bench.seeded("demonstrations")
            chosen = draw(rows.known_strata, bench.n_strata, self.k, self.choose, seed)
        asking = chooser.asking(chosen)
        with bench.working("fit"):
            demonstrations = show(rows, chosen, bench, asking.wording)
        fitted = FittedPrompt(self, bench, demonstrations, asking=asking, loaded=chooser.loaded)
        if self.calibration == "content-free":
            fitted.calibration = run_in_fit(fitted.content_free, fitted.likelihood, bench)
        return fitted

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved demonstrations and probabilities."""
        return restored(self, tensors, state, bench)
