"""What a driver and its workers say to each other: plain types that any channel can carry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from harness.backbones import BackboneFiles
from harness.measure import Device, Standing
from harness.planning import PlannedCell
from harness.records import Record
from harness.tasks import Task


@dataclass(frozen=True)
class Job:
    """One cell to run.

    Attributes:
        planned: the cell and its method.
        files: its backbone; None for methods that use none.
        suite: a label for the record.
        attempt: number that the record bears.
        save_to: folder that the fitted method is kept in; None keeps its record alone.
        hurried: whether what takes time and is no part of any cost is left out: `Worker.run`.
    """

    planned: PlannedCell
    files: BackboneFiles | None
    suite: str
    attempt: int
    save_to: Path | None = None
    hurried: bool = False

    @property
    def id(self) -> str:
        """The cell's identity."""
        return self.planned.cell.id

    def standing_in(self, message: object) -> Standing | None:
        """Return where this cell stands, if a message says it; None for a message about another cell or attempt."""
        standing = message.standing if isinstance(message, Alive) else None
        return standing if standing is not None and standing.cell == (self.id, self.attempt) else None

    def is_ended_by(self, done: Done) -> bool:
        """Return whether a record is of this cell and attempt: a worker's last words may be about the one before."""
        return (done.record.id, done.record.attempt) == (self.id, self.attempt)


@dataclass(frozen=True)
class Ready:
    """A worker has imported what it needs."""

    device: Device


@dataclass(frozen=True)
class Begun:
    """A worker has everything that the cell needs from outside, and measures from here on.

    Attributes:
        rss_bytes: resident memory of the process: what a limit on memory is above.
    """

    rss_bytes: int


@dataclass(frozen=True)
class Warned:
    """A worker has something to say that the user should know of."""

    text: str


@dataclass(frozen=True)
class Progress:
    """What a running cell does, how much of its budget is spent, its latest loss."""

    doing: str
    fraction: float | None
    loss: float | None


@dataclass(frozen=True)
class Alive:
    """A worker is there.

    Attributes:
        standing: where its cell stands; None where it runs none now.
    """

    standing: Standing | None = None


@dataclass(frozen=True)
class Done:
    """A cell has come to its record, whatever it says.

    Attributes:
        is_last: whether the worker has ended with it.
    """

    record: Record
    is_last: bool = False


@dataclass(frozen=True)
class Lost:
    """A worker has died over a cell.

    Attributes:
        how: in words: `was killed by signal 11 (SIGSEGV)`, `exited with status 3`.
        of_memory: whether the kernel killed it for want of memory.
        said: the last lines that it wrote, for the record's error; empty for none.
    """

    how: str
    of_memory: bool = False
    said: str = ""


@dataclass(frozen=True)
class Cut:
    """A worker was stopped over a cell that went over a limit.

    Attributes:
        status: `out_of_time` or `out_of_memory`.
        why: what was the limit, and what was reached.
    """

    status: str
    why: str


@dataclass(frozen=True)
class Checked:
    """Whether a backbone can be loaded.

    Attributes:
        why: why not; None where it can.
    """

    why: str | None


FromWorker: TypeAlias = Ready | Checked | Begun | Warned | Progress | Alive | Done
Event: TypeAlias = Begun | Warned | Progress | Done | Lost | Cut


@dataclass(frozen=True)
class Give:
    """To a worker: a task, once, before the first cell of it."""

    task: Task


@dataclass(frozen=True)
class Check:
    """To a worker: load a backbone, and say whether that can be done."""

    files: BackboneFiles


ToWorker: TypeAlias = Check | Give | Job
