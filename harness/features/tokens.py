"""Token ids, made once per split and backbone.

A row is mostly one sequence of tokens; where it is several (the choices of a question, the windows over a long
context), all code that encodes or batches sequences is told by `Tokens.first` whose they are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.backbones import Backbone
from harness.measure import long_step
from harness.tasks import Ints, Kind, Source


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of every sequence of a split, one after the other.

    Attributes:
        flat: all ids, shape (tokens,), int32; those of a second segment are written as `-1 - id`.
        offsets: sequence i is flat[offsets[i]:offsets[i + 1]]; shape (sequences + 1,).
        n_truncated: rows that were cut to the longest length allowed.
        seconds: what making them took, whole split.
        first: row r is the sequences first[r] to first[r + 1]; shape (rows + 1,). None where each row is one.
        places: of each sequence, where its tokens stand in the row's context (`tasks.base.Sequences`).
    """

    flat: npt.NDArray[np.int32]
    offsets: Ints
    n_truncated: int
    seconds: float
    first: Ints | None = None
    places: Sequence[npt.NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_rows(self) -> int:
        """Rows of the split."""
        return len(self) if self.first is None else len(self.first) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each sequence, shape (sequences,)."""
        return np.diff(self.offsets)

    def row(self, position: int) -> npt.NDArray[np.int32]:
        """Token ids of one sequence."""
        return self.flat[self.offsets[position] : self.offsets[position + 1]]

    def sequences(self, index: Ints) -> Ints:
        """Positions of the sequences of these rows, in the order of the rows."""
        if self.first is None:
            return index
        spans = [np.arange(self.first[row], self.first[row + 1]) for row in index]
        return np.concatenate(spans).astype(np.int64) if spans else np.empty(0, dtype=np.int64)

    def n_sequences(self, index: Ints) -> Ints:
        """How many sequences each of these rows is, shape (rows,)."""
        if self.first is None:
            return np.ones(len(index), dtype=np.int64)
        return np.diff(self.first)[index]

    def longest_of(self, index: Ints) -> int:
        """Tokens of the longest sequence of these rows; 0 where there are none."""
        return int(self.lengths[self.sequences(index)].max(initial=0))

    def seconds_of(self, index: Ints) -> float:
        """What tokenising these rows took: the split's seconds, prorated by tokens."""
        return self.seconds * float(self.lengths[self.sequences(index)].sum()) / max(1, len(self.flat))


class TokenStore:
    """Token ids by split, backbone and longest length; in memory, since making them is cheap."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], Tokens] = {}

    def tokens(self, source: Source, kind: Kind, backbone: Backbone, max_length: int) -> Tokens:
        """Token ids of all rows of `source`, special tokens included."""
        key = (source.key, backbone.files.fingerprint, max_length)
        if key not in self._known:
            started = time.perf_counter()
            with long_step():  # one call for the whole split
                made = kind.tokenize(source, backbone, max_length)
            rows, n_truncated = made.ids, made.n_truncated
            lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
            flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.empty(0, np.int32)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            seconds = time.perf_counter() - started
            self._known[key] = Tokens(flat, offsets, n_truncated, seconds, made.first, made.places)
        return self._known[key]


def pad(rows: Sequence[npt.NDArray[np.int32]], pad_id: int, length: int | None = None) -> tuple[Ints, Ints]:
    """Right-padded ids and mask, each of shape (rows, length); `length` is that of the longest unless it is given.

    The mask is 0 for padding, 1 for tokens of the first segment and 2 for those of the second.
    """
    width = length if length is not None else max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        ids[position, : len(row)] = row
        mask[position, : len(row)] = 1
    second = ids < 0
    if second.any():
        ids[second] = -1 - ids[second]
        mask[second] = 2
    return ids, mask


def plain_ids(ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Ids as the vocabulary has them, whatever the segment."""
    return np.where(ids < 0, -1 - ids, ids)
