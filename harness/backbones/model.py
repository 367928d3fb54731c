"""A loaded backbone: a pristine copy of its weights that is never trained, its tokenizer, and its pooling."""

from __future__ import annotations

import contextlib
import copy
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.backbones.locate import BackboneFiles, Pooling
from harness.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, eq=False)
class Backbone:
    """A backbone in memory, shared by all cells of a worker: methods train copies of it, never itself.

    Attributes:
        files: what it was loaded from.
        pristine: the transformer without any task head, float32, on the CPU, in evaluation mode; frozen.
        tokenizer: its tokenizer.
        hidden_size: width of a hidden state.
        load_seconds: seconds that reading it took.
    """

    files: BackboneFiles
    pristine: nn.Module
    tokenizer: Any
    hidden_size: int
    load_seconds: float

    @property
    def max_length(self) -> int:
        """Longest input in tokens that the positions allow."""
        config: Any = self.pristine.config
        positions = int(getattr(config, "max_position_embeddings", 0) or 0)
        if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
            positions -= 2  # RoBERTa's positions start behind the padding index
        limits = [limit for limit in (positions, int(self.tokenizer.model_max_length)) if 0 < limit < 10**6]
        return min(limits, default=512)

    def resident(self, device: torch.device) -> nn.Module:
        """The frozen transformer on `device`, kept there: what features are encoded with."""
        return self.pristine if device.type == "cpu" else _resident(self, device)

    def fresh(self, device: torch.device) -> nn.Module:
        """A copy of the pretrained weights to adapt: float32, on `device`, all parameters requiring gradients."""
        model = copy.deepcopy(self.pristine).to(device)
        return model.requires_grad_(True)


@functools.cache
def _resident(backbone: Backbone, device: torch.device) -> nn.Module:
    return copy.deepcopy(backbone.pristine).to(device)


@functools.cache
def load_backbone(files: BackboneFiles) -> Backbone:
    """Load a backbone with transformers; once per process.

    Raises:
        UsageError: transformers cannot build it, or it has no fast tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    _import_architecture(files)
    started = time.perf_counter()
    try:
        config = AutoConfig.from_pretrained(files.folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            files.folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"Backbone '{files.name}' ({files.origin}) could not be loaded by transformers: {first}"
        ) from error
    if not tokenizer.is_fast:
        raise UsageError(f"Backbone '{files.name}' has no tokenizer.json; expected a fast tokenizer.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # decoders often have none; padding is masked everywhere
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # BERT's next-sentence pooler: the protocol's one head does not read it
    model.eval().requires_grad_(False)
    return Backbone(
        files=files,
        pristine=model,
        tokenizer=tokenizer,
        hidden_size=int(model.config.hidden_size),
        load_seconds=time.perf_counter() - started,
    )


def _import_architecture(files: BackboneFiles) -> None:
    """Have transformers import the model's and the tokenizer's modules: importing a library is no cell's cost."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    with contextlib.suppress(OSError, ValueError, KeyError, ImportError, TypeError), torch.device("meta"):
        AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
        AutoModel.from_config(AutoConfig.from_pretrained(files.folder, trust_remote_code=False))


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One float32 vector per row from the hidden states of its real tokens.

    Args:
        hidden: last hidden states, shape (rows, length, width).
        mask: 1 for real tokens and 0 for padding, shape (rows, length).
        pooling: which tokens are read.

    Returns:
        Shape (rows, width).
    """
    states = hidden.float()  # sums over tokens are made in full precision, whatever the transformer ran in
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    if pooling == "cls":
        first = mask.argmax(1)  # the first real token, wherever the padding is
        return states[_row_index(states), first]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return states[_row_index(states), last]


def _row_index(states: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(states.shape[0], device=states.device)
