from __future__ import annotations

import csv
import dataclasses
import json
import re

import pandas as pd
import pytest

from harness.analysis.columns import EXPORT_COLUMNS, EXTRA_COLUMNS
from harness.analysis.export import export_records
from harness.analysis.frame import export_frame, tidy_frame
from harness.records.record import Budget, Cost
from harness.support.errors import StoreError, UsageError
from tests.record_factory import make_grid, make_record

# Copied from the issue that promised them.
PROMISED = """
id, suite, task, kind, backbone, method, family, n_train, budget, seed, status, metric, score, score_low,
score_high, n_test, train_score, load_seconds, encode_seconds, fit_seconds, predict_seconds, total_seconds,
train_flops, train_tokens, peak_device_bytes, peak_rss_bytes, peak_rss_above_baseline_bytes, n_parameters,
n_trainable, artifact_bytes, stopped_by, precision, device, error
"""
NAMES = re.findall(r"\w+", PROMISED)

HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'quoted", 'a,"b"\nc', " =x", "é|<b>", "NA", "null", ""]


def test_the_export_has_exactly_the_columns_promised_in_their_order():
    assert list(export_frame([]).columns) == NAMES
    assert list(tidy_frame([]).columns) == [*NAMES, *(column.name for column in EXTRA_COLUMNS), "variant", "settings"]
    assert all(column.doc for column in EXPORT_COLUMNS + EXTRA_COLUMNS)


def test_every_figure_of_a_record_is_in_its_row():
    record = make_record(seconds=2.0, budget=Budget(train_seconds=60, epochs=3))
    (row,) = tidy_frame([record]).to_dict("records")
    assert (row["id"], row["budget"], row["method"], row["variant"]) == (
        record.id,
        "train_seconds=60, epochs=3",
        "lora",
        "lora",
    )
    assert row["score"] == record.score.value
    assert row["total_seconds"] == pytest.approx(0.4 + 2.0 + 0.9)
    assert row["train_seconds"] == pytest.approx(2.0)
    assert row["peak_rss_bytes"] == record.cost.peak_rss_bytes
    assert row["device"] == record.device
    assert row["reused"] == "features"


def test_absence_is_null_and_whole_numbers_stay_whole():
    failed = dataclasses.replace(make_record(status="failed", backbone=None), cost=Cost())
    frame = export_frame([make_record(), failed])
    assert frame.dtypes.astype(str).to_dict() == {column.name: column.dtype for column in EXPORT_COLUMNS}
    assert frame.loc[1, ["score", "n_test", "fit_seconds", "peak_rss_bytes", "backbone", "stopped_by"]].isna().all()
    assert frame.loc[0, "n_trainable"] == 78_348
    assert isinstance(frame.loc[0, "n_trainable"].item(), int)
    assert not (frame.select_dtypes("number") == -1).any().any()


def test_two_configurations_of_a_method_never_share_a_label():
    configs = [
        {"rank": 4, "batch_size": 16},
        {"rank": 8, "batch_size": 16},
        {"rank": 8, "batch_size": 16, "target": {"layers": [1, 2], "part": "all"}},
        {"rank": "8", "batch_size": 16},
    ]
    records = [make_record(config=config) for config in configs] + [make_record("full"), make_record("full", seed=1)]
    records.append(make_record("head", version=2))
    assert tidy_frame(records)["variant"].tolist() == [
        "lora[rank=4]",
        "lora[rank=8]",
        "lora[rank=8, +2]",
        'lora[rank="8"]',
        "full",
        "full",
        "head",
    ]
    assert tidy_frame(records)["settings"].tolist()[2:5] == [
        "rank=8, target.layers=[1,2], target.part=all",
        'rank="8"',
        "",
    ]
    versions = tidy_frame([make_record("head", version=1), make_record("head", version=2)])["variant"]
    assert versions.tolist() == ["head[version=1]", "head[version=2]"]


def test_a_balanced_draw_tells_the_labels_of_each_class():
    known = make_record(draw="balanced", n_train=96)
    assert tidy_frame([known])["n_per_class"].tolist() == [8]  # twelve classes among the targets
    provenance = dataclasses.replace(known.provenance, dataset={"n_classes": 4})
    stated = dataclasses.replace(known, provenance=provenance, predictions=None)
    unknown = dataclasses.replace(known, predictions=None)
    frame = tidy_frame([stated, unknown, make_record()])["n_per_class"]
    assert frame[0] == 24
    assert frame[1:].isna().all()


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_export_reads_back_as_the_frame(tmp_path, ending):
    records = [*make_grid(sizes=(32,)), make_record(status="out_of_memory", error="needs 9 GB\nof 8")]
    path = tmp_path / "new" / f"cells{ending}"
    assert export_records(iter(records), path) == len(records)
    frame = export_frame(records)
    if ending == ".parquet":
        pd.testing.assert_frame_equal(pd.read_parquet(path), frame)
    elif ending == ".csv":
        dtypes = {column.name: column.dtype for column in EXPORT_COLUMNS}
        found = pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=[""])
        pd.testing.assert_frame_equal(found, frame)
    else:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert [list(row) for row in rows] == [NAMES] * len(records)
        assert rows == [
            {name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")
        ]
        assert isinstance(rows[0]["n_train"], int)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["cells.xlsx", "cells", "cells.CSV.gz"])
def test_another_ending_is_refused_before_a_record_is_read(tmp_path, name):
    with pytest.raises(UsageError, match=r"was given; expected a name that ends in \.csv, \.jsonl or \.parquet"):
        export_records(iter(lambda: pytest.fail("read"), None), tmp_path / name)


def test_an_export_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"x\.csv cannot be written"):
        export_records([make_record()], tmp_path / "file" / "x.csv")


def test_no_text_of_a_csv_is_a_formula_and_all_else_is_kept(tmp_path):
    path = tmp_path / "cells.csv"
    records = [make_record(seed=i, task=text, error=text, status="failed") for i, text in enumerate(HOSTILE)]
    export_records(records, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for text, row in zip(HOSTILE, rows, strict=True):
        risky = text[:1] in tuple("=+-@\t\r")
        assert row["task"] == ("'" + text if risky and text else text)
    assert not any(value[:1] in tuple("=+-@\t\r") for row in rows for value in row.values() if value)


def test_a_number_below_zero_is_no_formula(tmp_path):
    record = make_record()
    path = tmp_path / "cells.csv"
    export_records([dataclasses.replace(record, score=dataclasses.replace(record.score, value=-0.25))], path)
    assert pd.read_csv(path)["score"].tolist() == [-0.25]


def test_an_undecodable_name_does_not_break_an_export(tmp_path):
    for ending in (".csv", ".jsonl", ".parquet"):
        export_records([make_record(status="failed", error="file \ud800")], tmp_path / f"cells{ending}")
    assert "file \\ud800" in (tmp_path / "cells.csv").read_text("utf-8")


def test_no_records_give_an_empty_frame_of_the_right_types(tmp_path):
    export_records([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == ",".join(NAMES) + "\n"
