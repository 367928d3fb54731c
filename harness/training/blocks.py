"""A transformer seen as a stack: its blocks, and its parameters by depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from harness.measure import is_out_of_memory
from harness.support import UnsupportedError, text_of

_LENGTH = 16
"""Tokens of the text by which the order of computation is found: a Funnel halves them after each stage."""


def transformer_blocks(model: nn.Module) -> nn.ModuleList:
    """Return the list of the transformer's blocks, from the input up.

    Raises:
        UnsupportedError: none of its lists of modules is as long as its configuration says the stack is.
    """
    n_blocks = n_blocks_of(model)
    for _, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks > 0:
            return module
    raise UnsupportedError(
        f"No list of {n_blocks} blocks was found in a {type(model).__name__} ({_why_no_blocks(model.config)}). Methods "
        "that tell blocks apart cannot adapt it. Use full, lora or linear-probe."
    )


def n_blocks_of(stack: nn.Module) -> int:
    """Return how many blocks a stack has by its configuration; a decoder may have another number than its encoder."""
    config: Any = stack.config
    decodes = type(stack).__name__.endswith("Decoder") and getattr(config, "is_encoder_decoder", False)
    names = ("decoder_layers", "num_decoder_layers") if decodes else ()
    known = (getattr(config, name, None) for name in (*names, "num_hidden_layers"))
    return next((int(count) for count in known if isinstance(count, int)), 0)


def all_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a transformer, of both stacks where it has two.

    Raises:
        UnsupportedError: as `transformer_blocks`.
    """
    return [block for stack in _encoder_and_decoder(model) or (model,) for block in transformer_blocks(stack)]


def parameters_by_depth(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return every parameter once: those below the first block, then each block's, those above the last with the last.

    The order is that of computation, not of registration: a short text is run forward, and a parameter belongs to the
    first block behind whose input it is read. What reads the input of no block belongs to the last block: a final norm.
    A parameter that no output depends on belongs to the block that holds it, or else to the embeddings.

    In a sequence-to-sequence model the encoder's blocks come first, then the decoder's. The embeddings of both come
    below the first block. The language-modelling head belongs to the last block, unless it is the embeddings'.

    Args:
        model: a transformers model, on its device. Its weights, gradients and mode stay as they are.

    Returns:
        A list of 1 + (number of blocks) lists; each is in the order of registration.

    Raises:
        UnsupportedError: no blocks are found, or they do not run one after another, each once.
    """
    blocks = all_blocks(model)
    depth_of = _depths_by_computation(model, blocks)
    held = {id(value): 1 + at for at, block in enumerate(blocks) for value in block.parameters()}
    groups: list[list[nn.Parameter]] = [[] for _ in range(1 + len(blocks))]
    for parameter in model.parameters():
        groups[depth_of.get(id(parameter), held.get(id(parameter), 0))].append(parameter)
    return groups


def _depths_by_computation(model: nn.Module, blocks: Sequence[nn.Module]) -> dict[int, int]:
    """Return the depth of each parameter that the output depends on, by the parameter's id."""
    both = _encoder_and_decoder(model)
    n_lower = len(transformer_blocks(both[0])) if both is not None else len(blocks)
    seen: list[tuple[int, list[torch.Tensor]]] = []  # (block, the tensors that it was given), in the order of running
    encoded: list[torch.Tensor] = []

    def note(at: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            seen.append((at, list(_tensors((args, kwargs)))))

        return hook

    hooks = [_entry(block).register_forward_pre_hook(note(at), with_kwargs=True) for at, block in enumerate(blocks)]
    if both is not None:
        hooks.append(both[0].register_forward_hook(lambda _, __, output: encoded.extend(_tensors(output))))
    try:
        with _differentiable(model):
            output = list(_tensors(model(**short_text(model, decodes=both is not None))))
    except (TypeError, ValueError, IndexError, AttributeError, AssertionError, RuntimeError) as error:
        # Without weights (on the meta device) some operations fail only for want of numbers; a run tells.
        if is_out_of_memory(error) or (isinstance(error, RuntimeError) and "meta" in text_of(error)):
            raise
        raise UnsupportedError(
            f"A {type(model).__name__} could not be run on a text of {_LENGTH} tokens to find the order of its blocks: "
            f"{text_of(error).rstrip('.')}. Use full, lora or linear-probe."
        ) from None
    finally:
        for handle in hooks:
            handle.remove()
    if [at for at, _ in seen] != list(range(len(blocks))):
        raise UnsupportedError(
            f"The blocks of a {type(model).__name__} do not run one after another, each once. Methods that tell blocks "
            "apart cannot adapt it. Use full, lora or linear-probe."
        )
    # What a block's input depends on, and no earlier block's does, was computed by the block before it.
    boundaries = [(at, given) for at, given in seen[:n_lower]]
    if both is not None:
        boundaries += [(n_lower, encoded), (0, seen[n_lower][1]), *seen[n_lower + 1 :]]
    boundaries.append((len(blocks), output))
    depth_of: dict[int, int] = {}
    walked: set[Any] = set()
    for depth, tensors in boundaries:
        for leaf in _leaves(tensors, walked):
            depth_of.setdefault(leaf, depth)
    return depth_of


def _entry(block: nn.Module) -> nn.Module:
    """Return the module that is given the block's input: a stage of a Funnel is a list of layers."""
    return block[0] if isinstance(block, nn.ModuleList) else block


def _leaves(tensors: Iterable[torch.Tensor], walked: set[Any]) -> Iterator[int]:
    """Yield the ids of the parameters that tensors depend on, but for those behind graph nodes already `walked`."""
    pending = []
    for tensor in tensors:
        if tensor.grad_fn is not None:
            pending.append(tensor.grad_fn)
        elif tensor.requires_grad:
            yield id(tensor)
    while pending:
        node = pending.pop()
        if node in walked:
            continue
        walked.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield id(variable)
        pending += [before for before, _ in node.next_functions if before is not None]


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Record a graph through all parameters, without dropout; the model is afterwards as it was."""
    training = model.training
    required = [(value, value.requires_grad) for value in model.parameters() if value.is_floating_point()]
    model.eval()
    for value, _ in required:
        value.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for value, before in required:
            value.requires_grad_(before)
        model.train(training)


def short_text(model: nn.Module, *, decodes: bool) -> dict[str, torch.Tensor]:
    """Return what a model is called with to run once: a few ids that any embedding holds."""
    try:
        n_ids = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    except (NotImplementedError, AttributeError):  # Canine hashes characters, I-BERT has an embedding of its own
        n_ids = _LENGTH
    ids = (torch.arange(_LENGTH) % n_ids).unsqueeze(0).to(next(model.parameters()).device)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**given, "decoder_input_ids": ids} if decodes else given


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _tensors(inner)


def _why_no_blocks(config: Any) -> str:
    if getattr(config, "num_hidden_groups", None) is not None:
        return "its blocks share one set of weights"
    return "its architecture is built in another way"


def stacks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the stacks of blocks and the beginning of the names of their modules: encoder and decoder, or all."""
    both = _encoder_and_decoder(model)
    if both is None:
        return [("", model)]
    names = {id(module): name for name, module in model.named_modules()}
    return [(f"{names[id(stack)]}.", stack) for stack in both]


def _encoder_and_decoder(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Return both stacks of a sequence-to-sequence model; None of a model with one."""
    if not getattr(model.config, "is_encoder_decoder", False):
        return None
    encoder, decoder = (getattr(model, f"get_{name}", lambda: None)() for name in ("encoder", "decoder"))
    if encoder is None or decoder is None or decoder is model or encoder is model:
        return None
    return encoder, decoder
