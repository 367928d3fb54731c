"""The user's own data: a file with a text and a label column becomes a task, or an error that names the row.

Everything that can be wrong with a file is found here, before anything is trained.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.data.classes import check_can_hold_out, check_known_to_training, check_labels, check_texts, sorted_labels
from harness.data.files import absolute_path, read_rows
from harness.data.raw import Origin
from harness.data.spec import Columns, DataSource, Files, Splits, TaskSpec
from harness.errors import DataError, UsageError


@dataclass(frozen=True)
class Part:
    """One file's rows: a text and the name of a label each."""

    texts: list[str]
    labels: list[str]
    origin: Origin


@dataclass(frozen=True)
class Table:
    """A user's data; `test` is None where a part of `train` is to be held out."""

    train: Part
    test: Part | None


def table_task(
    path: str | Path,
    text: str,
    label: str,
    test: str | Path | None = None,
    name: str | None = None,
    *,
    metric: str = "accuracy",
    max_length: int = 128,
    test_cap: int | None = 2000,
) -> TaskSpec:
    """A task of the user's own file, checked row by row.

    Args:
        path: a CSV, TSV, JSONL or Parquet file.
        text: name of the column with the texts.
        label: name of the column with the labels: strings, whole numbers or booleans.
        test: a file of the same columns with the test rows; None holds out a quarter of each class by a fixed hash.
        name: the task's name; None takes the file's.
        metric: name of the main metric.
        max_length: tokens of a text that a method reads.
        test_cap: test rows to score at most; None for all.

    Raises:
        DataError: the data cannot be used; the message names the file and the row or column.
        UsageError: text and label are the same column, or one has no name.
    """
    if not text or not label:
        raise UsageError(f"The columns '{text}' and '{label}' were named for text and label; expected two names.")
    train_path = absolute_path(path)
    test_path = None if test is None else absolute_path(test)
    files = Files(train=str(train_path), test=None if test_path is None else str(test_path))
    columns = Columns(text=text, label=label)
    table = read_table(files, columns)
    return TaskSpec(
        name=name or _task_name(train_path.stem),
        description=f"'{label}' of '{text}' in {train_path.name}",
        data=DataSource(files=files),
        columns=columns,
        splits=Splits(test=None if test is None else "test"),
        label_names=sorted_labels(table.train.labels),
        metric=metric,
        max_length=max_length,
        test_cap=test_cap,
        licence="the user's own data",
    )


def read_table(files: Files, columns: Columns) -> Table:
    """Read and check the rows of `files`.

    Raises:
        DataError: the data cannot be used; the message names the file and the row or column.
        UsageError: text and label are the same column.
    """
    if columns.text == columns.label:
        raise UsageError(f"Column '{columns.text}' was named for both text and label; expected two columns.")
    train = _read_part(files.train, columns)
    test = None if files.test is None else _read_part(files.test, columns)
    _check_classes(train, test, columns.label)
    return Table(train, test)


def _read_part(path: str, columns: Columns) -> Part:
    rows = read_rows(Path(path), [columns.text, columns.label])
    return Part(
        check_texts(rows.columns[columns.text], columns.text, rows.origin),
        check_labels(rows.columns[columns.label], columns.label, rows.origin),
        rows.origin,
    )


def _check_classes(train: Part, test: Part | None, column: str) -> None:
    name, counts = train.origin.name, Counter(train.labels)
    if len(counts) == 1:
        raise DataError(
            f"{name}: every row has the label '{train.labels[0]}' in column '{column}'; expected at least two classes."
        )
    if len(counts) == len(train.labels) > 2:
        raise DataError(
            f"{name}: each of the {len(counts)} rows has another label in column '{column}'. It looks like an "
            "identifier; name the column that holds the classes."
        )
    if test is None:
        check_can_hold_out(train.texts, train.labels, train.origin)
        return
    check_known_to_training(train.labels, test.labels, test.origin)
    both = counts + Counter(test.labels)
    single = [label for label in sorted_labels(train.labels) if both[label] == 1]
    if single:
        at = train.labels.index(single[0])
        raise DataError(
            f"{name}: {train.origin.at(at)}: the class '{single[0]}' has a single example, and none among the test "
            "rows. Add examples or drop the class."
        )


def _task_name(stem: str) -> str:
    """A file's name as the name of a task: letters, digits, `_`, `.` and `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "data"
