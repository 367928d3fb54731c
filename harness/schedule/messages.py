"""Workers as their driver sees them, and the messages between them: plain types that any channel can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from harness.backbones import BackboneFiles
from harness.measure import Device
from harness.methods import Rung
from harness.records import Record, Status
from harness.running import Job, Standing
from harness.tasks import Task


@dataclass(frozen=True)
class Ready:
    """A worker has imported what it needs, or cannot run cells.

    Attributes:
        device: where it runs cells; None where the device that was asked for is not there.
        why_not: why there is no device.
    """

    device: Device | None
    why_not: str | None = None


@dataclass(frozen=True)
class Begun:
    """A worker has all that the cell needs, and measures from here on.

    Attributes:
        rss_bytes: resident memory of the process now, the baseline of a limit on memory.
    """

    rss_bytes: int


@dataclass(frozen=True)
class Warned:
    """A worker has a warning for the user."""

    text: str


@dataclass(frozen=True)
class CellProgress:
    """The stage of a running cell, the fraction of its budget that is spent, and its latest loss."""

    doing: str
    fraction: float | None
    loss: float | None


@dataclass(frozen=True)
class Alive:
    """A worker is alive.

    Attributes:
        standing: progress of its cell; None where it runs none now.
    """

    standing: Standing | None = None


@dataclass(frozen=True)
class Done:
    """A cell has its record, whatever its status.

    Attributes:
        is_last: whether the worker ends after it.
    """

    record: Record
    is_last: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """The cell's identity and the number of the attempt."""
        return self.record.id, self.record.attempt


@dataclass(frozen=True)
class Lost:
    """A worker has died while it ran a cell.

    Attributes:
        how: cause of the death: `was killed by signal 11 (SIGSEGV)`, `exited with status 3`.
        of_memory: whether the kernel killed it because memory was short.
        said: last lines of its output, for the record's error; empty for none.
    """

    how: str
    of_memory: bool = False
    said: str = ""


@dataclass(frozen=True)
class Stopped:
    """A cell was stopped because it went over a limit.

    Attributes:
        status: `out_of_time` or `out_of_memory`.
        why: the limit, and what was reached.
    """

    status: Status
    why: str


@dataclass(frozen=True)
class Checked:
    """Answer to `CheckBackbone`.

    Attributes:
        why: reason why the backbone cannot be loaded; None where it can.
    """

    why: str | None


@dataclass(frozen=True)
class AtRung:
    """A fit has reached a rung, and waits for `GoOn`."""

    rung: Rung


FromWorker: TypeAlias = Ready | Checked | Begun | Warned | CellProgress | Alive | AtRung | Done
Event: TypeAlias = Begun | Warned | CellProgress | AtRung | Done | Lost | Stopped


@dataclass(frozen=True)
class Give:
    """To a worker: a task, once, before the first cell of it."""

    task: Task


@dataclass(frozen=True)
class CheckBackbone:
    """To a worker: load a backbone, and say whether that can be done."""

    files: BackboneFiles


@dataclass(frozen=True)
class Preload:
    """To a worker: load a backbone that cells are likely to need, and say nothing."""

    files: BackboneFiles


@dataclass(frozen=True)
class GoOn:
    """To a worker whose fit waits at a rung: whether the fit goes on."""

    does: bool


ToWorker: TypeAlias = CheckBackbone | Preload | Give | GoOn | Job


class Workers(Protocol):
    """Workers that cells run on, of any executor."""

    @property
    def n_free(self) -> int:
        """Number of cells that could be started now."""

    @property
    def n_running(self) -> int:
        """Number of running cells."""

    def refusals(self, backbones: Sequence[BackboneFiles]) -> dict[str, str]:
        """Return why backbones cannot be loaded, by their fingerprints; cells run on the others only."""

    def start(self, job: Job, task: Task) -> None:
        """Run a cell; `events` returns its result."""

    def events(self, timeout: float) -> list[tuple[Job, Event]]:
        """Return the events of running cells; wait up to `timeout` seconds for the first."""

    def decide(self, job: Job, *, goes_on: bool) -> None:
        """Answer the event `AtRung` of a job that has rungs."""

    def close(self) -> None:
        """End all workers now; the cells that they were running are lost."""


class Executor(Workers, Protocol):
    """Workers as a command uses them: started before the first cell, ended after the last.

    Attributes:
        remarks: remarks for the user on machines that are not used.
    """

    remarks: list[str]

    @property
    def device(self) -> Device:
        """Device that cells run on; the workers are started, and one is waited for."""

    def warm_up(self) -> None:
        """Start the workers now: they import what they need while the driver gets ready."""

    def preload(self, files: BackboneFiles) -> None:
        """Let a worker load a backbone while the driver reads the data; `refusals` says whether that worked."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
