"""Weight-decomposed low-rank adaptation."""

from __future__ import annotations

from typing import Any

from harness.methods.base import method
from harness.methods.lora import Lora


@method
class Dora(Lora):
    """LoRA for the direction of each column of a weight matrix, and a trained scalar for its length."""

    name = "dora"
    trains = "low-rank additions and column lengths of weight matrices, and the output layer"
    source = "Liu et al., 2024, arXiv:2402.09353; peft"

    def variant(self) -> dict[str, Any]:
        """Turn on the decomposition into direction and length."""
        return {"use_dora": True}
