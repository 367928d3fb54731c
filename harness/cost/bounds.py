"""Bounds on what one batch holds: rows of a pass without gradients, and logits over a vocabulary."""

from __future__ import annotations

from typing import Final

PREDICT_ROWS: Final = {"cpu": 32, "cuda": 256}
"""Maximum number of rows of a batch when predicting, as in `training`, which is not imported: it needs torch."""

_BATCH_TOKENS: Final = 16_384
_LOGIT_BYTES: Final = {"cpu": 2**26, "cuda": 2**29}
_FLOAT: Final = 4


def rows_of_pass(kind: str, most_rows: int, length: float) -> float:
    """Return the rows of a batch that passes a model without gradients, at least one.

    Args:
        kind: kind of device. On a CPU the number does not depend on the length.
        most_rows: maximum number of rows.
        length: tokens of a row, padding included.
    """
    return float(most_rows if kind == "cpu" else max(1, min(most_rows, int(_BATCH_TOKENS // max(1.0, length)))))


def bounded_logit_bytes(n_places: float, vocabulary: int, kind: str) -> float:
    """Return the bytes in float32 of the logits that exist at a time, where a batch has `n_places` in all."""
    each = float(_FLOAT * vocabulary)
    return min(n_places * each, max(each, float(_LOGIT_BYTES[kind])))
