"""A transformer as a stack: its blocks, and its parameters by depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from harness.backbones import without_cache
from harness.measure import is_out_of_memory
from harness.support import UnsupportedError, text_of

_LENGTH = 16
"""Tokens of the text that is run to find the order of computation: a Funnel halves them after each stage."""


class Stack:
    """A transformer as a stack of blocks, or as two stacks: an encoder and a decoder.

    Args:
        transformer: a transformers model, or peft's wrapper around one; it stays as it is.
        place: prefix of the names of its modules in the model that it is part of.

    Attributes:
        module: the transformers model.
        place: as given.
    """

    def __init__(self, transformer: nn.Module, place: str = "") -> None:
        self.module = transformers_model(transformer)
        self.place = place

    @property
    def parts(self) -> list[Stack]:
        """The encoder and the decoder of a sequence-to-sequence model; otherwise the stack itself."""
        both = self._encoder_and_decoder()
        if both is None:
            return [self]
        names = {id(module): name for name, module in self.module.named_modules()}
        return [Stack(module, f"{names[id(module)]}.") for module in both]

    @property
    def n_blocks(self) -> int:
        """Number of blocks by the configuration; a decoder may have another number than its encoder."""
        config: Any = self.module.config
        decodes = type(self.module).__name__.endswith("Decoder") and getattr(config, "is_encoder_decoder", False)
        names = ("decoder_layers", "num_decoder_layers") if decodes else ()
        known = (getattr(config, name, None) for name in (*names, "num_hidden_layers"))
        return next((int(count) for count in known if isinstance(count, int)), 0)

    @property
    def blocks(self) -> nn.ModuleList:
        """The module that lists the blocks, from the input up; that of the encoder where there are two stacks.

        Raises:
            UnsupportedError: none of the lists of modules is as long as the configuration says the stack is.
        """
        n_blocks = self.n_blocks
        for _, module in self.module.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == n_blocks > 0:
                return module
        shares = getattr(self.module.config, "num_hidden_groups", None) is not None
        why = "its blocks share one set of weights" if shares else "its architecture is built in another way"
        raise UnsupportedError(
            f"No list of {n_blocks} blocks was found in a {type(self.module).__name__} ({why}). Methods that tell "
            "blocks apart cannot adapt it. Use full, lora or linear-probe."
        )

    @property
    def all_blocks(self) -> list[nn.Module]:
        """The blocks of all parts.

        Raises:
            UnsupportedError: as `blocks`.
        """
        return [block for part in self.parts for block in part.blocks]

    def parameters_by_depth(self) -> list[list[nn.Parameter]]:
        """Return every parameter once: those below the first block, then each block's; those above go with the last.

        The order is that of computation, not of registration: a short text is run forward, and a parameter belongs to
        the first block behind whose input it is read. A parameter that is read behind the input of the last block, such
        as a final norm, belongs to the last block. A parameter that no output depends on belongs to the block that
        holds it, or else to the embeddings.

        In a sequence-to-sequence model the encoder's blocks come first, then the decoder's. The embeddings of both come
        below the first block. The language-modelling head belongs to the last block, unless it shares the embeddings.

        Returns:
            A list of 1 + (number of blocks) lists; each is in the order of registration.

        Raises:
            UnsupportedError: no blocks are found, or they do not run one after another, each once.
        """
        blocks = self.all_blocks
        depth_of = _depths_by_computation(self, blocks)
        held = {id(value): 1 + at for at, block in enumerate(blocks) for value in block.parameters()}
        groups: list[list[nn.Parameter]] = [[] for _ in range(1 + len(blocks))]
        for parameter in self.module.parameters():
            groups[depth_of.get(id(parameter), held.get(id(parameter), 0))].append(parameter)
        return groups

    def short_text(self, *, decodes: bool) -> dict[str, Any]:
        """Return arguments to run the model once: a few ids that any embedding holds."""
        try:
            n_ids = int(self.module.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        except (NotImplementedError, AttributeError):  # Canine hashes characters, I-BERT has an embedding of its own
            n_ids = _LENGTH
        ids = (torch.arange(_LENGTH) % n_ids).unsqueeze(0).to(next(self.module.parameters()).device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **without_cache(self.module)}
        return {**given, "decoder_input_ids": ids} if decodes else given

    def _encoder_and_decoder(self) -> tuple[nn.Module, nn.Module] | None:
        model = self.module
        if not getattr(model.config, "is_encoder_decoder", False):
            return None
        encoder, decoder = (getattr(model, f"get_{name}", lambda: None)() for name in ("encoder", "decoder"))
        if encoder is None or decoder is None or decoder is model or encoder is model:
            return None
        return encoder, decoder


def transformers_model(transformer: nn.Module) -> nn.Module:
    """Return the transformers model inside the wrapper that peft may have put around it."""
    inner: nn.Module = transformer.get_base_model() if hasattr(transformer, "get_base_model") else transformer  # type: ignore[operator]
    return inner


def _depths_by_computation(stack: Stack, blocks: Sequence[nn.Module]) -> dict[int, int]:
    """Return the depth of each parameter that the output depends on, by the parameter's id."""
    model, parts = stack.module, stack.parts
    decodes = len(parts) > 1
    n_lower = len(parts[0].blocks)
    seen: list[tuple[int, list[torch.Tensor]]] = []  # (block, the tensors that it was given), in the order of running
    encoded: list[torch.Tensor] = []

    def note(at: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            seen.append((at, list(_tensors((args, kwargs)))))

        return hook

    hooks = [_entry(block).register_forward_pre_hook(note(at), with_kwargs=True) for at, block in enumerate(blocks)]
    if decodes:
        hooks.append(parts[0].module.register_forward_hook(lambda _, __, output: encoded.extend(_tensors(output))))
    try:
        with _differentiable(model):
            output = list(_tensors(model(**stack.short_text(decodes=decodes))))
    except (TypeError, ValueError, IndexError, AttributeError, AssertionError, RuntimeError) as error:
        # Without weights (on the meta device) some operations fail for lack of numbers; a run finds out.
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
    # A parameter that this block's input depends on, and no earlier block's, was read by the block before it.
    boundaries = [(at, given) for at, given in seen[:n_lower]]
    if decodes:
        boundaries += [(n_lower, encoded), (0, seen[n_lower][1]), *seen[n_lower + 1 :]]
    boundaries.append((len(blocks), output))
    depth_of: dict[int, int] = {}
    walked: set[Any] = set()
    for depth, tensors in boundaries:
        for leaf in _leaves(tensors, walked):
            depth_of.setdefault(leaf, depth)
    return depth_of


def _entry(block: nn.Module) -> nn.Module:
    """Return the module that receives the block's input: a stage of a Funnel is a list of layers."""
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
