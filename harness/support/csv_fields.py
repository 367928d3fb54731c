"""Fields of the CSV files that users open: no text runs as a formula, and no text breaks a row or the file."""

from __future__ import annotations

import re
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_field(value: Any, delimiter: str = ",", *, keeps_numbers: bool = False) -> str:
    r"""Return a value as one field of a CSV or TSV file, in quotes where it needs them.

    None is empty. A number has the shortest digits that read back as the same number. A text that begins with one of
    = + - @, a tab or a carriage return gets a leading apostrophe. Half a surrogate pair, which no file can hold, is
    spelt out: `\ud83d`.

    Args:
        value: of any type.
        delimiter: of the file.
        keeps_numbers: whether a text such as `-5` stays as it is: all columns of a CSV file that was read are texts.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if text.startswith(_FORMULA) and not (keeps_numbers and _NUMBER.fullmatch(text)):
        text = f"'{text}"
    # Not by the csv module: before Python 3.13 it leaves a lone carriage return bare, and readers break the row there.
    return '"{}"'.format(text.replace('"', '""')) if any(sign in text for sign in f'{delimiter}"\r\n') else text
