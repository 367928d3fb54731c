"""Run cells in another process, which shares only files with this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones import BackboneFiles
from harness.methods import Method

if TYPE_CHECKING:
    from harness.tasks import Task
    from harness.testing.laboratory import Lab

_RESULT = "RESULT "


@dataclass(frozen=True)
class Case:
    """A method to run, and the folder of its saved form.

    Attributes:
        method: configured method.
        files: files of the backbone.
        saved: folder of the saved method (`save_artifact`).
    """

    method: Method
    files: BackboneFiles
    saved: Path


def predict_elsewhere(cases: Sequence[Case], task: Task, lab: Lab) -> list[tuple[str, Any, Any]]:
    """Return each case's cell identity, its predictions and those of the saved method, from another process.

    Args:
        cases: cases to run.
        task: the task, made by the laboratory.
        lab: the laboratory; its folder keeps the cache of features between calls.

    Raises:
        RuntimeError: the process failed; the message has its output.
    """
    asked = {
        "spec": task.spec.model_dump(mode="json"),
        "cache": str(lab.cache),
        "cases": [
            [
                type(case.method).__module__,
                case.method.name,
                case.method.config(),
                str(case.files.folder),
                str(case.saved),
            ]
            for case in cases
        ],
    }
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import run_cases; run_cases()", json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if done.returncode:
        raise RuntimeError(f"The other process ended with {done.returncode}:\n{done.stderr}")
    lines = [line.removeprefix(_RESULT) for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    return [tuple(json.loads(line)) for line in lines]


def run_cases() -> None:
    """Run the cases that the command line names, and print one line for each."""
    import importlib

    from harness.backbones import locate_backbone
    from harness.data import TaskSpec
    from harness.measure import find_device
    from harness.methods import load_artifact, methods
    from harness.running import Job, Worker
    from harness.tasks import kinds
    from harness.testing.laboratory import make_bench, plan_cell

    asked = json.loads(sys.argv[1])
    spec = TaskSpec(**asked["spec"])
    task = kinds.get(spec.kind).prepare(spec, None)
    device = find_device("cpu")
    worker = Worker(device, Path(asked["cache"]))
    for module, name, settings, backbone, saved in asked["cases"]:
        importlib.import_module(module)  # a method without an entry point
        method, files = methods.get(name)(**settings), locate_backbone(backbone)
        planned = plan_cell(task, files, method)
        record = worker.run(Job(planned, files, "tests"), task)
        if record.predictions is None:
            raise RuntimeError(f"{planned.cell.label()}: {record.status}: {record.error}")
        bench = make_bench(task, files if method.serves else None, device, like=worker)
        restored = load_artifact(Path(saved), bench)[1].predict(task.test_rows_to_predict, bench)
        again = task.kind.decode(task, restored).to_json()
        print(_RESULT + json.dumps([planned.cell.id, record.predictions.to_json(), again]))  # noqa: T201
