"""Turn the user's own file with a text and a label column into a task, or an error that names the row.

All faults of a file are found here, before anything is trained. Rows without a text or a label are left out, and
classes that cannot be held out are trained on but not scored, unless a task is strict.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.data.classes import (
    check_can_hold_out,
    check_known_to_training,
    check_labels,
    check_texts,
    is_missing,
    sorted_labels,
)
from harness.data.files import FileRows, stem_of
from harness.data.frames import (
    FRAME_NAME,
    Frames,
    TextColumns,
    UserData,
    column_name,
    file_rows,
    files_of,
    text_columns,
)
from harness.data.labels import check_no_fractions, label_warnings
from harness.data.raw import Origin
from harness.data.rows import overlap_key
from harness.data.spec import Columns, DataSource, Files, Splits, TaskSpec
from harness.support import DataError, DataWarning, UsageError, checked_text, whole_number
from harness.support import text as wording

BETWEEN = "\n"
"""Separator of the two texts of a pair where they are joined."""

LEAST_MAX_LENGTH = 8
"""Minimum value of `max_length`: usually two of the tokens are special tokens."""

MOST_CLASSES = 10_000
"""Maximum number of classes of a table; a column with more holds identifiers or free text."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_MOST_ALONE = 0.5
"""Share of rows with a unique label above which a column holds identifiers or free text."""


@dataclass(frozen=True)
class Part:
    """The rows of one file, each with a text, or a pair of texts, and the name of a label.

    Attributes:
        texts: whole input of each row; a pair is joined by `BETWEEN`.
        labels: one per row.
        columns: texts of each column, one per row.
        origin: position of each row in the file.
        left_out: number of rows left out, by reason.
        warnings: warnings about the rows.
    """

    texts: list[str]
    labels: list[str]
    columns: Mapping[str, list[str]]
    origin: Origin
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A user's data; `test` is None if a part of `train` is to be held out."""

    train: Part
    test: Part | None

    def notes(self) -> dict[str, Any]:
        """Return remarks about the file for readers of the results, as JSON values; empty if there are none."""
        parts = [part for part in (self.train, self.test) if part is not None]
        left_out: Counter[str] = Counter()
        for part in parts:
            left_out.update(part.left_out)
        found = [warning for part in parts for warning in part.warnings]
        return {
            **({"left_out": dict(sorted(left_out.items()))} if left_out else {}),
            **({"warnings": found} if found else {}),
        }


def table_task(
    data: UserData,
    text: TextColumns,
    label: str,
    test: UserData | None = None,
    name: str | None = None,
    *,
    metric: str = "accuracy",
    max_length: int = 128,
    test_cap: int | None = 2000,
    strict: bool = False,
    known: FileRows | None = None,
) -> TaskSpec:
    """Return a task for the user's own file or data frame, after checking every row.

    Args:
        data: a CSV, TSV, JSON, JSONL or Parquet file, or a data frame.
        text: name of the column with the texts; two names make a task of the kind `text-pair`.
        label: name of the column with the labels: strings, whole numbers or booleans.
        test: the same with the test rows; None holds out a quarter of each class by a fixed hash.
        name: name of the task; None takes the file's, or `FRAME_NAME`.
        metric: name of the main metric.
        max_length: maximum tokens of a text.
        test_cap: maximum number of test rows; None for all.
        strict: whether to refuse rows without a text or a label, and classes that cannot be scored.
        known: these columns of `data`, if they have been read before.

    Raises:
        DataError: the data cannot be used; the message names the file and the row or column.
        UsageError: texts and labels are in the same column, or one has no name; the length is too small.

    Warns:
        DataWarning: labels or texts look wrong; `Table.notes()` has the same warnings.
    """
    texts, label = text_columns(text), column_name("label", label)
    if not label:
        raise UsageError(f"The columns '{','.join(texts)}' and '' were named for text and label; expected two names.")
    files = files_of(data, test)
    checked = check_own_settings(name, max_length)
    table = read_table(files, texts, label, strict=strict, known=known)
    roles = dict(zip(("first", "second") if len(texts) > 1 else ("text",), texts, strict=True))
    for warning in table.notes().get("warnings", ()):
        warnings.warn(warning, DataWarning, stacklevel=2)
    return own_spec(
        files,
        name,
        kind=kind_of_table(texts),
        texts=texts,
        labels=[label],
        columns=Columns(label=label, **roles),
        label_names=sorted_labels(table.train.labels),
        metric=metric,
        max_length=checked,
        test_cap=test_cap,
        strict=strict,
    )


