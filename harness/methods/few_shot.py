"""Few-shot classification: show a language model some training rows, then ask it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from harness.methods._calibration import Calibration
from harness.methods._choosing import MOST_SCORED, Chooser, draws_and_scored, n_to_score
from harness.methods._demonstrations import Nearest, draw, embed, show
from harness.methods._in_context import DemonstratingMethod
from harness.methods._prompted import calibrated, prompted, restored
from harness.methods.base import Choice, Fitted, SearchSpace, method
from harness.methods.bench import Bench
from harness.records import Budget, Workload
from harness.tasks import Ints, Rows


@method
class FewShot(DemonstratingMethod):
    """Predict the class whose words are most likely after k labelled training rows and the text.

    The score is that of `zero-shot`, after a prompt that shows k rows with their answers:

        prompt(x) = instruction, row_1 answer_1, ..., row_k answer_k, row x

    The sum over a class's tokens is not divided by their number; `normalise` takes the mean. Demonstrations that do not
    fit into the backbone's positions are dropped for each row, the earliest first.

    The kind's wordings, as plain text and as chats, are compared on training rows that the prompt does not show. The
    best is used. The record has the score of each, and the spread between them.

    Attributes:
        choose: `random` and `balanced` (over the classes) draw and order the demonstrations with the cell's seed, the
            same for all rows. `nearest` takes the most similar rows to each text by the cosine of the frozen
            backbone's pooled vectors, the most similar last (Liu et al., 2022, arXiv:2101.06804); for a served model
            it is the cosine of TF-IDF vectors of their words. Its wordings are compared after a balanced draw.
            `validated` makes several balanced draws, and takes the one with the best score on other training rows.
        n_draws: number of draws that `validated` compares.
        calibration: correction of the model's preference for some words, without labels: `none`, `content-free` as
            `calibrated-few-shot` does it, or `batch` as `zero-shot` explains it.
    """

    name = "few-shot"
    source = "Brown et al., 2020, arXiv:2005.14165"
    search_space: ClassVar[SearchSpace] = {
        "k": Choice((2, 4, 8, 16)),
        "choose": Choice(("random", "balanced", "nearest")),
    }

    newer_settings: ClassVar[frozenset[str]] = frozenset({"n_draws", "calibration"})

    choose: Literal["random", "balanced", "nearest", "validated"] = "balanced"
    n_draws: int = Field(default=8, ge=2)
    calibration: Calibration = "none"

    @model_validator(mode="after")
    def _calibrates_what_it_shows(self) -> FewShot:
        if self.choose == "nearest" and self.calibration == "content-free":
            raise ValueError(
                "choose=nearest and calibration=content-free were given; a text without content has no nearest rows. "
                "Take calibration=batch, or another choose"
            )
        return self

    def settings_to_try(self) -> SearchSpace:
        """Return the search space; without `nearest` where content-free texts calibrate."""
        if self.calibration != "content-free":
            return self.search_space
        return {**self.search_space, "choose": Choice(("random", "balanced"))}

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """Return the workload: each draw of `validated` is scored on training rows too."""
        whole = super().workload(n_train, budget, n_blocks)
        n_scored = n_to_score(n_train, self.n_template_rows or MOST_SCORED) if self.choose == "validated" else 0
        return dataclasses.replace(whole, scored=self.n_draws * n_scored)

    def fit(self, rows: Rows, bench: Bench) -> Fitted:
        """Choose the wording and the demonstrations, or encode the rows to choose them from."""
        chooser = Chooser(self, rows, bench)
        is_nearest = self.choose == "nearest"
        embeddings = None
        if is_nearest and bench.served is None:
            embeddings = embed(rows, bench, "encode", self.precision, self.weights)
        draws: list[Ints] = []
        scored = np.arange(0, dtype=np.int64)
        with bench.working("fit"):
            if self.choose == "validated":
                draws, scored = draws_and_scored(rows, bench, self.k, self.n_draws, self.n_template_rows or MOST_SCORED)
            if not len(scored):
                how: Literal["random", "balanced"] = "random" if self.choose == "random" else "balanced"
                draws = [draw(rows.known_strata, bench.n_strata, self.k, how, bench.seeded("demonstrations"))]
        asking = chooser.asking(draws[0])
        chosen = chooser.draws(draws, scored, asking) if len(draws) > 1 else draws[0]
        if is_nearest:
            chosen = np.arange(len(rows), dtype=np.int64)
        nearest = None if embeddings is None else Nearest(embeddings, self.k, self.precision, self.weights)
        with bench.working("fit"):
            demonstrations = show(rows, chosen, bench, asking.wording)
        if is_nearest:
            bench.ledger.remarks["demonstrations"] = f"the {min(self.k, len(rows))} nearest to each text of {len(rows)}"
        fitted = prompted(self, bench, demonstrations, nearest=nearest, asking=asking, loaded=chooser.loaded)
        return calibrated(fitted, bench)

    def restore(self, tensors: dict[str, npt.NDArray[Any]], state: dict[str, Any], bench: Bench) -> Fitted:
        """Return a predictor from the saved demonstrations."""
        return restored(self, tensors, state, bench)
