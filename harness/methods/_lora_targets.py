"""Which linear layers LoRA adapts: by part, by name and by block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.methods._modules import feedforward_layers, linear_layers
from harness.support import UnsupportedError

if TYPE_CHECKING:
    from torch import nn

Targets = Literal["attention", "all-linear", "mlp"] | tuple[str, ...]
"""Part of a block, or names of layers."""

_WIDTHS: Final[dict[str, tuple[float, float]]] = {
    "attention": (2.0, 2.0),
    "all-linear": (9.0, 9.0),
    "mlp": (5.0, 5.0),
    r"dense": (6.0, 6.0),
    r"output\.dense|c_proj": (5.0, 3.5),
    r"(intermediate|mlp)\.dense|.*_proj_?up|up_proj|gate_proj|gate_up_proj|fc1|wi(_\d)?|lin1|c_fc|Wi|dense_h_to_4h": (
        *(1.0, 2.5),
    ),
    r"down_proj|fc2|wo|Wo|lin2|dense_4h_to_h": (4.0, 2.5),
}
"""Inputs that are kept, and half the inputs and outputs, of the layers of a block, in widths of the model, by name."""


def widths(targets: Targets) -> tuple[float, float]:
    """Return about how wide the adapted layers of a block are, in widths of the model.

    A feed-forward network is taken to be four times as wide as the model.

    Returns:
        The sum of their inputs, and half the sum of their inputs and outputs.
    """
    names = (targets,) if isinstance(targets, str) else targets
    found = [
        next((sizes for pattern, sizes in _WIDTHS.items() if re.fullmatch(pattern, name)), (1.0, 1.0)) for name in names
    ]
    return sum(kept for kept, _ in found), sum(size for _, size in found)


def mean_rank(rank: int, patterns: dict[str, int], targets: Targets, n_blocks: float) -> float:
    """Return about the mean rank of the adapted layers; a pattern with a number is taken for one of one block."""
    many = {"attention": 2, "all-linear": 7, "mlp": 3}
    n_layers = many[targets] if isinstance(targets, str) else len(targets)
    weights = [1.0 / max(1.0, n_blocks) if re.search(r"(^|\W)\d+(\W|$)", name) else 1.0 for name in patterns]
    changed = sum(weight * own for weight, own in zip(weights, patterns.values(), strict=True))
    others = max(0.0, n_layers - sum(weights))
    return (changed + others * rank) / (sum(weights) + others)


def is_named(layer: str, name: str) -> bool:
    """Return whether a name is that of a layer, or the end of it, as peft compares them."""
    return f".{layer}".endswith(f".{name}")


def chosen_layers(
    transformer: nn.Module, targets: Targets, layers: Sequence[int] | None, default: Sequence[str] | str | None
) -> list[str]:
    """Return the names of the layers to adapt, all of them inside blocks.

    Args:
        transformer: a transformers model.
        targets: the setting.
        layers: blocks to adapt, from 0, or from -1 for the last; None for all.
        default: names, or a pattern of whole names, of `attention`.

    Raises:
        UnsupportedError: a name or a block does not exist.
    """
    names = list(linear_layers(transformer))
    if targets == "mlp":
        chosen = feedforward_layers(transformer)
    elif targets == "attention" and default is not None:
        chosen = [name for name in names if _fits(name, default)]
    elif isinstance(targets, tuple):
        _check_names(transformer, names, targets)
        chosen = [name for name in names if any(is_named(name, wanted) for wanted in targets)]
    else:
        chosen = names
    if layers is not None:
        chosen = _in_blocks(transformer, chosen, names, layers)
    if not chosen:
        raise UnsupportedError(
            f"targets={_shown(targets)} was given; the blocks of a {type(transformer).__name__} have no such linear "
            f"layer. Their layers are {_ends(names)}."
        )
    return chosen


def _fits(name: str, default: Sequence[str] | str) -> bool:
    if isinstance(default, str):
        return re.fullmatch(default, name) is not None
    return any(is_named(name, end) for end in default)


def _check_names(transformer: nn.Module, names: Sequence[str], targets: Sequence[str]) -> None:
    for wanted in targets:
        if not any(is_named(name, wanted) for name in names):
            raise UnsupportedError(
                f"targets={_shown(tuple(targets))} was given; no linear layer in the blocks of a "
                f"{type(transformer).__name__} is called '{wanted}'. Take attention, mlp, all-linear, or some of "
                f"{_ends(names)}."
            )


def _in_blocks(transformer: nn.Module, chosen: Sequence[str], names: Sequence[str], layers: Sequence[int]) -> list[str]:
    """Return the chosen layers that are in the given blocks, counted in each stack."""
    sizes: dict[str, int] = {}
    for name in names:
        stack, at = _place_of(name)
        sizes[stack] = max(sizes.get(stack, 0), at + 1)
    most = max(sizes.values(), default=0)
    wrong = [at for at in layers if not -most <= at < most]
    if wrong:
        raise UnsupportedError(
            f"layers={list(layers)} was given; a {type(transformer).__name__} has {most} blocks. Name blocks from 0 to "
            f"{most - 1}, or from -{most} to -1."
        )
    kept = []
    for name in chosen:
        stack, at = _place_of(name)
        if at in layers or at - sizes[stack] in layers:
            kept.append(name)
    return kept


def _place_of(name: str) -> tuple[str, int]:
    """Return the list of blocks that a layer is in, and the number of its block."""
    parts = name.split(".")
    at = next(at for at, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[:at]), int(parts[at])


def _ends(names: Sequence[str]) -> str:
    """Return the names of layers without their blocks, to choose from."""
    ends = dict.fromkeys(".".join(_behind_number(name.split("."))) for name in names)
    return ", ".join(ends) or "none"


def _behind_number(parts: list[str]) -> list[str]:
    last = max((at for at, part in enumerate(parts) if part.isdigit()), default=-1)
    return parts[last + 1 :]


def _shown(targets: Any) -> str:
    return targets if isinstance(targets, str) else f"[{','.join(targets)}]"
