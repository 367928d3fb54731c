"""Read the rows of a user's own files for tasks whose answers are no classes: numbers, label sets, tags, texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.classes import is_missing
from harness.data.frames import file_rows
from harness.data.label_sets import is_no_label_set, read_flags, read_label_sets
from harness.data.labels import label_set_warnings, text_warnings
from harness.data.raw import Origin
from harness.data.spec import Files
from harness.data.table import BETWEEN
from harness.data.targets import number_of, read_numbers
from harness.support import DataError
from harness.support import text as wording

if TYPE_CHECKING:
    from datasets import Dataset

_FEW_NUMBERS = 10
"""Number of distinct targets up to which they may be classes."""


@dataclass(frozen=True)
class OwnRows:
    """Rows of one file.

    Attributes:
        data: the columns.
        origin: position of each row in the file.
        left_out: number of rows left out, by reason.
        warnings: warnings about the rows.
    """

    data: Dataset
    origin: Origin
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_own_rows(
    files: Files,
    part: str,
    texts: Sequence[str],
    labels: Sequence[str],
    form: str,
    *,
    separator: str | None = None,
    strict: bool = False,
    converted: Callable[[Mapping[str, Sequence[Any]], Origin], dict[str, list[Any]]] | None = None,
) -> OwnRows:
    """Read columns of a user's file; rows without a text or a label are left out, unless `strict`.

    Args:
        files: the user's files or data frames.
        part: `train` or `test`.
        texts: columns of the inputs.
        labels: columns of the answers.
        form: form of the answers, such as `number`; an empty list is an answer where the form is `labels` or `tags`.
        separator: text between joined labels; None if they are lists.
        strict: whether to keep such rows, which the kind then refuses.
        converted: function that brings the values of each column into one type, and refuses bad rows.

    Raises:
        DataError: the file cannot be read, lacks a column, has no usable row, or holds values of several types in one
            column; the message names the file, and the row or column.
    """
    from datasets import Dataset

    rows = file_rows(files, part, [*texts, *labels])
    columns, origin = rows.columns, rows.origin
    left_out: Counter[str] = Counter()
    if not strict:
        reasons = [
            _why_left_out([columns[name][at] for name in texts], [columns[name][at] for name in labels], form)
            for at in range(len(columns[texts[0] if texts else labels[0]]))
        ]
        left_out.update(reason for reason in reasons if reason is not None)
        kept = [at for at, reason in enumerate(reasons) if reason is None]
        if not kept:
            raise DataError(
                f"{origin.name}: none of its rows has a value in {_quoted([*texts, *labels])} "
                f"({wording.counted(len(reasons), 'row')} in all)."
            )
        if left_out:
            columns = {name: [values[at] for at in kept] for name, values in columns.items()}
            origin = origin.of(kept)
    columns = {**columns, **_answers(columns, labels, form, separator, origin)}
    if converted is not None:
        columns = converted(columns, origin)
    found = [f"{Path(origin.name).name}: {said}" for said in _warnings(columns, texts, labels, form, separator, origin)]
    return OwnRows(_dataset(columns, origin, Dataset.from_dict), origin, left_out, tuple(found))


def _answers(
    columns: Mapping[str, list[Any]], labels: Sequence[str], form: str, separator: str | None, origin: Origin
) -> dict[str, list[Any]]:
    """Return the columns of answers in one type where a file may write them in several, after a check of every row."""
    if form == "number":
        return {name: list(read_numbers(columns[name], name, origin)) for name in labels}
    if form == "labels" and len(labels) > 1:
        found = read_flags({name: columns[name] for name in labels}, origin)
        return {name: [int(name in given) for given in found] for name in labels}
    if form == "labels" and not all(isinstance(value, list) for value in columns[labels[0]]):
        return {name: list(map(list, read_label_sets(columns[name], name, origin, separator))) for name in labels}
    return {}


def _why_left_out(texts: Sequence[Any], labels: Sequence[Any], form: str) -> str | None:
    missing = {
        "text": any(map(_is_empty, texts)),
        "label": any(map(is_no_label_set if form == "labels" and len(labels) == 1 else _is_missing(form), labels)),
    }
    return f"no {' and no '.join(name for name in missing if missing[name])}" if any(missing.values()) else None


def _is_missing(form: str) -> Callable[[Any], bool]:
    """Return the function that recognises a missing answer of a form."""
    return is_missing if form in ("labels", "tags", "number") else _is_empty


def _is_empty(value: Any) -> bool:
    """Return whether a value is missing, an empty list, or an answer without a text, as of an unanswerable question."""
    if isinstance(value, dict):
        return "text" in value and _is_empty(value["text"])
    return is_missing(value) or (isinstance(value, list | tuple) and not value)


def _dataset(columns: Mapping[str, list[Any]], origin: Origin, make: Callable[..., Dataset]) -> Dataset:
    """Return the columns as a `Dataset`, or an error that names the first row whose value has another type."""
    try:
        return make(dict(columns))
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow wants values of one type in a column
        for name, values in columns.items():
            at = _first_of_another_type(values)
            if at is not None:
                said = _brief(values[at])
                raise DataError(
                    f"{origin.name}: {origin.at(at)}: column '{name}' holds {said}, a value of another type than those "
                    "before it. Write all values of the column in one way."
                ) from None
        raise DataError(f"{origin.name}: a column holds values that cannot be read ({error}).") from error


def _first_of_another_type(values: Sequence[Any]) -> int | None:
    """Return the position of the first value that cannot be in one column with those before it; None without one."""
    import pyarrow

    def fits(n: int) -> bool:
        try:
            pyarrow.array(values[:n])
        except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):
            return False
        return True

    if fits(len(values)):
        return None
    low, high = 0, len(values)  # the first `low` values fit, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _warnings(
    columns: Mapping[str, Sequence[Any]],
    texts: Sequence[str],
    labels: Sequence[str],
    form: str,
    separator: str | None,
    origin: Origin,
) -> list[str]:
    """Return warnings about texts and answers that look wrong and are not refused."""
    inputs = zip(*(columns[name] for name in texts), strict=True)
    found = text_warnings([BETWEEN.join(one for one in row if isinstance(one, str)) for row in inputs], origin)
    if form == "number":
        found += _few_numbers(columns[labels[0]], labels[0])
    if form == "labels" and len(labels) == 1:
        found += label_set_warnings(read_label_sets(columns[labels[0]], labels[0], origin, separator), labels[0])
    elif form == "labels":
        label_sets = read_flags({name: columns[name] for name in labels}, origin)
        found += label_set_warnings(label_sets, ",".join(labels))
        never = sorted(set(labels) - {label for one in label_sets for label in one})
        if never:
            found.append(f"no row has a 1 in {_quoted(never)}, so that nothing can be learned about it.")
    return found


def _few_numbers(values: Sequence[Any], column: str) -> list[str]:
    numbers = {number_of(value) for value in values}
    whole = [number for number in numbers if number is not None and number.is_integer()]
    if len(whole) < len(numbers) or not 1 < len(numbers) <= _FEW_NUMBERS < len(values):
        return []
    return [
        f"column '{column}' has {len(whole)} different whole numbers, from {min(whole):g} to {max(whole):g}. If they "
        "number classes, --kind classification (--kind text-pair for two texts) suits them better."
    ]


def _quoted(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:-1])
    return f"column '{names[0]}'" if len(names) == 1 else f"the columns {listed} and '{names[-1]}'"


def _brief(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."
