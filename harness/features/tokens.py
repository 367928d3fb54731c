"""Token ids, made once per split and backbone.

A row is usually one sequence of tokens. Where it is several (the choices of a question, the windows over a long
context), `Tokens.first` tells code that encodes or batches sequences which row each belongs to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.backbones import Backbone
from harness.measure import long_step
from harness.tasks import Ints, Kind, Source

TokenIds = npt.NDArray[np.int32]
"""The token ids of one sequence; those of a second segment are written as `-1 - id`."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of every sequence of a split, one after the other.

    Attributes:
        flat: all ids (`TokenIds`), shape (tokens,).
        offsets: sequence i is flat[offsets[i]:offsets[i + 1]]; shape (sequences + 1,).
        n_truncated: rows that were cut to the longest length allowed.
        seconds: seconds to tokenise the whole split.
        first: row r is the sequences first[r] to first[r + 1]; shape (rows + 1,). None where each row is one.
        places: positions of each sequence's tokens in the row's context, or the words that are predicted in each
            sequence (`tasks.base.Sequences`).
    """

    flat: TokenIds
    offsets: Ints
    n_truncated: int
    seconds: float
    first: Ints | None = None
    places: Sequence[npt.NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_rows(self) -> int:
        """Number of rows of the split."""
        return len(self) if self.first is None else len(self.first) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each sequence, shape (sequences,)."""
        return np.diff(self.offsets)

    def row(self, position: int) -> TokenIds:
        """Return the token ids of one sequence."""
        return self.flat[self.offsets[position] : self.offsets[position + 1]]

    def sequences(self, index: Ints) -> Ints:
        """Return the positions of the sequences of these rows, in the order of the rows."""
        return index if self.first is None else sequences_of(self.first, index)

    def n_sequences(self, index: Ints) -> Ints:
        """Return the number of sequences of each of these rows, shape (rows,)."""
        if self.first is None:
            return np.ones(len(index), dtype=np.int64)
        return np.diff(self.first)[index]

    def seconds_of(self, index: Ints) -> float:
        """Return the seconds to tokenise these rows: the split's seconds, prorated by tokens."""
        return self.seconds * float(self.lengths[self.sequences(index)].sum()) / max(1, len(self.flat))


class TokenStore:
    """Token ids by split, backbone, longest length and format; kept in memory, since tokenising is cheap."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int, bool], Tokens] = {}

    def tokens(self, source: Source, kind: Kind, backbone: Backbone, max_length: int) -> Tokens:
        """Return the token ids of all rows of `source`, special tokens included."""
        key = (source.key, backbone.files.fingerprint, max_length, source.chat)
        if key not in self._known:
            started = time.perf_counter()
            with long_step():  # one call for the whole split
                made = kind.tokenize(source, backbone, max_length)
            rows, n_truncated = made.ids, made.n_truncated
            flat = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]) if rows else np.empty(0, np.int32)
            offsets = starts_of(lengths_of(rows))
            seconds = time.perf_counter() - started
            self._known[key] = Tokens(flat, offsets, n_truncated, seconds, made.first, made.places)
        return self._known[key]


def pad(rows: Sequence[TokenIds], pad_id: int, length: int | None = None, *, left: bool = False) -> tuple[Ints, Ints]:
    """Return padded ids and their mask, each of shape (rows, length).

    The mask is 0 for padding, 1 for tokens of the first segment and 2 for those of the second.

    Args:
        rows: token ids of each row.
        pad_id: id of the padding.
        length: tokens of a padded row; None is those of the longest row.
        left: whether padding comes before the tokens; otherwise it comes after them.
    """
    width = length if length is not None else max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for position, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(len(row))
        ids[position, place] = row
        mask[position, place] = 1
    second = ids < 0
    if second.any():
        ids[second] = -1 - ids[second]
        mask[second] = 2
    return ids, mask


def plain_ids(ids: TokenIds) -> TokenIds:
    """Return ids as the vocabulary has them, whatever the segment."""
    return np.where(ids < 0, -1 - ids, ids)


def lengths_of(sequences: Sequence[Sized]) -> Ints:
    """Return the number of tokens of each sequence, shape (sequences,)."""
    return np.fromiter((len(ids) for ids in sequences), dtype=np.int64, count=len(sequences))


def starts_of(counts: Ints) -> Ints:
    """Return where the items of each row start among those of all rows, and where they end; shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def sequences_of(starts: Ints, rows: Ints) -> Ints:
    """Return the positions of all sequences of these rows; `starts` is as from `starts_of`."""
    spans = [np.arange(starts[row], starts[row + 1]) for row in rows]
    return np.concatenate(spans).astype(np.int64) if spans else np.empty(0, dtype=np.int64)
