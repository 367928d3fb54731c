"""The choice between implementations of attention, all of which compute the same up to rounding."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from harness.support import UnsupportedError
from harness.training.blocks import transformers_model

Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]


def set_attention(transformer: nn.Module, wanted: Attention) -> None:
    """Have a transformer attend by one of transformers' implementations.

    Args:
        transformer: changed in place; its configuration must be its own.
        wanted: `auto` leaves the one that transformers chose: torch's fused attention (sdpa) where the architecture
            has it.

    Raises:
        UnsupportedError: the architecture, or this installation, does not have the implementation.
    """
    if wanted == "auto":
        return
    model: Any = transformers_model(transformer)
    try:
        model.set_attn_implementation(wanted)
    except (ImportError, ValueError) as error:
        raise UnsupportedError(f"attention={wanted} cannot be used here: {error} Use attention=auto.") from None
    if model.config._attn_implementation != wanted:
        raise UnsupportedError(
            f"A {type(model).__name__} of transformers attends by '{model.config._attn_implementation}' alone, and "
            f"attention={wanted} was asked for. Use attention=auto."
        )
