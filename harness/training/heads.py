"""The head of a language model apart from its body, so that logits are computed for a few places at a time.

Logits take a row of the vocabulary for each place: 256 rows of 100 places over 128,000 tokens are 13 GB in float32.
The body runs on the whole batch. Then the model's own forward pass is called on chunks of places with a stand-in for
the body that returns the chunk's hidden states. Everything that the model does behind its body is therefore applied as
it is: scaling, soft-capping, biases, adapters.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from harness.backbones import without_cache
from harness.measure import is_out_of_memory
from harness.training.blocks import transformers_model

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Maximum difference of a head's logits from the model's own, as a share of the largest, by type of the logits."""


class Head:
    """The part of a language model behind its body.

    Args:
        transformer: a language model of `transformers`, or peft's wrapper around one.
        body: the module inside whose output is the hidden states that the head reads.
        is_causal: whether the model has one stack.
    """

    def __init__(self, transformer: nn.Module, body: nn.Module, *, is_causal: bool) -> None:
        self._model = transformers_model(transformer)
        self._body = body
        self._is_causal = is_causal
        self._unkept = without_cache(self._model)
        self._wrap: Callable[[torch.Tensor], Any] = lambda states: (states,)

    def states(self, run: Callable[[], object]) -> torch.Tensor:
        """Return the body's hidden states, shape (rows, places, width), while `run` calls the whole model.

        Raises:
            LookupError: the model did not call the body.
        """
        found: list[torch.Tensor] = []
        whole = self._body.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            outputs = whole(*args, **kwargs)
            found.append(outputs[0])
            self._wrap = _wrapper(outputs)
            return self._wrap(outputs[0][:1, :1])  # the head of the call in progress computes one place

        with _stands_in(self._body, forward):
            run()
        if not found:
            raise LookupError("The model does not call this body.")
        return found[0]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of places, shape (places, vocabulary), from states of shape (places, width)."""
        row = states.unsqueeze(0)
        ids = torch.zeros(row.shape[:2], dtype=torch.long, device=states.device)
        if self._is_causal:
            given: dict[str, Any] = {"input_ids": ids}
        else:
            from transformers.modeling_outputs import BaseModelOutput

            given = {"decoder_input_ids": ids, "encoder_outputs": BaseModelOutput(last_hidden_state=row)}
        with _stands_in(self._body, lambda *_, **__: self._wrap(row)):
            logits: torch.Tensor = self._model(**given, **self._unkept, return_dict=True).logits[0]
        return logits

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters outside the body that have gradients; some may not be the head's."""
        stacks = {id(self._body)}
        if not self._is_causal:
            stacks |= {id(getattr(self._model, name)()) for name in ("get_encoder", "get_decoder")}
        found: dict[int, nn.Parameter] = {}
        pending: list[nn.Module] = [self._model]
        while pending:
            module = pending.pop()
            if id(module) in stacks:
                continue
            found |= {id(value): value for value in module.parameters(recurse=False) if value.requires_grad}
            pending += list(module.children())
        return list(found.values())


def find_head(transformer: nn.Module, run: Callable[[], torch.Tensor], *, is_causal: bool) -> Head | None:
    """Return the head of a language model; None where no body is found whose states give the model's own logits.

    Args:
        transformer: as in `Head`.
        run: returns the model's logits of the last places of a short row, shape (1, places, vocabulary).
        is_causal: as in `Head`.
    """
    model: Any = transformers_model(transformer)
    modes = [(module, module.training) for module in transformer.modules()]
    transformer.eval()
    try:
        # Weights that autocast rounds without a gradient must not be kept for a backward pass.
        kind = next(transformer.parameters()).device.type
        dtype, rounds = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        with torch.no_grad(), torch.autocast(kind, dtype=dtype, enabled=rounds, cache_enabled=False):
            expected = run()[0]
            for body in _bodies(model):
                head = Head(transformer, body, is_causal=is_causal)
                try:
                    states = head.states(run)[0, -len(expected) :]
                    fits = _are_close(head.logits(states), expected)
                    fits = fits and _are_close(head.logits(states[-1:]), expected[-1:])
                except Exception as error:
                    if is_out_of_memory(error):
                        raise
                    continue
                if fits:
                    return head
    finally:
        for module, mode in modes:
            module.training = mode
    return None


def _bodies(model: Any) -> Iterator[nn.Module]:
    """Yield modules whose output may be what the head reads."""
    seen = {id(model)}
    for body in (model.base_model, getattr(model, "get_decoder", lambda: model)()):
        if isinstance(body, nn.Module) and id(body) not in seen:
            seen.add(id(body))
            yield body


def _are_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    largest = float(expected.float().abs().max())
    return float((found.float() - expected.float()).abs().max()) <= _TOLERANCE.get(found.dtype, 1e-4) * largest


