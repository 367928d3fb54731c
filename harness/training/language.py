"""Language models in training and use: the model, its batches, its operations, what it writes, how likely it finds.

Everything is read through `transformers`' own language model, adapted or not: its head is the backbone's, and nothing
is put on top.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.features.tokens import pad
from harness.measure.device import Device, Precision
from harness.measure.flops import FlopsModel, fit_language_flops
from harness.measure.signs import show_progress
from harness.tasks.base import Ints, Reply
from harness.training.batches import Batch, shuffled, to_device
from harness.training.model import AdaptedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The target of a token that is not to be predicted."""

GENERATE_ROWS = {"cpu": 16, "cuda": 64}
"""Rows of a batch when writing: each keeps its keys and values."""

LIKELIHOOD_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Padded tokens of a batch whose likelihood is computed: a row of the vocabulary is kept for each."""

TokenIds = npt.NDArray[np.int32]


class LanguageModel(AdaptedModel):
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


def count_language_flops(model: LanguageModel, device: torch.device, *, backward: bool = True) -> FlopsModel:
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


def write(
    model: LanguageModel,
    prompts: Sequence[TokenIds],
    tokenizer: PreTrainedTokenizerBase,
    reply: Reply,
    device: Device,
    precision: Precision,
) -> tuple[list[str], int]:
    """What the model writes after each prompt, by `transformers`' own generation, and how many answers were cut off.

    Prompts of like length are batched, padded on the left (causal) or the right (sequence to sequence).
    """
    from transformers import StoppingCriteriaList

    there = device.torch_device()
    pad_id = int(tokenizer.pad_token_id)
    lengths = np.fromiter((len(ids) for ids in prompts), dtype=np.int64, count=len(prompts))
    order: Ints = np.argsort(lengths, kind="stable")
    answers = [""] * len(prompts)
    n_cut = 0
    transformer: Any = model.transformer
    eos = tokenizer.eos_token_id
    options: dict[str, Any] = {
        "max_new_tokens": reply.max_new_tokens,
        "num_beams": reply.num_beams,
        "do_sample": False,
        "use_cache": True,
        "pad_token_id": pad_id,
        **({} if eos is None else {"eos_token_id": int(eos)}),
    }
    model.eval()
    autocast = torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    with torch.no_grad(), autocast, warnings.catch_warnings(), _showing_progress(transformer):
        warnings.simplefilter("ignore")  # generation settings of a checkpoint that are not used here
        for at in range(0, len(order), GENERATE_ROWS[device.kind]):
            members = order[at : at + GENERATE_ROWS[device.kind]]
            rows = [prompts[row] for row in members]
            ids, mask = _pad_left(rows, pad_id) if model.is_causal else pad(rows, pad_id)
            if reply.stop:
                n_given = ids.shape[1] if model.is_causal else 1
                options["stopping_criteria"] = StoppingCriteriaList([_ends_at(reply.stop, tokenizer, n_given)])
            written = transformer.generate(
                input_ids=torch.from_numpy(ids).to(there), attention_mask=torch.from_numpy(mask).to(there), **options
            )
            new = written[:, ids.shape[1] if model.is_causal else 1 :].cpu().numpy()
            for member, tokens in zip(members, new, strict=True):
                ended = eos is not None and bool((tokens == eos).any())
                text, stopped = _until(str(tokenizer.decode(tokens, skip_special_tokens=True)), reply.stop)
                answers[member] = text.strip()
                n_cut += not ended and not stopped and len(tokens) >= reply.max_new_tokens
    return answers, n_cut


@contextlib.contextmanager
def _showing_progress(module: nn.Module) -> Iterator[None]:
    """Show progress with each forward pass: a batch of long texts takes hundreds."""
    hook = module.register_forward_hook(lambda *_: show_progress())
    try:
        yield
    finally:
        hook.remove()


def _ends_at(stops: Sequence[str], tokenizer: PreTrainedTokenizerBase, n_given: int) -> Any:
    """Says which rows have written one of the stops.

    By decoding what is written: `transformers`' own criterion works on vocabularies, and fails on some tokenizers.

    Args:
        stops: texts.
        tokenizer: decodes.
        n_given: tokens of each row that are not the model's.
    """

    def criterion(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        texts = tokenizer.batch_decode(ids[:, n_given:], skip_special_tokens=True)
        ended = [any(stop in text for stop in stops) for text in texts]
        return torch.tensor(ended, dtype=torch.bool, device=ids.device)

    return criterion


def likelihoods(
    model: LanguageModel,
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
    model: LanguageModel,
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
    model: LanguageModel, batches: CausalBatches | DecoderBatches, lengths: Ints, device: Device, precision: Precision
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


def _pad_left(rows: Sequence[TokenIds], pad_id: int) -> tuple[Ints, Ints]:
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        ids[position, width - len(row) :] = row
        mask[position, width - len(row) :] = 1
    return ids, mask


def _until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of the stops, and whether there was one."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
