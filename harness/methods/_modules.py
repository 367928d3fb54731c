"""Find the linear layers of a transformer that make queries, keys and values, and those that end a sub-layer.

Architectures name these layers differently. A layer is identified by its parent (attention or not) and by its last
name; nothing is run.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import nn

_ATTENTION: Final = re.compile(r"attn|attention", re.IGNORECASE)
_FUSED: Final = re.compile(r"(w?qkv|query_key_value|c_attn|in_proj)(_?(proj|lin))?", re.IGNORECASE)
"""Names of a matrix that makes queries, keys and values: ModernBERT's, BLOOM's, GPT-2's, DeBERTa's."""

_ONE: Final = {
    letter: re.compile(rf"((to_|w)?{letter}|{name})(_?(proj|lin))?", re.IGNORECASE)
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value"))
}


def _linear_layers(transformer: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers inside the transformer's lists of modules, by name, in the order of registration.

    Layers outside of lists (a pooler, a language-modelling head) belong to no block.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in transformer.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and any(part.isdigit() for part in name.split("."))
    }


def projections(transformer: nn.Module, letters: str) -> list[str]:
    """Return the names of the attention layers that make queries, keys or values.

    Args:
        transformer: a transformers model.
        letters: some of `q`, `k` and `v`. A matrix that makes all three matches any of them.

    Returns:
        Names of modules; empty where attention has no such layers.
    """
    found: list[str] = []
    for name in _linear_layers(transformer):
        place, _, last = name.rpartition(".")
        fused = _FUSED.fullmatch(last) is not None
        if _in_attention(place) and (fused or any(_ONE[letter].fullmatch(last) for letter in letters)):
            found.append(name)
    return found


def linear_widths(transformer: nn.Module, names: list[str] | None = None) -> list[int]:
    """Return the input and output sizes of linear layers: of those named, or of all, those outside of blocks too."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found = dict(transformer.named_modules())
    if names is None:
        names = [name for name, module in found.items() if isinstance(module, (nn.Linear, Conv1D))]
    return [size for name in names for size in reversed(found[name].weight.shape)]


def attention_ends(transformer: nn.Module) -> list[str]:
    """Return the names of the output layers of attention: in each attention, the last that makes no q, k or v."""
    ends: dict[str, str] = {}
    for name in _linear_layers(transformer):
        place, _, last = name.rpartition(".")
        makes_input = _FUSED.fullmatch(last) or any(pattern.fullmatch(last) for pattern in _ONE.values())
        if _in_attention(place) and not makes_input:
            ends[_outermost_attention(name)] = name
    with_inputs = {_outermost_attention(name) for name in projections(transformer, "q")}
    return [end for attention, end in ends.items() if attention in with_inputs]


def feedforward_ends(transformer: nn.Module) -> list[str]:
    """Return the names of the output layers of feed-forward networks: in each block, the last outside attention.

    Its output has the width of the model; that of a router, which leads to experts, has not.
    """
    width = int(getattr(transformer.config, "hidden_size", 0))
    outside = [
        name
        for name, layer in _linear_layers(transformer).items()
        if not _in_attention(name) and _width_out(layer) == width
    ]
    last_of_block = {_block_of(name): name for name in outside}
    patterns = {_without_numbers(name) for name in last_of_block.values()}
    return [name for name in outside if _without_numbers(name) in patterns]


def _width_out(layer: nn.Module) -> int:
    """Return the output size of a linear layer; GPT-2's layers use another name for it."""
    size: Any = layer.out_features if hasattr(layer, "out_features") else layer.nf
    return int(size)


def _in_attention(name: str) -> bool:
    return _ATTENTION.search(name) is not None


def _outermost_attention(name: str) -> str:
    """Return the name up to the first part that mentions attention, and any number after it."""
    parts = name.split(".")
    at = next(at for at, part in enumerate(parts) if _in_attention(part))
    while at + 1 < len(parts) and parts[at + 1].isdigit():
        at += 1
    return ".".join(parts[: at + 1])


def _block_of(name: str) -> str:
    """Return the name up to its first number: `encoder.layer.3` for all layers of the fourth block."""
    parts = name.split(".")
    return ".".join(parts[: next(at for at, part in enumerate(parts) if part.isdigit()) + 1])


def _without_numbers(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def count_parameter(parameter: nn.Parameter) -> int:
    """Return the number of values in a parameter; a 4-bit one packs two per byte and keeps its original shape."""
    packed: Any = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else math.prod(packed.shape)
