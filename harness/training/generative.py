"""Generative language models in training and use: the model, its batches, its operations and likelihoods.

The model is `transformers`' own language model, adapted or not. Its head is the backbone's; nothing is put on top.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backbones import end_of_turn_ids
from harness.features import TokenIds, lengths_of, pad
from harness.measure import (
    BatchLimit,
    Device,
    FlopsModel,
    Precision,
    fit_language_flops,
    most_places,
    show_progress,
)
from harness.tasks import Answers, Floats, Ints, Likelihoods, TextAnswers
from harness.training.batches import Batch, to_device
from harness.training.blocks import transformers_model
from harness.training.heads import Head, PendingLogits, find_head
from harness.training.inputs import TokenInputs
from harness.training.masks import known_padding, padded_on_the_right
from harness.training.model import AdaptedModel

if TYPE_CHECKING:
    from harness.training.forms import Workbench

IGNORED = -100
"""Target of a token without a prediction."""

LIKELIHOOD_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Padded tokens of a batch whose likelihood is computed; its logits are bounded by `most_places`."""

_TRIED_TOKENS = 6
"""Number of tokens on which a head apart from its body is tried."""


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
        self._head: list[Head | None] = []  # once it was looked for
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
            # Some inputs may be padded: their mask is made without a look at it.
            with known_padding(full=False), padded_on_the_right(self.transformer, ids.device):
                outputs = self.transformer(
                    input_ids=ids, attention_mask=mask, decoder_input_ids=more, use_cache=False, return_dict=True
                )
            return outputs.logits  # type: ignore[no-any-return]
        n_places = more.shape[1]
        some = self.some_logits(n_places)
        with padded_on_the_right(self.transformer, ids.device):
            outputs = self.transformer(input_ids=ids, attention_mask=mask, use_cache=False, return_dict=True, **some)
        return outputs.logits[:, -n_places:]  # type: ignore[no-any-return]

    @property
    def most_places(self) -> int:
        """Maximum number of places whose logits exist at a time, on the device where the model is."""
        inner: Any = transformers_model(self.transformer)
        vocabulary = getattr(inner.config.get_text_config(), "vocab_size", None)
        if not isinstance(vocabulary, int):
            vocabulary = int(inner.get_input_embeddings().num_embeddings)
        return most_places(next(inner.parameters()).device.type, vocabulary)

    def outputs(self, batch: Batch) -> Any:
        """Return the logits of a batch: as a tensor, or as `PendingLogits` where their whole would be too large."""
        if batch.host_targets is None or not self.splits(batch):
            return self(*batch.inputs)
        [head] = self._head
        assert head is not None
        n_places = batch.inputs[2].shape[1]
        states = head.states(lambda: self(*batch.inputs[:2], batch.inputs[2]))[:, -n_places:]
        flat = np.flatnonzero(batch.host_targets != IGNORED)
        return PendingLogits(head, states, to_device([flat], states.device)[0], self.most_places)

    def splits(self, batch: Batch) -> bool:
        """Return whether the head can run apart from the body, by a trial on the first tokens of a batch."""
        if not self._head:
            ids, mask, more = (tensor[:1, :_TRIED_TOKENS] for tensor in batch.inputs)
            mask = torch.ones_like(mask)

            def run() -> torch.Tensor:
                logits: torch.Tensor = self(ids, mask, more)
                return logits

            self._head.append(find_head(self.transformer, run, is_causal=self.is_causal))
        return self._head[0] is not None

    def some_logits(self, n_places: int) -> dict[str, int]:
        """Return the argument for logits of the last places alone; none where the model offers none."""
        return {"logits_to_keep": n_places} if self._keeps_some else {}

    def batch(self, sequences: Sequence[TokenIds], targets: Any, pad_id: int, device: torch.device) -> Batch:
        """Return a batch of texts, padded on the right.

        A batch whose logits would be too large has `host_targets`; then only places with a target have logits.

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
        n_outputs, is_large = wanted.shape[1], wanted.size > self.most_places and self._head != [None]
        if is_large and self.is_causal:
            n_outputs = -(-int((wanted != IGNORED).sum()) // len(ids))
        tensors = to_device([*arrays, wanted], device)
        return Batch(
            tuple(tensors[:3]),
            tensors[-1],
            n_rows=len(ids),
            length=ids.shape[1],
            n_tokens=n_tokens,
            n_outputs=n_outputs,
            by_targets=True,
            host_targets=wanted if is_large else None,
        )

    def count_flops(self, device: torch.device, *, backward: bool = True) -> FlopsModel:
        """Return the operations of a batch by its rows, its length and the places whose logits are computed."""

        def run(n_rows: int, length: int, n_outputs: int) -> None:
            ids = torch.ones((n_rows, length), dtype=torch.long, device=device)
            more = torch.ones((n_rows, n_outputs), dtype=torch.long, device=device)
            self.run_once(lambda: self(ids, torch.ones_like(ids), more), backward=backward)

        return self.counting(lambda: fit_language_flops(run), device)

    def answer(
        self, prompts: Sequence[TokenIds], bench: Workbench, precision: Precision, shared: TokenIds | None = None
    ) -> Answers:
        """Return an answer to each prompt: a text, or the likelihood of the prompt where the task asks for that.

        `shared` are tokens at the start of the prompts, read once for all texts (`write`).
        """
        from harness.training.writing import write

        assert bench.reply is not None
        backbone = bench.some_backbone
        if bench.reply.wants_likelihood:
            given = np.ones(len(prompts), dtype=np.int64)
            nll = self._nll(prompts, given, lengths_of(prompts), backbone.pad_id, bench.device, precision)
            return Likelihoods(nll, np.maximum(lengths_of(prompts) - given, 0))
        reply = bench.reply
        if bench.chat:
            reply = replace(reply, end_ids=end_of_turn_ids(backbone.tokenizer, backbone.files))
        texts, n_cut = write(self, prompts, backbone.tokenizer, reply, bench.device, precision, shared)
        if n_cut:
            bench.ledger.remarks["cut_answers"] = f"{n_cut} of {len(texts)} reached {bench.reply.max_new_tokens} tokens"
        return TextAnswers(texts, n_cut=n_cut)

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
        groups = list(_by_tokens(lengths, LIKELIHOOD_TOKENS[device.kind]))
        limit = BatchLimit("score", max(map(len, groups), default=1))

        def run(members: Ints) -> None:
            chosen = targets[members] if self.is_causal else [targets[row] for row in members]
            batch = self.batch([sequences[row] for row in members], chosen, pad_id, there)
            nll[members] = self._each(batch).double().sum(1).cpu().numpy()

        self.eval()
        with torch.inference_mode(), torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            for group in groups:
                at = 0
                while at < len(group):
                    members = group[at : at + limit.rows]
                    if limit.holds(len(members), lambda members=members: run(members)):  # type: ignore[misc]
                        at += len(members)
                    show_progress()
        return nll

    def _each(self, batch: Batch) -> torch.Tensor:
        """Return minus the log-likelihood of each place of a batch, 0 where nothing is predicted, (rows, places)."""
        if batch.targets.numel() > self.most_places and batch.n_rows > 1 and not self.splits(batch):
            # Whole logits: of fewer rows at a time, in float32 within the bound where a single row allows it.
            n_parts = -(-batch.targets.numel() // self.most_places)
            return torch.cat([self._each(part) for part in batch.parts(n_parts)])
        outputs = self.outputs(batch)
        if isinstance(outputs, PendingLogits):
            return outputs.each(batch.targets)
        return nn.functional.cross_entropy(
            outputs.float().transpose(1, 2), batch.targets, ignore_index=IGNORED, reduction="none"
        )


class GenerativeInputs(TokenInputs):
    """Texts with a part to predict, or inputs of an encoder with their answers (`GenerativeModel.batch`)."""

    _model: GenerativeModel

    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return a batch of the items at these positions."""
        return self._model.batch([self._rows[item] for item in items], targets, self._pad_id, self._device)

    def forward(self, batch: Batch) -> Any:
        """Return the logits of a batch, as `GenerativeModel.outputs` does."""
        return self._model.outputs(batch)

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