def check_own_settings(name: str | None, max_length: int) -> int:
    """Check the name of the task of a user's own data; return the maximum length as a whole number.

    Raises:
        UsageError: the name has other characters than a task's, or the length is too small.
    """
    if name and not _NAME.fullmatch(checked_text("name", name)):
        raise UsageError(
            f"--name '{name}' was given; expected letters without accents, digits, '_', '.' and '-', a letter or digit "
            "first."
        )
    max_length = whole_number("max_length", max_length, f"a whole number of tokens, at least {LEAST_MAX_LENGTH}")
    if max_length < LEAST_MAX_LENGTH:
        raise UsageError(f"--max-length {max_length} was given; expected at least {LEAST_MAX_LENGTH} tokens.")
    return max_length


def own_spec(
    files: Files, name: str | None, *, texts: Sequence[str], labels: Sequence[str], **settings: Any
) -> TaskSpec:
    """Return the spec of a user's own data.

    Args:
        files: the files or data frames.
        name: name of the task; None takes the file's, or `FRAME_NAME`.
        texts: columns of the inputs, for the description.
        labels: columns of the answers, for the description.
        settings: further fields of the spec.

    Raises:
        UsageError: a setting that a spec refuses.
    """
    path = Path(files.train)
    try:
        return TaskSpec(
            name=name or (FRAME_NAME if isinstance(files, Frames) else _task_name(stem_of(path))),
            description=f"{_quoted(labels)} of {_quoted(texts)} in {path.name}",
            data=DataSource(files=files),
            splits=Splits(test=None if files.test is None else "test"),
            licence="the user's own data",
            **settings,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}={first['input']!r} was given: {first['msg']}.") from error


def kind_of_table(texts: Sequence[str]) -> str:
    """Return the kind of task of a table with these columns of texts."""
    return "text-pair" if len(texts) > 1 else "classification"


def read_table(
    files: Files, texts: Sequence[str], label: str, *, strict: bool = False, known: FileRows | None = None
) -> Table:
    """Read and check the rows of `files`.

    Args:
        files: the file, and the file of test rows if there is one.
        texts: the column of texts, or the two columns of pairs.
        label: the column of labels.
        strict: whether to refuse rows without a text or a label, and classes that cannot be scored.
        known: these columns of the training file, if they have been read before.

    Raises:
        DataError: the data cannot be used; the message names the file and the row or column.
        UsageError: texts and labels are in the same column.
    """
    if label in texts:
        raise UsageError(f"Column '{label}' was named for both text and label; expected two columns.")
    train = _read_part(known or file_rows(files, "train", [*texts, label]), texts, label, strict=strict)
    check_no_fractions(train.labels, label, train.origin)
    test = None
    if files.test is not None:
        test = _read_part(file_rows(files, "test", [*texts, label]), texts, label, strict=strict)
    _check_classes(train, test, texts, label, strict=strict)
    return Table(train, test)


