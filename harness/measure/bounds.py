"""Bounds on what one batch holds: logits over a vocabulary, and tokens that pass a model without gradients.

They are plain numbers and arithmetic, so that a plan can read them without torch. Every batch that ends in logits
obeys `most_places`: the losses of language models in training and validation, likelihoods of texts and of replies, and
scores of classes in context.
"""

from __future__ import annotations

from typing import Final

FLOAT_BYTES: Final = 4

LOGIT_BYTES: Final = {"cpu": 2**26, "cuda": 2**29}
"""Maximum bytes of the logits that exist at a time, in float32, by kind of device.

Beside them lie their log-probabilities or gradients, of the same size, and their bfloat16 form under autocast. A GPU is
busy with 1,000 places of a vocabulary of 128,000.
"""

BATCH_TOKENS: Final = 16_384
"""Maximum number of padded tokens of a batch that passes a model without gradients on an accelerator."""


def most_places(kind: str, vocabulary: int) -> int:
    """Return how many places may have logits over a vocabulary at a time, at least one.

    Args:
        kind: kind of device, `cpu` or `cuda`.
        vocabulary: number of tokens with a logit at each place.
    """
    return max(1, LOGIT_BYTES[kind] // (FLOAT_BYTES * max(1, vocabulary)))


def logit_bytes(n_places: float, vocabulary: int, kind: str) -> float:
    """Return the bytes in float32 of the logits that exist at a time, where a batch has `n_places` in all."""
    return FLOAT_BYTES * vocabulary * min(n_places, most_places(kind, vocabulary))


def rows_of_pass(kind: str, most_rows: int, length: int) -> int:
    """Return the number of rows of a batch that passes a model without gradients, at least one.

    Args:
        kind: kind of device. On a CPU the number does not depend on the length, so that scores keep their bits.
        most_rows: maximum number of rows.
        length: tokens of a row, padding included.
    """
    return most_rows if kind == "cpu" else max(1, min(most_rows, BATCH_TOKENS // max(1, length)))
