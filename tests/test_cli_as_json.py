"""`print_json` writes strict JSON, whatever an answer holds."""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.as_json import print_json


class _Status(Enum):
    OK = "ok"


@dataclass(frozen=True)
class _Answer:
    path: Path
    scores: tuple[float, ...]


def _read(capsys: pytest.CaptureFixture[str], value: object) -> Any:
    print_json(value)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not strict JSON.")

    return json.loads(capsys.readouterr().out, parse_constant=refuse)


def test_what_answers_hold_becomes_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and infinities are null; paths, dataclasses, sets, enums and numpy's scalars are plain."""
    value = {
        "answer": _Answer(Path("a/b"), (0.5, float("nan"), float("inf"))),
        "rows": [np.float64("nan"), np.int64(3), {"b", "a"}, True, None, _Status.OK],
        7: "ü",
    }
    assert _read(capsys, value) == {
        "answer": {"path": "a/b", "scores": [0.5, None, None]},
        "rows": [None, 3, ["a", "b"], True, None, "ok"],
        "7": "ü",
    }


def test_keys_are_sorted_and_the_text_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    """Two answers that are equal print the same text."""
    print_json({"b": 1, "a": [2]})
    assert capsys.readouterr().out == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'


def test_anything_else_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A value that JSON cannot express is an error, not its `repr`."""
    with pytest.raises(TypeError, match="object"):
        print_json({"a": object()})
    assert capsys.readouterr().out == ""
