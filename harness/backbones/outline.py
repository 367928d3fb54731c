"""The architecture of a backbone without weights, to find out what a method could adapt before anything is loaded."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import _language_model_class, _without_extras

if TYPE_CHECKING:
    from torch import nn


@functools.lru_cache(maxsize=4)
def outline(files: BackboneFiles, *, language_model: bool) -> nn.Module | None:
    """Return the modules that a backbone's config.json describes, with parameters that hold no numbers.

    Args:
        files: the backbone's files; its weights are not read.
        language_model: whether the head is part of it, and the decoder; otherwise it is what pooled features come from.

    Returns:
        A transformers model on torch's meta device, to be copied before it is changed; None if transformers cannot
        build it there.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
        with torch.device("meta"):
            if language_model:
                built: nn.Module = _language_model_class(files).from_config(config, dtype=torch.float32)
                return built
            return _without_extras(AutoModel.from_config(config, dtype=torch.float32), files)
    except Exception:  # noqa: BLE001 - some architectures compute with numbers as they are built; loading tells more
        return None
