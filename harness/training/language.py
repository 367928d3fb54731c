"""Language models in training and use: the model, its batches, its operations, the likelihoods that it gives.

Everything is read through `transformers`' own language model, adapted or not: its head is the backbone's, and nothing
is put on top.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.features import pad
from harness.measure import Device, FlopsModel, Precision, fit_language_flops, show_progress
from harness.tasks import Ints
from harness.training.batches import Batch, shuffled, to_device
from harness.training.model import AdaptedModel

IGNORED = -100
"""The target of a token that is not to be predicted."""

LIKELIHOOD_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Padded tokens of a batch whose likelihood is computed: a row of the vocabulary is kept for each."""

TokenIds = npt.NDArray[np.int32]


class AskedModel(AdaptedModel):
    """A language model of `transformers`, adapted or not, called with batches of this module.

    Args:
        transformer: the model, with its own head.
        is_causal: whether answers continue the input; otherwise the input is an encoder's and answers a decoder's.
    """

    def __init__(self, transformer: nn.Module, *, is_causal: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = nn.Identity()
        self.is_causal = is_causal
        inner = transformer.get_base_model() if hasattr(transformer, "get_base_model") else transformer  # type: ignore[operator]
        self._keeps_some = "logits_to_keep" in inspect.signature(inner.forward).parameters

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """Logits of the tokens to be predicted.

        Args:
            ids: shape (rows, length), padded on the right.
            mask: of the same shape, 0 for padding.
            more: causal: a tensor of as many columns as there are last places whose logits are wanted; otherwise the
                decoder's input, shape (rows, places).

        Returns:
            Shape (rows, places, vocabulary).
        """
        if not self.is_causal:
            outputs = self.transformer(
                input_ids=ids, attention_mask=mask, decoder_input_ids=more, use_cache=False, return_dict=True
            )
            return outputs.logits  # type: ignore[no-any-return]
        n_places = more.shape[1]
        some = {"logits_to_keep": n_places} if self._keeps_some else {}
        outputs = self.transformer(input_ids=ids, attention_mask=mask, use_cache=False, return_dict=True, **some)
        return outputs.logits[:, -n_places:]  # type: ignore[no-any-return]


class CausalBatches:
    """Batches of texts of which a part is to be predicted, padded on the right.

    Args:
        sequences: token ids of each text.
        given: tokens at its beginning that are given and not predicted, shape (items,); at least 1.
        pad_id, batch_size, seed, device: see `training.batches.TokenBatches`.
    """

    def __init__(
        self,
        sequences: Sequence[TokenIds],
        given: Ints,
        *,
        pad_id: int,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._sequences = sequences
        self._given = given
        self._pad_id = pad_id
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._lengths = np.fromiter((len(ids) for ids in sequences), dtype=np.int64, count=len(sequences))

    def __len__(self) -> int:
        return -(-len(self._sequences) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over all texts."""
        for members in shuffled(len(self._sequences), self._batch_size, self._lengths, self._seed, number):
            yield self.batch(members)

    def batch(self, members: Ints) -> Batch:
        """These texts."""
        ids, mask = pad([self._sequences[item] for item in members], self._pad_id)
        length = ids.shape[1]
        first = int(self._given[members].min()) - 1  # the place whose logits say what the first wanted token is
        targets = np.full((len(members), length - first), IGNORED, dtype=np.int64)
        targets[:, :-1] = ids[:, first + 1 :]
        places = np.arange(first, length)
        wanted = (places >= self._given[members, None] - 1) & (places < self._lengths[members, None] - 1)
        targets[~wanted] = IGNORED
        tensors = to_device((ids, mask, targets), self._device)
        return Batch(
            inputs=tuple(tensors),
            targets=tensors[2],
            n_rows=len(members),
            length=length,
            n_tokens=int(self._lengths[members].sum()),
            n_outputs=length - first,
            by_targets=True,
        )


class DecoderBatches:
    """Batches of inputs of an encoder with what a decoder is to write, both padded on the right.

    Args:
        sequences: token ids of each input.
        replies: token ids of each answer, its end included.
        start_id: what the decoder begins with.
        pad_id, batch_size, seed, device: see `training.batches.TokenBatches`.
    """

    def __init__(
        self,
        sequences: Sequence[TokenIds],
        replies: Sequence[TokenIds],
        *,
        start_id: int,
        pad_id: int,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._sequences = sequences
        self._replies = replies
        self._start_id = start_id
        self._pad_id = pad_id
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._lengths = np.fromiter((len(ids) for ids in sequences), dtype=np.int64, count=len(sequences))

    def __len__(self) -> int:
        return -(-len(self._sequences) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over all rows."""
        for members in shuffled(len(self._sequences), self._batch_size, self._lengths, self._seed, number):
            yield self.batch(members)

    def batch(self, members: Ints) -> Batch:
        """These rows."""
        ids, mask = pad([self._sequences[item] for item in members], self._pad_id)
        replies = [self._replies[item] for item in members]
        written, real = pad(replies, self._pad_id)
        shifted = np.concatenate([np.full((len(members), 1), self._start_id, dtype=np.int64), written[:, :-1]], axis=1)
        written[real == 0] = IGNORED
        tensors = to_device((ids, mask, shifted, written), self._device)
        return Batch(
            inputs=tuple(tensors[:3]),
            targets=tensors[3],
            n_rows=len(members),
            length=ids.shape[1],
            n_tokens=int(self._lengths[members].sum()) + sum(len(reply) for reply in replies),
            n_outputs=written.shape[1],
            by_targets=True,
        )


def count_language_flops(model: AskedModel, device: torch.device, *, backward: bool = True) -> FlopsModel:
    """Operations of a batch by its rows, its length and the places whose logits are computed."""

    def run(n_rows: int, length: int, n_outputs: int) -> None:
        ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
        more = torch.ones((n_rows, n_outputs), dtype=torch.long, device=device)
        with torch.set_grad_enabled(backward):
            outputs = model(ids, torch.ones_like(ids), more)
        if backward:
            outputs.sum().backward()
            model.zero_grad(set_to_none=True)

    training = model.training
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        counted = fit_language_flops(run)
    model.train(training)
    return counted


def likelihoods(
    model: AskedModel,
    sequences: Sequence[TokenIds],
    given: Ints,
    pad_id: int,
    device: Device,
    precision: Precision,
) -> tuple[npt.NDArray[np.float64], Ints]:
    """Minus the log-likelihood of each text behind what is given of it, and how many tokens that is.

    Args:
        model: causal.
        sequences: token ids of each text.
        given: tokens at its beginning that are not predicted, shape (rows,); at least 1.
        pad_id: what pads.
        device: where the model is.
        precision: of the forward pass; likelihoods are added up in float64.
    """
    there = device.torch_device()
    batches = CausalBatches(sequences, given, pad_id=pad_id, batch_size=1, seed=0, device=there)
    lengths = np.fromiter((len(ids) for ids in sequences), dtype=np.int64, count=len(sequences))
    nll = _summed(model, batches, lengths, device, precision)
    return nll, np.maximum(lengths - given, 0)


def reply_nll(
    model: AskedModel,
    prompts: Sequence[npt.NDArray[Any]],
    replies: Sequence[npt.NDArray[Any]],
    *,
    pad_id: int,
    device: Device,
    precision: Precision,
) -> npt.NDArray[np.float64]:
    """Minus the log-likelihood of each reply behind its prompt, in nats, shape (rows,).

    Args:
        model: of either kind.
        prompts: token ids of each prompt, at least one.
        replies: token ids of each reply.
        pad_id: what pads.
        device: where the model is.
        precision: of the forward pass.
    """
    if model.is_causal:
        wholes = [np.concatenate(both) for both in zip(prompts, replies, strict=True)]
        given = np.fromiter((len(ids) for ids in prompts), dtype=np.int64, count=len(prompts))
        return likelihoods(model, wholes, given, pad_id, device, precision)[0]
    there = device.torch_device()
    start_id = decoder_start_id(model.transformer)
    batches = DecoderBatches(prompts, replies, start_id=start_id, pad_id=pad_id, batch_size=1, seed=0, device=there)
    sizes = (len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True))
    return _summed(model, batches, np.fromiter(sizes, dtype=np.int64, count=len(prompts)), device, precision)


def decoder_start_id(transformer: Any) -> int:
    """What the decoder of a sequence-to-sequence model of `transformers` begins with."""
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    known = (getattr(transformer.config, name, None) for name in names)
    return next(int(token) for token in known if token is not None)


def _summed(
    model: AskedModel, batches: CausalBatches | DecoderBatches, lengths: Ints, device: Device, precision: Precision
) -> npt.NDArray[np.float64]:
    """Minus the log-likelihood of what is to be predicted of each item, added up in float64."""
    nll = np.zeros(len(lengths))
    model.eval()
    kind = device.torch_device().type
    autocast = torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), autocast:
        for members in _by_tokens(lengths, LIKELIHOOD_TOKENS[device.kind]):
            batch = batches.batch(members)
            logits = model(*batch.inputs).float()
            each = nn.functional.cross_entropy(
                logits.transpose(1, 2), batch.targets, ignore_index=IGNORED, reduction="none"
            )
            nll[members] = each.double().sum(1).cpu().numpy()
            show_progress()
    return nll


def _by_tokens(lengths: Ints, most: int) -> Iterator[Ints]:
    """Rows of like length together, at most so many padded tokens at a time."""
    order: Ints = np.argsort(lengths, kind="stable")
    start = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or (at - start + 1) * int(lengths[order[at]]) > most:
            yield order[start:at]
            start = at
