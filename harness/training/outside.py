"""Outside texts read by a model, adapted or not: their pooled features and the mean loss of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backbones import Pooling, pool
from harness.features import TokenIds, lengths_of, pad
from harness.measure import Device, Precision, most_places
from harness.support import UnsupportedError
from harness.tasks import Ints
from harness.training.blocks import transformers_model
from harness.training.generative import GenerativeModel, decoder_start_id
from harness.training.heads import Head, find_head
from harness.training.model import AdaptedModel, HeadedModel, run_by_length

_TRIED_TOKENS = 6
"""Number of tokens on which the language-modelling head is tried."""


@dataclass(frozen=True, eq=False)
class OutsideReading:
    """Features and loss of the outside texts in one model.

    Attributes:
        features: pooled vector of each text, shape (texts, width).
        loss_nats: mean next-token loss over all tokens but the first of each text; None where there is no head.
    """

    features: npt.NDArray[np.float32]
    loss_nats: float | None


class LanguageHead:
    """The language-modelling head of a causal backbone, to be put on the hidden states of an adapted transformer.

    Args:
        language_model: the pretrained language model, a copy whose modules are its own.
        ids: token ids of one text, on which the head is tried.
        device: where the model is.
        precision: precision of the forward pass.

    Raises:
        UnsupportedError: the head cannot run apart from the transformer.
    """

    def __init__(self, language_model: Any, ids: TokenIds, device: Device, precision: Precision) -> None:
        self._out: Any = language_model.get_output_embeddings()
        self._is_tied = self._out is not None and self._out.weight is language_model.get_input_embeddings().weight
        some = torch.from_numpy(np.asarray(ids[:_TRIED_TOKENS], dtype=np.int64))[None].to(device.torch_device())

        def run() -> torch.Tensor:
            logits: torch.Tensor = language_model(input_ids=some, use_cache=False, return_dict=True).logits
            return logits

        kind = device.torch_device().type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
            found = find_head(language_model, run, is_causal=True)
        if found is None:
            raise UnsupportedError(f"The head of a {type(language_model).__name__} cannot run apart from its body.")
        self._head: Head = found
        self._most_places = most_places(kind, int(language_model.get_input_embeddings().num_embeddings))

    @contextmanager
    def of(self, transformer: nn.Module) -> Iterator[None]:
        """Let the head use the embedding of an adapted transformer within the context, if it shares the embedding."""
        if not self._is_tied:
            yield
            return
        own = self._out.weight
        self._out.weight = nn.Parameter(_embedding(transformer), requires_grad=False)
        try:
            yield
        finally:
            self._out.weight = own

    def losses(self, states: torch.Tensor, targets: torch.Tensor) -> float:
        """Return the sum of the losses of places.

        Args:
            states: hidden states, shape (places, width).
            targets: the token to predict at each place, shape (places,).
        """
        return sum(
            _summed_loss(self._head.logits(part), wanted)
            for part, wanted in zip(states.split(self._most_places), targets.split(self._most_places), strict=True)
        )


def read_outside(
    model: AdaptedModel,
    texts: Sequence[TokenIds],
    *,
    pooling: Pooling,
    pad_id: int,
    device: Device,
    precision: Precision,
    head: LanguageHead | None = None,
) -> OutsideReading:
    """Return the features of texts, and their loss where the model is causal; leaves the model evaluating.

    Args:
        model: a model with the harness's head, of which the transformer is read; or a language model.
        texts: token ids of each text.
        pooling: how features are pooled.
        pad_id: id of the padding.
        device: where the model is.
        precision: precision of the forward pass.
        head: language-modelling head for a causal transformer under the harness's head; None leaves the loss out.
    """
    there = device.torch_device()
    features: dict[int, npt.NDArray[np.float32]] = {}
    sums: list[float | None] = []
    lengths = lengths_of(texts)
    n_places = int((lengths - 1).sum())

    def run(members: Ints) -> None:
        pooled, losses = [], []
        for part in _parts(members, model, int(lengths[members].max())):
            ids, mask = (torch.from_numpy(array).to(there) for array in pad([texts[row] for row in part], pad_id))
            if isinstance(model, GenerativeModel):
                states, loss = _read_language_model(model, ids, mask)
            else:
                assert isinstance(model, HeadedModel)
                states, _ = model.read(ids, mask)
                predicted = mask[:, 1:] > 0
                loss = None if head is None else head.losses(states[:, :-1][predicted], ids[:, 1:][predicted])
            losses.append(loss)
            pooled.append(pool(states, mask, pooling).cpu().numpy())
        # Written at the end: a batch that does not fit in memory is run again.
        features.update(zip(map(int, members), np.concatenate(pooled), strict=True))
        sums.extend(losses)

    reads = head.of(model.transformer) if head is not None and isinstance(model, HeadedModel) else _as_it_is()
    with reads:
        run_by_length(model, lengths, run, device, precision, work="outside")
    known = [loss for loss in sums if loss is not None]
    loss_nats = sum(known) / n_places if known else None
    return OutsideReading(np.stack([features[row] for row in range(len(texts))]), loss_nats)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _parts(members: Ints, model: AdaptedModel, length: int) -> list[Ints]:
    """Return the rows of a batch in parts whose logits are not too large, where a language model computes them."""
    if not isinstance(model, GenerativeModel) or not model.is_causal:
        return [members]
    n_rows = max(1, model.most_places // length)
    return [members[at : at + n_rows] for at in range(0, len(members), n_rows)]


def _read_language_model(model: GenerativeModel, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Return the hidden states of the real tokens and, of a causal model, the sum of the losses of a batch."""
    inner: Any = transformers_model(model.transformer)
    body = inner.base_model if model.is_causal else inner.get_encoder()
    if body is inner:
        raise UnsupportedError(f"A {type(inner).__name__} has no transformer apart from its head.")
    found: list[torch.Tensor] = []
    handle = body.register_forward_hook(lambda _, __, outputs: found.append(outputs[0]))
    try:
        if model.is_causal:
            logits = model(ids, mask, ids)
        else:
            model(ids, mask, torch.full_like(ids[:, :1], decoder_start_id(model.transformer)))
    finally:
        handle.remove()
    states = found[0][:, found[0].shape[1] - ids.shape[1] :]  # virtual tokens come first
    if not model.is_causal:
        return states, None
    predicted = mask[:, 1:] > 0
    return states, _summed_loss(logits[:, :-1][predicted], ids[:, 1:][predicted])


def _summed_loss(logits: torch.Tensor, targets: torch.Tensor) -> float:
    return float(nn.functional.cross_entropy(logits.float(), targets, reduction="sum"))


def _embedding(transformer: nn.Module) -> torch.Tensor:
    """Return the matrix of a transformer's input embedding, with the rows that peft's trainable tokens replace."""
    module: Any = transformers_model(transformer).get_input_embeddings()  # type: ignore[operator]
    if hasattr(module, "get_merged_weights"):
        merged: torch.Tensor = module.get_merged_weights(module.active_adapters)
        return merged.detach()
    weight: torch.Tensor = module.weight
    return weight.detach()
