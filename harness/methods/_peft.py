"""What methods that add parameters to a fixed transformer by peft share."""

from __future__ import annotations

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.errors import UnsupportedError
from harness.methods._fine_tuning import FineTuning
from harness.methods.base import Bench, Choice, Range, SearchSpace
from harness.methods.workload import THROUGH, Workload
from harness.records import Budget

if TYPE_CHECKING:
    from torch import nn

RATE_AND_EPOCHS: SearchSpace = {
    "learning_rate": Range(3e-4, 1e-1, log=True),
    "epochs": Choice((4.0, 8.0, 16.0)),
}
"""What is searched over where a few parameters are trained: they bear, and need, larger steps than the transformer."""


class PeftMethod(FineTuning):
    """Train what peft adds to the transformer, and the output layer; the transformer itself stays as it was."""

    search_space: ClassVar[SearchSpace] = RATE_AND_EPOCHS

    passes_per_text: ClassVar[float] = THROUGH
    share_trained: ClassVar[float] = 0.0

    learning_rate: float = Field(default=3e-3, gt=0)
    epochs: float = Field(default=6, gt=0)

    def warm_up(self) -> None:
        """Import peft too: that takes seconds."""
        super().warm_up()
        import peft  # noqa: F401

    @abstractmethod
    def peft_config(self, bench: Bench) -> Any:
        """The `peft.PeftConfig` of what is added."""

    def adapt(self, transformer: nn.Module, bench: Bench) -> nn.Module:
        """The transformer wrapped by peft."""
        from peft import get_peft_model

        with warnings.catch_warnings():  # peft asks transformers by a name that it is renaming
            warnings.simplefilter("ignore")
            try:
                config = self.peft_config(bench)
                if bench.kind.form == "text":
                    is_causal = bench.some_backbone.files.architecture == "causal"
                    config.task_type = "CAUSAL_LM" if is_causal else "SEQ_2_SEQ_LM"
                wrapped: nn.Module = get_peft_model(transformer, config)
            except (TypeError, ValueError) as error:  # a kind of layer, or an architecture, that it does not know
                if isinstance(error, ValueError) and "target_modules" not in str(error):
                    raise
                raise UnsupportedError(
                    f"peft does not know which modules of a {type(transformer).__name__} '{self.name}' adapts: {error}"
                ) from None
        return wrapped

    def select_trainable(self, transformer: nn.Module) -> Iterator[nn.Parameter]:
        """What peft added and marked as trained."""
        for parameter in transformer.parameters():
            if parameter.requires_grad:
                yield parameter


class LowRankMethod(PeftMethod):
    """Settings of methods that learn an addition to weight matrices.

    Attributes:
        rank: of the addition.
        alpha: the addition is scaled by `alpha / rank`.
        targets: which matrices: `attention` (peft's default for the architecture, mostly queries and values) or
            `all-linear`.
    """

    search_space: ClassVar[SearchSpace] = {**RATE_AND_EPOCHS, "rank": Choice((4, 8, 16))}

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    targets: Literal["attention", "all-linear"] = "attention"

    def workload(self, n_train: int, budget: Budget, n_blocks: int) -> Workload:
        """What enters each adapted matrix is kept for its addition: of two, or of all (one of which is wide)."""
        whole = super().workload(n_train, budget, n_blocks)
        return dataclasses.replace(whole, additions=2.0 if self.targets == "attention" else 9.0)

    def target_modules(self) -> str | None:
        """As peft reads it."""
        return "all-linear" if self.targets == "all-linear" else None


class SoftPrompt(PeftMethod):
    """Settings of methods that put virtual tokens before the text; only real tokens are pooled.

    Attributes:
        n_virtual_tokens: virtual tokens; they take positions from the text's.
    """

    search_space: ClassVar[SearchSpace] = {
        "learning_rate": Range(1e-3, 1e-1, log=True),
        "epochs": Choice((6.0, 12.0, 24.0)),
        "n_virtual_tokens": Choice((5, 10, 20)),
    }

    n_virtual_tokens: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=3e-2, gt=0)
    epochs: float = Field(default=10, gt=0)

    def reserved_tokens(self) -> int:
        """As many as there are virtual ones."""
        return self.n_virtual_tokens
