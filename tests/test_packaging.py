"""Suites and reference results are found from any folder: in a wheel and in a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_LOOK = """
import harness, sys
from harness.support.resources import shipped
from harness.planning.suites import load_suite, suite_names
print(harness.__file__)
print(sorted(path.name for path in shipped("suites").iterdir() if path.name.endswith(".yaml")))
print(shipped("results/reference").is_dir())
print([load_suite(name).name for name in suite_names()])
"""


def look(cwd: Path, path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LOOK],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_wheel_carries_what_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it comes with the extra dev")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "site")
        names = opened.namelist()
    assert not [name for name in names if name.startswith(("tests/", "suites/", "results/"))]
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "harness = harness.cli.main:main" in (tmp_path / "site" / entry).read_text()
    listed = subprocess.run(
        [sys.executable, "-c", "from harness.cli.main import main; main()", "suites"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "docstrings" in listed.stdout
    where, suites, reference, loaded = look(tmp_path, tmp_path / "site")
    assert Path(where).is_relative_to(tmp_path / "site")
    assert suites == look(tmp_path, ROOT)[1]
    assert "quickstart" in loaded
    assert reference == "True"


def test_a_checkout_is_an_editable_install(tmp_path: Path) -> None:
    """An editable install puts the checkout on the path, and nothing else."""
    where, suites, reference, _ = look(tmp_path, ROOT)
    assert Path(where).is_relative_to(ROOT)
    assert "quickstart.yaml" in suites
    assert reference == "True"
