"""Predict the texts of a file with a saved model, and write the file's rows with their predictions."""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from harness.data import Origin, TextColumns
from harness.support import DataError, UsageError, check_output, csv_field, replacing

OUTPUT_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")

_DIGITS = 6
"""Digits behind the point of a probability in a text format; Parquet keeps float32."""

Columns: TypeAlias = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Unpredicted:
    """Rows without a prediction.

    Attributes:
        reason: such as `blank`.
        n_rows: their number.
        where: their lines or rows in the file, in words.
    """

    reason: str
    n_rows: int
    where: str


@dataclass(frozen=True)
class PredictedFile:
    """Outcome of predicting the texts of a file.

    Attributes:
        out: the file that was written.
        method: label of the model's method.
        n_rows: rows of the file.
        n_predicted: rows with a prediction.
        unpredicted: the other rows, by reason.
        columns: columns that were added.
        class_columns: column of each class's probability, by class; empty where none was asked for.
        probabilities_are: what the probabilities are, where they do not estimate how often a class is right; else
            None.
        n_split: texts that were split into words and punctuation marks, for a model of tags.
    """

    out: Path
    method: str
    n_rows: int
    n_predicted: int
    unpredicted: tuple[Unpredicted, ...]
    columns: tuple[str, ...]
    class_columns: Mapping[str, str]
    probabilities_are: str | None
    n_split: int = 0


def predict_file(
    model: Path,
    data: Path,
    out: Path,
    text: TextColumns | None = None,
    *,
    device: str = "auto",
    probabilities: bool = False,
    top: int | None = None,
    merged: bool = False,
    overwrite: bool = False,
    endpoint: str | None = None,
    endpoint_key: str | None = None,
) -> PredictedFile:
    """Write the rows of a file with their predictions, in the columns of `SavedModel.predict_frame`.

    A row whose text is missing, blank or not valid Unicode gets empty fields. The output is checked before anything is
    predicted, and appears whole or not at all. Answers of a served model are kept in a file beside the output until
    the output is written, so that the same call goes on where an earlier one was interrupted.

    Args:
        model: folder of the saved model.
        data: the file of texts.
        out: the file to write; its ending decides its format.
        text: column of the texts; two columns of a model of pairs, such as `premise,hypothesis`. None takes the kind's
            own names, such as `text`, or `tokens` for a model of tags.
        device: `auto`, `cpu` or `cuda`.
        probabilities: whether to add a column per class.
        top: number of most probable classes to add.
        merged: whether to merge what the method added into the weights first.
        overwrite: whether to replace a file that an earlier call did not write.
        endpoint: URL of the served model that the saved one asks; None takes the saved URL.
        endpoint_key: name of the environment variable that holds its key; None takes the saved name.

    Raises:
        MissingResourceError: the endpoint of a served model cannot be reached.
        UnsupportedError: `merged` was asked for, and nothing can be merged.
        UsageError: the output cannot be written or would replace something, the model is damaged, or it has fewer
            classes than `top`.
        DataError: the data cannot be read, have one of the new columns already, or hold no text at all.
        StoreError: writing fails.
    """
    from harness.data import MissingColumnError, read_rows, texts_in
    from harness.measure import check_device_name
    from harness.saved import (
        as_input,
        check_asked,
        check_top,
        class_columns,
        input_columns,
        is_split,
        kind_of_saved,
        load_model,
        prediction_columns,
        read_description,
        reads_words,
        why_not_input,
    )

    check_device_name(device)
    ending = out.suffix.lower()
    if ending not in OUTPUT_ENDINGS:
        raise UsageError(
            f"--out '{out}' was given; expected a name that ends in {', '.join(OUTPUT_ENDINGS[:-1])} or "
            f"{OUTPUT_ENDINGS[-1]}."
        )
    _check_place(out, model)
    described = read_description(model)
    kind = kind_of_saved(described.kind)
    check_asked(kind.form, probabilities=probabilities, top=top)
    if top is not None:
        check_top(top, described.labels)
    names = input_columns(text, kind)
    try:
        rows = read_rows(data, names, others=True)
    except MissingColumnError as error:
        raise DataError(f"{error} --text names the column of texts.") from None
    added = prediction_columns(described.labels, form=kind.form, probabilities=probabilities, top=top)
    for name in added:
        if name in rows.columns:
            raise DataError(f"{data} has a column '{name}' already; rename it, so that nothing is overwritten.")
    ours = _recogniser(ending, list(rows.columns), described.labels, kind.form)
    check_output(out, inputs=[data], ours=ours, overwrite=overwrite)
    texts = texts_in(rows.columns, names)
    n_split = 0
    if reads_words(kind):
        n_split = sum(map(is_split, texts))
    texts = [as_input(value, kind) for value in texts]
    reasons = [why_not_input(value, kind) for value in texts]
    unpredicted = _unpredicted(reasons, rows.origin)
    usable = [at for at, reason in enumerate(reasons) if reason is None]
    if not usable:
        named = " or ".join(f"column '{name}'" for name in names)
        raise DataError(f"{data}: {named} holds no text to predict: {in_words(unpredicted)}. Is it the right --text?")
    answers = out.with_name(f"{out.name}.answers.sqlite")
    loaded = load_model(model, device, endpoint=endpoint, endpoint_key=endpoint_key, answers=answers)
    try:
        loaded = loaded.merged() if merged else loaded
        found = loaded.tabulate([texts[at] for at in usable], probabilities=probabilities, top=top)
    finally:
        loaded.close()
    numbers = {name: values.tolist() for name, values in found.items() if values.dtype == np.float64}
    columns = {
        **rows.columns,
        **{name: _spread(values, usable, len(texts)) for name, values in (found | numbers).items()},
    }
    with replacing(out) as temporary:
        _WRITERS[ending](temporary, _joined(columns, kind.form, described.labels) if ending in _TABLES else columns)
    answers.unlink(missing_ok=True)
    return PredictedFile(
        out=out,
        method=described.method,
        n_rows=len(texts),
        n_predicted=len(usable),
        unpredicted=unpredicted,
        columns=tuple(added),
        class_columns=class_columns(described.labels, kind.form) if probabilities else {},
        probabilities_are=(loaded.probabilities_are or None) if kind.form == "classes" else None,
        n_split=n_split,
    )


