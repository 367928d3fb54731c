"""The end of a run, and a report, hold the predictions of one record at a time: those of all do not fit in memory."""

from __future__ import annotations

import importlib
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from harness import schedule
from harness.api.results import report
from harness.api.runs import run
from harness.records.predictions import Predictions
from harness.report.observations import observe
from harness.schedule.drive import RunOutcome
from harness.schedule.prepare import Prepared
from harness.store.reading import stream_source
from harness.store.store import Store
from harness.support.errors import UsageError
from tests.record_factory import DEVICE, make_record

N_RECORDS = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "many.sqlite") as store:
        for seed in range(N_RECORDS):
            store.add(make_record(seed=seed, n_test=50))
    return tmp_path / "many.sqlite"


@pytest.fixture
def most_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most predictions that were in memory at the same time, as a list of one number."""
    read, alive, most = Predictions.from_json, [0], [0]

    def ended() -> None:
        alive[0] -= 1

    def counting(value: dict[str, Any]) -> Predictions:
        made = read(value)
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        weakref.finalize(made, ended)
        return made

    monkeypatch.setattr(Predictions, "from_json", counting)
    return most


def test_a_report_holds_the_predictions_of_few_records(
    path: Path, tmp_path: Path, most_at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        importlib.import_module("harness.report"), "write_report", lambda source, *_, **__: seen.append(source)
    )
    report(path, tmp_path / "report", suite="quickstart", formats="png")
    [observed] = seen
    assert len(observed.records) == len(observed.by_row) == N_RECORDS
    assert 1 <= most_at_once[0] <= 3
    with pytest.raises(UsageError, match=r"Unknown suite 'quickstar' in these records.*Did you mean 'quickstart'"):
        report(path, tmp_path / "report", suite="quickstar", formats="png")


def test_the_end_of_a_run_holds_the_predictions_of_few_records(
    path: Path, most_at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = frozenset(make_record(seed=seed).id for seed in range(N_RECORDS))
    device = SimpleNamespace(name=DEVICE, kind="cpu")
    prepared = Prepared("quickstart", (), {}, {}, device)  # type: ignore[arg-type]
    workers = MagicMock(remarks=[], device=device)
    workers.__enter__.return_value = workers
    monkeypatch.setattr(schedule, "prepare_plan", lambda *_, **__: prepared)
    monkeypatch.setattr(schedule, "run_cells", lambda *_: RunOutcome(ids, 0, 0))
    monkeypatch.setattr(schedule, "LocalWorkers", lambda *_, **__: workers)
    result = run("quickstart", store=path, reports=None, progress=False)
    assert result.observations is not None
    assert len(result.records) == len(result.observations.by_row) == N_RECORDS
    assert 1 <= most_at_once[0] <= 3


def test_the_end_of_a_run_reads_no_predictions_of_cells_that_it_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record(seed=seed, n_test=50) for seed in range(6)]
    before, now = records[:2], records[2:]
    with Store.open(tmp_path / "some.sqlite") as store:
        for record in (*before, make_record(seed=99)):
            store.add(record)
    wanted_store = tmp_path / "all.sqlite"
    with Store.open(wanted_store) as store:
        for record in records:
            store.add(record)
    device = SimpleNamespace(name=DEVICE, kind="cpu")
    prepared = Prepared("quickstart", (), {}, {}, device)  # type: ignore[arg-type]
    workers = MagicMock(remarks=[], device=device)
    workers.__enter__.return_value = workers

    def recorded(_: object, store: Store, *__: object) -> RunOutcome:
        for record in now:
            store.add(record)
        return RunOutcome(frozenset(record.id for record in records), 0, 0)

    monkeypatch.setattr(schedule, "prepare_plan", lambda *_, **__: prepared)
    monkeypatch.setattr(schedule, "run_cells", recorded)
    monkeypatch.setattr(schedule, "LocalWorkers", lambda *_, **__: workers)
    read, rows = Predictions.from_json, []
    monkeypatch.setattr(Predictions, "from_json", lambda value: (rows.append(value["rows"]), read(value))[1])
    result = run("quickstart", store=tmp_path / "some.sqlite", reports=None, progress=False)
    assert len(rows) == len(before)
    monkeypatch.undo()
    wanted = observe(stream_source(str(wanted_store)))
    assert result.observations is not None
    assert result.observations.records == wanted.records
    assert result.observations.n_per_class == wanted.n_per_class
    assert result.observations.by_row.keys() == wanted.by_row.keys()
    for key, found in result.observations.by_row.items():
        assert found.fingerprint == wanted.by_row[key].fingerprint
        assert (found.values == wanted.by_row[key].values).all()
    assert result.observations.answers.keys() == wanted.answers.keys()
