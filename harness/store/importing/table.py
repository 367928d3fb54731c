"""Import any tidy table of results: one row per result, with columns mapped by the user.

Unmapped columns, missing sizes and rows that no field distinguishes are refused, since averages would hide them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import pandas as pd

from harness.analysis import EXPORT_COLUMNS
from harness.records import STATUSES, Budget, Cell, Cost, Record, Score, Status
from harness.store.importing import scales
from harness.store.importing.fields import (
    CELL_FIELDS,
    COSTS_SECONDS,
    COSTS_WHOLE,
    FIELDS,
    NEEDED,
    SEED_BY_ROW,
    UNKNOWN,
    ResultRow,
    imported,
    listed,
)
from harness.store.importing.outside import refuse_beyond_range
from harness.support import UsageError, unknown_name

EXPORT: Final = {name: name for name in FIELDS if name not in ("variant", "higher_is_better")}
"""Mapping for the columns of `harness export`, which have the fields' names."""

_OWN_COLUMNS: Final = frozenset(column.name for column in EXPORT_COLUMNS)
_TOTAL: Final = "total_seconds"
_ROUNDING: Final = 1e-6
"""Share of a total below which a difference of seconds is a rounding error."""

_PROTOCOL: Final = "that of the table it was imported from; what its seconds and memory hold is not known here"


def read_result_table(
    path: Path, mapping: Mapping[str, str], *, scale: str | None = None, ignore: Sequence[str] = ()
) -> Iterator[tuple[str, Record]]:
    """Yield the position and the record of each row, in the table's order.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file.
        mapping: field (one of `FIELDS`) to its column, to several columns joined by `+`, or to `=VALUE`. Columns with
            the name of a field need no mapping. `n_train` may be `labels_per_class` times `classes` instead.
            `n_test==unknown` and `seed==row` mean that the table does not state them.
        scale: scale of scores with a fixed range: `percent` or `fraction`. None accepts figures that can only be
            fractions, and refuses others.
        ignore: columns to leave out on purpose.

    Raises:
        UsageError: a field or column is unknown, missing or unmapped, two rows are indistinguishable, or a value is
            invalid. The message names the rows.
    """
    frame = _load(path)
    is_export = mapping is EXPORT
    columns = _columns(path, frame, mapping, ignore, is_export=is_export)
    plain = frame.astype(object).where(frame.notna(), None)
    read_from = {**columns, _TOTAL: _TOTAL} if is_export and _TOTAL in frame.columns else columns
    rows = [
        ResultRow({field: _value(column, row) for field, column in read_from.items()}, f"{path}, row {number}")
        for number, row in enumerate(plain.to_dict("records"), start=1)
    ]
    if not is_export:
        rows = scales.to_fractions(rows, scale, path)
    ids = [str(value) for value in plain["id"]] if is_export and "id" in frame.columns else None
    return _records(path, rows, columns, ids)


