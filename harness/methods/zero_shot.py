"""Zero-shot classification: ask the language model."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from harness.methods._in_context import FittedPrompt, InContextMethod, restored
from harness.methods._served_prompt import ServedPrompt
from harness.methods.base import Fitted, method
from harness.methods.bench import Bench
from harness.tasks import Rows


@method
class ZeroShot(InContextMethod):
    """Predict the class whose words are most likely after the text; no training row is shown.

    The language model reads the prompt and gives a probability to each token w_t of a class's words:

        score(c) = sum over t of log p(w_t | prompt(x), w_1 ... w_(t-1)),    p = softmax(score)

    Where answers are texts or parts of a text, the model writes them. It can also say how likely a text is.
    """

    name = "zero-shot"
    source = "Radford et al., 2019 (GPT-2); Brown et al., 2020, arXiv:2005.14165"
    uses_labels = False

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Load the language model; there is nothing to fit."""
        return FittedPrompt(self, bench) if bench.served is None else ServedPrompt(self, bench)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved words of the classes."""
        return restored(self, tensors, state, bench)
