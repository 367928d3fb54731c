"""What a row is: an identity made of its content, and the fingerprint of a data set made of its rows.

Nothing here depends on where a row stands in a file: a re-ordered file is the same data set, draws the same training
rows and has the same test rows.
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
"""Raised when the rules that lead from these rows to a cell's rows (overlap, cap, hold-out, order) change."""


def digest(*parts: str, key: str = "") -> bytes:
    """16 bytes that stand for `parts`, in order; `key` separates the uses that a digest is put to.

    Each part is preceded by its length, so ("ab", "c") and ("a", "bc") differ.
    """
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES, person=key.encode()[:16])
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")  # a lone surrogate can come out of JSON; it is still a text
        hashed.update(len(raw).to_bytes(8, "little"))
        hashed.update(raw)
    return hashed.digest()


def row_digests(texts: Sequence[str], labels: Sequence[object]) -> list[bytes]:
    """Identity of each row: 16 bytes of its text, its label and which of its equals it is.

    The occurrence makes equal rows distinct, so that a file with one row twice holds two rows of it.

    Args:
        texts: one text a row.
        labels: one label a row, same length; names or class indices, told apart by `str`.
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
    """SHA-256 (64 hex digits) of all that a task's data mean: two tasks that agree in it are the same task.

    Rows are those of the files, before overlaps are dropped and the cap is applied: both follow from them. They enter
    sorted, so that a re-ordered file is the same data.

    Args:
        kind: the kind of task.
        label_names: the classes, in order: an index means another class in another order.
        metric: the main metric.
        max_length: tokens of a text that are read.
        test_cap: test rows scored at most; None for all.
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
    """32 hex digits of these rows in this order: predictions that agree in it may be compared row by row."""
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32]


def overlap_key(text: str) -> str:
    """What two texts share when they count as duplicates: the text with runs of white space made one space.

    Case and punctuation count: "US" and "us" may be two texts, a line break more is not another text.
    """
    return " ".join(text.split())


def n_repeated(texts: Iterable[str]) -> int:
    """Return how many rows have the text of an earlier one."""
    seen: Counter[str] = Counter(map(overlap_key, texts))
    return seen.total() - len(seen)


def drop_overlap(train_texts: Sequence[str], test_texts: Sequence[str]) -> tuple[npt.NDArray[np.bool_], int]:
    """Which training rows to keep so that no test text is trained on, whatever its label.

    Args:
        train_texts: one text a training row.
        test_texts: all test rows, before the cap: what the cap leaves out must not decide what is trained on.

    Returns:
        A mask, shape (n_train_rows,), True for rows to keep; and how many are dropped.
    """
    seen = {overlap_key(text) for text in test_texts}
    keep = np.fromiter((overlap_key(text) not in seen for text in train_texts), dtype=np.bool_, count=len(train_texts))
    return keep, int(len(train_texts) - keep.sum())


def cap_test_rows(digests: Sequence[bytes], cap: int | None) -> npt.NDArray[np.int64]:
    """Positions of the test rows to score, chosen and ordered by a fixed hash of each row.

    The order does not depend on the file's, and a lower cap keeps the first of a higher one.

    Args:
        digests: identities of all test rows (`row_digests`).
        cap: rows to keep at most; None keeps all.

    Returns:
        Shape (min(cap, n_rows),).
    """
    order = sorted(range(len(digests)), key=lambda at: hashlib.blake2b(digests[at], person=b"test cap").digest())
    return np.asarray(order[:cap], dtype=np.int64)


def hold_out(
    texts: Sequence[str], labels: Sequence[object], fraction: float = 0.25, *, keep_classes: bool = False
) -> npt.NDArray[np.bool_]:
    """Return which rows to hold out as the test, where a data set has no test split: stratified, by a hash of the text.

    Within each class, the distinct texts are ordered by their hash and the first `fraction` of them (rounded, at least
    one, not all) are held out with all their rows: duplicates stay on one side. A class with one distinct text has no
    test row.

    Args:
        texts: one text a row.
        labels: one label a row, same length.
        fraction: share of each class to hold out, above 0 and below 1.
        keep_classes: whether a class all of whose training texts are held out under another label keeps them: these
            texts are not held out then. Otherwise such a class has no training row left.

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
