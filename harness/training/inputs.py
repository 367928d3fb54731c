"""Inputs of a model in training: token ids, or the hidden states of frozen lower blocks.

One object serves a fit: it makes batches of any of its items, runs the model on them, and restores the model when
training is over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.features import TokenIds, lengths_of, pad, starts_of
from harness.measure import (
    BatchLimit,
    Device,
    FlopsModel,
    Precision,
    fit_flops,
    is_out_of_memory,
    rows_of_pass,
    show_progress,
)
from harness.tasks import Floats, Ints
from harness.training.batches import Batch, Batches, to_device
from harness.training.blocks import Stack, transformers_model
from harness.training.masks import known_padding
from harness.training.model import PREDICT_ROWS, AdaptedModel, run_by_length
from harness.training.vocabulary import CompactEmbedding


class Inputs(ABC):
    """The training items of one fit, as the model reads them.

    Args:
        model: in training mode, on its device.
        lengths: tokens of each item.
        device: where the model is.
    """

    def __init__(self, model: AdaptedModel, lengths: Ints, device: torch.device) -> None:
        self._model = model
        self._lengths = lengths
        self._device = device

    @abstractmethod
    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return one batch of the items at these positions, with a target each."""

    def batches(self, items: Ints, targets: Any, *, batch_size: int, seed: int) -> Batches:
        """Return batches of the items at these positions, with a target each."""

        def make(members: Ints) -> Batch:
            return self.batch(items[members], targets[members])

        return Batches(make, len(items), lengths=self._lengths[items], batch_size=batch_size, seed=seed)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the model's outputs for a batch, first axis rows."""
        with known_padding(full=batch.n_tokens == batch.size):
            outputs: torch.Tensor = self._model(*batch.inputs)
        return outputs

    @abstractmethod
    def logits(self, items: Ints, n_outputs: int, device: Device, precision: Precision) -> Floats:
        """Return logits without dropout, shape (items, outputs); leaves the model training."""

    def mean_loss(
        self,
        items: Ints,
        targets: Any,
        loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
        device: Device,
        precision: Precision,
    ) -> float:
        """Return the loss without dropout, averaged over these items as in training; leaves the model training.

        A batch that does not fit in memory is run again in halves.

        Raises:
            OutOfMemoryError: a single row does not fit.
        """
        kind = device.torch_device().type
        total = weight = 0.0
        limit = BatchLimit("validate", PREDICT_ROWS[device.kind])
        size = rows_of_pass(device.kind, limit.rows, int(self._lengths[items].max(initial=1)))
        self._model.eval()

        def run(batch: Batch) -> None:
            nonlocal total, weight
            share = float((batch.targets >= 0).sum()) if batch.by_targets else float(batch.n_rows)
            total += float(loss(self.forward(batch).float(), batch.targets, 0.0)) * share
            weight += share

        # Not inference_mode: its tensors could not be used in a backward pass.
        with torch.no_grad(), torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
            for batch in self.batches(items, targets, batch_size=size, seed=0).epoch(0):
                pending = batch.parts(-(-batch.n_rows // limit.rows))
                while pending:
                    if limit.holds(pending[0].n_rows, lambda part=pending[0]: run(part)):  # type: ignore[misc]
                        del pending[0]
                    else:
                        pending[:1] = pending[0].parts(2)
                    show_progress()
        self._model.train()
        return total / weight

    def count_flops(self, *, backward: bool = True) -> FlopsModel:
        """Return the operations of a batch, forward and (unless told otherwise) backward."""
        return self._model.count_flops(self._device, backward=backward)

    @abstractmethod
    def close(self, decay: float) -> None:
        """Restore the model; `decay` is the factor by which weight decay shrank matrices without a gradient."""

    @contextmanager
    def whole(self, decay: float) -> Iterator[None]:
        """Let the model read any text for the time of a block, as after `close(decay)`; then training may go on."""
        yield


class TokenInputs(Inputs):
    """Token ids, one sequence an item.

    Args:
        model: in training mode, on its device.
        rows: token ids of each sequence.
        pad_id: id of the padding.
        compact: whether the embedding may be cut down to the rows that occur while training (`vocabulary`).
        device: where the model is.
    """

    def __init__(
        self, model: AdaptedModel, rows: Sequence[TokenIds], *, pad_id: int, compact: bool, device: torch.device
    ) -> None:
        super().__init__(model, lengths_of(rows), device)
        self._rows = rows
        self._pad_id = pad_id
        self._compact: CompactEmbedding | None = None
        inner = transformers_model(model.transformer)
        if compact and CompactEmbedding.fits(inner, rows, pad_id):
            self._compact = CompactEmbedding(inner, rows, pad_id)
            self._rows = [self._compact.translate(row) for row in rows]

    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return ids and mask of the items, padded to the longest."""
        ids, mask = pad([self._rows[item] for item in items], self._pad_id)
        *inputs, there = to_device((ids, mask, targets), self._device)
        return Batch(tuple(inputs), there, len(items), ids.shape[1], n_tokens=int(self._lengths[items].sum()))

    def logits(self, items: Ints, n_outputs: int, device: Device, precision: Precision) -> Floats:
        """Return logits without dropout, shape (items, outputs); leaves the model training."""
        rows = [self._rows[item] for item in items]
        found = self._model.predict_logits(
            rows, n_outputs, pad_id=self._pad_id, device=device, precision=precision, training_follows=True
        )
        self._model.train()
        return found

    @contextmanager
    def whole(self, decay: float) -> Iterator[None]:
        """Read the trained rows of the embedding from its compact form, and the others from the full one."""
        with nullcontext() if self._compact is None else self._compact.whole(decay):
            yield

    def close(self, decay: float) -> None:
        """Write the trained rows of the embedding back."""
        if self._compact is not None:
            self._compact.restore(decay)


class BlockInputs(Inputs):
    """Hidden states before the first trained block: everything below is frozen, and runs once a row.

    While it is open, the model's lower blocks are taken out, and a module in the place of its embeddings returns these
    states. `close` restores both. Frozen blocks run in evaluation mode, so a row's states never change.

    Args:
        model: on its device; only the last `n_trained` blocks and the head require gradients.
        rows: token ids of each row.
        n_trained: number of blocks from the top that run in every step.
        pad_id: id of the padding.
        device: where the model is.
        precision: precision of encoding.
    """

    def __init__(
        self,
        model: AdaptedModel,
        rows: Sequence[TokenIds],
        *,
        n_trained: int,
        pad_id: int,
        device: Device,
        precision: Precision,
    ) -> None:
        super().__init__(model, lengths_of(rows), device.torch_device())
        stack = Stack(model.transformer)
        transformer, self._blocks = stack.module, stack.blocks
        self._first = len(self._blocks) - n_trained
        self._width = int(transformer.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self._starts = starts_of(self._lengths)
        self._states = self._encode(rows, pad_id, device, precision)
        self._given = _Given()
        entry = getattr(transformer, "embeddings", None)  # BERT's: words, positions and their norm in one module
        if not isinstance(entry, nn.Module):
            entry = transformer.get_input_embeddings()  # type: ignore[operator]
        self._taken = [
            (*_place(transformer, self._blocks), self._blocks),
            (*_place(transformer, entry), entry),
        ]
        self._open()

    def _open(self) -> None:
        for (parent, name, _), stand_in in zip(self._taken, (self._blocks[self._first :], self._given), strict=True):
            setattr(parent, name, stand_in)

    @staticmethod
    def fits(model: AdaptedModel, rows: Sequence[TokenIds], n_trained: int, pad_id: int, device: Device) -> bool:
        """Return whether this architecture can be entered in the middle, by a trial on the two longest rows."""
        if not 0 < n_trained <= len(Stack(model.transformer).blocks):
            return False
        few = sorted(rows, key=len)[-2:]
        there = device.torch_device()
        ids, mask = to_device(pad(few, pad_id), there)
        model.eval()
        with torch.no_grad():
            expected = model(ids, mask)
            inputs: BlockInputs | None = None
            try:
                inputs = BlockInputs(model, few, n_trained=n_trained, pad_id=pad_id, device=device, precision="fp32")
                found = inputs.forward(inputs.batch(np.arange(len(few)), np.zeros(len(few), dtype=np.int64)))
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return False
            finally:
                if inputs is not None:
                    inputs.close(1.0)
        return torch.allclose(found, expected, rtol=1e-3, atol=1e-4)

    def _encode(self, rows: Sequence[TokenIds], pad_id: int, device: Device, precision: Precision) -> torch.Tensor:
        """Return the states before the first trained block of all rows, one after another, and zeros for padding.

        Its shape is (tokens of all rows + 1, width).
        """
        states = torch.zeros((int(self._starts[-1]) + 1, self._width), device=self._device)

        def run(members: Ints) -> None:
            padded = pad([rows[m] for m in members], pad_id)
            hidden = self._run_lower(*to_device(padded, self._device))
            for place, member in enumerate(members):
                states[self._starts[member] : self._starts[member + 1]] = hidden[place, : self._lengths[member]]

        run_by_length(self._model, self._lengths, run, device, precision, training_follows=True, work="encode")
        return states

    def _run_lower(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the states before the first trained block, float32, shape (rows, length, width)."""
        reached: list[torch.Tensor] = []

        def stop_here(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
            reached.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        hook = self._blocks[self._first].register_forward_pre_hook(stop_here, with_kwargs=True)
        try:
            self._model(ids, mask)
        except _Reached:
            pass
        finally:
            hook.remove()
        return reached[0].float()

    def encoding_flops(self) -> FlopsModel:
        """Return the operations of running a batch through the frozen blocks once."""

        def run(n_rows: int, length: int) -> None:
            ids = torch.ones((n_rows, length), dtype=torch.long, device=self._device)
            with torch.no_grad():
                self._run_lower(ids, ids)

        self.close(1.0)
        training = self._model.training
        try:
            self._model.eval()
            return fit_flops(run)
        finally:
            self._model.train(training)
            self._open()

    def batch(self, items: Ints, targets: Any) -> Batch:
        """Return hidden states and mask of the items, padded to the longest."""
        lengths = self._lengths[items]
        places = np.arange(lengths.max())
        real = places < lengths[:, None]
        places = np.where(real, self._starts[items][:, None] + places, self._starts[-1])  # the last row is zeros
        chosen, mask, there = to_device((places, real.astype(np.int64), targets), self._device)
        hidden = self._states[chosen]
        return Batch((hidden, mask), there, len(items), places.shape[1], n_tokens=int(lengths.sum()))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, computed from the given hidden states on."""
        hidden, mask = batch.inputs
        self._given.states = hidden
        with known_padding(full=batch.n_tokens == batch.size):
            logits: torch.Tensor = self._model(torch.zeros_like(mask), mask)
        return logits

    def logits(self, items: Ints, n_outputs: int, device: Device, precision: Precision) -> Floats:
        """Return logits without dropout, shape (items, outputs); leaves the model training."""
        found = np.empty((len(items), n_outputs), dtype=np.float32)

        def run(members: Ints) -> None:
            batch = self.batch(items[members], np.zeros(len(members), dtype=np.int64))
            found[members] = self.forward(batch).float().cpu().numpy()

        lengths = self._lengths[items]
        run_by_length(self._model, lengths, run, device, precision, training_follows=True, work="validate")
        self._model.train()
        return found

    def count_flops(self, *, backward: bool = True) -> FlopsModel:
        """Return the operations of a batch, counted on the blocks that are left in the model."""
        hidden = torch.zeros((1, 1, self._width), device=self._device)

        def run(n_rows: int, length: int) -> None:
            self._given.states = hidden.expand(n_rows, length, -1)
            ids = torch.ones((n_rows, length), dtype=torch.long, device=self._device)
            self._model.run_once(lambda: self._model(ids, ids), backward=backward)

        return self._model.counting(lambda: fit_flops(run), self._device)

    @contextmanager
    def whole(self, decay: float) -> Iterator[None]:
        """Put the lower blocks and the embeddings back for the time of a block."""
        self.close(decay)
        try:
            yield
        finally:
            self._open()

    def close(self, decay: float) -> None:
        """Restore the lower blocks and the embeddings."""
        for parent, name, module in self._taken:
            setattr(parent, name, module)


class _Given(nn.Module):
    """A module in the place of the embeddings that returns given hidden states."""

    states: torch.Tensor

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        return self.states


class _Reached(Exception):  # noqa: N818 - no error: the wanted states have been reached
    pass


def _place(root: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    """Return where a module hangs: (parent, attribute)."""
    for parent in root.modules():
        for name, child in parent.named_children():
            if child is wanted:
                return parent, name
    raise AttributeError(f"A {type(wanted).__name__} is no part of the {type(root).__name__}.")
