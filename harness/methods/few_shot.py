"""Few-shot classification: show the language model some training rows, then ask it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from harness.methods._demonstrations import Nearest, draw, embed, show
from harness.methods._in_context import DemonstratingMethod, FittedPrompt, restored
from harness.methods.base import Bench, Choice, Fitted, SearchSpace, method
from harness.tasks import Rows


@method
class FewShot(DemonstratingMethod):
    """The class whose words the language model finds likeliest after k labelled training rows and the text.

    Demonstrations for which the backbone's positions leave no room are left out, the earliest first, row by row.

    Attributes:
        choose: `random` and `balanced` (over the classes) draw and order them by the cell's seed, the same for all
            rows; `nearest` takes those most similar to each text by the cosine of the frozen backbone's pooled
            vectors, the most similar last (Liu et al., 2022, arXiv:2101.06804).
    """

    name = "few-shot"
    source = "Brown et al., 2020, arXiv:2005.14165"
    search_space: ClassVar[SearchSpace] = {
        "k": Choice((2, 4, 8, 16)),
        "choose": Choice(("random", "balanced", "nearest")),
    }

    choose: Literal["random", "balanced", "nearest"] = "balanced"

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Choose what prompts show, or encode the rows to choose from."""
        if self.choose == "nearest":
            embeddings = embed(rows, bench, "encode", self.precision)
            with bench.working("fit"):
                everything = np.arange(len(rows), dtype=np.int64)
                demonstrations = show(rows, everything, bench, self.wording(bench))
            bench.ledger.remarks["demonstrations"] = f"the {min(self.k, len(rows))} nearest to each text of {len(rows)}"
            return FittedPrompt(self, bench, demonstrations, nearest=Nearest(embeddings, self.k, self.precision))
        with bench.working("fit"):
            seed = bench.seeded("demonstrations")
            chosen = draw(rows.known_strata, bench.n_strata, self.k, self.choose, seed)
            demonstrations = show(rows, chosen, bench, self.wording(bench))
        return FittedPrompt(self, bench, demonstrations)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """From the saved demonstrations."""
        return restored(self, tensors, state, bench)
