"""Prefix tuning."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from harness.backbones import Architecture
from harness.methods._peft import SoftPrompt, model_type_of
from harness.methods.base import method
from harness.support import UnsupportedError

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class PrefixTuning(SoftPrompt):
    """Learn keys and values that every block attends to before those of the text.

    Each block has n trained keys P_k and values P_v of its own:

        attention = softmax(q [P_k; K]^T / sqrt(d)) [P_v; V]

    Keys and values train directly, without the paper's reparametrisation, as in P-tuning v2. The method needs an
    architecture whose attention accepts external keys and values. DistilBERT, DeBERTa, ModernBERT, MPNet, ALBERT, XLNet
    and ESM do not accept them. Nor does T5's encoder, so sequence-to-sequence backbones are not supported.
    """

    name = "prefix-tuning"
    family = "auxiliary parameters"
    trains = "keys and values of virtual tokens in every block, and the output layer"
    source = "Li and Liang, 2021, arXiv:2101.00190; Liu et al., 2021, arXiv:2110.07602; peft"
    can: ClassVar[frozenset[str]] = frozenset({"quantise"})
    serves: ClassVar[frozenset[Architecture]] = frozenset({"encoder", "causal"})
    can_be_checkpointed: ClassVar[bool] = False

    @model_validator(mode="after")
    def _cannot_be_checkpointed(self) -> Self:
        if self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing=false: external keys and values cannot be recomputed")
        return self

    def check(self, transformer: nn.Module) -> None:
        """Refuse a transformer that accepts no external keys and values."""
        super().check(transformer)
        if "past_key_values" not in inspect.signature(transformer.forward).parameters:
            raise UnsupportedError(
                f"'{self.name}' passes keys and values to attention; a {type(transformer).__name__} accepts none. "
                "Use prompt-tuning, p-tuning or bitfit."
            )

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of prefix tuning, without reparametrisation (as in P-tuning v2)."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(
            task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.n_virtual_tokens, **self.sizes(transformer)
        )

    def sizes(self, transformer: nn.Module) -> dict[str, Any]:
        """Return the heads and width of keys for Falcon, whose configuration peft misreads."""
        config: Any = transformer.config
        if model_type_of(transformer) != "falcon" or config.new_decoder_architecture or not config.multi_query:
            return {}
        return {"num_attention_heads": 1, "token_dim": config.hidden_size // config.num_attention_heads}
