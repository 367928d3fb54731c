"""The contract of a tracker, and the runs that trackers get."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from harness.support import Registry, UsageError, several


@dataclass(frozen=True)
class Step:
    """One point of a learning curve.

    Attributes:
        step: number of optimiser steps.
        time_ms: time of the point, in milliseconds since 1970.
        values: figures by name, such as `curve/train_loss`.
    """

    step: int
    time_ms: int
    values: dict[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """One record as a run of a tracker.

    Attributes:
        key: text that no other record has: the cell's id, the attempt, and a hash of the device.
        name: name of the run, for people.
        group: label of the record's suite, under which trackers list runs.
        is_ok: whether the record's status is `ok`.
        began_ms, ended_ms: times in milliseconds since 1970; 0 where the record states none.
        parameters: what the cell was.
        metrics: what was measured.
        curve: loss and validation score during the fit.
        tags: facts in words, such as the status.
    """

    key: str
    name: str
    group: str
    is_ok: bool
    began_ms: int
    ended_ms: int
    parameters: dict[str, str | int | float]
    metrics: dict[str, float]
    curve: tuple[Step, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def last_step(self) -> int:
        """Number of steps of the last point of the curve; 0 without one."""
        return max((point.step for point in self.curve), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrackedRun:
        """Return what `to_json` was made from."""
        return cls(**{**value, "curve": tuple(Step(**point) for point in value["curve"])})


class Tracker(ABC):
    """A place that keeps runs. An instance lives in a process of its own, which `harness.tracking.sender` serves.

    Making one opens the place. It may raise any exception; its text reaches the user with secrets masked.

    Attributes:
        name: name of the tracker, as `--track` takes it.
        module: module that must be installed.
        install: command that installs it.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    install: ClassVar[str]

    @abstractmethod
    def where(self) -> str:
        """Return the address or the folder of the runs."""

    @abstractmethod
    def send(self, run: TrackedRun) -> bool:
        """Keep a run, and return when it is kept; return False where the place has a run with this key already."""


def _why_no_tracker(member: Any) -> str | None:
    return None if isinstance(member, type) and issubclass(member, Tracker) else f"{member!r:.80} is no tracker"


trackers: Registry[type[Tracker]] = Registry(
    "tracker",
    "harness.tracking.sinks",
    group="harness.trackers",
    expected="a subclass of harness.tracking.tracker.Tracker",
    why_not=_why_no_tracker,
)
"""All trackers by name."""


def read_trackers(track: str | Sequence[str] | None) -> list[type[Tracker]]:
    """Return the trackers of an argument, each once.

    Raises:
        UsageError: an unknown name, or a package that is not installed.
    """
    names = several("track", track, (str,), "names of trackers", split=lambda text: text.split(",")) or []
    found: dict[str, type[Tracker]] = {}
    for name in (name.strip() for name in names):
        if not name:
            raise UsageError(f"--track '{','.join(names)}' was given; expected some of {', '.join(trackers.names())}.")
        found[name] = trackers.get(name)
    for name, tracker in found.items():
        if importlib.util.find_spec(tracker.module) is None:
            raise UsageError(
                f"--track {name} was given, and the module {tracker.module} is not installed. Try `{tracker.install}`."
            )
    return list(found.values())
