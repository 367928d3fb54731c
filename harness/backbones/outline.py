"""The architecture of a backbone without weights, to find out what a method could adapt before anything is loaded."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from harness.backbones.loading import read_config, skeleton
from harness.backbones.locate import BackboneFiles
from harness.backbones.model import language_model_class, model_class, without_extras

if TYPE_CHECKING:
    from torch import nn

ALIKE: Final = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2"),
        *("gpt2", "gpt_neox", "opt", "bloom", "falcon"),
        *("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet", "modernbert"),
    )
)
"""Model types whose blocks consist of the same modules: a few of them show what can be adapted in all."""

_SHOWN: Final = 3
"""Blocks that are built of such a model; the first of a ModernBERT lacks a norm."""


@functools.lru_cache(maxsize=4)
def outline_backbone(files: BackboneFiles, *, language_model: bool) -> nn.Module | None:
    """Return the modules that a backbone's config.json describes, with parameters that hold no numbers.

    A model whose blocks are all alike is returned with its first three.

    Args:
        files: the backbone's files; its weights are not read.
        language_model: whether the head is part of it, and the decoder; otherwise it is what pooled features come from.

    Returns:
        A transformers model on torch's meta device, to be copied before it is changed; None if transformers cannot
        build it there.
    """
    try:
        config = read_config(files)
        if files.model_type in ALIKE:
            shorten(config)
        if language_model:
            return skeleton(language_model_class(files), config, files)
        return without_extras(skeleton(model_class(files), config, files), files)
    except Exception:  # noqa: BLE001 - some architectures compute with numbers as they are built; loading tells more
        return None


def shorten(config: Any) -> None:
    """Leave the first few blocks in a configuration."""
    if config.num_hidden_layers > _SHOWN:
        config.num_hidden_layers = _SHOWN
        if isinstance(getattr(config, "layer_types", None), list):
            config.layer_types = config.layer_types[:_SHOWN]
