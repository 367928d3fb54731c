"""The commands of docs/tutorial/examples.md, as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands import run_cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial" / "examples.md"
COMMANDS = re.findall(r"^```\nharness (.*?)\n```$", PAGE.read_text("utf-8"), re.MULTILINE)


def test_there_are_three_examples() -> None:
    assert len(re.findall(r"^## ", PAGE.read_text("utf-8"), re.MULTILINE)) == 3
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("advise")])
def test_advice_is_given_as_written(line: str, tmp_path: Path) -> None:
    answer = " ".join(run_cli(*shlex.split(line), cwd=tmp_path).split())  # lines are wrapped anywhere
    assert "is expected to reach accuracy" in answer
    assert "reference results that come with the package" in answer
    if "10000" in line:
        assert "extrapolated" in answer
    if "--trainable-parameters" in line:
        assert re.search(r"full needs 22\.\dM trainable parameters|would fit", answer)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("plan")])
def test_plans_are_made_as_written(line: str, tmp_path: Path, mirror: Path) -> None:
    plan = run_cli(*shlex.split(line), "--mirror", str(mirror), cwd=tmp_path)
    assert "3 cells, 0 done already" in plan
    assert "tfidf" in plan