def in_words(unpredicted: Sequence[Unpredicted]) -> str:
    """Return the reasons why rows have no prediction, with numbers and places."""
    return ", ".join(f"{one.n_rows:,} {one.reason} ({one.where})" for one in unpredicted)


def _unpredicted(reasons: Sequence[str | None], origin: Origin) -> tuple[Unpredicted, ...]:
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for at, reason in enumerate(reasons):
        if reason is not None:
            rows[reason].append(at)
    return tuple(Unpredicted(reason, len(places), origin.at(*places)) for reason, places in rows.items())


def _spread(values: Iterable[Any], usable: Sequence[int], n_rows: int) -> list[Any]:
    """Return one value per row of the file; None where the row has no prediction."""
    spread: list[Any] = [None] * n_rows
    for at, value in zip(usable, values, strict=True):
        spread[at] = value
    return spread


def _check_place(out: Path, model: Path) -> None:
    """Refuse an output in a folder that is missing or not writable, or in the model's own."""
    try:
        folder = out.expanduser().resolve().parent
        inside = folder.is_relative_to(model.expanduser().resolve())
    except (OSError, RuntimeError) as error:
        raise UsageError(f"--out '{out}' was given; the path cannot be followed: {error}.") from None
    if inside:
        raise UsageError(f"--out '{out}' was given, which is in the model's folder. Name a file elsewhere.")
    if not folder.is_dir():
        raise UsageError(f"--out '{out}' was given; there is no folder '{folder}'. Make it first, or name another one.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--out '{out}' was given; the folder '{folder}' cannot be written to. Name another one.")


# ---- Formats


_TABLES = (".csv", ".tsv")
_JOIN = {"labels": "|", "tags": " "}
"""Text between the labels or tags of a row in a table of texts, by form."""


def _joined(columns: Columns, form: str, labels: Sequence[str]) -> Columns:
    """Return the columns with lists of answers as texts; as JSON where one holds the text that would join them."""
    from harness.saved import PREDICTION, WORDS

    between = _JOIN.get(form)
    if between is None or any(between in label for label in labels):
        return columns
    lists = [PREDICTION, *([WORDS] if form == "tags" else [])]
    if form == "tags" and any(between in word for words in columns[WORDS] for word in words or ()):
        return columns
    joined = {name: [None if value is None else between.join(value) for value in columns[name]] for name in lists}
    return {**columns, **joined}


