"""Pooling of hidden states into one vector per text: the modes of sentence-transformers, as it computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, get_args

from harness.support import UsageError

if TYPE_CHECKING:
    import torch

Pooling = Literal["mean", "cls", "last", "max", "weighted-mean", "mean-sqrt-len"]

_NEW_NAMES: Final[dict[str, Pooling]] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "max": "max",
    "weightedmean": "weighted-mean",
    "mean_sqrt_len_tokens": "mean-sqrt-len",
}
"""Names that recent versions of sentence-transformers write under `pooling_mode`."""

_OLD_FLAGS: Final[dict[str, Pooling]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt-len",
}
"""Flags that earlier versions write, one for each mode."""


def declared_pooling(config: Mapping[str, object], where: str) -> Pooling:
    """Return the pooling that the configuration of a sentence-transformers Pooling module declares.

    Args:
        config: content of the module's `config.json`.
        where: the backbone and file, for messages.

    Raises:
        UsageError: the mode is unknown, or several modes are concatenated.
    """
    if "pooling_mode" in config:  # it takes precedence over the flags, as in sentence-transformers
        stated = config["pooling_mode"]
        names = [stated] if isinstance(stated, str) else stated
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UsageError(f"{where}: pooling_mode is {stated!r}; expected one of {', '.join(_NEW_NAMES)}.")
        unknown = [name for name in names if name not in _NEW_NAMES]
        if unknown:
            raise UsageError(f"{where}: unknown pooling_mode {unknown[0]!r}; expected one of {', '.join(_NEW_NAMES)}.")
        modes = [_NEW_NAMES[name] for name in names]
    else:
        for name in _OLD_FLAGS:
            if not isinstance(config.get(name, False), bool):
                raise UsageError(f"{where}: {name} is {config[name]!r}; expected true or false.")
        modes = [mode for name, mode in _OLD_FLAGS.items() if config.get(name)] or ["mean"]
    if len(modes) > 1:
        raise UsageError(
            f"{where} concatenates {len(modes)} kinds of pooling ({', '.join(modes)}); the harness reads one. "
            f"Expected one of {', '.join(get_args(Pooling))}; keep one in a copy of the folder."
        )
    return modes[0]


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return one float32 vector per row from the hidden states of its real tokens.

    Args:
        hidden: last hidden states, shape (rows, length, width).
        mask: 1 for real tokens and 0 for padding on either side, shape (rows, length).
        pooling: how tokens are combined.

    Returns:
        Shape (rows, width).
    """
    import torch

    states = hidden.float()  # sums over tokens are made in full precision, whatever the transformer ran in
    if pooling == "cls":
        first = mask.argmax(1)  # the first real token, wherever the padding is
        return states[torch.arange(states.shape[0], device=states.device), first]
    if pooling == "last":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return states[torch.arange(states.shape[0], device=states.device), last]
    weights = mask.unsqueeze(-1).to(states.dtype)
    if pooling == "max":
        highest = states.masked_fill(weights == 0, -torch.inf).amax(1)
        return highest.where(weights.sum(1) > 0, 0.0)  # a row without tokens has the vector that the mean gives it
    if pooling == "weighted-mean":  # the first real token weighs 1, the second 2, and so on
        weights = weights * weights.cumsum(1)
    total = weights.sum(1).clamp(min=1.0)
    return (states * weights).sum(1) / (total.sqrt() if pooling == "mean-sqrt-len" else total)
