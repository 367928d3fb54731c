"""Token ids, made once per split and backbone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.backbones.model import Backbone
from harness.tasks.base import Ints, Kind, Source


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of every row of a split, one after the other.

    Attributes:
        flat: all ids, shape (tokens,), int32.
        offsets: row i is flat[offsets[i]:offsets[i + 1]]; shape (rows + 1,).
        n_truncated: rows that were cut to the longest length allowed.
        seconds: what making them took, whole split.
    """

    flat: npt.NDArray[np.int32]
    offsets: Ints
    n_truncated: int
    seconds: float

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.offsets)

    def row(self, position: int) -> npt.NDArray[np.int32]:
        """Token ids of one row."""
        return self.flat[self.offsets[position] : self.offsets[position + 1]]

    def seconds_of(self, index: Ints) -> float:
        """What tokenising these rows took: the split's seconds, prorated by tokens."""
        return self.seconds * float(self.lengths[index].sum()) / max(1, len(self.flat))


class TokenStore:
    """Token ids by split, backbone and longest length; in memory, since making them is cheap."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], Tokens] = {}

    def tokens(self, source: Source, kind: Kind, backbone: Backbone, max_length: int) -> Tokens:
        """Token ids of all rows of `source`, special tokens included."""
        key = (source.key, backbone.files.fingerprint, max_length)
        if key not in self._known:
            started = time.perf_counter()
            rows, n_truncated = kind.tokenize(source.texts, backbone, max_length)
            lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
            flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.empty(0, np.int32)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            self._known[key] = Tokens(flat, offsets, n_truncated, time.perf_counter() - started)
        return self._known[key]


def pad(rows: Sequence[npt.NDArray[np.int32]], pad_id: int, length: int | None = None) -> tuple[Ints, Ints]:
    """Right-padded ids and mask, each of shape (rows, length); `length` is that of the longest unless it is given."""
    width = length if length is not None else max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        ids[position, : len(row)] = row
        mask[position, : len(row)] = 1
    return ids, mask
