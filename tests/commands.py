"""The command line as tests run it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def run_cli(*arguments: str, cwd: Path, code: int = 0, own_process: bool = False, **environment: str) -> str:
    """Run the command in a folder of its own; returns stdout and stderr together.

    In this process, where everything is imported already, unless the test is about a process of its own.
    """
    environment = {"HARNESS_STORE": "results/harness.sqlite", "COLUMNS": "200", **environment}
    if own_process:
        returned, output = _in_a_process(arguments, cwd, environment)
    else:
        both = io.StringIO()
        returned, output = _in_this_process(arguments, cwd, environment, both, both), both.getvalue()
    assert returned == code, output
    assert "Traceback" not in output
    return output


def run_apart(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """Run the command in this process; returns its exit code, standard output and standard error."""
    environment = {"HARNESS_STORE": "results/harness.sqlite", "COLUMNS": "100", **environment}
    out, error = io.StringIO(), io.StringIO()
    code = _in_this_process(arguments, cwd, environment, out, error)
    return code, out.getvalue(), error.getvalue()


@contextlib.contextmanager
def interrupts(when: Callable[[], object], times: int = 1, pause: float = 0.5) -> Iterator[list[float]]:
    """Press Ctrl-C, `times` times, while `run_cli` runs in this process, some seconds after `when` first holds.

    Yields:
        When each was pressed. None is where no command listens: it would end the tests.
    """
    pressed: list[float] = []
    over = threading.Event()

    def press() -> None:
        while not when():
            if over.wait(0.05):
                return
        for _ in range(times):
            if over.wait(pause) or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                return
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    try:
        yield pressed
    finally:
        over.set()
        pressing.join()


def _in_this_process(
    arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], out: io.StringIO, error: io.StringIO
) -> int:
    on_pipe = signal.getsignal(signal.SIGPIPE)
    returned = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["harness", *arguments])
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            returned = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            signal.signal(signal.SIGPIPE, on_pipe)
    return returned


def _in_a_process(arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def everything_said(result: Any, folder: Path) -> str:
    """Output, exception with its causes, and every file that was written."""
    said = [result.output]
    if result.exception is not None:
        said += traceback.format_exception(result.exception)
    said += [str(path) for path in folder.rglob("*")]
    said += [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]
    return "\n".join(said)
