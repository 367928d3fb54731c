"""Weight-decomposed low-rank adaptation."""

from __future__ import annotations

from typing import Any

from harness.methods.base import method
from harness.methods.lora import Lora


@method
class Dora(Lora):
    """LoRA for the direction of each column of a weight matrix, and a trained number for its length."""

    name = "dora"
    trains = "low-rank additions and column lengths of weight matrices, and the output layer"
    source = "Liu et al., 2024, arXiv:2402.09353; peft"

    def variant(self) -> dict[str, Any]:
        """The decomposition."""
        return {"use_dora": True}