def _recogniser(ending: str, given: list[str], labels: Sequence[str], form: str) -> Callable[[Path], bool]:
    """Return a function that recognises an earlier output for a file of the same columns, whatever was asked for."""
    from harness.saved import prediction_columns

    top = len(labels) if form == "classes" else None
    least = prediction_columns(labels, form=form)
    most = prediction_columns(labels, form=form, probabilities=True, top=top)

    def recognise(path: Path) -> bool:
        names = _NAMES[ending](path)
        return names[: len(given) + len(least)] == [*given, *least] and set(names[len(given) :]) <= set(most)

    return recognise


def _names_in_table(path: Path, delimiter: str) -> list[str]:
    """Return the names of a CSV or TSV file's columns; none where it is not such a file."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return next(csv.reader(handle, delimiter=delimiter), [])
    except (ValueError, csv.Error):
        return []


def _names_in_json_lines(path: Path) -> list[str]:
    """Return the keys of a JSON Lines file's first object; none where it is not such a file."""
    try:
        with path.open(encoding="utf-8") as handle:
            first = json.loads(handle.readline())
    except (ValueError, RecursionError):
        return []
    return list(first) if isinstance(first, dict) else []


def _names_in_parquet(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns; none where it is not such a file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (OSError, pyarrow.ArrowException):
        return []


_NAMES: dict[str, Callable[[Path], list[str]]] = {
    ".csv": lambda path: _names_in_table(path, ","),
    ".tsv": lambda path: _names_in_table(path, "\t"),
    ".jsonl": _names_in_json_lines,
    ".parquet": _names_in_parquet,
}


def _write_table(path: Path, columns: Columns, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        write_row(handle, list(columns), delimiter)
        for row in zip(*columns.values(), strict=True):
            write_row(handle, row, delimiter)


def write_row(handle: Any, row: Sequence[Any], delimiter: str) -> None:
    """Write one row of a CSV or TSV file."""
    handle.write(delimiter.join(csv_field(_in_table(value), delimiter, keeps_numbers=True) for value in row) + "\n")


def _write_json_lines(path: Path, columns: Columns) -> None:
    names = list(columns)
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in zip(*columns.values(), strict=True):
            values = {name: _in_json(value) for name, value in zip(names, row, strict=True)}
            line = json.dumps(values, ensure_ascii=False, allow_nan=False, default=_as_text)
            handle.write(line.encode("utf-8", "backslashreplace").decode() + "\n")  # half a surrogate: \ud83d


def _write_parquet(path: Path, columns: Columns) -> None:
    import pyarrow
    import pyarrow.parquet

    arrays = {name: _array(values) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)


_WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    ".csv": lambda path, columns: _write_table(path, columns, ","),
    ".tsv": lambda path, columns: _write_table(path, columns, "\t"),
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}


def _array(values: Sequence[Any]) -> Any:
    """Return a column for Parquet; as texts where its values have several types."""
    import pyarrow

    if any(isinstance(value, np.float32) for value in values):
        known = [None if value is None or not np.isfinite(value) else float(value) for value in values]
        return pyarrow.array(known, pyarrow.float32())
    try:
        return pyarrow.array(values)
    except (pyarrow.ArrowException, UnicodeEncodeError, TypeError, OverflowError):
        texts = [None if value is None else str(_in_table(value)) for value in values]
        return pyarrow.array([text and text.encode("utf-8", "backslashreplace").decode() for text in texts])


def _in_table(value: Any) -> Any:
    """Return a value as text or number: lists and objects as JSON, times as ISO 8601 writes them."""
    if isinstance(value, np.floating):
        return f"{value:.{_DIGITS}f}" if np.isfinite(value) else ""  # the probability of a written answer
    if value is None or isinstance(value, str | float) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return _as_text(value)


def _in_json(value: Any) -> Any:
    """Return a value with null in place of a number that is not finite, which JSON cannot hold."""
    if isinstance(value, np.floating):
        return round(float(value), _DIGITS) if np.isfinite(value) else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_in_json(one) for one in value]
    return {str(key): _in_json(one) for key, one in value.items()} if isinstance(value, dict) else value


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
