"""Trackers for tests: one that keeps runs, and some that misbehave. They run in processes of their own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import ClassVar

from harness.tracking.tracker import TrackedRun, Tracker

SECRET = "s3cret-of-the-tracker"


class Keeping(Tracker):
    """Keeps runs as lines of `kept.jsonl` in the current folder."""

    name: ClassVar[str] = "keeping"
    module: ClassVar[str] = "json"
    install: ClassVar[str] = "pip install nothing"

    def __init__(self) -> None:
        self._file = Path("kept.jsonl").resolve()
        self._file.touch()

    def where(self) -> str:
        return f"https://user:{SECRET}@host/{self._file.name}"

    def send(self, run: TrackedRun) -> bool:
        print("a library prints this where the answers go")
        if run.key in {kept["key"] for kept in read_kept(self._file)}:
            return False
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run.to_json()) + "\n")
        return True


class Hanging(Keeping):
    """Never answers."""

    name: ClassVar[str] = "hanging"

    def send(self, run: TrackedRun) -> bool:
        while True:
            time.sleep(60)


class HangingAtStart(Keeping):
    """Never starts."""

    name: ClassVar[str] = "hanging-at-start"

    def __init__(self) -> None:
        while True:
            time.sleep(60)


class Raising(Keeping):
    """Refuses every run, with a secret in its message."""

    name: ClassVar[str] = "raising"

    def send(self, run: TrackedRun) -> bool:
        raise ConnectionError(f"refused: api_key {os.environ['TRACKER_API_KEY']} at https://user:{SECRET}@host")


class RaisingOnce(Keeping):
    """Refuses its first run, and keeps the others."""

    name: ClassVar[str] = "raising-once"
    _has_refused = False

    def send(self, run: TrackedRun) -> bool:
        if not self._has_refused:
            self._has_refused = True
            raise ConnectionError("refused once")
        return super().send(run)


class FailingAtStart(Keeping):
    """Cannot be opened."""

    name: ClassVar[str] = "failing-at-start"

    def __init__(self) -> None:
        raise ConnectionError(f"no server at https://user:{SECRET}@host")


class Dying(Keeping):
    """Its process dies over the first run."""

    name: ClassVar[str] = "dying"

    def send(self, run: TrackedRun) -> bool:
        os._exit(3)


class Slow(Keeping):
    """Keeps a run in 0.3 seconds."""

    name: ClassVar[str] = "slow"

    def send(self, run: TrackedRun) -> bool:
        time.sleep(0.3)
        return super().send(run)


ALL: list[type[Tracker]] = [
    Keeping,
    Hanging,
    HangingAtStart,
    Raising,
    RaisingOnce,
    FailingAtStart,
    Dying,
    Slow,
]


def read_kept(file: Path) -> list[dict[str, object]]:
    """The runs that `Keeping` has kept."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
