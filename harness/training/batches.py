"""Batches: items of similar length together, in an order drawn anew each epoch."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.features import sequences_of, starts_of
from harness.tasks import Floats, Ints

if TYPE_CHECKING:
    import torch

WINDOW_BATCHES = 64
"""Number of batches within which rows are sorted by length, so that batches differ from epoch to epoch."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch on the device.

    Attributes:
        inputs: arguments of the model: token ids and mask, or a matrix of features.
        targets: targets of the loss, first axis rows.
        n_rows: number of rows.
        length: tokens of each padded row; 1 for features.
        n_tokens: number of real tokens.
        texts_per_row: texts of that length in a row: two where rows are pairs.
        n_outputs: places of a row whose tokens a language model predicts; 0 for other heads.
        by_targets: whether the loss is a mean over the targets that are not negative, instead of over rows.
        host_targets: the targets on the host, where logits are computed in chunks of places; otherwise None.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    n_rows: int
    length: int
    n_tokens: int
    texts_per_row: int = 1
    n_outputs: int = 0
    by_targets: bool = False
    host_targets: npt.NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Number of places for tokens, padding included."""
        return self.n_rows * self.texts_per_row * self.length

    def share_of(self, whole: Batch) -> float | torch.Tensor:
        """Return the weight of this piece's mean loss in that of the whole batch; 1 for the batch itself."""
        if self is whole:
            return 1.0
        if self.by_targets:
            return (self.targets >= 0).sum() / (whole.targets >= 0).sum()
        return self.n_rows / whole.n_rows

    def parts(self, n: int) -> list[Batch]:
        """Return the batch in at most `n` pieces of nearly equal rows; each gets its share of `n_tokens` by rows."""
        if n <= 1 or self.n_rows <= 1:
            return [self]
        bounds = np.linspace(0, self.n_rows, min(n, self.n_rows) + 1).round().astype(int)
        return [
            replace(
                self,
                inputs=tuple(tensor[start:end] for tensor in self.inputs),
                targets=self.targets[start:end],
                host_targets=None if self.host_targets is None else self.host_targets[start:end],
                n_rows=int(end - start),
                n_tokens=round(self.n_tokens * (end - start) / self.n_rows),
            )
            for start, end in itertools.pairwise(bounds)
        ]


class Batches:
    """The batches of a fit; every item once an epoch.

    Args:
        make: returns the batch of the items at the given positions.
        n_items: number of items.
        lengths: tokens of each item, to batch similar lengths together; None where items have no length.
        batch_size: items of a batch; the last may be smaller.
        seed: seed of the cell.
    """

    def __init__(
        self, make: Callable[[Ints], Batch], n_items: int, *, lengths: Ints | None, batch_size: int, seed: int
    ) -> None:
        self._make = make
        self._n_items = n_items
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed

    def __len__(self) -> int:
        return -(-self._n_items // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one pass over all items."""
        for members in shuffled(self._n_items, self._batch_size, self._lengths, self._seed, number):
            yield self._make(members)


class FeatureBatches(Batches):
    """Batches of a feature matrix.

    Args:
        values: shape (rows, width), or the vectors of all rows one after another.
        targets: target of each vector.
        batch_size: rows of a batch.
        seed: seed of the cell.
        device: where the batches are.
        counts: vectors of each row, shape (rows,); None where each has one.
    """

    def __init__(
        self,
        values: Floats,
        targets: npt.NDArray[Any],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        counts: Ints | None = None,
    ) -> None:
        import torch

        starts = None if counts is None else starts_of(counts)
        held = torch.from_numpy(np.ascontiguousarray(values)).to(device), torch.from_numpy(targets).to(device)

        def make(members: Ints) -> Batch:
            at = members if starts is None else sequences_of(starts, members)
            (chosen,) = to_device((at,), device)
            return Batch((held[0][chosen],), held[1][chosen], len(at), 1, 0)

        super().__init__(
            make, len(values) if counts is None else len(counts), lengths=None, batch_size=batch_size, seed=seed
        )


def shuffled(n_rows: int, batch_size: int, lengths: Ints | None, seed: int, epoch: int) -> list[Ints]:
    """Return the positions of each batch of one epoch; the arguments are those of `Batches`."""
    digest = hashlib.blake2b(f"batches/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    order = generator.permutation(n_rows)
    if lengths is None:
        return [order[at : at + batch_size] for at in range(0, n_rows, batch_size)]
    batches: list[Ints] = []
    window = batch_size * WINDOW_BATCHES
    for start in range(0, n_rows, window):
        members = order[start : start + window]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[at : at + batch_size] for at in range(0, len(members), batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def to_device(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> list[torch.Tensor]:
    """Return arrays as tensors on `device`; they reach an accelerator through pinned memory, without waiting."""
    import torch

    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cpu":
        return tensors
    return [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
