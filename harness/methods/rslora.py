"""Rank-stabilised LoRA."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from harness.methods.base import method
from harness.methods.lora import Lora


@method
class RsLora(Lora):
    """LoRA with its addition scaled by `alpha / sqrt(rank)`, so that a high rank learns as fast as a low one.

    The matrices A and B are those of LoRA; only the factor differs:

        h = W x + (alpha / sqrt(r)) B A x
    """

    name = "rslora"
    source = "Kalajdzievski, 2023, arXiv:2312.03732; peft"

    learning_rate: float = Field(default=1e-3, gt=0)

    def variant(self) -> dict[str, Any]:
        """Turn on the scale by the square root of the rank."""
        return {"use_rslora": True}