def _columns(
    path: Path, frame: pd.DataFrame, mapping: Mapping[str, str], ignore: Sequence[str], *, is_export: bool
) -> dict[str, str]:
    """Return the column of each field, or `=VALUE`; refuse missing and unmapped columns in one message."""
    names = [str(name) for name in frame.columns]
    for field in mapping:
        if field not in FIELDS:
            raise unknown_name("field of --map", field, FIELDS)
    columns: dict[str, str] = {field: field for field in FIELDS if field in names and field not in ignore}
    for field, column in mapping.items():
        if is_export and column not in names:
            continue
        for part in [] if column.startswith("=") or column in names else column.split("+"):
            if part not in names:
                raise unknown_name("column", part, names, f"of {path.name}")
        columns[field] = column
    for column in ignore:
        if column not in names:
            raise unknown_name("column", column, names, f"of {path.name}")
    problems = []
    if lacking := [field for field in NEEDED if field not in columns]:
        problems.append(
            f"{path} has no column for {', '.join(lacking)}. Name it: --map {lacking[0]}=COLUMN, or --map "
            f"{lacking[0]}==VALUE for one value in all rows."
        )
    if "n_train" not in columns and not {"labels_per_class", "classes"} <= columns.keys():
        problems.append(
            "No column says n_train, the number of labels used. Give --map n_train=COLUMN; or, for labels (shots) per "
            "class, --map labels_per_class=COLUMN and --map classes==NUMBER."
        )
    if "n_test" not in columns:
        problems.append("No column says n_test, the test rows scored. Give --map n_test==NUMBER, or n_test==unknown.")
    taken = {part for column in columns.values() for part in (column, *column.split("+"))}
    left = [name for name in names if name not in taken and name not in ignore]
    if left := [name for name in left if not (is_export and name in _OWN_COLUMNS)]:
        problems.append(
            f"No field takes {'the column' if len(left) == 1 else 'the columns'} {', '.join(left)}. Map each to a "
            f"field (--map FIELD=COLUMN: {', '.join(FIELDS)}), or leave it out (--ignore {left[0]})."
        )
    if problems:
        more = scales.problem_of_columns(frame, columns)
        raise UsageError(" ".join([f"{path.name} cannot be imported as it is.", *problems, *more]))
    return columns


def _value(column: str, row: Mapping[Any, Any]) -> Any:
    if column.startswith("="):
        return column[1:]
    if column in row:
        return row[column]
    parts = [(part, row[part]) for part in column.split("+")]
    return ", ".join(f"{part}={value}" for part, value in parts if value is not None) or None


