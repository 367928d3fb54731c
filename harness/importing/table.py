"""Any tidy table of results: one row a result, its columns named by the user."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pandas as pd

from harness.errors import UsageError, unknown_name
from harness.importing.made import imported
from harness.records import STATUSES, Budget, Cell, Cost, Record, Score, Status

_TEXTS: Final = (
    "task",
    "kind",
    "backbone",
    "method",
    "family",
    "variant",
    "budget",
    "status",
    "metric",
    "device",
    "error",
)
_NUMBERS: Final = ("score", "score_low", "score_high", "train_score", "load_seconds", "encode_seconds", "tune_seconds")
_NUMBERS_TOO: Final = ("fit_seconds", "predict_seconds", "train_flops")
_WHOLE: Final = ("n_train", "seed", "n_test", "train_tokens", "peak_device_bytes", "peak_rss_bytes")
_WHOLE_TOO: Final = ("peak_rss_above_baseline_bytes", "n_parameters", "n_trainable", "artifact_bytes")
_FLAGS: Final = ("higher_is_better",)
FIELDS: Final = (*_TEXTS, *_NUMBERS, *_NUMBERS_TOO, *_WHOLE, *_WHOLE_TOO, *_FLAGS)
"""What a column can be named as; `task`, `method` and `score` are needed."""

EXPORT: Final = {name: name for name in FIELDS if name not in ("variant", "higher_is_better")}
"""The columns of `harness export` by their own names."""

_NEEDED: Final = ("task", "method", "score")
_LOWER_IS_BETTER: Final = frozenset({"perplexity", "calibration_error", "loss", "error", "wer", "mae", "mse", "rmse"})
PROTOCOL: Final = "that of the table it was imported from; what its seconds and memory hold is not known here"


@dataclass(frozen=True)
class _Read:
    """A row by field, with a way to say where it stands."""

    values: dict[str, Any]
    where: str

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return None if value is None else str(value)

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None:
            return None
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise UsageError(f"{self.where}: {name} is {value!r}; expected a number, or nothing.")
        return found

    def whole(self, name: str) -> int | None:
        found = self.number(name)
        if found is not None and (found < 0 or found != round(found)):
            raise UsageError(f"{self.where}: {name} is {found:g}; expected a whole number of 0 or more.")
        return None if found is None else round(found)


def read(path: Path, mapping: Mapping[str, str]) -> Iterator[Record]:
    """Records of the rows, in their order.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file.
        mapping: field (one of `FIELDS`) to the name of its column, or to `=VALUE`. Columns named like a field need no
            mapping. Fields that are named nowhere are not known, but `seed`, which is then the number of the row
            among those that are alike otherwise, and `n_train`, which is 0.

    Raises:
        UsageError: an unknown field or column, a field that is needed, or a value that is none of its kind, with its
            row.
    """
    frame = _load(path)
    for field in mapping:
        if field not in FIELDS:
            raise unknown_name("field of --map", field, FIELDS)
    columns = {field: field for field in FIELDS if field in frame.columns}
    for field, column in mapping.items():
        if not column.startswith("=") and column not in frame.columns:
            if mapping is EXPORT:
                continue
            raise unknown_name(f"column of {path.name}", column, [str(name) for name in frame.columns])
        columns[field] = column
    lacking = [field for field in _NEEDED if field not in columns]
    if lacking:
        raise UsageError(
            f"{path} has no column for {', '.join(lacking)}. Its columns: {', '.join(map(str, frame.columns))}. Name "
            f"them: --map {lacking[0]}=COLUMN, or --map {lacking[0]}==VALUE for one value in all rows."
        )
    seen: dict[tuple[Any, ...], int] = {}
    plain = frame.astype(object).where(frame.notna(), None)
    for number, row in enumerate(plain.to_dict("records"), start=1):
        values = {field: column[1:] if column.startswith("=") else row[column] for field, column in columns.items()}
        yield _record(_Read(values, f"{path}, row {number}"), path, seen)


def _load(path: Path) -> pd.DataFrame:
    ending = path.suffix.lower()
    try:
        if ending in (".csv", ".tsv"):
            return pd.read_csv(path, sep="\t" if ending == ".tsv" else ",", keep_default_na=False, na_values=[""])
        if ending == ".jsonl":
            # Not by read_json, whose numbers differ from those that were written in their last digit.
            return pd.DataFrame([json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()])
        if ending == ".parquet":
            return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UsageError(f"{path} cannot be read: {reason}.") from None
    raise UsageError(f"{path} ends in '{ending}'; expected .csv, .tsv, .jsonl or .parquet.")


def _record(row: _Read, path: Path, seen: dict[tuple[Any, ...], int]) -> Record:
    task, method = row.text("task"), row.text("method")
    if not task or not method:
        raise UsageError(f"{row.where}: task and method must not be empty.")
    status = row.text("status") or "ok"
    if status not in STATUSES:
        raise UsageError(f"{row.where}: status is '{status}'; expected one of {', '.join(STATUSES)}.")
    value = row.number("score")
    if status == "ok" and value is None:
        raise UsageError(f"{row.where}: there is no score. Leave such rows out, or give them a status.")
    metric = row.text("metric") or "score"
    config = {name: said for name in ("variant", "budget") if (said := row.text(name)) not in (None, "default")}
    n_train = row.whole("n_train") or 0
    device = row.text("device") or "unknown device"
    backbone = row.text("backbone")
    key = (task, backbone, method, str(config), n_train, device)
    seed = row.whole("seed")
    if seed is None:
        seed = seen[key] = seen.get(key, -1) + 1
    score = None
    if status == "ok" and value is not None:
        flag = row.text("higher_is_better")
        higher = metric.lower() not in _LOWER_IS_BETTER if flag is None else flag.lower() in ("1", "true", "yes")
        n_test = row.whole("n_test") or 0
        score = Score(metric, value, row.number("score_low"), row.number("score_high"), higher, n_test)
    return imported(
        cell=Cell(
            task=task,
            data=f"imported from {path.name}",
            backbone=backbone,
            weights=None if backbone is None else "imported",
            method=method,
            version=1,
            config=config,
            n_train=n_train,
            budget=Budget(),
            seed=seed,
        ),
        device=device,
        kind=row.text("kind") or "unknown",
        family=row.text("family") or "unknown",
        status=cast("Status", status),
        source=path.name,
        protocol=PROTOCOL,
        score=score,
        train_score=row.number("train_score"),
        cost=Cost(
            **cast("Any", {name: row.number(name) for name in _SECONDS}),
            **cast("Any", {name: row.whole(name) for name in (*_WHOLE[3:], *_WHOLE_TOO)}),
        ),
        error=None if status == "ok" else row.text("error") or f"{status} in {path.name}",
    )


_SECONDS: Final = (*_NUMBERS[4:], *_NUMBERS_TOO)
