"""What training rows are put into a model as: token ids, or the hidden states of frozen lower blocks.

One object serves a fit: it makes batches of any of its rows, runs the model on them, and puts the model back as it was
when training is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.features import pad
from harness.measure import Device, FlopsModel, Precision, fit_flops, is_out_of_memory
from harness.tasks import Floats, Ints
from harness.training.batches import Batch, TokenBatches, shuffled
from harness.training.blocks import transformer_blocks
from harness.training.model import PREDICT_ROWS, AdaptedModel, count_batch_flops, predict_logits
from harness.training.vocabulary import CompactEmbedding

if TYPE_CHECKING:
    from harness.training.loop import Batches

TokenRows = list[npt.NDArray[np.int32]]


class Inputs(Protocol):
    """The training rows of one fit, as the model reads them."""

    def batches(self, positions: Ints, targets: Ints, *, batch_size: int, seed: int) -> Batches:
        """Batches of the rows at `positions`, whose class indices are `targets`."""
        ...

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits of a batch, shape (rows, classes)."""
        ...

    def logits(self, positions: Ints, n_classes: int, device: Device, precision: Precision) -> Floats:
        """Logits of the rows at `positions` without dropout, shape (rows, classes); leaves the model training."""
        ...

    def count_flops(self, *, backward: bool = True) -> FlopsModel:
        """Operations of a batch, forward and (unless told otherwise) backward."""
        ...

    def evaluating(self, on: bool) -> None:
        """Turn dropout off, or on again."""
        ...

    def close(self, decay: float) -> None:
        """Put the model back; `decay` is what weight decay made of matrices that had no gradient."""
        ...