def _read_part(rows: FileRows, text: Sequence[str], label: str, *, strict: bool) -> Part:
    columns, labels, origin = {name: rows.columns[name] for name in text}, rows.columns[label], rows.origin
    left_out: Counter[str] = Counter()
    if not strict:
        reasons = [_why_left_out(*values) for values in zip(labels, *columns.values(), strict=True)]
        left_out.update(reason for reason in reasons if reason is not None)
        kept = [at for at, reason in enumerate(reasons) if reason is None]
        if not kept:
            said = f"a text in {_column(text)} and a label in column '{label}'"
            raise DataError(
                f"{origin.name}: none of its rows has {said} ({wording.counted(len(labels), 'row')} in all)."
            )
        if len(kept) < len(labels):
            columns = {name: [values[at] for at in kept] for name, values in columns.items()}
            labels, origin = [labels[at] for at in kept], origin.of(kept)
    columns = {name: check_texts(values, name, origin) for name, values in columns.items()}
    texts = [BETWEEN.join(values) for values in zip(*columns.values(), strict=True)]
    labels = check_labels(labels, label, origin)
    found = tuple(f"{Path(origin.name).name}: {said}" for said in label_warnings(texts, labels, label, origin))
    return Part(texts, labels, columns, origin, left_out, found)


def _why_left_out(label: object, *texts: object) -> str | None:
    missing = {"text": any(map(is_missing, texts)), "label": is_missing(label)}
    return f"no {' and no '.join(name for name in missing if missing[name])}" if any(missing.values()) else None


def _quoted(columns: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in columns)


def _column(columns: Sequence[str]) -> str:
    return f"column{'s' * (len(columns) > 1)} {_quoted(columns)}"


def _check_classes(train: Part, test: Part | None, text: Sequence[str], column: str, *, strict: bool) -> None:
    name, counts = train.origin.name, Counter(train.labels)
    keys = [overlap_key(text) for text in train.texts]
    if len(counts) == 1:
        raise DataError(
            f"{name}: every row has the label '{train.labels[0]}' in column '{column}'; expected at least two classes."
        )
    if len(set(keys)) == 1:
        raise DataError(
            f"{name}: all texts in {_column(text)} are the same ({wording.counted(len(keys), 'row')}). "
            "Name the column that holds the texts."
        )
    alone = sum(count == 1 for count in counts.values())
    if len(counts) == len(train.labels) > 2:
        raise DataError(
            f"{name}: each of the {len(counts)} rows has another label in column '{column}'. It looks like an "
            "identifier; name the column that holds the classes."
        )
    if len(counts) > MOST_CLASSES:
        raise DataError(
            f"{name}: column '{column}' has {len(counts):,} different labels; expected at most {MOST_CLASSES:,} "
            "classes. It looks like an identifier or free text; name the column that holds the classes."
        )
    if test is not None:
        check_known_to_training(train.labels, test.labels, test.origin)
    if strict:
        _check_each_class_is_scored(train, test)
    elif alone > _MOST_ALONE * len(train.labels):
        raise DataError(
            f"{name}: {alone:,} of the {len(train.labels):,} rows have a label in column '{column}' that no other row "
            "has. It looks like an identifier or free text; name the column that holds the classes."
        )
    elif test is None:
        texts_of = Counter(label for _, label in set(zip(keys, train.labels, strict=True)))
        if sum(count > 1 for count in texts_of.values()) < 2:
            raise DataError(
                f"{name}: fewer than two classes in column '{column}' have two different texts; a held-out test needs "
                "them. Add examples, or name a test file."
            )


def _check_each_class_is_scored(train: Part, test: Part | None) -> None:
    if test is None:
        check_can_hold_out(train.texts, train.labels, train.origin)
        return
    both = Counter(train.labels) + Counter(test.labels)
    single = [label for label in sorted_labels(train.labels) if both[label] == 1]
    if single:
        at = train.labels.index(single[0])
        raise DataError(
            f"{train.origin.name}: {train.origin.at(at)}: the class '{single[0]}' has a single example, and none among "
            "the test rows. Add examples or drop the class."
        )


def _task_name(stem: str) -> str:
    """Return a name for a task made of a file's name: letters, digits, `_`, `.` and `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "data"
