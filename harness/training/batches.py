"""Batches of token ids: rows of like length together, in an order drawn anew each epoch."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.features import pad
from harness.tasks import Floats, Ints

if TYPE_CHECKING:
    import torch

_WINDOW_BATCHES = 64
"""Rows are sorted by length within windows of this many batches, so that batches differ from epoch to epoch."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the device.

    Attributes:
        inputs: what the model is called with: token ids and mask, or a matrix of features.
        targets: class indices, shape (rows,).
        n_rows, length: its padded shape; length is 1 for features.
        n_tokens: real tokens.
        texts_per_row: texts of that length in a row: two where rows are pairs.
        n_outputs: places of a row whose tokens are predicted by a language model; 0 for other heads.
        by_targets: whether the loss is a mean over targets that are not negative, and not over rows.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    n_rows: int
    length: int
    n_tokens: int
    texts_per_row: int = 1
    n_outputs: int = 0
    by_targets: bool = False

    def share_of(self, whole: Batch) -> float | torch.Tensor:
        """The part that this piece's mean loss has in that of the whole batch; 1 for the batch itself."""
        if self is whole:
            return 1.0
        if self.by_targets:
            return (self.targets >= 0).sum() / (whole.targets >= 0).sum()
        return self.n_rows / whole.n_rows

    def parts(self, n: int) -> list[Batch]:
        """The batch in at most `n` pieces of nearly equal rows; `n_tokens` is shared out by rows."""
        if n <= 1 or self.n_rows <= 1:
            return [self]
        bounds = np.linspace(0, self.n_rows, min(n, self.n_rows) + 1).round().astype(int)
        return [
            Batch(
                inputs=tuple(tensor[start:end] for tensor in self.inputs),
                targets=self.targets[start:end],
                n_rows=int(end - start),
                length=self.length,
                n_tokens=round(self.n_tokens * (end - start) / self.n_rows),
                texts_per_row=self.texts_per_row,
                n_outputs=self.n_outputs,
                by_targets=self.by_targets,
            )
            for start, end in itertools.pairwise(bounds)
        ]


def shuffled(n_rows: int, batch_size: int, lengths: Ints | None, seed: int, epoch: int) -> list[Ints]:
    """Positions of each batch of one epoch; every row once.

    Args:
        n_rows: rows to batch.
        batch_size: rows of a batch; the last may be smaller.
        lengths: tokens of each row, to batch like lengths together; None where rows have no length.
        seed: of the cell.
        epoch: each has an order of its own.
    """
    digest = hashlib.blake2b(f"batches/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    order = generator.permutation(n_rows)
    if lengths is None:
        return [order[at : at + batch_size] for at in range(0, n_rows, batch_size)]
    batches: list[Ints] = []
    window = batch_size * _WINDOW_BATCHES
    for start in range(0, n_rows, window):
        members = order[start : start + window]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[at : at + batch_size] for at in range(0, len(members), batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def to_device(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> list[torch.Tensor]:
    """Arrays as tensors on `device`; to an accelerator through pinned memory, so that nobody waits for the copy."""
    import torch

    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cpu":
        return tensors
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]


class TokenBatches:
    """Batches of token ids, padded to the longest row of each.

    Args:
        rows: token ids of each training row.
        targets: class index of each.
        pad_id: what pads.
        batch_size: rows of a batch.
        seed: of the cell.
        device: where batches go.
    """

    def __init__(
        self,
        rows: list[npt.NDArray[np.int32]],
        targets: Ints,
        *,
        pad_id: int,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._rows = rows
        self._targets = targets
        self._pad_id = pad_id
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over all rows."""
        for members in shuffled(len(self._rows), self._batch_size, self._lengths, self._seed, number):
            ids, mask = pad([self._rows[row] for row in members], self._pad_id)
            ids_there, mask_there, targets = to_device((ids, mask, self._targets[members]), self._device)
            yield Batch(
                inputs=(ids_there, mask_there),
                targets=targets,
                n_rows=len(members),
                length=ids.shape[1],
                n_tokens=int(self._lengths[members].sum()),
            )


class FeatureBatches:
    """Batches of a feature matrix of shape (rows, width)."""

    def __init__(self, values: Floats, targets: Ints, *, batch_size: int, seed: int, device: torch.device) -> None:
        import torch

        self._values = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        self._targets = torch.from_numpy(targets).to(device)
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self._values) // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """One pass over all rows."""
        import torch

        for members in shuffled(len(self._values), self._batch_size, None, self._seed, number):
            chosen = torch.from_numpy(members).to(self._values.device)
            yield Batch((self._values[chosen],), self._targets[chosen], len(members), 1, 0)