def mean_loss(
    inputs: Inputs,
    positions: Ints,
    targets: Any,
    loss: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor],
    device: Device,
    precision: Precision,
) -> float:
    """The loss of the items at `positions` without dropout, averaged as training does; leaves the model training."""
    there = device.torch_device()
    total = weight = 0.0
    inputs.evaluating(True)
    # Not inference_mode: its tensors could not be used in a backward pass.
    with torch.no_grad(), torch.autocast(there.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        for batch in inputs.batches(positions, targets, batch_size=PREDICT_ROWS[device.kind], seed=0).epoch(0):
            share = float((batch.targets >= 0).sum()) if batch.by_targets else float(batch.n_rows)
            total += float(loss(inputs.forward(batch).float(), batch.targets, 0.0)) * share
            weight += share
    inputs.evaluating(False)
    return total / weight


class TokenInputs:
    """Token ids.

    Args:
        model: in the mode of training, on its device.
        rows: token ids of each row.
        pad_id: what pads.
        compact: whether the embedding may be cut down to the rows that occur while training (`vocabulary`).
    """

    def __init__(
        self, model: AdaptedModel, rows: TokenRows, *, pad_id: int, compact: bool, device: torch.device
    ) -> None:
        self._model = model
        self.rows = rows
        self._pad_id = pad_id
        self._device = device
        self.compact: CompactEmbedding | None = None
        inner = transformers_model(model.transformer)
        if compact and CompactEmbedding.fits(inner, rows, pad_id):
            self.compact = CompactEmbedding(inner, rows, pad_id)
            self.rows = [self.compact.translate(row) for row in rows]

    def batches(self, positions: Ints, targets: Ints, *, batch_size: int, seed: int) -> Batches:
        """Batches of like length."""
        return TokenBatches(
            [self.rows[position] for position in positions],
            targets,
            pad_id=self._pad_id,
            batch_size=batch_size,
            seed=seed,
            device=self._device,
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        """The model's logits."""
        logits: torch.Tensor = self._model(*batch.inputs)
        return logits

    def logits(self, positions: Ints, n_classes: int, device: Device, precision: Precision) -> Floats:
        """Logits without dropout."""
        rows = [self.rows[position] for position in positions]
        found = predict_logits(
            self._model, rows, n_classes, pad_id=self._pad_id, device=device, precision=precision, no_grad=True
        )
        self._model.train()
        return found

    def count_flops(self, *, backward: bool = True) -> FlopsModel:
        """Counted on the model as it is."""
        return count_batch_flops(self._model, self._device, backward=backward)

    def evaluating(self, on: bool) -> None:
        """Turn dropout off, or on again."""
        self._model.train(not on)

    def close(self, decay: float) -> None:
        """Write the trained rows of the embedding back."""
        if self.compact is not None:
            self.compact.restore(decay)


class BlockInputs:
    """Hidden states before the first block that is trained: everything below is frozen, and is run once a row.

    While it is open, the model's lower blocks are taken out and what stands for its embeddings hands in these states;
    `close` puts both back. Frozen blocks run in evaluation mode, so a row's states never change.

    Args:
        model: on its device; only the last `n_trained` blocks and the head require gradients.
        rows: token ids of each row.
        n_trained: blocks from the top that are run in every step.
        pad_id: what pads.
        device: where the model is.
        precision: of encoding.
    """

    def __init__(
        self, model: AdaptedModel, rows: TokenRows, *, n_trained: int, pad_id: int, device: Device, precision: Precision
    ) -> None:
        self._model = model
        self._device = device.torch_device()
        self._lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        transformer = transformers_model(model.transformer)
        self._blocks = transformer_blocks(transformer)
        self._first = len(self._blocks) - n_trained
        self._width = int(transformer.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self._states = self._encode(rows, pad_id, PREDICT_ROWS[device.kind], precision)
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
    def fits(model: AdaptedModel, rows: TokenRows, n_trained: int, pad_id: int, device: Device) -> bool:
        """Whether this architecture can be entered in the middle: tried on the two longest rows, against the whole."""
        transformer = transformers_model(model.transformer)
        if not 0 < n_trained <= len(transformer_blocks(transformer)):
            return False
        few = sorted(rows, key=len)[-2:]
        there = device.torch_device()
        ids, mask = (torch.from_numpy(values).to(there) for values in pad(few, pad_id))
        model.eval()
        with torch.no_grad():
            expected = model(ids, mask)
            try:
                inputs = BlockInputs(model, few, n_trained=n_trained, pad_id=pad_id, device=device, precision="fp32")
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return False
            try:
                batch = inputs._batch(np.arange(len(few)), np.zeros(len(few), dtype=np.int64))
                found = inputs.forward(batch)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return False
            finally:
                inputs.close(1.0)
        return torch.allclose(found, expected, rtol=1e-3, atol=1e-4)

    def _encode(self, rows: TokenRows, pad_id: int, size: int, precision: Precision) -> list[torch.Tensor]:
        """States before the first trained block, shape (tokens, width) for each row."""
        states: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        order = np.argsort(self._lengths, kind="stable")
        self._model.eval()
        # Not inference_mode: its tensors could not be used in a backward pass.
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16"):
            for at in range(0, len(order), size):
                members = order[at : at + size]
                ids, mask = (torch.from_numpy(x).to(self._device) for x in pad([rows[m] for m in members], pad_id))
                hidden = self._run_lower(ids, mask)
                for place, member in enumerate(members):
                    states[member] = hidden[place, : self._lengths[member]].clone()
        return states

    def _run_lower(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states before the first trained block, float32, shape (rows, length, width)."""
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
        """Operations of running a batch through the frozen blocks once."""

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

    def _batch(self, members: Ints, targets: Ints) -> Batch:
        length = int(self._lengths[members].max())
        hidden = torch.nn.utils.rnn.pad_sequence([self._states[member] for member in members], batch_first=True)
        lengths = torch.from_numpy(self._lengths[members]).to(self._device)
        mask = (torch.arange(length, device=self._device) < lengths.unsqueeze(1)).long()
        return Batch(
            inputs=(hidden, mask),
            targets=torch.from_numpy(targets).to(self._device),
            n_rows=len(members),
            length=length,
            n_tokens=int(self._lengths[members].sum()),
        )

    def batches(self, positions: Ints, targets: Ints, *, batch_size: int, seed: int) -> _BlockBatches:
        """Batches of like length, in the same order as those of token ids."""
        return _BlockBatches(self, positions, targets, self._lengths[positions], batch_size, seed)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits from the given hidden states on."""
        hidden, mask = batch.inputs
        self._given.states = hidden
        logits: torch.Tensor = self._model(torch.zeros_like(mask), mask)
        return logits

    def logits(self, positions: Ints, n_classes: int, device: Device, precision: Precision) -> Floats:
        """Logits without dropout."""
        found = np.empty((len(positions), n_classes), dtype=np.float32)
        order = np.argsort(self._lengths[positions], kind="stable")
        size = PREDICT_ROWS[device.kind]
        self._model.eval()
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16"):
            for at in range(0, len(order), size):
                members = order[at : at + size]
                batch = self._batch(positions[members], np.zeros(len(members), dtype=np.int64))
                found[members] = self.forward(batch).float().cpu().numpy()
        self._model.train()
        return found

    def count_flops(self, *, backward: bool = True) -> FlopsModel:
        """Counted on what is left of the model."""
        hidden = torch.zeros((1, 1, self._width), device=self._device)

        def run(n_rows: int, length: int) -> None:
            self._given.states = hidden.expand(n_rows, length, -1)
            ids = torch.ones((n_rows, length), dtype=torch.long, device=self._device)
            with torch.set_grad_enabled(backward):
                outputs = self._model(ids, ids)
            if backward:
                outputs.sum().backward()
                self._model.zero_grad(set_to_none=True)

        self._model.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            return fit_flops(run)

    def evaluating(self, on: bool) -> None:
        """Turn dropout off, or on again."""
        self._model.train(not on)

    def close(self, decay: float) -> None:
        """Put the lower blocks and the embeddings back."""
        for parent, name, module in self._taken:
            setattr(parent, name, module)


class _BlockBatches:
    def __init__(
        self, inputs: BlockInputs, positions: Ints, targets: Ints, lengths: Ints, batch_size: int, seed: int
    ) -> None:
        self._inputs = inputs
        self._positions = positions
        self._targets = targets
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self._positions) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        for members in shuffled(len(self._positions), self._batch_size, self._lengths, self._seed, number):
            yield self._inputs._batch(self._positions[members], self._targets[members])


class _Given(nn.Module):
    """Stands in the embeddings' place and hands in hidden states."""

    states: torch.Tensor

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        return self.states


class _Reached(Exception):  # noqa: N818 - not an error: the states that are wanted have been reached
    pass


def _place(root: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    """Where a module hangs: (parent, attribute)."""
    for parent in root.modules():
        for name, child in parent.named_children():
            if child is wanted:
                return parent, name
    raise AttributeError(f"A {type(wanted).__name__} is no part of the {type(root).__name__}.")


def transformers_model(transformer: nn.Module) -> nn.Module:
    """The transformers model under what peft may have wrapped around it."""
    inner: nn.Module = transformer.get_base_model() if hasattr(transformer, "get_base_model") else transformer  # type: ignore[operator]
    return inner
