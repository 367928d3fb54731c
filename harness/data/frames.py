"""Data frames in the place of a user's files: their rows pass the same checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from pydantic import PrivateAttr

from harness.data.files import FileRows, MissingColumnError, absolute_path, missing_column, read_rows
from harness.data.raw import Origin
from harness.data.spec import Files
from harness.support import DataError, UsageError, wrong_argument

if TYPE_CHECKING:
    import pandas as pd

UserData: TypeAlias = "str | Path | pd.DataFrame"
"""A user's labelled texts: the path of a file, or a data frame."""

TextColumns: TypeAlias = "str | Sequence[str]"
"""The column of texts, or the two columns of pairs of texts: `premise,hypothesis`, or a sequence of two names."""

FRAME_NAME = "data"
"""Name of the task of a data frame, unless the user gives one."""


class Frames(Files):
    """Data frames that stand for files: `train` and `test` hold their names for messages.

    A pickled copy leaves the rows behind. A task's own rows travel to a worker, and the frames are not needed there.
    """

    _frames: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__pydantic_private__": {"_frames": {}}}

    def rows(self, part: str, columns: Sequence[str]) -> FileRows:
        """Return columns of the part `train` or `test`.

        Raises:
            DataError: a column is missing or there twice, or there is no row.
        """
        name, frame = getattr(self, part), self._frames[part]
        known = [str(label) for label in frame.columns]
        for column in columns:
            if column not in known:
                raise missing_column(name, column, known)
            if known.count(column) > 1:
                raise DataError(f"{name}: there are {known.count(column)} columns '{column}'; rename all but one.")
        if not len(frame):
            raise DataError(f"{name}: there are no rows.")
        origin = Origin(name, "position", range(len(frame)))
        return FileRows({column: _plain_values(frame.iloc[:, known.index(column)]) for column in columns}, origin)


def is_frame(data: object) -> bool:
    """Return whether a value is a data frame, without importing pandas."""
    return any(
        cls.__module__.partition(".")[0] == "pandas" and cls.__name__ == "DataFrame" for cls in type(data).__mro__
    )


def files_of(data: UserData, test: UserData | None = None) -> Files:
    """Return a user's files or data frames as the source of a task.

    Raises:
        DataError: the path starts with an unknown user's home folder.
        UsageError: one of the two is a data frame and the other is not, or is neither.
    """
    given = {"data": data} if test is None else {"data": data, "test": test}
    for name, value in given.items():
        if not is_frame(value) and not isinstance(value, str | Path):
            raise UsageError(
                f"{name} is of type {type(value).__name__}; expected a pandas DataFrame, or the path of a file."
            )
    if len({is_frame(value) for value in given.values()}) > 1:
        raise UsageError("data and test are a DataFrame and a path; expected two of one sort.")
    if not is_frame(data):
        paths = [str(absolute_path(cast("str | Path", value))) for value in given.values()]
        return Files(train=paths[0], test=None if test is None else paths[1])
    files = Frames(train="the DataFrame", test=None if test is None else "the DataFrame of test rows")
    files._frames.update(train=data, **({} if test is None else {"test": test}))
    return files


def column_name(argument: str, column: object) -> str:
    """Return the name of a column as a text: a data frame's label may be a number or another value.

    Raises:
        UsageError: None, or a value that cannot be a label.
    """
    if column is None or type(column).__hash__ is None:
        raise wrong_argument(argument, column, "the name of a column")
    return str(column)


def text_columns(text: TextColumns) -> tuple[str, ...]:
    """Return the names of the columns of texts: one, or two for pairs.

    A text is divided at its comma, so that a column whose name has a comma is given in a sequence.

    Raises:
        UsageError: an empty name, one name twice, more than two, or a value that names no column.
    """
    if isinstance(text, str):
        names = tuple(part.strip() for part in text.split(",")) if "," in text else (text,)
    elif isinstance(text, list | tuple):
        names = tuple(column_name("text", name) for name in text)
    else:
        names = (column_name("text", text),)
    if not 1 <= len(names) <= _MOST_TEXTS or not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"--text '{','.join(names)}' was given; expected the name of a column, or two different ones joined by a "
            "comma for pairs of texts, such as premise,hypothesis."
        )
    return names


def label_columns(files: Files, texts: Sequence[str], label: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of labels: one, or several columns of 0 and 1.

    A text is divided at its commas, unless the file has a column of that name.

    Args:
        files: the files or data frames.
        texts: columns of the texts.
        label: the column, several with commas between them, or a sequence of names.

    Raises:
        UsageError: an empty name, one name twice, or a value that names no column.
        DataError: the file cannot be read, or lacks a column of texts.
    """
    if isinstance(label, str) and "," in label:
        try:
            file_rows(files, "train", [*texts, label])
        except MissingColumnError:
            names = tuple(part.strip() for part in label.split(","))
        else:
            names = (label,)
    elif isinstance(label, list | tuple):
        names = tuple(column_name("label", name) for name in label)
    else:
        names = (column_name("label", label),)
    if not names or not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"--label '{','.join(names)}' was given; expected the name of a column, or several different ones with "
            "commas between them."
        )
    return names


_MOST_TEXTS = 2


def texts_of_frame(frame: Any, columns: Sequence[str]) -> list[Any]:
    """Return a data frame's texts as Python values, or tuples of two for pairs; None where a value is missing.

    Raises:
        DataError: a column is missing or there twice, or there is no row.
    """
    return texts_in(file_rows(files_of(frame), "train", columns).columns, columns)


def texts_in(values: Mapping[str, Sequence[Any]], columns: Sequence[str]) -> list[Any]:
    """Return the texts of each row, or tuples of two for pairs, from the values by column."""
    if len(columns) == 1:
        return list(values[columns[0]])
    return list(zip(*(values[name] for name in columns), strict=True))


def file_rows(files: Files, part: str, columns: Sequence[str]) -> FileRows:
    """Return columns of the part `train` or `test` of a user's files or data frames.

    Raises:
        DataError: the file cannot be read, or a column is missing; the message names both.
    """
    if isinstance(files, Frames):
        return files.rows(part, columns)
    try:
        return read_rows(Path(getattr(files, part)), columns)
    except MissingColumnError as error:
        if "Did you mean" in str(error):
            raise
        hint = "Name yours with --text and --label. The first line of a CSV file must hold the names."
        raise MissingColumnError(f"{error} {hint}") from None


def _plain_values(column: Any) -> list[Any]:
    """Return a column's values as Python has them: None for missing ones, `int` for NumPy's integers, lists."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [_plain_value(value) for value in values]


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return list(value) if isinstance(value, tuple) else sorted(value, key=str)
    return value
