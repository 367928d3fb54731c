"""Rescaling of inner activations."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from harness.methods._peft import PeftMethod
from harness.methods.base import Bench, Choice, Range, SearchSpace, method

_LIKE_BERT = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


@method
class Ia3(PeftMethod):
    """Learn vectors that rescale keys, values and the inner activations of the feed-forward layers.

    Of BERT and its like these are named here: peft's own list would rescale what attention puts out, too. Elsewhere
    modules are those that peft names for the architecture.
    """

    name = "ia3"
    version: ClassVar[int] = 2
    family = "auxiliary parameters"
    trains = "three scaling vectors a block, and the output layer"
    source = "Liu et al., 2022, arXiv:2205.05638; peft"
    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "epochs": Choice((4.0, 8.0, 16.0)),
    }

    learning_rate: float = Field(default=3e-2, gt=0)

    def peft_config(self, bench: Bench) -> Any:
        """(IA)3."""
        from peft import IA3Config

        model_type = getattr(bench.some_backbone.pristine.config, "model_type", "")
        if model_type not in _LIKE_BERT:
            return IA3Config()
        feedforward = r".*\.layer\.\d+\.output\.dense"
        return IA3Config(target_modules=rf"(.*\.(key|value))|({feedforward})", feedforward_modules=feedforward)
