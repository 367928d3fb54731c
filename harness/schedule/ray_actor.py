"""The process of a Ray actor that cells run in: it stays warm from one cell to the next, and a run survives its death.

Cells run in a thread of their own, one at a time. The actor's main thread passes on their events, and watches the clock
and the memory as the driver does for processes on its own machine.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import harness
from harness.backbones import BackboneFiles, locate_backbone
from harness.measure import Device, failure_of, find_device, host_limit_bytes, prepare_deterministic
from harness.records import Record
from harness.running import GRACE_SECONDS, OWN_SHARE, Job
from harness.schedule.messages import Alive, Begun, Done, Event, Lost, Stopped
from harness.schedule.slot import LOOK_SECONDS, over_memory
from harness.schedule.worker_process import SIGN_SECONDS, Reporter, pass_on_warnings
from harness.support import HarnessError, UsageError
from harness.tasks import Task

if TYPE_CHECKING:
    from harness.running import Worker

_HEARD_SECONDS = 0.5
"""Longest wait of a cell, in no phase's time, until its next stage is on its way to the driver."""


@dataclass(frozen=True)
class Hello:
    """An actor's description of itself.

    Attributes:
        life: name of its process, number first; a process that is restarted has another name.
        version: version of the harness that is installed there.
        device: where it runs cells; None where the device that was asked for is not there.
        refusals: why backbones cannot be loaded there, by their fingerprints.
        why_not: why there is no device.
        niceness: priority of its process; above 0 other processes come first, and times are longer.
    """

    life: str
    version: str
    device: Device | None
    refusals: dict[str, str] = field(default_factory=dict)
    why_not: str = ""
    niceness: int = 0


class CellActor:
    """Runs cells one after another, as a Ray actor.

    Args:
        device: `cpu` or `cuda`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_here: number of actors on this node: they share its memory and, without GPUs, its processor.
        is_limited: whether a cell may hold no more than an even share of this node's memory.
        grace: seconds without progress, beyond twice its budget, after which a cell is stopped.
        deterministic: whether only kernels that repeat their results run.
    """

    def __init__(
        self,
        device: str,
        cache: str | None,
        n_here: int,
        is_limited: bool,
        grace: float = OWN_SHARE * GRACE_SECONDS,
        *,
        deterministic: bool = False,
    ) -> None:
        if deterministic:
            prepare_deterministic()
        self._deterministic = deterministic
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
        """Import what cells need, and check whether these backbones can be loaded here."""
        try:
            worker = self._thread.submit(self._start).result()
        except HarnessError as error:
            return Hello(self._life, harness.__version__, None, why_not=str(error))
        checked = {files.fingerprint: self._thread.submit(_check, files).result() for files in reversed(backbones)}
        refusals = {fingerprint: why for fingerprint, why in checked.items() if why is not None}
        return Hello(self._life, harness.__version__, worker.device, refusals, niceness=self._this.nice())

    def run(self, job: Job, tasks: Sequence[Any]) -> Iterator[Event | Alive]:
        """Run a cell; `tasks` holds the reference to its pickled task, which is fetched once.

        Yields:
            `Begun` when the cell starts, `CellProgress` and `Alive` now and then, and at the end one of `Done`,
            `Stopped` and `Lost`. Only after a `Done` that is not the last can this process run another cell.
        """
        assert self._worker is not None
        task, worker = self._task(tasks[0]), self._worker
        baseline = int(self._this.memory_info().rss)
        yield Begun(baseline)
        said = self._said = queue.SimpleQueue()
        self._told = None
        running = self._thread.submit(worker.run, job, task, Reporter(said.put))
        running.add_done_callback(lambda _: said.put(None))
        sign_at = time.monotonic() + SIGN_SECONDS
        while not running.done():
            record = worker.look(self._grace)
            if record is not None:
                yield Done(record, is_last=True)
                return
            stopped = self._over(job, baseline)
            if stopped is not None:
                yield stopped
                return
            with suppress(queue.Empty):
                event = said.get(timeout=LOOK_SECONDS)
                if event is not None:
                    yield event
                if isinstance(event, Alive):  # Ray has taken it once it asks for the next
                    self._heard.set()
            if time.monotonic() >= sign_at:
                sign_at = time.monotonic() + SIGN_SECONDS
                yield Alive(worker.standing())
        yield _end(running, is_last=worker.is_spoilt)

    def _tell(self) -> None:
        """Report at once that the cell enters another stage: its next call may keep this process silent."""
        standing = None if self._worker is None else self._worker.standing()
        if standing is not None and self._told != (standing.doing, standing.activity):
            self._told = (standing.doing, standing.activity)
            self._heard.clear()
            self._said.put(Alive(standing))
            self._heard.wait(_HEARD_SECONDS)

    def _start(self) -> Worker:
        from harness.running import Worker
        from harness.support import quiet_libraries

        if self._worker is None:
            quiet_libraries()
            pass_on_warnings(lambda warned: self._said.put(warned))  # each cell has a queue of its own
            device = find_device(self._device_name).shared_by(self._n_sharing)
            why_not = failure_of(device)
            if why_not is not None:
                raise UsageError(f"{device.name} cannot be used: {why_not.rstrip('.')}.")
            cache = None if self._cache is None else Path(self._cache)
            self._worker = Worker(device, cache, deterministic=self._deterministic)
            self._worker.on_change = self._tell
        return self._worker

    def _task(self, reference: Any) -> Task:
        import ray

        key = reference.hex()
        if key not in self._tasks:
            self._tasks[key] = pickle.loads(ray.get(reference))
        return self._tasks[key]

    def _over(self, job: Job, baseline: int) -> Stopped | None:
        """Return why the cell is stopped if it is over a limit on memory; the worker checks an accelerator's."""
        return over_memory(
            job,
            int(self._this.memory_info().rss),
            baseline,
            on_host=self._device_name == "cpu",
            host_bytes=self._host_bytes,
            giver="its node",
        )


def _end(running: Future[Record], *, is_last: bool) -> Done | Lost:
    try:
        return Done(running.result(), is_last)
    except SystemExit as error:  # a process of the cell's own would have ended
        return Lost(f"exited with status {error.code}")
    except KeyboardInterrupt:
        return Lost("was interrupted")


def _check(files: BackboneFiles) -> str | None:
    """Return why a backbone cannot be loaded on this node; None where it can."""
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
