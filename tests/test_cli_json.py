"""`--json`: nothing but strict JSON on standard output, from every command that answers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from harness.backbones.locate import BackboneFiles
from harness.cli.main import app
from harness.measure.device import Device
from harness.tasks import Task
from tests.command_examples import EXAMPLES, make_folder, stand_in
from tests.commands import run_apart

TESTED_ELSEWHERE = {"run", "rank-backbones", "audit-defaults", "replay", "speed"}
"""Commands whose JSON is tested with their other print-outs."""

EXIT_CODES = {"compare": 1}
"""Exit codes of the examples, where they are not 0: `theirs.jsonl` has a method that got worse."""


@pytest.fixture(scope="module")
def prepared(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    make_folder(folder, toy, tiny, cpu)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stand_in(monkeypatch)
    shutil.copytree(prepared, tmp_path / "work", symlinks=True)
    return tmp_path / "work"


def commands() -> dict[str, Any]:
    """Every command of the command line, from its own registry."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def values(found: Any) -> Iterator[Any]:
    yield found
    for item in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from values(item)


def keys(found: Any) -> set[str]:
    return {key for one in values(found) if isinstance(one, dict) for key in one}


def answer(folder: Path, name: str, *more: str) -> Any:
    code, out, error = run_apart(name, *EXAMPLES[name], *more, "--json", cwd=folder)
    assert code == EXIT_CODES.get(name, 0), error
    return json.loads(out, parse_constant=refuse)


def test_every_command_has_it_and_an_example() -> None:
    for name, command in commands().items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, name
    assert EXAMPLES.keys() == commands().keys() - TESTED_ELSEWHERE


@pytest.mark.parametrize("name", EXAMPLES)
def test_standard_output_is_strict_json_and_the_exit_code_stays(name: str, folder: Path) -> None:
    found = answer(folder, name)
    assert isinstance(found, dict | list)
    assert found
    assert all(math.isfinite(one) for one in values(found) if isinstance(one, float))
    assert not {key for key in keys(found) if key.endswith(("_s", "_ms", "_mb", "_gb", "_time", "_memory"))}  # no units


def test_notes_and_progress_go_to_standard_error(folder: Path) -> None:
    code, out, error = run_apart("choose", *EXAMPLES["choose"], "--json", cwd=folder)
    assert code == 0
    assert json.loads(out)["method"] == "linear-probe"
    assert "a line of the reasoning" in error
    assert "Warning: two labels look alike" in error


def test_an_error_keeps_its_message_and_its_exit_code(folder: Path) -> None:
    for given in (("predict", *EXAMPLES["predict"], "--top", "7"), ("suites", "no-such"), ("advise",)):
        code, out, error = run_apart(*given, "--json", cwd=folder)
        assert (code, out) == (2, "")
        assert error.startswith("Error: ")


def test_answers_hold_the_figures(folder: Path) -> None:
    plan = answer(folder, "plan")
    assert plan["n_cells"] == len(plan["cells"]) == 2
    assert plan["total_seconds"] > 0
    status = answer(folder, "status")
    assert sum(n for row in status["rows"] for n in row["counts"].values()) == 73
    assert [one["error"] for one in status["failed"]] == ["ValueError: a label is missing"]
    assert answer(folder, "export") == {"file": "rows.csv", "n_rows": 73}
    assert answer(folder, "import") == {"store": "other.sqlite", "n_added": 67, "n_known": 0, "n_repeated": 0}
    compared = answer(folder, "compare")
    assert compared["verdicts"]["worse"] == sum(row["verdict"] == "worse" for row in compared["rows"]) > 0
    assert {row["method"] for row in compared["rows"] if row["verdict"] == "worse"} == {"lora"}
    predicted = answer(folder, "predict")
    assert (predicted["n_rows"], predicted["n_predicted"]) == (3, 2)
    assert predicted["unpredicted"] == [{"reason": "blank", "n_rows": 1, "where": "line 3"}]
    assert predicted["probabilities_are"] == "shares of its neighbours' votes"
    report = answer(folder, "report")
    assert report == {
        "report": "reports/all/report.html",
        "n_records": 73,
        "opened": False,
        "statuses": report["statuses"],
    }
    advice = answer(folder, "advise")
    assert advice["choices"][0]["fits"]
    assert answer(folder, "doctor")["missing"] == []


def test_forget_lists_and_deletes_only_when_told(folder: Path) -> None:
    preview = answer(folder, "forget")
    assert len(preview["records"]) == 12
    assert (preview["n_forgotten"], preview["n_left"]) == (0, 73)
    assert (answer(folder, "forget", "--yes")["n_forgotten"], answer(folder, "forget")["n_left"]) == (12, 61)


def test_the_page_of_a_report_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: not opened.append(address))
    code, out, _ = run_apart("report", "--open", cwd=folder)
    assert code == 0
    assert opened == [(folder / "reports" / "all" / "report.html").as_uri()]
    assert "Report: reports/all/report.html" in out
    assert "browser" not in out
    assert answer(folder, "report", "--overwrite")["opened"] is True
