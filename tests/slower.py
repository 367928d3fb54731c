"""Tests that are not `fast`, as `slower.txt` lists them: file and function, by measured seconds.

    pytest -p no:xdist --durations=0 --durations-min=0.1 | python -m tests.slower

writes the list anew, on a machine that does nothing else. A new test is fast until it is measured.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

LIST = Path(__file__).parent / "slower.txt"
REAL_DATA = {"mirror", "minilm", "sst2"}
"""Fixtures that load a real backbone or real data: a test that asks for one is not fast."""


def read_slower() -> frozenset[str]:
    """Return the listed tests, such as `test_kills.py::test_ctrl_c_once_ends_with_the_running_cell`."""
    return frozenset(LIST.read_text("utf-8").split())


def slower_in(durations: Iterable[str]) -> list[str]:
    """Return the tests that pytest's `--durations` names, sorted. Setups are left out: several tests share them."""
    named = (re.match(r"\S+s call +(?:tests/)?([^\[\s]+)", line) for line in durations)
    return sorted({found[1] for found in named if found})


if __name__ == "__main__":
    LIST.write_text("".join(f"{name}\n" for name in slower_in(sys.stdin)), "utf-8")