def _wrapper(outputs: Any) -> Callable[[torch.Tensor], Any]:
    """Return a function that makes outputs of the same type from hidden states alone."""
    if isinstance(outputs, tuple):
        return lambda states: (states, None, None)
    made = type(outputs)
    return lambda states: made(last_hidden_state=states)


@contextmanager
def _stands_in(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Run `forward` instead of the module's own while the context lasts."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


class PendingLogits:
    """Logits of a batch that are computed when a loss asks for them, a chunk of places at a time.

    It stands for the tensor of logits between a model and its loss. Only places with a target are computed, under the
    autocast of the code that made this object.

    Args:
        head: the head.
        states: hidden states, shape (rows, places, width).
        positions: indices of the places with a target, flat, on the device of the states, shape (places,).
        most: maximum number of places of a chunk.
    """

    def __init__(self, head: Head, states: torch.Tensor, positions: torch.Tensor, most: int) -> None:
        self._head = head
        self._shape = states.shape[:2]
        self._positions = positions
        self._states = states.flatten(0, 1).index_select(0, positions)
        self._most = most
        kind = states.device.type
        self._autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

    def float(self) -> PendingLogits:
        """Return the same object: logits are raised to float32 as they are computed."""
        return self

    def mean_loss(self, targets: torch.Tensor, label_smoothing: builtins.float) -> torch.Tensor:
        """Return the mean cross-entropy over the places with a target, as of whole logits.

        Args:
            targets: tokens to predict, shape (rows, places).
            label_smoothing: as in `torch.nn.functional.cross_entropy`.
        """
        chosen = self._chosen(targets)
        with self._rounding():
            if torch.is_grad_enabled():
                value: torch.Tensor = _MeanLoss.apply(
                    self, chosen, label_smoothing, self._states, *self._head.trained()
                )  # type: ignore[no-untyped-call]
                return value
            return sum(
                (self.share(*chunk, label_smoothing) for chunk in self.chunks(self._states, chosen)),
                torch.zeros((), device=targets.device),
            )

    def each(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of each place, shape (rows, places), 0 where none has a target; no gradients."""
        losses = torch.zeros(self._shape.numel(), device=targets.device)
        with self._rounding():
            found = [
                nn.functional.cross_entropy(self._head.logits(states).float(), wanted, reduction="none")
                for states, wanted in self.chunks(self._states, self._chosen(targets))
            ]
        if found:
            losses[self._positions] = torch.cat(found)
        return losses.view(self._shape)

    def chunks(self, states: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield states and targets of the places of each chunk."""
        if len(states):
            yield from zip(states.split(self._most), targets.split(self._most), strict=True)

    def share(self, states: torch.Tensor, targets: torch.Tensor, label_smoothing: builtins.float) -> torch.Tensor:
        """Return what the places of a chunk add to the mean loss."""
        logits = self._head.logits(states).float()
        total = nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
        return total / len(self._states)

    def _chosen(self, targets: torch.Tensor) -> torch.Tensor:
        return targets.flatten().index_select(0, self._positions)

    def _rounding(self) -> AbstractContextManager[Any]:
        """Return the context of autocast in which the states were computed."""
        kind, dtype, rounds = self._autocast
        return torch.autocast(kind, dtype=dtype, enabled=rounds)


class _MeanLoss(torch.autograd.Function):
    """The mean cross-entropy of pending logits.

    Gradients are computed with the loss, chunk by chunk, and wait for the backward pass. No product is computed twice,
    and no chunk's logits outlive the chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pending: PendingLogits,
        targets: torch.Tensor,
        label_smoothing: float,
        states: torch.Tensor,
        *trained: nn.Parameter,
    ) -> torch.Tensor:
        wants_states = ctx.needs_input_grad[3]
        total = torch.zeros((), device=states.device)
        of_states: list[torch.Tensor] = []
        of_trained: list[torch.Tensor | None] = [None] * len(trained)
        for part, wanted in pending.chunks(states, targets):
            with torch.enable_grad():
                given = part.detach().requires_grad_(wants_states)
                value = pending.share(given, wanted, label_smoothing)
            total += value.detach()
            asked = [*([given] if wants_states else []), *trained]
            found = list(torch.autograd.grad(value, asked, allow_unused=True)) if asked else []
            if wants_states:
                own = found.pop(0)
                of_states.append(torch.zeros_like(part) if own is None else own)
            for at, gradient in enumerate(found):
                before = of_trained[at]
                if gradient is not None:
                    of_trained[at] = gradient if before is None else before.add_(gradient)
        if wants_states:
            ctx.gradients = [torch.cat(of_states) if of_states else torch.zeros_like(states), *of_trained]
        else:
            ctx.gradients = [None, *of_trained]
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place: a second backward pass would scale them twice
        return None, None, None, *(None if gradient is None else gradient.mul_(outer[0]) for gradient in gradients)
