"""Draw training rows by size: nested, stratified, per seed, and independent of the file's order.

Each seed gives one order of the whole pool, and a size is a prefix of it. Sizes are therefore nested: the rows of size
32 are the first 32 of the rows of size 128.

Order and validation split use hashes of the rows' content, not random numbers, so a draw is the same with every
version of numpy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from harness.records import Draw
from harness.support import DataError, UsageError

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """A number of training rows: absolute, per class, or all.

    Attributes:
        n: rows, or rows per class; None for all.
        per_class: whether `n` counts rows of each class (`8/class`).
    """

    n: int | None
    per_class: bool = False

    def __str__(self) -> str:
        if self.n is None:
            return "all"
        return f"{self.n}/class" if self.per_class else str(self.n)

    def resolve(
        self, class_counts: Sequence[int], names: Sequence[str] | None = None, unscored: Collection[int] = ()
    ) -> tuple[int, Draw]:
        """Return the number of training rows and the kind of draw for a pool.

        Args:
            class_counts: rows of the pool in each class, after overlaps with the test rows were dropped.
            names: the classes' names, for messages.
            unscored: classes without test rows; a size per class takes all their rows where there are fewer.

        Returns:
            (n_train, draw).

        Raises:
            DataError: a class has no row, or the size is below one row per class or above the available rows.
        """
        n_classes, available = len(class_counts), int(sum(class_counts))
        smallest = min(range(n_classes), key=lambda at: (class_counts[at] > 0 and at in unscored, class_counts[at]))
        label = f"'{names[smallest]}'" if names else str(smallest)
        if class_counts[smallest] < 1:
            raise DataError(f"Class {label} has no training row; every class needs at least one.")
        if self.n is None:
            return available, "stratified"
        if self.per_class and n_classes == 1:
            raise DataError(f"Size '{self}' was asked for, but the rows have no classes; write a number, such as 32.")
        if self.per_class:
            if self.n > class_counts[smallest]:
                raise DataError(
                    f"Size '{self}' was asked for, but class {label} has only {class_counts[smallest]} training rows; "
                    f"ask for at most {class_counts[smallest]}/class."
                )
            return sum(min(self.n, count) for count in class_counts), "balanced"
        if self.n < n_classes:
            raise DataError(
                f"Size {self.n} cannot hold one row of each of the {n_classes} classes; ask for at least {n_classes}."
            )
        if self.n > available:
            raise DataError(f"Size {self.n} is above the {available} training rows there are; ask for at most that.")
        return self.n, "stratified"


def parse_size(text: str | int) -> Size:
    """Read a training size: `32` (rows), `8/class` (rows of each class) or `all`.

    Raises:
        UsageError: anything else.
    """
    cleaned = str(text).strip().lower()
    if cleaned == "all":
        return Size(None)
    matched = re.fullmatch(r"([0-9]{1,18})(\s*/\s*class)?", cleaned)
    if isinstance(text, bool) or matched is None or int(matched.group(1)) < 1:
        raise UsageError(f"Training size '{text}' was given; expected a number above 0 (32), '8/class' or 'all'.")
    return Size(int(matched.group(1)), per_class=matched.group(2) is not None)


def class_counts(labels: npt.ArrayLike, n_classes: int) -> list[int]:
    """Return the rows of each class, shape (n_classes,), for `Size.resolve`."""
    return [int(count) for count in np.bincount(np.asarray(labels, dtype=np.int64), minlength=n_classes)]


def training_order(labels: npt.ArrayLike, digests: Sequence[bytes], seed: int, draw: Draw) -> Positions:
    """Return an order of the pool in which every prefix is the draw of that size.

    Within a class, rows are ordered by a hash of the seed and the row. Between classes:

    - `balanced`: in rounds, one row of each class that has any left.
    - `stratified`: first one row of each class, so that no size that can hold them lacks one. Then by the method of
      Webster (Sainte-Laguë), in which no seat is lost when the house grows: row k (from 0) of a class of N rows comes
      at (k + 1/2) / N.

    Args:
        labels: class index of each row of the pool, shape (n_rows,).
        digests: identity of each row (`rows.row_digests`), same length.
        seed: seed of the draw; another seed gives another order.
        draw: "stratified" or "balanced".

    Returns:
        A permutation of the positions, shape (n_rows,).
    """
    classes = np.asarray(labels, dtype=np.int64)
    if classes.ndim != 1 or len(classes) != len(digests):
        raise ValueError(f"{len(digests)} rows were given with labels of shape {classes.shape}; expected one each.")
    if len(classes) == 0:
        return np.zeros(0, dtype=np.int64)
    hashes = _hashes(digests, f"row {seed}")
    by_class = np.lexsort((hashes, classes))
    _, inverse, counts = np.unique(classes[by_class], return_inverse=True, return_counts=True)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    rank = np.arange(len(classes)) - starts[inverse]  # of each row within its class, in the order of `by_class`
    # Ties are broken by the hash of a class's first row, so they do not always favour the lowest index.
    tie = hashes[by_class][starts][inverse]
    # Correctly rounded quotients of whole numbers are equal exactly if the fractions are, so ties stay ties.
    turn = (2 * rank + 1) / (2 * counts[inverse])
    key = rank.astype(np.float64) if draw == "balanced" else np.where(rank == 0, 0.0, turn)
    return by_class[np.lexsort((inverse, tie, key))].astype(np.int64)


def carve_validation(labels: npt.ArrayLike, fraction: float = 0.2) -> tuple[Positions, Positions]:
    """Split the drawn rows into those to fit on and those to validate on, by a fixed rule.

    In each class, the first n rows in the order drawn hold `floor(n * fraction)` rows for validation: at 0.2, every
    fifth row. A larger size therefore validates on all validation rows of a smaller one. A tiny draw may have none.

    Args:
        labels: class index of each drawn row, in the order drawn, shape (n_train,).
        fraction: share to validate on, above 0 and at most 1/2.

    Returns:
        (positions to fit on, positions to validate on), both ascending; together, all positions.
    """
    if not 0 < fraction <= 0.5:
        raise ValueError(f"A validation fraction of {fraction} was given; expected above 0 and at most 0.5.")
    share = Fraction(fraction).limit_denominator(1_000_000)  # 0.29 is a little less than 29/100 in binary
    rank = _rank_in_class(labels)
    before, after = (np.asarray(n * share.numerator // share.denominator) for n in (rank, rank + 1))
    validates = after > before
    return np.flatnonzero(~validates).astype(np.int64), np.flatnonzero(validates).astype(np.int64)


def folds(labels: npt.ArrayLike, n_folds: int) -> Positions:
    """Return the fold (0 to n_folds - 1) of each drawn row; rows of a class go to the folds in turn.

    Args:
        labels: class index of each drawn row, in the order drawn, shape (n_train,).
        n_folds: number of folds, at least 2.

    Returns:
        Shape (n_train,).
    """
    if n_folds < 2:
        raise ValueError(f"{n_folds} folds were asked for; expected at least 2.")
    return _rank_in_class(labels) % n_folds


def _rank_in_class(labels: npt.ArrayLike) -> Positions:
    """Return the number of earlier rows of its class for each row, shape (n_rows,)."""
    classes = np.asarray(labels, dtype=np.int64)
    rank = np.zeros(len(classes), dtype=np.int64)
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        rank[members] = np.arange(len(members))
    return rank


def _hashes(digests: Sequence[bytes], key: str) -> npt.NDArray[np.uint64]:
    """Return 64 bits per row that depend only on the row and `key`, shape (n_rows,)."""
    salt = hashlib.blake2b(key.encode(), digest_size=16).digest()
    raw = b"".join(hashlib.blake2b(salt + row, digest_size=8).digest() for row in digests)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)
