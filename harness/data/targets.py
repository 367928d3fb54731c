"""Read the numbers of a column of targets, and refuse what is no number, by row."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from harness.data.classes import is_missing
from harness.data.raw import Origin
from harness.support import DataError
from harness.support import text as wording

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WITH_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_LONGEST = 40


def read_numbers(values: Sequence[object], column: str, origin: Origin) -> list[float]:
    """Return the values of a column as numbers.

    A value is a whole number, a number with a fraction, or the text of one, with a point as the decimal mark.

    Args:
        values: one value per row.
        column: name of the column, for messages.
        origin: positions of the rows in their source, for messages.

    Raises:
        DataError: a value is missing, NaN, infinite, or no number; the message names the rows.
    """
    found = [number_of(value) for value in values]
    rules: tuple[tuple[Callable[[int], bool], str], ...] = (
        (lambda at: _is_absent(values[at]), "is missing or NaN. Fill it in or drop the row."),
        (lambda at: found[at] is None, "{}; expected a number.{}"),
        (lambda at: not math.isfinite(found[at] or 0.0), "{}; expected a finite number."),
    )
    for broken, said in rules:
        rows = [at for at in range(len(values)) if broken(at)]
        if rows:
            value = values[rows[0]]
            raise DataError(
                f"{origin.name}: {origin.at(*rows)}: the target in column '{column}' "
                + said.format(f"is {_brief(value)}", _remedy(value))
            )
    return [float(number) for number in found if number is not None]


def check_varies(numbers: Sequence[float], column: str, origin: Origin) -> None:
    """Refuse targets that are all the same: there is nothing to predict.

    Raises:
        DataError: all numbers are equal.
    """
    if len(set(numbers)) == 1:
        raise DataError(
            f"{origin.name}: every row has the target {numbers[0]:g} in column '{column}' "
            f"({wording.counted(len(numbers), 'row')}); expected numbers that differ. Name the column that holds the "
            "targets."
        )


def number_of(value: object) -> float | None:
    """Return the number that a value of a table is or spells; None if it is none, such as a boolean."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):  # a whole number beyond the range of floats, a signalling NaN
        return None


def _is_absent(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip() or value.strip().casefold() == "nan"
    return is_missing(value) or (isinstance(value, Decimal) and value.is_nan())


def _remedy(value: object) -> str:
    if isinstance(value, str) and _WITH_COMMA.fullmatch(value.strip()):
        return " Write the decimal mark as a point, and no mark between thousands."
    if isinstance(value, bool) or (isinstance(value, str) and value.strip()):
        return " Texts, true and false name classes: --kind classification reads them."
    return ""


def _brief(value: object) -> str:
    said = repr(value)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."
