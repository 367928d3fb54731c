"""Tables of a user's own, written to files and read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd

from harness.data.classes import read_classes
from harness.data.source import load_splits
from harness.data.table import table_task
from harness.tasks import Task, kinds

ROWS = [(f"Message {at} about {'money' if at % 2 else 'parcels'}", "billing" if at % 2 else "post") for at in range(12)]
MANY = [(f"message {at} about {'money owed' if at % 2 else 'lost parcels'}", "ab"[at % 2]) for at in range(80)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def tickets(path: Path, rows=ROWS, columns=("body", "queue")) -> Path:
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pd.DataFrame(records).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(records)
    return path


def loaded(path: Path, **options):
    spec = table_task(path, "body", "queue", **options)
    return spec, read_classes(spec, load_splits(spec))


def fingerprint(spec):
    return kinds.get(spec.kind).prepare(spec, None).data


def prepared(path: Path, **options: object) -> Task:
    spec = table_task(path, "body", "queue", **options)  # type: ignore[arg-type]
    return kinds.get(spec.kind).prepare(spec, None)
