"""Warn about suspicious labels and texts, and refuse fractional labels."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from harness.data.encodings import control_characters, repair_command, repaired
from harness.data.raw import Origin
from harness.data.rows import overlap_key
from harness.support import DataError
from harness.support import text as wording

_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]{1,3})?")
_SEPARATORS = ("|", ";", ",")
_TRUTH = {"true": "1", "false": "0"}
_N_GROUPS = 3
_N_NAMED = 4
_NO_LABEL = frozenset({"na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "-", "--", "?"})
"""Texts that tools write for a missing value."""

_MANY_NUMBERS = 20
"""Number of distinct whole numbers above which a column of labels may hold quantities."""

_SPREAD = 1.5
"""Ratio of the range of whole numbers to their count above which they do not number classes."""


def _same_label(label: str) -> str:
    """Return a normalised label, without differences in case, spaces and the format of numbers.

    `Billing` and ` billing` give the same result; so do `01`, `1`, `1.0` and `True`.
    """
    plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    plain = _TRUTH.get(plain, plain)
    number = _number(plain)
    if number is None:
        return plain
    return str(int(number)) if number.is_integer() else repr(number)


def check_no_fractions(labels: Sequence[str], column: str, origin: Origin) -> None:
    """Refuse labels that are all numbers, some with a fraction: they are quantities, not classes.

    Raises:
        DataError: there are such labels; the message names the first.
    """
    distinct = dict.fromkeys(labels)
    numbers = {label: _number(label.strip()) for label in distinct}
    fractions = [label for label, number in numbers.items() if number is not None and not number.is_integer()]
    if not fractions or None in numbers.values():
        return
    joined = _joined(list(distinct))
    if joined and not all("," in label for label in joined):
        return  # such as `1;2`; `_joined_labels` warns about them
    at = [row for row, label in enumerate(labels) if label in set(fractions)]
    or_joined = ", or several labels joined by a comma" if joined else ""
    raise DataError(
        f"{origin.name}: {origin.at(*at)}: the label in column '{column}' is {fractions[0]}, a number with a fraction"
        f"{or_joined}; expected classes. The {len(distinct)} labels are all numbers, which looks like a quantity. To "
        "predict it, use --kind regression, or --kind similarity for pairs of texts. Otherwise name the column that "
        "holds the classes, or give the classes names that are no numbers."
    )


def label_warnings(texts: Sequence[str], labels: Sequence[str], column: str, origin: Origin) -> list[str]:
    """Return warnings about labels and texts that look wrong but are not refused, one or two sentences each.

    Args:
        texts: one text per row.
        labels: one label per row, same length.
        column: column of the labels, for messages.
        origin: origin of the rows.
    """
    counts = Counter(labels)
    found = [
        _alike(counts, column),
        _joined_labels(counts, column),
        _missing(counts, column),
        _quantities(counts, column),
        _several_labels(texts, labels, origin),
        _misread(texts, origin),
    ]
    return [warning for warning in found if warning is not None]


def text_warnings(texts: Sequence[str], origin: Origin) -> list[str]:
    """Return warnings about texts that look wrong, whatever the kind of their answers.

    Args:
        texts: one text per row.
        origin: origin of the rows.
    """
    warning = _misread(texts, origin)
    return [] if warning is None else [warning]


def label_set_warnings(label_sets: Sequence[Sequence[str]], column: str) -> list[str]:
    """Return warnings about the labels of rows that have any number of them.

    Args:
        label_sets: labels of each row.
        column: column or columns of the labels, for messages.
    """
    counts = Counter(label for labels in label_sets for label in labels)
    single = all(len(labels) == 1 for labels in label_sets)
    one_each = (
        f"column '{column}' gives every row exactly one label. If labels are joined, check --label-separator; if not, "
        "--kind classification suits them better."
    )
    found = [one_each if single else None, _alike(counts, column), _missing(counts, column), _once(counts, column)]
    return [warning for warning in found if warning is not None]


def _once(counts: Counter[str], column: str) -> str | None:
    once = sorted(label for label, count in counts.items() if count == 1)
    if not once:
        return None
    return (
        f"column '{column}' has {'1 label' if len(once) == 1 else f'{len(once):,} labels'} in a single row: "
        f"{some(once, _N_NAMED)}. A label needs rows to learn from and rows to test on."
    )


def nearest_label(label: str, known: Iterable[str]) -> str | None:
    """Return the label among `known` that differs from `label` only in case, spaces or the format of a number."""
    return next((other for other in known if _same_label(other) == _same_label(label)), None)


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names in quotes, and the number of others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more


def _alike(counts: Counter[str], column: str) -> str | None:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        groups[_same_label(label)].append(label)
    several = [members for members in groups.values() if len(members) > 1]
    if not several:
        return None
    said = []
    for members in several[:_N_GROUPS]:
        more = f" and {len(members) - _N_NAMED} more" if len(members) > _N_NAMED else ""
        said.append(", ".join(f"'{label}' ({counts[label]:,})" for label in members[:_N_NAMED]) + more)
    more = f"; and {len(several) - _N_GROUPS:,} more such groups" if len(several) > _N_GROUPS else ""
    return (
        f"column '{column}' has {sum(map(len, several)):,} labels that differ only in case, spaces or the format of a "
        f"number: {'; '.join(said)}{more}. Each is a class of its own here. Write each class in one way."
    )


def _missing(counts: Counter[str], column: str) -> str | None:
    found = [label for label in counts if label.strip().casefold() in _NO_LABEL]
    if not found:
        return None
    said = ", ".join(f"'{label}' ({counts[label]:,})" for label in found[:_N_NAMED])
    return (
        f"column '{column}' has labels that often stand for a missing value: {said}. Each is a class of its own here. "
        "Empty the cells of rows that have no label."
    )


def _joined_labels(counts: Counter[str], column: str) -> str | None:
    joined = _joined(list(counts))
    if not joined:
        return None
    n_rows = sum(counts[label] for label in joined)
    uses = {separator: sum(separator in label for label in joined) for separator in _SEPARATORS}
    separator = max(uses, key=lambda one: uses[one])
    lists = all(label.strip().startswith("[") for label in joined)
    option = "" if lists else f" --label-separator '{separator}'"
    return (
        f"column '{column}' has {_look(len(joined))} like several labels joined: "
        f"{some(joined, _N_GROUPS)}; {wording.counted(n_rows, 'row')}. Each combination is a class of its own here. To "
        f"predict each label for itself, use --kind multi-label{option}."
    )


def _look(n: int) -> str:
    return "1 label that looks" if n == 1 else f"{n:,} labels that look"


def _joined(labels: Sequence[str]) -> list[str]:
    """Return labels whose parts are labels themselves, or parts of another label joined by the same separator."""
    known = {_same_label(label) for label in labels}
    # A column of lists, as pandas writes one.
    found: dict[str, None] = {label: None for label in labels if re.fullmatch(r"\s*\[.*,.*\]\s*", label)}
    for separator in _SEPARATORS:
        parts_of = {
            label: [_same_label(part) for part in label.split(separator)] for label in labels if separator in label
        }
        parts_of = {label: parts for label, parts in parts_of.items() if all(parts)}
        # Commas are common inside names, so the parts around one must be labels themselves.
        uses = Counter(part for parts in parts_of.values() for part in set(parts)) if separator != "," else Counter()
        for label, parts in parts_of.items():
            if all(part in known or uses[part] > 1 for part in parts):
                found[label] = None
    return list(found)


def _quantities(counts: Counter[str], column: str) -> str | None:
    numbers = [_number(label.strip()) for label in counts]
    whole = sorted({int(number) for number in numbers if number is not None and number.is_integer()})
    if len(whole) < len(set(numbers)) or len(whole) <= _MANY_NUMBERS:
        return None
    if whole[0] in (0, 1) and whole[-1] - whole[0] < _SPREAD * len(whole):
        return None  # a numbering of classes
    return (
        f"column '{column}' has {len(whole):,} different whole numbers from {whole[0]:,} to {whole[-1]:,}, which looks "
        "like a quantity. Each number is a class of its own here. To predict the number, use --kind regression, or "
        "--kind similarity for pairs of texts."
    )


def _several_labels(texts: Sequence[str], labels: Sequence[str], origin: Origin) -> str | None:
    first: dict[str, int] = {}
    clashes: dict[str, int] = {}
    for at, text in enumerate(texts):
        key = overlap_key(text)
        before = first.setdefault(key, at)
        if labels[before] != labels[at]:
            clashes.setdefault(key, at)
    if not clashes:
        return None
    examples = "; ".join(origin.at(first[key], at) for key, at in list(clashes.items())[:_N_GROUPS])
    texts_have = "1 text has" if len(clashes) == 1 else f"{len(clashes):,} texts have"
    return (
        f"{texts_have} several labels ({examples}). No method can be right on all of these rows: give each one label."
    )


def _misread(texts: Sequence[str], origin: Origin) -> str | None:
    at = control_characters(list(texts))
    if not at:
        return None
    what = f"{'1 text holds' if len(at) == 1 else f'{len(at):,} texts hold'} control characters (U+0080 to U+009F)"
    warning = f"{what}, on {origin.at(*at)}. Such characters usually come from a wrong conversion."
    if origin.unit == "line" and all(text.isascii() or repaired(text) is not None for text in texts):
        warning += (
            " Windows-1252 has quotes, dashes and the euro sign there: the file was converted as ISO-8859-1. Convert "
            f"the original as windows-1252, or repair this file: {repair_command(origin.name)}"
        )
    return warning


def _number(text: str) -> float | None:
    """Return the number that a text represents, with a point or a comma; None if it represents none."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if abs(value) < 1e15 else None
