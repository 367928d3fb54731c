"""Prompt tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.methods._peft import SoftPrompt
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class PromptTuning(SoftPrompt):
    """Learn the embeddings of a few virtual tokens before the text, started from those of random words."""

    name = "prompt-tuning"
    family = "auxiliary parameters"
    trains = "embeddings of virtual tokens, and the output layer"
    source = "Lester et al., 2021, arXiv:2104.08691; peft"

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Prompt tuning."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            task_type="FEATURE_EXTRACTION",
            num_virtual_tokens=self.n_virtual_tokens,
            num_transformer_submodules=1,
            prompt_tuning_init="SAMPLE_VOCAB",
            **self.sizes(transformer),
        )
