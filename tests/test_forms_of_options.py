"""Options that take a duration, a size, a budget or sizes: a wrong form is refused with the right one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from harness.cli.main import app
from harness.records.budgets import parse_budget, parse_bytes
from harness.support.durations import parse_duration
from harness.support.errors import UsageError

RUN = ("run", "quickstart")
PLAN = ("plan", "quickstart", "--device", "cuda")
CHOOSE = ("choose", "--data", "absent.csv", "--save", "model", "--within", "10m")
ADVISE = ("advise", "--n-train", "100", "--no-reference")

WRONG = [
    (RUN, "--within", "5", "--within 5m or --within 5s"),
    (RUN, "--within", "1h30", "1h30m"),
    (RUN, "--within", "5 parsecs", "90s, 30m"),
    (RUN, "--cell-limit", "90", "--cell-limit 90m or --cell-limit 90s"),
    (RUN, "--cell-limit", "0s", "90s, 30m"),
    (RUN, "--budget", "60s", "--budget train_seconds=60"),
    (RUN, "--budget", "10m", "--budget train_seconds=600"),
    (RUN, "--budget", "60", "--budget train_seconds=60"),
    (RUN, "--budget", "8GB", "--budget peak_memory_bytes=8GB"),
    (RUN, "--budget", "tiny", "small"),
    (RUN, "--budget", "train_seconds=60s", "train_seconds=60"),
    (RUN, "--budget", "train_seconds", "train_seconds=60"),
    (RUN, "--budget", "seconds=60", "train_seconds=60"),
    (RUN, "--budget", "epochs=0", "epochs=3"),
    (RUN, "--budget", "steps=1.5", "steps=100"),
    (RUN, "--budget", "peak_memory_bytes=8XB", "peak_memory_bytes=8GB"),
    (RUN, "--budget", "epochs=3,epochs=4", "expected it once"),
    (RUN, "--seeds", "0-2", "0,1,2"),
    (RUN, "--sizes", "1k", "8/class"),
    (RUN, "--sizes", "0", "8/class"),
    (RUN, "--sizes", "-8", "8/class"),
    (RUN, "--sizes", "8/clas", "8/class"),
    (PLAN, "--device-memory", "24", "--device-memory 24GB"),
    (PLAN, "--device-memory", "24 cows", "8GB"),
    (PLAN, "--device-memory", "0GB", "8GB"),
    (CHOOSE, "--within", "5", "--within 5m or --within 5s"),
    (CHOOSE, "--peak-memory", "8", "--peak-memory 8GB"),
    (CHOOSE, "--peak-memory", "8 cows", "8GB"),
    (("replay",), "--within", "5", "--within"),
    (("labels", "--data", "rows.csv"), "--within", "5", "--within"),
    (("audit-defaults",), "--within", "5", "--within 5m or --within 5s"),
    (ADVISE, "--train-seconds", "ten", "600"),
    (ADVISE, "--train-seconds", "-5", "600"),
    (ADVISE, "--peak-memory", "8", "--peak-memory 8GB"),
    (ADVISE, "--peak-memory", "0GB", "8GB"),
]


@pytest.mark.parametrize(("command", "option", "given", "right"), WRONG, ids=lambda value: str(value)[:24])
def test_a_wrong_form_is_refused_with_what_was_given_and_a_right_form(
    command: tuple[str, ...], option: str, given: str, right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*command, f"{option}={given}"])
    assert isinstance(result.exception, UsageError), result.output
    said = str(result.exception)
    asked = given.split("=")[-1] if "=" in given else given
    assert asked.split(",")[0] in said
    assert right in said
    assert not list(tmp_path.glob("model*"))


def test_no_option_of_these_kinds_is_left_out() -> None:
    """Text options whose help shows a duration, a size of memory, or training sizes are all tested above."""
    root = typer.main.get_command(app)
    found = set()
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            shown = getattr(option, "help", None) or ""
            if re.search(r"\b\d+(s|m|h|GB)\b|\d/class|\bepochs=", shown):
                found.add((name, option.opts[0]))
    tested = {(command[0], option) for command, option, _, _ in WRONG}
    shared = {(name, option) for name in ("plan", "status") for option in ("--budget", "--sizes")}  # as for `run`
    assert found - shared <= tested
    assert found >= {("run", "--within"), ("run", "--cell-limit"), ("choose", "--peak-memory")}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("5m", 300), ("1h30m", 5400), ("1h 30 min", 5400), ("1.5H", 5400), ("2d", 172_800), (".5m", 30)],
)
def test_durations_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text, "--within") == seconds


@pytest.mark.parametrize("text", ["5", "1h30", "30m1h", "5m5m", "1,5h", "5ms", "1e3s", "٣m", "5m later", "0h", "inf"])
def test_durations_that_could_mean_something_else_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--within '.*' was given; expected a duration such as 90s"):
        parse_duration(text, "--within")


def test_an_option_whose_name_says_seconds_takes_a_bare_number() -> None:
    assert parse_duration("600", "--train-seconds", bare=True) == 600
    assert parse_duration("10m", "--train-seconds", bare=True) == 600
    with pytest.raises(UsageError, match="number of seconds such as 600"):
        parse_duration("1h30", "--train-seconds", bare=True)


def test_sizes_of_memory() -> None:
    assert parse_bytes("8GB", "--peak-memory") == parse_budget("peak_memory_bytes=8GB").peak_memory_bytes == 8 * 10**9
    assert parse_bytes(" 7.5 gib ", "--peak-memory") == 7.5 * 2**30
    for text in ("8", "", "GB", "-8GB", "8GBs", "1e400GB", "0.1B"):
        with pytest.raises(UsageError, match=r"such as 8GB, 500MB or 7\.5GiB"):
            parse_bytes(text, "--peak-memory")
