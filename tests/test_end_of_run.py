"""The end of a run, and a report, hold the predictions of one record at a time: those of all do not fit in memory."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness.cli import run as run_module
from harness.cli.inspect import write_report_command
from harness.cli.run import RunOptions
from harness.measure.device import Device
from harness.records.predictions import Predictions
from harness.schedule.drive import Outcome
from harness.schedule.prepare import Prepared
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
    monkeypatch.setattr("harness.report.write.write_report", lambda source, *_, **__: seen.append(source))
    monkeypatch.setattr(run_module, "print_tables", lambda *_: None)
    write_report_command("quickstart", tmp_path / "report", str(path), "png")
    [observed] = seen
    assert len(observed.records) == len(observed.correct) == N_RECORDS
    assert 1 <= most_at_once[0] <= 3
    with pytest.raises(UsageError, match=r"Unknown suite among these records 'quickstar'.*Did you mean 'quickstart'"):
        write_report_command("quickstar", tmp_path / "report", str(path), "png")


def test_the_end_of_a_run_holds_the_predictions_of_few_records(
    path: Path, cpu: Device, most_at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = frozenset(make_record(seed=seed).id for seed in range(N_RECORDS))
    device = SimpleNamespace(name=DEVICE, kind="cpu")
    prepared = Prepared("quickstart", (), {}, {}, device)  # type: ignore[arg-type]
    seen: list[Any] = []
    monkeypatch.setattr("harness.schedule.prepare_plan", lambda *_: prepared)
    monkeypatch.setattr("harness.schedule.drive.run_cells", lambda *_: Outcome(ids, 0, 0))
    monkeypatch.setattr(run_module, "_conclude", lambda *args: seen.append(args[3]) or 0)
    workers: Any = SimpleNamespace(warm_up=lambda: None, remarks=[], device=device)
    options = RunOptions(store=str(path), reports=path.parent)
    assert run_module._run(None, workers, Console(quiet=True), options, None) == 0  # type: ignore[arg-type]
    [observed] = seen
    assert len(observed.records) == len(observed.correct) == N_RECORDS
    assert 1 <= most_at_once[0] <= 3
