"""Reading many records into a table: with kept columns against without, in one process and by CPU time."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.frame import tidy_frame
from harness.api.reading import stream_records
from harness.records.jsonl import write_jsonl
from harness.records.record import CurvePoint, Record
from harness.store.reading import stream_source
from harness.store.rows import pack
from harness.store.store import Store
from harness.support.interpreter import uncollected
from tests.record_factory import make_record

N_RECORDS = 20_000


def many() -> list[Record]:
    """Records with curves of 10 to 40 points, of six configurations."""
    made = []
    for method in ("linear-probe", "lora", "full"):
        for rank in (4, 8):
            one = make_record(method, config={"batch_size": 16, "rank": rank, "epochs": 3.0}, n_test=20)
            points = tuple(
                CurvePoint(8 * i, 1.37 * i, 1.1e12 * i, 0.7 / (i + 1), None) for i in range(10, 20 + 5 * rank)
            )
            made.append(dataclasses.replace(one, predictions=None, curve=points))
    return [
        dataclasses.replace(made[i % 6], cell=dataclasses.replace(made[i % 6].cell, seed=i // 6))
        for i in range(N_RECORDS)
    ]


@uncollected()
def seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("suffix", ["sqlite", "jsonl"])
def test_kept_columns_halve_the_time_of_a_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"many.{suffix}"
    records = many()
    if suffix == "jsonl":
        write_jsonl(records, path)
    else:
        with Store.open(path) as store:
            store.add_new(pack(("made", record) for record in records))
    source = str(path)
    list(stream_records(source, with_predictions=False))  # keeps the columns, and imports what is needed
    tidy_frame(records[:10])
    plain = seconds(lambda: tidy_frame(list(stream_source(source, with_predictions=False))))
    kept = seconds(lambda: tidy_frame(list(stream_records(source, with_predictions=False))))
    print(json.dumps({"source": suffix, "plain": round(plain, 2), "kept": round(kept, 2)}))
    assert kept <= 0.6 * plain
    assert kept * 100_000 / N_RECORDS <= 8.0  # 5 s on a quiet core
