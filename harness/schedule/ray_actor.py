"""The process of a Ray actor that cells run in: warm from one cell to the next, and expendable.

Cells run in a thread of their own, one at a time; the actor's main thread sends on what happens to them, and watches
the clock and the memory as the driver does for processes on its own machine.
"""

from __future__ import annotations

import os
import pickle
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import harness
from harness.backbones import BackboneFiles, locate_backbone
from harness.measure import GRACE_SECONDS, OWN_SHARE, Device, find_device, host_limit_bytes, shared
from harness.records import Record
from harness.schedule.job import Alive, Begun, Cut, Done, Event, Job, Lost, Progress
from harness.schedule.limits import over_memory
from harness.support import HarnessError
from harness.tasks import Task

if TYPE_CHECKING:
    from harness.running import Worker

PROGRESS_SECONDS = 0.5
"""No more than one message of progress in so many seconds: each is an object of the cluster's store."""

WATCH_SECONDS = 0.1

SIGN_SECONDS = 1.0
"""How often an actor that runs a cell says that it is alive."""

_HEARD_SECONDS = 0.5
"""How long a cell waits, in no phase's time, until its next stage is on its way to the driver."""


@dataclass(frozen=True)
class Hello:
    """What an actor says of itself.

    Attributes:
        life: names its process, number first: one that is started anew has another.
        version: of the harness that is installed there.
        device: where it runs cells; None where the one that was asked for is not there.
        refusals: why backbones cannot be loaded there, of those that cannot; or why there is no device.
        niceness: above 0, what else runs on that machine comes first, and times are longer for it.
    """

    life: str
    version: str
    device: Device | None
    refusals: tuple[str, ...] = ()
    niceness: int = 0


class CellActor:
    """Runs cells one after another; what Ray makes an actor of.

    Args:
        device: `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_here: how many actors live on this node: they share its memory and, without GPUs, its processor.
        is_limited: whether a cell may hold no more than an even share of this node's memory.
        grace: seconds without progress, beyond twice its budget, after which a cell is cut.
    """

    def __init__(
        self,
        device: str,
        cache: str | None,
        n_here: int,
        is_limited: bool,
        grace: float = OWN_SHARE * GRACE_SECONDS,
    ) -> None:
        self._grace = grace
        self._told: tuple[str, str] | None = None
        self._heard = threading.Event()
        self._life = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._device_name = device
        self._cache = cache
        self._n_sharing = n_here if device == "cpu" else 1
        self._host_bytes = host_limit_bytes() // n_here if is_limited else None
        self._thread = ThreadPoolExecutor(1, "runs cells")
        self._worker: Worker | None = None
        self._tasks: dict[str, Task] = {}
        self._said: queue.SimpleQueue[Event | Alive | None] = queue.SimpleQueue()
        self._this = psutil.Process()

    def hello(self, backbones: Sequence[BackboneFiles]) -> Hello:
        """Import what cells need, and see whether these backbones can be loaded here."""
        try:
            worker = self._thread.submit(self._start).result()
        except HarnessError as error:
            return Hello(self._life, harness.__version__, None, (str(error),))
        refusals = [why for files in backbones if (why := self._thread.submit(_check, files).result()) is not None]
        niceness = self._this.nice()
        return Hello(self._life, harness.__version__, worker.device, tuple(refusals), niceness)

    def run(self, job: Job, tasks: Sequence[Any]) -> Iterator[Event | Alive]:
        """Run a cell; `tasks` holds the reference to its pickled task, which is fetched once.

        Yields:
            `Begun` when the cell starts, `Progress` and `Alive` now and then, and one of `Done`, `Cut` and `Lost`.
            After all but a `Done` that is not the last, this process is of no more use.
        """
        assert self._worker is not None
        task, worker = self._task(tasks[0]), self._worker
        baseline = int(self._this.memory_info().rss)
        yield Begun(baseline)
        said = self._said = queue.SimpleQueue()
        self._told = None
        running = self._thread.submit(
            worker.run, job.planned, task, job.files, job.suite, _Reporter(said), attempt=job.attempt
        )
        running.add_done_callback(lambda _: said.put(None))
        sign_at = time.monotonic() + SIGN_SECONDS
        while not running.done():
            record = worker.look(self._grace)
            if record is not None:
                yield Done(record, is_last=True)
                return
            cut = self._over(job, baseline)
            if cut is not None:
                yield cut
                return
            with suppress(queue.Empty):
                event = said.get(timeout=WATCH_SECONDS)
                if event is not None:
                    yield event
                if isinstance(event, Alive):  # Ray has taken it once it asks for the next
                    self._heard.set()
            if time.monotonic() >= sign_at:
                sign_at = time.monotonic() + SIGN_SECONDS
                yield Alive(worker.standing())
        yield _end(running, is_last=worker.is_spoilt)

    def _tell(self) -> None:
        """Say at once when the cell enters another stage: the very next call may keep this process silent."""
        standing = None if self._worker is None else self._worker.standing()
        if standing is not None and self._told != (standing.doing, standing.activity):
            self._told = (standing.doing, standing.activity)
            self._heard.clear()
            self._said.put(Alive(standing))
            self._heard.wait(_HEARD_SECONDS)

    def _start(self) -> Worker:
        from harness.running import Worker
        from harness.schedule.worker_process import pass_on_warnings
        from harness.support import quiet_libraries

        if self._worker is None:
            quiet_libraries()
            pass_on_warnings(lambda warned: self._said.put(warned))  # each cell has a queue of its own
            device = shared(find_device(self._device_name), self._n_sharing)
            self._worker = Worker(device, None if self._cache is None else Path(self._cache))
            self._worker.on_change = self._tell
        return self._worker

    def _task(self, reference: Any) -> Task:
        import ray

        key = reference.hex()
        if key not in self._tasks:
            self._tasks[key] = pickle.loads(ray.get(reference))
        return self._tasks[key]

    def _over(self, job: Job, baseline: int) -> Cut | None:
        """Whether the running cell is over a limit of memory; an accelerator's is looked at by the worker."""
        return over_memory(
            job,
            int(self._this.memory_info().rss),
            baseline,
            on_host=self._device_name == "cpu",
            host_bytes=self._host_bytes,
            giver="its node",
        )


class _Reporter:
    """Passes progress on to the main thread, now and then."""

    def __init__(self, said: queue.SimpleQueue[Event | Alive | None]) -> None:
        self._said = said
        self._reported_at = 0.0

    def __call__(self, doing: str, fraction: float | None, loss: float | None) -> None:
        now = time.monotonic()
        if now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            self._said.put(Progress(doing, fraction, loss))


def _end(running: Future[Record], *, is_last: bool) -> Done | Lost:
    try:
        return Done(running.result(), is_last)
    except SystemExit as error:  # what would have ended a process of the cell's own
        return Lost(f"exited with status {error.code}")
    except KeyboardInterrupt:
        return Lost("was interrupted")


def _check(files: BackboneFiles) -> str | None:
    """Why a backbone cannot be loaded on this node; None where it can."""
    from harness.backbones import load_backbone

    same = "every node needs the same files at the same path: a shared file system, or a copy"
    if not files.folder.is_dir():
        return f"Backbone '{files.name}': there is no folder {files.folder} here; {same}."
    try:
        found = locate_backbone(str(files.folder)).fingerprint
        if found != files.fingerprint:
            return (
                f"Backbone '{files.name}': the files in {files.folder} have the fingerprint {found[:12]} here and "
                f"{files.fingerprint[:12]} where the run was started; {same}."
            )
        load_backbone(files)
    except (HarnessError, OSError) as error:
        return str(error)
    return None
