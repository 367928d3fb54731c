"""A transformer seen as a stack: its blocks, and its parameters by depth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from harness.errors import UnsupportedError


def transformer_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of the transformer's blocks, from the input up.

    Raises:
        UnsupportedError: none of its lists of modules is as long as its configuration says the stack is.
    """
    config: Any = model.config
    n_blocks = int(getattr(config, "num_hidden_layers", 0))
    for _, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    raise UnsupportedError(
        f"No stack of {n_blocks} blocks was found in a {type(model).__name__}; expected one list of blocks."
    )


def all_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer, of both stacks where it has two.

    Raises:
        UnsupportedError: as `transformer_blocks`.
    """
    return [block for stack in _encoder_and_decoder(model) or (model,) for block in transformer_blocks(stack)]


def parameters_by_depth(model: nn.Module) -> list[list[nn.Parameter]]:
    """Every parameter once: the embeddings' first, then each block's, what follows the last block with the last.

    Of an encoder with a decoder, the encoder's blocks come first, then the decoder's, and what belongs to neither (the
    language-modelling head, unless it is the embeddings') goes with the last.

    "Follows" is read off the order in which modules are registered. Where an embedding stands behind the blocks (the
    relative positions of MPNet and DeBERTa), all blocks read what stands there, and it goes with the embeddings.

    Returns:
        A list of 1 + (number of blocks) lists.
    """
    stacks = _encoder_and_decoder(model)
    if stacks is not None:
        return _in_a_row(model, *map(parameters_by_depth, stacks))
    blocks = transformer_blocks(model)
    depth_of = {id(value): 1 + depth for depth, block in enumerate(blocks) for value in block.parameters()}
    embedded = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and id(module.weight) not in depth_of
    }
    groups: list[list[nn.Parameter]] = [[] for _ in range(1 + len(blocks))]
    behind: list[nn.Parameter] = []
    seen_block = False
    for parameter in model.parameters():  # in the order of registration: embeddings, blocks, final norm
        depth = depth_of.get(id(parameter))
        seen_block = seen_block or depth is not None
        if depth is not None:
            groups[depth].append(parameter)
        else:
            (behind if seen_block else groups[0]).append(parameter)
    groups[0 if any(id(parameter) in embedded for parameter in behind) else len(blocks)] += behind
    return groups


def _encoder_and_decoder(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Both stacks of a sequence-to-sequence model; None of a model with one."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return None
    encoder, decoder = (getattr(model, f"get_{name}", lambda: None)() for name in ("encoder", "decoder"))
    if encoder is None or decoder is None or decoder is model or encoder is model:
        return None
    return encoder, decoder


def _in_a_row(
    model: nn.Module, lower: list[list[nn.Parameter]], upper: list[list[nn.Parameter]]
) -> list[list[nn.Parameter]]:
    """Both stacks' groups one above the other, each parameter once."""
    seen: set[int] = set()

    def once(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        new = {id(value): value for value in parameters if id(value) not in seen}
        seen.update(new)
        return list(new.values())

    groups = [once([*lower[0], *upper[0]])]
    groups += [once(parameters) for parameters in [*lower[1:], *upper[1:]]]
    groups[-1] += once(model.parameters())
    return groups
