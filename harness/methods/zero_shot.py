"""Zero-shot classification: ask the language model."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from harness.methods._calibration import Calibration
from harness.methods._in_context import FittedPrompt, InContextMethod, restored
from harness.methods._language_model import run_in_fit
from harness.methods.base import Fitted, method
from harness.methods.bench import Bench
from harness.tasks import Rows


@method
class ZeroShot(InContextMethod):
    """Predict the class whose words are most likely after the text; no training row is shown.

    The language model reads the prompt and gives a probability to each token w_t of a class's words:

        score(c) = sum over t of log p(w_t | prompt(x), w_1 ... w_(t-1)),    p = softmax(score)

    The sum is not divided by the number of tokens, so that it is the probability of the words; `normalise` takes the
    mean. Where answers are texts or parts of a text, the model writes them. It can also say how likely a text is.

    Without labels there is nothing to choose a wording by: the kind's first one is taken. Suites and `--prompt` word
    the question better.

    Attributes:
        calibration: correction of the model's preference for some words, without labels. `content-free` is that of
            `calibrated-few-shot`. `batch` divides each class's probability by its mean over all rows of the first call
            of `predict` (Zhou et al., 2024, arXiv:2309.17249): p(c | x) / mean over rows of p(c | row). An answer then
            depends on the other rows and on how many they are. A single row cannot be calibrated. A saved model keeps
            the mean: the test rows' in a cell.
    """

    name = "zero-shot"
    source = "Radford et al., 2019 (GPT-2); Brown et al., 2020, arXiv:2005.14165"
    uses_labels = False
    newer_settings: ClassVar[frozenset[str]] = frozenset({"calibration"})

    calibration: Calibration = "none"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Load the language model; there is nothing to fit but a calibration."""
        fitted = FittedPrompt(self, bench)
        if self.calibration == "content-free":
            fitted.calibration = run_in_fit(fitted.content_free, fitted.likelihood, bench)
        return fitted

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved words of the classes."""
        return restored(self, tensors, state, bench)
