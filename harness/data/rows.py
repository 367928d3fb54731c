"""Identify rows by content, fingerprint data sets by their rows, and choose the test rows.

Nothing here depends on a row's position in a file: a re-ordered file is the same data set, with the same draws of
training rows and the same test rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

DIGEST_BYTES = 16
_FINGERPRINT_VERSION = 1
"""Version of the rules that lead from these rows to a cell's rows (overlap, cap, hold-out, order)."""


def digest(*parts: str, key: str = "") -> bytes:
    """Return a digest of 16 bytes of `parts`, in order; `key` separates digests for different uses.

    Each part is preceded by its length, so ("ab", "c") and ("a", "bc") differ.
    """
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES, person=key.encode()[:16])
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")  # JSON can hold a lone surrogate
        hashed.update(len(raw).to_bytes(8, "little"))
        hashed.update(raw)
    return hashed.digest()


def row_digests(texts: Sequence[str], labels: Sequence[object]) -> list[bytes]:
    """Return the identity of each row: 16 bytes of its text, its label and its occurrence.

    The occurrence number makes equal rows distinct, so a file with one row twice holds two rows.

    Args:
        texts: one text per row.
        labels: one label per row, same length; names or class indices, compared as `str`.
    """
    seen: Counter[tuple[str, str]] = Counter()
    digests = []
    for text, value in zip(texts, labels, strict=True):
        label = str(value)
        occurrence = seen[text, label]
        seen[text, label] += 1
        digests.append(digest(text, label, str(occurrence), key="row"))
    return digests


def content_fingerprint(
    *,
    kind: str,
    label_names: Sequence[str],
    metric: str,
    max_length: int,
    test_cap: int | None,
    train: Iterable[bytes],
    test: Iterable[bytes],
) -> str:
    """Return a SHA-256 (64 hex digits) of everything that defines a task's data: equal fingerprints mean equal tasks.

    Rows are those of the files, before overlaps are dropped and the cap is applied, since both follow from them. They
    are sorted, so a re-ordered file is the same data.

    Args:
        kind: the kind of task.
        label_names: the classes in order, which gives indices their meaning.
        metric: the main metric.
        max_length: maximum tokens of a text.
        test_cap: maximum number of test rows; None for all.
        train: identities of the training rows (`row_digests`).
        test: identities of the test rows.
    """
    header = {
        "version": _FINGERPRINT_VERSION,
        "kind": kind,
        "label_names": list(label_names),
        "metric": metric,
        "max_length": max_length,
        "test_cap": test_cap,
    }
    hashed = hashlib.sha256(json.dumps(header, sort_keys=True, ensure_ascii=True).encode())
    for split, rows in (("train", train), ("test", test)):
        ordered = sorted(rows)
        hashed.update(f"\n{split} {len(ordered)}\n".encode())
        hashed.update(b"".join(ordered))
    return hashed.hexdigest()


def order_fingerprint(digests: Iterable[bytes]) -> str:
    """Return 32 hex digits for these rows in this order; predictions with equal digits are comparable by row."""
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


def overlap_key(text: str) -> str:
    """Return a text with each run of white space replaced by one space; duplicates have the same key.

    Case and punctuation count: "US" and "us" are different texts. White space does not.
    """
    return " ".join(text.split())


def n_repeated(texts: Iterable[str]) -> int:
    """Return the number of rows whose text occurred in an earlier row."""
    seen: Counter[str] = Counter(map(overlap_key, texts))
    return seen.total() - len(seen)


def drop_overlap(train_texts: Sequence[str], test_texts: Sequence[str]) -> tuple[npt.NDArray[np.bool_], int]:
    """Select the training rows to keep so that no test text is trained on, whatever its label.

    Args:
        train_texts: one text per training row.
        test_texts: all test rows before the cap, so that the cap does not affect training.

    Returns:
        A mask, shape (n_train_rows,), True for rows to keep; and the number of dropped rows.
    """
    seen = {overlap_key(text) for text in test_texts}
    keep = np.fromiter((overlap_key(text) not in seen for text in train_texts), dtype=np.bool_, count=len(train_texts))
    return keep, int(len(train_texts) - keep.sum())


def cap_test_rows(digests: Sequence[bytes], cap: int | None) -> npt.NDArray[np.int64]:
    """Return the positions of the test rows to score, chosen and ordered by a fixed hash of each row.

    The order is independent of the file's, and a lower cap keeps the first rows of a higher one.

    Args:
        digests: identities of all test rows (`row_digests`).
        cap: maximum number of rows; None keeps all.

    Returns:
        Shape (min(cap, n_rows),).
    """
    order = sorted(range(len(digests)), key=lambda at: hashlib.blake2b(digests[at], person=b"test cap").digest())
    return np.asarray(order[:cap], dtype=np.int64)


def hold_out(
    texts: Sequence[str], labels: Sequence[object], fraction: float = 0.25, *, keep_classes: bool = False
) -> npt.NDArray[np.bool_]:
    """Select rows to hold out as the test of a data set without a test split: stratified, by a hash of the text.

    Within each class, the distinct texts are ordered by their hash. The first `fraction` of them (rounded, at least
    one, not all) are held out with all their rows, so duplicates stay on one side. A class with one distinct text has
    no test row.

    Args:
        texts: one text per row.
        labels: one label per row, same length.
        fraction: share of each class to hold out, above 0 and below 1.
        keep_classes: whether to keep at least one training text of a class whose texts are all held out under other
            labels: such texts are then not held out. Otherwise such a class has no training row left.

    Returns:
        A mask, shape (n_rows,), True for test rows.
    """
    keys = [overlap_key(text) for text in texts]
    by_class: dict[str, set[str]] = {}
    for key, value in zip(keys, labels, strict=True):
        by_class.setdefault(str(value), set()).add(key)
    held: set[tuple[str, str]] = set()
    for label, distinct in by_class.items():
        ordered = sorted(distinct, key=lambda key: digest(key, key="held-out test"))
        n_held = min(max(round(fraction * len(ordered)), 1), len(ordered) - 1)
        held.update((key, label) for key in ordered[:n_held])
    if keep_classes:
        in_test = {key for key, _ in held}
        for label, distinct in sorted(by_class.items()):
            if distinct <= in_test:
                in_test -= {key for key in distinct if (key, label) not in held}
        held = {(key, label) for key, label in held if key in in_test}
    pairs = zip(keys, labels, strict=True)
    return np.fromiter(((key, str(value)) in held for key, value in pairs), dtype=np.bool_, count=len(keys))
