"""Features of a split as they become known, and the cost of each row."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.features.disk import Shard
from harness.features.shape import EncodingShape
from harness.features.tokens import Tokens, sequences_of, starts_of
from harness.measure import UNKNOWN_BYTES, FlopsModel
from harness.tasks import Floats, Ints


@dataclass(frozen=True)
class Encoded:
    """Features of some rows, and their cost.

    Attributes:
        values: shape (rows, width), float32; for features of words, those of the rows one after another.
        seconds: seconds measured when they were computed; a row has its share of its batch.
        tokens: number of real tokens.
        flops: operations to encode them, as padded; not a number where they cannot be counted.
        peak_rss_above_baseline_bytes: resident memory that encoding needed.
        peak_device_bytes: the same for the accelerator; 0 without one.
        reused: whether all of them came from the cache.
        fresh: whether none of them did.
        disturbed: whether other work disturbed the machine while some of them were encoded.
        warmup_seconds: seconds just spent on choosing kernels for new shapes.
        spare_seconds: other seconds just spent that are no cost of these rows: places of a batch that other rows hold,
            tries that ran out of memory, writing to the disk.
        halved: rows of a batch at first and in the end, at the longest row, where memory ran out; None otherwise.
        halvings: how many times the rows of a batch were halved (`EncodingShape`).
        flops_error: reason why the operations cannot be counted; None where they are.
    """

    values: Floats
    seconds: float
    tokens: int
    flops: float
    peak_rss_above_baseline_bytes: int
    peak_device_bytes: int
    reused: bool
    fresh: bool
    disturbed: bool = False
    warmup_seconds: float = 0.0
    spare_seconds: float = 0.0
    halved: tuple[int, int] | None = None
    halvings: int = 0
    flops_error: str | None = None


class Table:
    """Features of one split as they become known, and each row's share of their cost.

    Args:
        tokens: tokens of the split; a row of the table is one of its sequences.
        width: length of a vector.
        max_length: maximum number of tokens of a sequence.
        shape: shape of the batches.
        counts: vectors of each sequence, shape (sequences,); None where each has one.
    """

    def __init__(
        self, tokens: Tokens, width: int, max_length: int, shape: EncodingShape, counts: Ints | None = None
    ) -> None:
        self.shape = shape
        self._starts = None if counts is None else starts_of(counts)
        self._lengths = tokens.lengths
        self.padded_lengths = shape.padded(self._lengths, max_length)
        self._values = np.zeros((len(tokens) if counts is None else int(counts.sum()), width), dtype=np.float32)
        self._seconds = np.zeros(len(tokens))
        self._known = np.zeros(len(tokens), dtype=bool)
        self._peaks = np.zeros(len(tokens), dtype=np.int64)
        self._device_peaks = np.zeros(len(tokens), dtype=np.int64)
        self._disturbed = np.zeros(len(tokens), dtype=bool)

    def batches_for(self, missing: Ints) -> list[Ints]:
        """Return the rows to encode, batch by batch, so that all of `missing` become known.

        A batch's spare places go to unknown rows of the same padded length: they cost nothing more there, and the next
        request is likely to need them.
        """
        batches: list[Ints] = []
        for length in np.unique(self.padded_lengths[missing]):
            batch_rows = self.shape.rows(int(length))
            members = missing[self.padded_lengths[missing] == length]
            n_free = -len(members) % batch_rows
            if n_free:
                others = np.flatnonzero((self.padded_lengths == length) & ~self._known)
                members = np.concatenate([members, np.setdiff1d(others, members)[:n_free]])
            batches += [members[at : at + batch_rows] for at in range(0, len(members), batch_rows)]
        return batches

    def missing(self, index: Ints) -> Ints:
        """Return those among `index` that have not been encoded, each once."""
        return np.unique(index[~self._known[index]])

    def seconds_of(self, index: Ints) -> float:
        """Return the seconds that encoding these rows took."""
        return float(self._seconds[index].sum())

    def put(self, shard: Shard) -> None:
        """Store encoded rows, but not over rows whose seconds are more reliable."""
        worse = shard.disturbed & self._known[shard.rows] & ~self._disturbed[shard.rows]
        if worse.any():  # a shard is as large as its features: copy it only where it must lose rows
            kept = {
                field.name: getattr(shard, field.name)[~worse]
                for field in dataclasses.fields(shard)
                if field.name != "values"
            }
            shard = Shard(
                **kept, values=shard.values[~worse if self._starts is None else self._places_in(shard.rows, ~worse)]
            )
        self._values[self._places(shard.rows)] = shard.values
        self._seconds[shard.rows] = shard.seconds
        self._known[shard.rows] = True
        self._peaks[shard.rows] = shard.peaks
        self._device_peaks[shard.rows] = shard.device_peaks
        self._disturbed[shard.rows] = shard.disturbed

    def _places(self, rows: Ints) -> Ints:
        """Return the positions of the vectors of these rows."""
        return rows if self._starts is None else sequences_of(self._starts, rows)

    def _places_in(self, rows: Ints, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which vectors of a shard with these rows belong to the chosen ones."""
        assert self._starts is not None
        return np.repeat(chosen, np.diff(self._starts)[rows])

    def forget_disturbed(self) -> None:
        """Count rows as unknown if other work disturbed the machine while they were encoded."""
        self._known &= ~self._disturbed
        self._disturbed[:] = False

    def share(self, index: Ints, flops: FlopsModel) -> Encoded:
        """Return these rows and their cost."""
        padded: list[int] = self.padded_lengths[index].tolist()
        return Encoded(
            values=self._values[self._places(index)],
            seconds=self.seconds_of(index),
            tokens=int(self._lengths[index].sum()),
            flops=float(sum(flops.share(length, self.shape.rows(length)) for length in padded)),
            flops_error=flops.error,
            peak_rss_above_baseline_bytes=_highest(self._peaks[index]),
            peak_device_bytes=_highest(self._device_peaks[index]),
            reused=True,
            fresh=False,
            disturbed=bool(self._disturbed[index].any()),
        )

    def halved(self, index: Ints) -> tuple[int, int] | None:
        """Return the rows of a batch of the longest of these rows, at first and after halving; None if not halved."""
        if self.shape.halvings == 0 or len(index) == 0:
            return None
        longest = int(self.padded_lengths[index].max())
        return EncodingShape(self.shape.kind).rows(longest), self.shape.rows(longest)


def _highest(peaks: Ints) -> int:
    """Return the highest peak, 0 for none; `UNKNOWN_BYTES` where one of them could not be measured."""
    return UNKNOWN_BYTES if (peaks < 0).any() else int(peaks.max(initial=0))
