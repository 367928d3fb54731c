"""Keep the records of a published report, so that the next one can say what changed.

`records.jsonl` holds the records without predictions, and can be read like any such file. `rows.npz` holds the score of
each cell on each test row, for paired intervals; it holds no texts, labels or predictions.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from harness.records import dump, payload_of, read_jsonl
from harness.report import Observations, RowScores
from harness.support import StoreError

RECORDS, ROWS = "records.jsonl", "rows.npz"


def save_state(observations: Observations, folder: Path) -> None:
    """Write records and scores by test row; the same records give the same bytes, whatever their order."""
    order = sorted(range(len(observations.records)), key=lambda i: _key(observations, i))
    records = [observations.records[i] for i in order]
    lines = "".join(f"{dump(payload_of(record))}\n" for record in records)
    (folder / RECORDS).write_text(lines, encoding="utf-8", newline="\n")
    balanced = [observations.n_per_class[i] for i in order]
    arrays = {"n_per_class": np.array([-1 if n is None else n for n in balanced], dtype=np.int64)}
    names, are_means = [], []
    for i, record in enumerate(records):
        rows = observations.by_row.get((record.id, record.device))
        names.append("" if rows is None else rows.fingerprint)
        are_means.append(rows is not None and rows.is_mean)
        if rows is not None:
            arrays[f"rows_{i}"] = rows.values
    arrays |= {"fingerprints": np.array(names, dtype=np.str_), "are_means": np.array(are_means, dtype=np.bool_)}
    np.savez_compressed(folder / ROWS, **arrays)  # type: ignore[arg-type]


def _key(observations: Observations, i: int) -> tuple[str, str]:
    record = observations.records[i]
    return (record.id, record.device)


def load_state(folder: Path) -> Observations:
    """Return the observations that `save_state` wrote.

    Raises:
        StoreError: a file is missing or damaged.
    """
    records = tuple(read_jsonl(folder / RECORDS))
    try:
        with np.load(folder / ROWS, allow_pickle=False) as found:
            names, are_means = found["fingerprints"].tolist(), found["are_means"].tolist()
            balanced = found["n_per_class"].tolist()
            by_row = {
                (record.id, record.device): RowScores(str(names[i]), found[f"rows_{i}"], bool(are_means[i]))
                for i, record in enumerate(records)
                if f"rows_{i}" in found
            }
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"{folder / ROWS} cannot be read: {error}. Publish to a new folder, or restore the file."
        ) from error
    if len(balanced) != len(records):
        raise StoreError(f"{folder / ROWS} holds {len(balanced)} cells, {RECORDS} {len(records)}; expected as many.")
    return Observations(records, tuple(None if n < 0 else n for n in balanced), by_row)
