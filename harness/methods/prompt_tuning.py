"""Prompt tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from harness.methods._peft import SoftPrompt
from harness.methods.base import method

if TYPE_CHECKING:
    from torch import nn

    from harness.methods._fine_tuning import Surroundings


@method
class PromptTuning(SoftPrompt):
    """Learn the embeddings of a few virtual tokens before the text, initialised from random words.

    The transformer reads n trained vectors p_i, then the embeddings e of the text's tokens:

        input = [p_1, ..., p_n, e(x_1), ..., e(x_m)]

    Only real tokens are pooled. The paper has the language model put out words; here the harness's output layer
    answers, as for every method that trains by gradient.
    """

    name = "prompt-tuning"
    family = "auxiliary parameters"
    trains = "embeddings of virtual tokens, and the output layer"
    source = "Lester et al., 2021, arXiv:2104.08691; peft"
    can: ClassVar[frozenset[str]] = frozenset({"quantise"})

    def peft_config(self, transformer: nn.Module, bench: Surroundings) -> Any:
        """Return peft's configuration of prompt tuning."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            task_type="FEATURE_EXTRACTION",
            num_virtual_tokens=self.n_virtual_tokens,
            num_transformer_submodules=1,
            prompt_tuning_init="SAMPLE_VOCAB",
            **self.sizes(transformer),
        )

    def sizes(self, transformer: nn.Module) -> dict[str, Any]:
        """Return the sizes, without the width where peft reads it itself.

        The width decides the initial draw where embeddings are narrower than hidden states (ELECTRA). Virtual tokens
        always have the width of the embeddings.
        """
        sizes = super().sizes(transformer)
        config: Any = transformer.config
        if {"hidden_size", "n_embd", "d_model"} & set(config.to_dict()):
            del sizes["token_dim"]
        return sizes
