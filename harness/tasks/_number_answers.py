"""Numbers in words: demonstrations that show them, and written answers read as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from harness.support import UnreadableError
from harness.tasks._json_answers import object_of, read_json, under, without_fence
from harness.tasks.base import Floats, Reply

REPLY: Final = Reply(max_new_tokens=16, stop=("\n\n",))
"""Settings of generation for a prompted language model."""

SCHEMA: Final = object_of("number", {"type": "number"})

_DIGITS: Final = 6
"""Significant digits of a number in a demonstration."""

_MOST_DIGITS: Final = 15
"""Number of digits before the point up to which numbers are written without an exponent, and read.

A language model that repeats a digit until its answer is cut has stated no value.
"""

_WHOLE: Final = 10.0**_MOST_DIGITS
"""Size from which numbers are written with an exponent."""

_LARGEST: Final = float(np.finfo(np.float32).max)

_NUMBER: Final = re.compile(
    r"""(?<![\w.,/^*\u00d7'\u2019])(?<!\d[:\s])(?<![x\u00d7*^/]\s)  # no part of a word, a date or another number
    (?:(?P<sign>[+\-\u2212\u2013])|\b(?P<word>minus|negative)\s+|(?<![+\-\u2212\u2013]))[$\u20ac\u00a3]?
    (?P<digits>(?>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+))
    (?P<exponent>[eE][+\-\u2212]?\d+)?+
    (?!\w*\d|[.,:/\-\u2013'\u2019]\d|\s\d{3}\b)       # more digits: 1.234.567, 1,5, 12:30, 2024-05-01, 1 234
    (?!(?:[kKmMbB]|[bBmM]n|st|nd|rd|th)\b)             # 10k, 5M, 3rd
    (?!\s?(?:thousand|million|billion|trillion|hundred)\b)
    (?!\s?[x\u00d7*^/]\s?\d)                            # 1.2 x 10^3, 4 / 5
    """,
    re.VERBOSE,
)
"""A number in a text. Dates, times, fractions, ranges, ordinals and numbers with a multiplier are none."""

_MOST_READ: Final = 2_000
"""Number of characters of an answer that are read."""


def in_digits(value: float) -> str:
    """Return a number as a demonstration shows it: whole numbers in full, others with six significant digits."""
    if value == 0:
        return "0"
    if round(abs(value)) >= _WHOLE or abs(value) < 1 / _WHOLE:
        return f"{value:.{_DIGITS}g}"
    if float(value).is_integer():
        return f"{int(value)}"
    behind = max(0, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    written = f"{value:.{behind}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def read_number(text: str) -> float | None:
    """Return the first number of a written answer; None without any, or where its value is not certain.

    Thousands separators are commas, the decimal point is a point. `2024-05-01`, `12:30`, `1,5`, `4/5`, `3-4`, `10k` and
    `1.5 million` are not read, nor are more than 15 digits before the point.
    """
    found = read_json(text)
    if isinstance(found, dict | list):
        value = under(found, "number", "value", "answer")
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, str):
            return _in_text(value)
        return _checked(value)
    return _in_text(without_fence(text))


def numbers_in(texts: Sequence[str], shown: Sequence[str], middle: float) -> tuple[Floats, int]:
    """Return a number for each written answer, shape (rows, 1), and how many answers could not be read.

    An answer that cannot be read counts as the median of the demonstrations' answers; without demonstrations, as
    `middle`.

    Args:
        texts: written answers.
        shown: answers of the demonstrations.
        middle: number in the middle of the scale that the question states, or 0.

    Raises:
        UnreadableError: more than half of the answers hold no number, and no demonstration gives a median.
    """
    read = [read_number(text) for text in texts]
    known = [value for one in shown if (value := read_number(one)) is not None]
    n_unread = sum(value is None for value in read)
    if not known and 2 * n_unread > len(read):
        raise UnreadableError(
            f"The language model wrote no number in {n_unread} of {len(read)} answers, such as "
            f"{_example(texts, read)!r}. Show it demonstrations (few-shot), or word the question in the task's prompt."
        )
    other = float(np.median(known)) if known else middle
    values = [other if value is None else value for value in read]
    return np.array(values, dtype=np.float32).reshape(-1, 1), n_unread


def _example(texts: Sequence[str], read: Sequence[float | None]) -> str:
    first = next(text for text, value in zip(texts, read, strict=True) if value is None)
    return " ".join(first.split())[:60]


def _in_text(text: str) -> float | None:
    found = _NUMBER.search(text[:_MOST_READ])
    if found is None:
        return None
    digits = found["digits"].replace(",", "")
    if len(digits.partition(".")[0]) > _MOST_DIGITS:
        return None
    digits += (found["exponent"] or "").replace("\u2212", "-")
    is_negative = found["word"] is not None or found["sign"] not in (None, "+")
    return _checked(-float(digits) if is_negative else float(digits))


def _checked(value: Any) -> float | None:
    """Return a number that float32 can hold; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) >= _WHOLE:  # JSON without an exponent
        return None
    return float(value) if abs(value) <= _LARGEST else None  # not for NaN either