def _load(path: Path) -> pd.DataFrame:
    ending = path.suffix.lower()
    try:
        if ending in (".csv", ".tsv"):
            separator = "\t" if ending == ".tsv" else ","
            # As texts: numbers read by pandas may lose leading zeros or their last digits.
            found = pd.read_csv(
                path, sep=separator, header=None, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig"
            )
            header = ["" if pd.isna(name) else str(name) for name in (found.iloc[0] if len(found) else [])]
            frame = found.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)
        elif ending == ".jsonl":
            # Without read_json, whose numbers may differ from the file's in the last digit.
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no JSON object")
            frame = pd.DataFrame(rows, dtype=object)
        elif ending == ".parquet":
            frame = pd.read_parquet(path)
        else:
            raise UsageError(f"{path} ends in '{ending}'; expected .csv, .tsv, .jsonl or .parquet.")
    except (OSError, ValueError, RecursionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UsageError(f"{path} cannot be read: {reason}.") from None
    names = [str(name) for name in frame.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path} has several columns named '{twice[0]}'. Rename or remove all but one.")
    if not len(frame):
        raise UsageError(f"{path} holds no rows.")
    return frame


def _records(
    path: Path, rows: Sequence[ResultRow], columns: Mapping[str, str], ids: list[str] | None
) -> Iterator[tuple[str, Record]]:
    cells = [_cell(row, path) for row in rows]
    numbered = columns.get("seed") == f"={SEED_BY_ROW}"
    alike: dict[tuple[Any, ...], list[int]] = {}
    for position, (cell, row) in enumerate(zip(cells, rows, strict=True)):
        key = (cell["task"], cell["backbone"], cell["method"], str(cell["config"]), cell["n_train"], _device(row))
        alike.setdefault((*key, None if numbered else cell["seed"]), []).append(position)
    for positions in alike.values():
        if numbered:
            for seed, position in enumerate(positions):
                cells[position]["seed"] = seed
        elif len(positions) > 1 and ids is not None and len({ids[k] for k in positions}) == len(positions):
            for position in positions:  # an export lacks settings, but its ids distinguish configurations
                cells[position]["config"]["variant"] = f"id {ids[position][:8]}"
        elif len(positions) > 1:
            raise UsageError(
                f"{path}: rows {listed([k + 1 for k in positions])} are of the same {', '.join(CELL_FIELDS)}. Name the "
                "columns that tell them apart: --map seed=COLUMN, --map variant=COLUMN or variant=COLUMN+COLUMN. Where "
                f"they are repeated runs, --map seed=={SEED_BY_ROW} numbers them. Remove rows that are copies."
            )
    for row, cell in zip(rows, cells, strict=True):
        yield row.where, _record(row, Cell(**cell), path)


def _cell(row: ResultRow, path: Path) -> dict[str, Any]:
    """Return the fields of a row's cell; the seed is 0 if rows are numbered."""
    task, method = row.text("task"), row.text("method")
    if not task or not method:
        raise UsageError(f"{row.where}: task and method must not be empty.")
    backbone = row.text("backbone")
    config = {name: said for name in ("variant", "budget") if (said := row.text(name)) not in (None, "default")}
    return {
        "task": task,
        "data": f"imported from {path.name}",
        "backbone": backbone,
        "weights": None if backbone is None else "imported",
        "method": method,
        "version": 1,
        "config": config,
        "n_train": row.n_train(),
        "budget": Budget(),
        "seed": 0 if row.values.get("seed") == SEED_BY_ROW else row.whole("seed") or 0,
    }


def _device(row: ResultRow) -> str:
    return row.text("device") or "unknown device"


def _record(row: ResultRow, cell: Cell, path: Path) -> Record:
    status = row.text("status") or "ok"
    if status not in STATUSES:
        raise UsageError(f"{row.where}: status is '{status}'; expected one of {', '.join(STATUSES)}.")
    value = row.number("score")
    if status == "ok" and value is None:
        raise UsageError(f"{row.where}: there is no score. Leave such rows out, or give them a status.")
    score = None
    if status == "ok" and value is not None:
        metric = row.text("metric") or "score"
        low, high = row.number("score_low"), row.number("score_high")
        if low is not None and high is not None and not low <= value <= high:
            raise UsageError(f"{row.where}: score is {value:g}, outside score_low to score_high ({low:g} to {high:g}).")
        better, highest = row.higher_is_better(metric), scales.usual_highest(metric, value)
        score = Score(metric, value, low, high, better, _n_test(row), highest=highest)
        refuse_beyond_range(score, row.where)
    seconds = {name: row.number(name, least=0.0) for name in COSTS_SECONDS}
    if seconds["tune_seconds"] is None:
        seconds["tune_seconds"] = _rest(row, seconds)
    return imported(
        cell=cell,
        device=_device(row),
        kind=row.text("kind") or "unknown",
        family=row.text("family") or "unknown",
        status=cast("Status", status),
        source=path.name,
        protocol=_PROTOCOL,
        score=score,
        train_score=row.number("train_score") if score is not None else None,
        cost=Cost(
            **cast("Any", seconds),
            **cast("Any", {name: row.whole(name) for name in COSTS_WHOLE}),
        ),
        error=None if status == "ok" else row.text("error") or f"{status} in {path.name}",
    )


def _rest(row: ResultRow, seconds: Mapping[str, float | None]) -> float | None:
    """Return the seconds of tuning in an export, which includes them only in `total_seconds`; None without any."""
    parts = [seconds[name] for name in ("load_seconds", "encode_seconds", "fit_seconds", "predict_seconds")]
    total = row.number(_TOTAL, least=0.0)
    rest = 0.0 if total is None else total - sum(part or 0.0 for part in parts)
    return rest if rest > _ROUNDING * (total or 0.0) else None


def _n_test(row: ResultRow) -> int:
    """Return the number of test rows; 0 if the user declared it unknown."""
    if row.values.get("n_test") == UNKNOWN:
        return 0
    found = row.whole("n_test")
    if not found:
        raise UsageError(f"{row.where}: n_test is {found}; expected the number of test rows, or --map n_test==unknown.")
    return found
