"""Prefix tuning."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import model_validator

from harness.backbones.locate import Architecture
from harness.methods._peft import SoftPrompt
from harness.methods.base import Bench, method


@method
class PrefixTuning(SoftPrompt):
    """Learn keys and values that every block attends to before the text's own.

    T5's encoder reads no keys and values from outside, so sequence-to-sequence backbones are not served.
    """

    name = "prefix-tuning"
    family = "auxiliary parameters"
    trains = "keys and values of virtual tokens in every block, and the output layer"
    source = "Li and Liang, 2021, arXiv:2101.00190; Liu et al., 2021, arXiv:2110.07602; peft"
    serves: ClassVar[frozenset[Architecture]] = frozenset({"encoder", "causal"})
    can_be_checkpointed: ClassVar[bool] = False

    @model_validator(mode="after")
    def _cannot_be_checkpointed(self) -> Self:
        if self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing=false: keys and values from outside cannot be computed again")
        return self

    def peft_config(self, bench: Bench) -> Any:
        """Prefix tuning, without the reparametrisation (as in P-tuning v2)."""
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.n_virtual_tokens)
