"""Hold out a part of rows without classes as the test: by number, by labels, or by other groups of rows.

All copies of a text are on one side, and nothing depends on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from harness.data.rows import digest, overlap_key

FRACTION = 0.25
"""Share of the distinct texts to hold out."""

N_BINS = 5
"""Number of bins of equal count for rows that have a number."""

_MOST_WORK = 4_000_000_000
"""Number of texts, times the labels squared, up to which iterative stratification takes seconds."""

_LEAST_OF_A_BIN = 4
"""Number of distinct texts in a bin from which a quarter is at least one."""


def hold_out_groups(texts: Sequence[str], groups: Sequence[int], fraction: float = FRACTION) -> npt.NDArray[np.bool_]:
    """Select test rows: the first `fraction` of each group's distinct texts, by their hash.

    At least one text of a group is held out, and one is not; a group of one text has no test row. A text with rows in
    several groups belongs to the highest.

    Args:
        texts: one text per row.
        groups: number of each row's group.
        fraction: share to hold out, above 0 and below 1.

    Returns:
        A mask, shape (n_rows,), True for test rows.
    """
    keys = [overlap_key(text) for text in texts]
    group_of: dict[str, int] = {}
    for key, group in zip(keys, groups, strict=True):
        group_of[key] = max(group, group_of.get(key, group))
    members: dict[int, list[str]] = {}
    for key in sorted(group_of, key=_order):
        members.setdefault(group_of[key], []).append(key)
    held: set[str] = set()
    for ordered in members.values():
        held.update(ordered[: min(max(round(fraction * len(ordered)), 1), len(ordered) - 1)])
    return _mask(keys, held)


def hold_out_numbers(
    texts: Sequence[str], numbers: Sequence[float], fraction: float = FRACTION
) -> npt.NDArray[np.bool_]:
    """Select test rows from all of the range of the rows' numbers: `fraction` of each of `N_BINS` bins of equal count.

    A text with several rows counts once, with their mean.

    Args:
        texts: one text per row.
        numbers: one finite number per row.
        fraction: share to hold out, above 0 and below 1.

    Returns:
        A mask, shape (n_rows,), True for test rows.
    """
    keys = [overlap_key(text) for text in texts]
    found: dict[str, list[float]] = {}
    for key, number in zip(keys, numbers, strict=True):
        found.setdefault(key, []).append(number)
    mean = {key: float(np.mean(sorted(values))) for key, values in found.items()}
    ordered = sorted(mean, key=lambda key: (mean[key], _order(key)))
    n_bins = max(1, min(N_BINS, len(ordered) // _LEAST_OF_A_BIN))
    bin_of = {
        key: at for at, part in enumerate(np.array_split(np.arange(len(ordered)), n_bins)) for key in _of(ordered, part)
    }
    return hold_out_groups(texts, [bin_of[key] for key in keys], fraction)


def hold_out_label_sets(
    texts: Sequence[str], label_sets: Sequence[Iterable[Hashable]], fraction: float = FRACTION
) -> npt.NDArray[np.bool_]:
    """Select test rows by iterative stratification: about `fraction` of the texts of each label.

    A text with several rows counts once, with the labels of all. Each label keeps a training text; a label of one text
    has no test row. The method is that of Sechidis et al. (2011, doi:10.1007/978-3-642-23808-6_10). Where there are so
    many labels and texts that it would take long, the texts are divided by their rarest label instead.

    Args:
        texts: one text per row.
        label_sets: labels of each row; there may be none.
        fraction: share to hold out, above 0 and below 1.

    Returns:
        A mask, shape (n_rows,), True for test rows.
    """
    from iterstrat.ml_stratifiers import IterativeStratification

    keys = [overlap_key(text) for text in texts]
    found: dict[str, set[str]] = {}
    for key, labels in zip(keys, label_sets, strict=True):
        found.setdefault(key, set()).update(map(str, labels))
    ordered = sorted(found, key=_order)
    names = sorted({label for labels in found.values() for label in labels})
    place = {name: at for at, name in enumerate(names)}
    given = np.zeros((len(ordered), len(names)), dtype=bool)
    for row, key in enumerate(ordered):
        given[row, [place[name] for name in found[key]]] = True
    if given.size * len(names) <= _MOST_WORK:
        shares = np.array([1 - fraction, fraction])
        side = IterativeStratification(labels=given, r=shares, random_state=np.random.RandomState(0))
        in_test = np.asarray(side) == 1
    else:
        counts = given.sum(axis=0)
        rarest = [min((place[name] for name in found[key]), key=counts.item, default=-1) for key in ordered]
        in_test = hold_out_groups(ordered, rarest, fraction)
    # Neither way guarantees these where other labels decide about all texts of a label.
    for column in given.T:
        if column.any() and not (column & ~in_test).any():
            in_test[np.flatnonzero(column)[0]] = False
    if not in_test.any() and len(ordered) > 1:
        alone = given.sum(axis=0) == 1
        spare = np.flatnonzero(~given[:, alone].any(axis=1)) if given.size else np.arange(len(ordered))
        in_test[spare[-1:]] = True
    return _mask(keys, {key for key, held in zip(ordered, in_test, strict=True) if held})


def _order(key: str) -> bytes:
    return digest(key, key="held-out test")  # as in `rows.hold_out`


def _of(ordered: Sequence[str], positions: npt.NDArray[np.int64]) -> list[str]:
    return [ordered[at] for at in positions]


def _mask(keys: Sequence[str], held: set[str]) -> npt.NDArray[np.bool_]:
    return np.fromiter((key in held for key in keys), dtype=np.bool_, count=len(keys))
