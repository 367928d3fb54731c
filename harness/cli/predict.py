"""`harness predict`."""

from __future__ import annotations

import csv
from pathlib import Path

from rich.console import Console

from harness.errors import DataError, UsageError


def predict_command(model: Path, data: Path, text: str, out: Path, device: str) -> int:
    """Add the columns `prediction` and `probability` to a file's rows."""
    from harness.data.files import read_rows
    from harness.measure.device import check_name
    from harness.saved import load_model
    from harness.saved.layout import read_description

    check_name(device)
    read_description(model)
    if out.suffix.lower() not in (".csv", ".tsv"):
        raise UsageError(f"--out '{out}' was given; expected a name that ends in .csv or .tsv.")
    if out.resolve() == data.resolve():
        raise UsageError(f"--out '{out}' is the file that is read; name another one.")
    rows = read_rows(data, [text], others=True)
    texts = rows.columns[text]
    for at, value in enumerate(texts):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{data}: {rows.origin.at(at)}: column '{text}' holds {value!r}; expected a text.")
    for name in ("prediction", "probability"):
        if name in rows.columns:
            raise DataError(f"{data} has a column '{name}' already; rename it, so that nothing is overwritten.")
    loaded = load_model(model, device)
    probabilities = loaded.probabilities(texts)
    best = probabilities.argmax(axis=1)
    columns = {
        **rows.columns,
        "prediction": [loaded.labels[k] for k in best],
        "probability": [f"{row[k]:.4f}" for row, k in zip(probabilities, best, strict=True)],
    }
    with out.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t" if out.suffix.lower() == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    Console(highlight=False).print(f"{len(texts):,} predictions: {out}", markup=False, soft_wrap=True)
    return 0
