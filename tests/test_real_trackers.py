"""MLflow, trackio, Weights & Biases and TensorBoard keep each record once, in local stores, with no network."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.api.tracking import send_records
from harness.records.record import CurvePoint, Record
from harness.store.store import Store
from harness.tracking.runs import tracked_run
from harness.tracking.tracker import trackers
from tests.record_factory import make_record, with_facts

CURVE = (CurvePoint(4, 0.5, None, 1.25, None), CurvePoint(8, 1.0, None, 0.5, 0.75))
RECORDS: list[Record] = [
    *(with_facts(make_record("lora", 32, seed, curve=CURVE), at_defaults=True) for seed in (0, 1)),
    with_facts(make_record("full", 32, 0, status="out_of_memory", error="no memory"), at_defaults=True),
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of three records, in a folder in which trackers keep their runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    with Store.open("records.sqlite") as opened:
        for record in RECORDS:
            opened.add(record)
    return "records.sqlite"


def send_twice(name: str, store: str) -> None:
    """Send all records, then send them again, which must add nothing."""
    tracker = trackers.get(name)
    if importlib.util.find_spec(tracker.module) is None:
        pytest.skip(f"{tracker.module} is not installed: {tracker.install}")
    (first,) = send_records(name, store)
    assert (first.n_sent, first.n_known, first.n_unsent, first.why) == (3, 0, 0, None)
    (second,) = send_records(name, store)
    assert (second.n_sent, second.n_known, second.n_unsent, second.why) == (0, 3, 0, None)


def test_mlflow(store: str, tmp_path: Path) -> None:
    send_twice("mlflow", store)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:

        def rows(query: str, *values: object) -> list[Any]:
            return database.execute(query, values).fetchall()

        found = rows("SELECT name, status, run_uuid, start_time, end_time FROM runs")
        assert len(found) == 3
        runs = {run[0]: run for run in found}
        for record in RECORDS:
            wanted = tracked_run(record)
            _, status, run_id, start, end = runs[wanted.name]
            assert status == ("FINISHED" if record.status == "ok" else "FAILED")
            assert (start, end) == (wanted.began_ms, wanted.ended_ms)
            params = dict(rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id))
            assert params == {name: str(value) for name, value in wanted.parameters.items()}
            tags = dict(rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
            assert wanted.tags.items() <= tags.items()
            latest = dict(rows("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", run_id))
            assert wanted.metrics.items() <= latest.items()
            query = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
            loss = rows(query, run_id, "curve/train_loss")
            assert loss == ([(4, 1.25), (8, 0.5)] if record.curve == CURVE else [])
            assert len(rows(query, run_id, "score")) == (record.status == "ok")
        before = rows("SELECT count(*) FROM metrics")
        database.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL")  # as where sending was interrupted
    (again,) = send_records("mlflow", store)
    assert (again.n_sent, again.n_known) == (3, 0)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        assert database.execute("SELECT count(*) FROM metrics").fetchall() == before


def test_trackio(store: str, tmp_path: Path) -> None:
    send_twice("trackio", store)
    (file,) = (tmp_path / "trackio").glob("*.db")
    assert file.stem == RECORDS[0].suite
    with sqlite3.connect(file) as database:
        configs = dict(database.execute("SELECT run_name, config FROM configs").fetchall())
        logged = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert configs.keys() == {tracked_run(record).name for record in RECORDS}
    for record in RECORDS:
        run = tracked_run(record)
        config = json.loads(configs[run.name])
        assert config["harness.record"] == run.key
        assert {**run.parameters, "status": record.status}.items() <= config.items()
        steps = [(step, json.loads(metrics)) for name, step, metrics in logged if name == run.name]
        assert steps == [*((point.step, point.values) for point in run.curve), (run.last_step, run.metrics)]


def test_wandb(store: str, tmp_path: Path) -> None:
    send_twice("wandb", store)
    kept = {folder.name.split("-", 3)[3]: folder for folder in (tmp_path / "wandb").glob("offline-run-*")}
    assert kept.keys() == {tracked_run(record).key for record in RECORDS}
    for record in RECORDS:
        run = tracked_run(record)
        content = next(kept[run.key].glob("*.wandb")).read_bytes()
        assert run.name.encode() in content
        assert record.status.encode() in content
        assert (b"curve/train_loss" in content) == (record.curve == CURVE)


def test_tensorboard(store: str, tmp_path: Path) -> None:
    send_twice("tensorboard", store)
    for record in RECORDS:
        run = tracked_run(record)
        (folder,) = (tmp_path / "runs" / record.suite).glob(f"*-{run.key}")
        (file,) = folder.iterdir()
        scalars: dict[str, list[tuple[int, float]]] = {}
        parameters: dict[str, object] = {}
        for event in events(file):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
                elif value.tag == "_hparams_/session_start_info":
                    parameters = parameters_of(value.metadata.plugin_data.content)
        assert parameters == run.parameters
        assert scalars.pop("curve/train_loss", []) == ([(4, 1.25), (8, 0.5)] if record.curve == CURVE else [])
        assert scalars.pop("curve/validation", []) == ([(8, 0.75)] if record.curve == CURVE else [])
        single = {name: struct.unpack("f", struct.pack("f", value))[0] for name, value in run.metrics.items()}
        assert {name: points[0][1] for name, points in scalars.items()} == single
    assert not list((tmp_path / "runs").rglob(".partial*"))


def events(file: Path) -> Iterator[Any]:
    """The events of a file: each has its length in eight bytes, four of a checksum, itself, and four of another."""
    from tensorboardX.proto.event_pb2 import Event

    content, start = file.read_bytes(), 0
    while start < len(content):
        (length,) = struct.unpack("<Q", content[start : start + 8])
        yield Event.FromString(content[start + 12 : start + 12 + length])
        start += 16 + length


def parameters_of(content: bytes) -> dict[str, object]:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    found = HParamsPluginData.FromString(content).session_start_info.hparams
    return {
        name: int(one.number_value) if one.HasField("number_value") else one.string_value for name, one in found.items()
    }


def test_tensorboard_itself_reads_the_folder(store: str, tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    send_twice("tensorboard", store)
    run = tracked_run(RECORDS[0])
    (folder,) = (tmp_path / "runs").rglob(f"*-{run.key}")
    read = accumulators.EventAccumulator(str(folder)).Reload()
    assert [(one.step, one.value) for one in read.Scalars("curve/train_loss")] == [(4, 1.25), (8, 0.5)]
    assert read.Scalars("score")[0].value == pytest.approx(run.metrics["score"])
