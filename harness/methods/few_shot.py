"""Few-shot classification: show a language model some training rows, then ask it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from harness.methods._demonstrations import Nearest, draw, embed, show
from harness.methods._in_context import DemonstratingMethod, FittedPrompt, restored
from harness.methods._served_prompt import ServedPrompt
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.tasks import Rows


@method
class FewShot(DemonstratingMethod):
    """Predict the class whose words are most likely after k labelled training rows and the text.

    The score is that of `zero-shot`, after a prompt that shows k rows with their answers:

        prompt(x) = instruction, row_1 answer_1, ..., row_k answer_k, row x

    Demonstrations that do not fit into the backbone's positions are dropped for each row, the earliest first.

    Attributes:
        choose: `random` and `balanced` (over the classes) draw and order the demonstrations with the cell's seed, the
            same for all rows. `nearest` takes the most similar rows to each text by the cosine of the frozen
            backbone's pooled vectors, the most similar last (Liu et al., 2022, arXiv:2101.06804). For a
            served model it is the cosine of TF-IDF vectors of their words.
    """

    name = "few-shot"
    source = "Brown et al., 2020, arXiv:2005.14165"
    search_space: ClassVar[SearchSpace] = {
        "k": Choice((2, 4, 8, 16)),
        "choose": Choice(("random", "balanced", "nearest")),
    }

    choose: Literal["random", "balanced", "nearest"] = "balanced"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Choose the demonstrations, or encode the rows to choose them from."""
        if self.choose == "nearest" and bench.served is not None:
            everything = np.arange(len(rows), dtype=np.int64)
            demonstrations = show(rows, everything, bench, self.wording(bench))
            bench.ledger.remarks["demonstrations"] = f"the {min(self.k, len(rows))} nearest to each text of {len(rows)}"
            return ServedPrompt(self, bench, demonstrations, nearest=True)
        if self.choose == "nearest":
            embeddings = embed(rows, bench, "encode", self.precision, self.weights)
            with bench.working("fit"):
                everything = np.arange(len(rows), dtype=np.int64)
                demonstrations = show(rows, everything, bench, self.wording(bench))
            bench.ledger.remarks["demonstrations"] = f"the {min(self.k, len(rows))} nearest to each text of {len(rows)}"
            nearest = Nearest(embeddings, self.k, self.precision, self.weights)
            return FittedPrompt(self, bench, demonstrations, nearest=nearest)
        with bench.working("fit"):
            seed = bench.seeded("demonstrations")
            chosen = draw(rows.known_strata, bench.n_strata, self.k, self.choose, seed)
            demonstrations = show(rows, chosen, bench, self.wording(bench))
        return (FittedPrompt if bench.served is None else ServedPrompt)(self, bench, demonstrations)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved demonstrations."""
        return restored(self, tensors, state, bench)
