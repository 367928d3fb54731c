"""Suites and reference results are found from any folder: in a wheel and in a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import harness

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


def run_in(folder: Path, *command: str, path: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **({} if path is None else {"PYTHONPATH": str(path)})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def build(source: Path, target: str, out: Path) -> Path:
    pytest.importorskip("hatchling", reason="hatchling builds packages; it comes with the extra dev")
    run_in(source, sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out))
    [made] = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


def test_the_sdist_builds_the_same_wheel_which_installs_and_works(tmp_path: Path) -> None:
    wheel = build(ROOT, "wheel", tmp_path / "wheel")
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    assert source.name == f"adaptation_harness-{harness.__version__}"
    for name in ("README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "constraints.txt", "docs/glossary.md"):
        assert (source / name).is_file()

    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(build(source, "wheel", tmp_path / "again")) as again:
        assert ours.namelist() == again.namelist()
        assert all(ours.read(name) == again.read(name) for name in ours.namelist())
        assert not [name for name in ours.namelist() if name.startswith(("tests/", "suites/", "results/"))]

    site = tmp_path / "site"
    run_in(tmp_path, sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel))
    assert f"harness {harness.__version__}" in run_in(tmp_path, str(site / "bin" / "harness"), "--version", path=site)
    assert "docstrings" in run_in(tmp_path, str(site / "bin" / "harness"), "suites", path=site)
    where, suites, reference, loaded = look(tmp_path, site)
    assert Path(where).is_relative_to(site)
    assert suites == look(tmp_path, ROOT)[1]
    assert "quickstart" in loaded
    assert reference == "True"


def test_version_date_and_links_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## \[(.+?)\] - (.+)$", changelog, re.MULTILINE)
    assert "unreleased" not in [date for _, date in headings[1:]]  # only the next version may lack its date
    latest = re.search(r"^## \[(.+?)\] - (?!unreleased$)(.+)$", changelog, re.MULTILINE)
    assert latest is not None
    assert (citation["version"], str(citation["date-released"])) == latest.groups()
    assert harness.__version__ == latest[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["license"] == project["license"]
    assert {"Homepage", "Documentation", "Changelog", "Source", "Issues"} <= set(project["urls"])


def test_a_checkout_is_an_editable_install(tmp_path: Path) -> None:
    """An editable install puts the checkout on the path, and nothing else."""
    where, suites, reference, _ = look(tmp_path, ROOT)
    assert Path(where).is_relative_to(ROOT)
    assert "quickstart.yaml" in suites
    assert reference == "True"
