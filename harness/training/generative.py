"""Generative language models in training and use: the model, its batches, its operations and likelihoods.

The model is `transformers`' own language model, adapted or not. Its head is the backbone's; nothing is put on top.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.features import TokenIds, lengths_of, pad
from harness.measure import Device, FlopsModel, Precision, fit_language_flops, show_progress
from harness.tasks import Answers, Floats, Ints, Likelihoods, TextAnswers
from harness.training.batches import Batch, to_device
from harness.training.blocks import transformers_model
from harness.training.inputs import TokenInputs
from harness.training.masks import padded_on_the_right
from harness.training.model import AdaptedModel

if TYPE_CHECKING:
    from harness.training.forms import Workbench

IGNORED = -100
"""Target of a token without a prediction."""

LIKELIHOOD_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Padded tokens of a batch whose likelihood is computed: a row of the vocabulary is kept for each."""


class GenerativeModel(AdaptedModel):
    """A language model of `transformers`, adapted or not.

    Args:
        transformer: the model, with its own head.
        is_causal: whether answers continue the input; otherwise an encoder reads the input and a decoder writes.
    """

    def __init__(self, transformer: nn.Module, *, is_causal: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = nn.Identity()
        self.is_causal = is_causal
        self._keeps_some = "logits_to_keep" in inspect.signature(transformers_model(transformer).forward).parameters

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        """Return logits of the tokens to be predicted.

        Args:
            ids: shape (rows, length), padded on the right.
            mask: of the same shape, 0 for padding.
            more: causal: a tensor with as many columns as there are last places whose logits are wanted; otherwise the
                decoder's input, shape (rows, places).

        Returns:
            Shape (rows, places, vocabulary).
        """
        if not self.is_causal:
            with padded_on_the_right(self.transformer, ids.device):
                outputs = self.transformer(
                    input_ids=ids, attention_mask=mask, decoder_input_ids=more, use_cache=False, return_dict=True
                )
            return outputs.logits  # type: ignore[no-any-return]
        n_places = more.shape[1]
        some = {"logits_to_keep": n_places} if self._keeps_some else {}
        with padded_on_the_right(self.transformer, ids.device):
            outputs = self.transformer(input_ids=ids, attention_mask=mask, use_cache=False, return_dict=True, **some)
        return outputs.logits[:, -n_places:]  # type: ignore[no-any-return]

    def batch(self, sequences: Sequence[TokenIds], targets: Any, pad_id: int, device: torch.device) -> Batch:
        """Return a batch of texts, padded on the right.

        Args:
            sequences: token ids of each text; those of the encoder's input if the model is not causal.
            targets: causal: tokens at the beginning of each text that are given and not predicted, shape (rows,), at
                least 1; otherwise the token ids of each answer, its end included.
            pad_id: id of the padding.
            device: where the model is.
        """
        ids, mask = pad(sequences, pad_id)
        lengths = lengths_of(sequences)
        arrays, n_tokens = [ids, mask], int(lengths.sum())
        if self.is_causal:
            wanted = _behind(ids, lengths, targets)
        else:
            wanted, real = pad(targets, pad_id)
            start = np.full((len(ids), 1), decoder_start_id(self.transformer), dtype=np.int64)
            arrays.append(np.concatenate([start, wanted[:, :-1]], axis=1))
            wanted[real == 0] = IGNORED
            n_tokens += int(lengths_of(targets).sum())
        tensors = to_device([*arrays, wanted], device)
        return Batch(
            tuple(tensors[:3]),
            tensors[-1],
            n_rows=len(ids),
            length=ids.shape[1],
            n_tokens=n_tokens,
            n_outputs=wanted.shape[1],
            by_targets=True,
        )

    def count_flops(self, device: torch.device, *, backward: bool = True) -> FlopsModel:
        """Return the operations of a batch by its rows, its length and the places whose logits are computed."""

        def run(n_rows: int, length: int, n_outputs: int) -> None:
            ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
            more = torch.ones((n_rows, n_outputs), dtype=torch.long, device=device)
            self.run_once(lambda: self(ids, torch.ones_like(ids), more), backward=backward)

        return self.counting(lambda: fit_language_flops(run), device)

    def answer(self, prompts: Sequence[TokenIds], bench: Workbench, precision: Precision) -> Answers:
        """Return an answer to each prompt: a text, or the likelihood of the prompt where the task asks for that."""
        from harness.training.writing import write

        assert bench.reply is not None
        backbone = bench.some_backbone
        if bench.reply.wants_likelihood:
            given = np.ones(len(prompts), dtype=np.int64)
            nll = self._nll(prompts, given, lengths_of(prompts), backbone.pad_id, bench.device, precision)
            return Likelihoods(nll, np.maximum(lengths_of(prompts) - given, 0))
        texts, n_cut = write(self, prompts, backbone.tokenizer, bench.reply, bench.device, precision)
        if n_cut:
            bench.ledger.remarks["cut_answers"] = f"{n_cut} of {len(texts)} reached {bench.reply.max_new_tokens} tokens"
        return TextAnswers(texts, n_cut=n_cut)

    def reply_nll(
        self,
        prompts: Sequence[npt.NDArray[Any]],
        replies: Sequence[npt.NDArray[Any]],
        *,
        pad_id: int,
        device: Device,
        precision: Precision,
    ) -> npt.NDArray[np.float64]:
        """Return minus the log-likelihood of each reply behind its prompt, in nats, shape (rows,).

        Args:
            prompts: token ids of each prompt, at least one.
            replies: token ids of each reply.
            pad_id: id of the padding.
            device: where the model is.
            precision: precision of the forward pass.
        """
        lengths = lengths_of(prompts) + lengths_of(replies)
        if self.is_causal:
            wholes = [np.concatenate(both) for both in zip(prompts, replies, strict=True)]
            return self._nll(wholes, lengths_of(prompts), lengths, pad_id, device, precision)
        return self._nll(prompts, replies, lengths, pad_id, device, precision)

    def _nll(
        self,
        sequences: Sequence[TokenIds],
        targets: Any,
        lengths: Ints,
        pad_id: int,
        device: Device,
        precision: Precision,
    ) -> npt.NDArray[np.float64]:
        """Return minus the log-likelihood of the predicted tokens of each row, added up in float64.

        Args:
            sequences: as in `batch`.
            targets: as in `batch`.
            lengths: tokens of each row, by which rows are batched.
            pad_id: as in `batch`.
            device: where the model is.
            precision: precision of the forward pass.
        """
        nll = np.zeros(len(lengths))
        there = device.torch_device()
        self.eval()
        with torch.inference_mode(), torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            for members in _by_tokens(lengths, LIKELIHOOD_TOKENS[device.kind]):
                chosen = targets[members] if self.is_causal else [targets[row] for row in members]
                batch = self.batch([sequences[row] for row in members], chosen, pad_id, there)
                logits = self(*batch.inputs).float()
                each = nn.functional.cross_entropy(
                    logits.transpose(1, 2), batch.targets, ignore_index=IGNORED, reduction="none"
                )
                nll[members] = each.double().sum(1).cpu().numpy()
                show_progress()
        return nll


class GenerativeInputs(TokenInputs):
    """Texts with a part to predict, or inputs of an encoder with their answers (`GenerativeModel.batch`)."""

    _model: GenerativeModel

    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return a batch of the items at these positions."""
        return self._model.batch([self._rows[item] for item in items], targets, self._pad_id, self._device)

    def logits(self, items: Ints, n_outputs: int, device: Device, precision: Precision) -> Floats:
        """Refuse: answers are texts.

        Raises:
            TypeError: always.
        """
        raise TypeError("A language model has no scores of a row.")


def decoder_start_id(transformer: Any) -> int:
    """Return the token that the decoder of a sequence-to-sequence model of `transformers` begins with."""
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    known = (getattr(transformer.config, name, None) for name in names)
    return next(int(token) for token in known if token is not None)


def _behind(ids: Ints, lengths: Ints, given: Ints) -> Ints:
    """Return the token to predict at each of the last places, `IGNORED` where none is; shape (rows, places).

    Args:
        ids: shape (rows, length), padded on the right.
        lengths: tokens of each row.
        given: tokens at the beginning of each row that are not predicted.
    """
    length = ids.shape[1]
    first = int(given.min()) - 1  # the logits of this place predict the first wanted token
    targets = np.full((len(ids), length - first), IGNORED, dtype=np.int64)
    targets[:, :-1] = ids[:, first + 1 :]
    places = np.arange(first, length)
    wanted = (places >= given[:, None] - 1) & (places < lengths[:, None] - 1)
    targets[~wanted] = IGNORED
    return targets


def _by_tokens(lengths: Ints, most: int) -> Iterator[Ints]:
    """Yield rows of like length together, at most so many padded tokens at a time."""
    order: Ints = np.argsort(lengths, kind="stable")
    start = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or (at - start + 1) * int(lengths[order[at]]) > most:
            yield order[start:at]
            start = at
