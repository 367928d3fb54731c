"""Worker processes on this machine: they run cells, they are watched, and a run survives their death."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from harness.backbones import BackboneFiles
from harness.measure import Device
from harness.running import AttentiveClock, Job
from harness.schedule.local_process import LocalProcess
from harness.schedule.messages import (
    CheckBackbone,
    Checked,
    Event,
    FromWorker,
    Give,
    GoOn,
    Lost,
    Preload,
    Ready,
    Stopped,
)
from harness.schedule.shares import Share, plan_shares
from harness.schedule.slot import Limits, Slot, SlotWorkers, best_slot, over_memory
from harness.support import UsageError
from harness.tasks import Task

_MOST_STARTS = 2
"""Workers that may die before their first cell: the first may have been an accident."""

_WAIT_SECONDS = 0.5

_Answer = TypeVar("_Answer", bound=Ready | Checked)


class LocalSlot(Slot):
    """A place for one worker process on this machine, which is restarted after it has died.

    Args:
        share: part of this machine that the worker gets.
        cache: folder of the feature cache; None keeps features in memory only.
        limits: limits on a cell.
        news: set whenever the worker has sent something.

    Attributes:
        share: part of this machine that the worker gets.
        gone: why its device cannot be used any more; None while it can.
    """

    def __init__(self, share: Share, cache: Path | None, limits: Limits, news: threading.Event) -> None:
        super().__init__(limits)
        self.share = share
        self.gone: str | None = None
        self._cache = None if cache is None else str(cache)
        self._news = news
        self._process: LocalProcess | None = None
        self._given: dict[str, Task] = {}
        self._device: Device | None = None

    def warm_up(self) -> LocalProcess:
        """Return the process; start one if there is none."""
        if self._process is not None and self._process.is_alive():
            return self._process
        if self._process is not None:
            self._process.bury()
        self._given = {}
        grace = self._limits.own_grace_seconds
        expected = None if self._device is None else self._device.name
        self._process = LocalProcess(self._news, self.share, expected, self._cache, grace)
        return self._process

    def device(self) -> Device:
        """Return the worker's device; wait until it is known.

        Raises:
            UsageError: there is no such device, or the worker does not start.
        """
        lost = Lost("was not started")
        for _ in range(_MOST_STARTS):
            if self._device is not None:
                return self._device
            self.warm_up()
            ready = self._await(Ready)
            if isinstance(ready, Lost):
                lost = ready
            elif ready.device is not None:
                return ready.device
            else:
                raise UsageError(ready.why_not or "The worker has no device.")
        raise UsageError(f"The worker that runs cells did not start: it {lost.how}. {lost.said}")

    def check(self, files: BackboneFiles) -> str | None:
        """Return why a backbone cannot be loaded; None where it can."""
        lost = Lost("was not started")
        for _ in range(_MOST_STARTS):
            self.warm_up().send(CheckBackbone(files))
            checked = self._await(Checked)
            if isinstance(checked, Checked):
                return checked.why
            lost = checked
        return f"Backbone '{files.name}' could not be loaded: the worker that tried {lost.how}. {lost.said}"

    def start(self, job: Job, task: Task, now: float) -> None:
        """Give the worker a cell; start one if there is none."""
        process = self.warm_up()
        self._assign(job, now)
        if self._given.get(task.name) is not task:
            process.send(Give(task))
            self._given[task.name] = task
        process.send(job)

    def stop(self) -> None:
        """End the worker now, with everything that it has started."""
        self.job = None
        if self._process is not None:
            self._process.end()
            self._process = None

    def _next(self) -> FromWorker | None:
        """Return the next message, if there is one; raise EOFError where the worker is dead."""
        assert self._process is not None
        message = self._process.next()
        if isinstance(message, Ready) and message.device is not None:
            self._device = message.device
        elif isinstance(message, Ready) and self._device is not None:
            self.gone = message.why_not or "The worker has no device."
        return message

    def _next_or_loss(self) -> FromWorker | Lost | None:
        try:
            return self._next()
        except EOFError:
            return self._death()

    def _await(self, kind: type[_Answer]) -> _Answer | Lost:
        """Wait for a message of this kind; a worker that dies or is silent for too long is lost."""
        clock = AttentiveClock()
        heard_at = clock.seconds
        while True:
            message = self._next_or_loss()
            if isinstance(message, (kind, Lost)):
                return message
            if message is not None:
                heard_at = clock.look()
                continue
            self._news.wait(_WAIT_SECONDS)
            self._news.clear()
            if clock.look() - heard_at > self._limits.silence_seconds:
                lost = self._loss(f"said nothing for {self._limits.silence_seconds:g} s")
                self.stop()
                return lost

    def _death(self) -> Lost:
        assert self._process is not None
        process, self._process = self._process, None
        how, was_killed = process.death()
        return Lost(how, was_killed and self._was_memory_short(), process.last_output())

    def _loss(self, how: str) -> Lost:
        return Lost(how, said="" if self._process is None else self._process.last_output())

    def _is_stopped(self) -> bool:
        return self._process is not None and self._process.is_stopped()

    def _over_memory(self) -> Stopped | None:
        assert self.job is not None
        assert self._process is not None
        return over_memory(
            self.job,
            self._process.resident_bytes(),
            self._baseline_bytes,
            on_host=self._device is None or self._device.kind == "cpu",
            host_bytes=self._limits.host_bytes,
            giver="this host",
        )


class LocalWorkers(SlotWorkers):
    """One worker process or several; each runs one cell at a time and is restarted after it has died.

    Every worker sees one GPU. GPUs of another model than the first are not used, since their figures are not pooled.

    Args:
        device: `auto`, `cpu`, `cuda`, or GPUs by number: `cuda:1`, `cuda:0,2`.
        cache: folder of the feature cache; None keeps features in memory only.
        n_workers: number of cells that may run at the same time on one device.
        all_gpus: whether all GPUs are used, or all that are named; else the first alone.
        deterministic: whether only kernels that repeat their results run.
        limits: limits on a cell; the memory of the host is shared evenly among workers.

    Attributes:
        remarks: remarks for the user on GPUs that are not used.

    Raises:
        UsageError: there is no GPU of a number.
    """

    def __init__(
        self,
        device: str,
        cache: Path | None,
        *,
        n_workers: int = 1,
        all_gpus: bool = False,
        deterministic: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self._news = threading.Event()
        self._attention = AttentiveClock()
        self._cache = cache
        self._limits = limits or Limits()
        self._device: Device | None = None
        self.remarks: list[str] = []
        self._slots = self._make(plan_shares(device, n_workers, all_gpus=all_gpus, deterministic=deterministic))

    def _make(self, shares: Sequence[Share]) -> list[LocalSlot]:
        limits = self._limits
        if len(shares) > 1 and limits.host_bytes is not None:
            limits = replace(limits, host_bytes=limits.host_bytes // len(shares))
        return [LocalSlot(share, self._cache, limits, self._news) for share in shares]

    @property
    def device(self) -> Device:
        """Device of the workers, which are started; the first is waited for, and all where there are several GPUs.

        Raises:
            UsageError: there is no such device, the worker does not start, or GPUs that were named differ.
        """
        if self._device is None:
            if len({slot.share.gpu for slot in self._slots}) > 1:
                self.warm_up()
                self._device = self._choose_gpus()
            else:
                self._device = self._slots[0].device()
        return self._device

    @property
    def n_free(self) -> int:
        """Number of cells that could be started now."""
        return sum(slot.job is None for slot in self._usable())

    @property
    def n_running(self) -> int:
        """Number of running cells."""
        return sum(slot.job is not None for slot in self._slots)

    def warm_up(self) -> None:
        """Start the workers now: they import what they need while the driver gets ready."""
        for slot in self._slots:
            slot.warm_up()

    def preload(self, files: BackboneFiles) -> None:
        """Let the first worker load a backbone while the driver reads the data."""
        self._slots[0].warm_up().send(Preload(files))

    def refusals(self, backbones: Sequence[BackboneFiles]) -> dict[str, str]:
        """Return why backbones cannot be loaded, by their fingerprints; the first backbone is loaded last."""
        checked = {files.fingerprint: self._slots[0].check(files) for files in reversed(backbones)}
        return {files.fingerprint: why for files in backbones if (why := checked[files.fingerprint]) is not None}

    def start(self, job: Job, task: Task) -> None:
        """Run a cell on a free worker; `events` returns its result."""
        free = [slot for slot in self._usable() if slot.job is None]
        best_slot(free, job).start(job, task, self._attention.look())

    def decide(self, job: Job, *, goes_on: bool) -> None:
        """Answer the event `AtRung` of a job that has rungs."""
        for slot in self._slots:
            if slot.job is job:
                slot.warm_up().send(GoOn(goes_on))

    def close(self) -> None:
        """End all workers now; the cells that they were running are lost."""
        for slot in self._slots:
            slot.stop()

    def _look(self, timeout: float) -> list[tuple[Job, Event]]:
        self._news.wait(timeout)
        self._news.clear()
        now = self._attention.look()
        events = [event for slot in self._slots for event in slot.events(now)]
        gone = [slot for slot in self._slots if slot.gone is not None and slot.job is None]
        if len(gone) == len(self._slots):
            raise UsageError(f"{gone[0].gone} Cells that have no record yet stay missing: the same command resumes.")
        for slot in gone:
            self._give_up(slot, str(slot.gone))
        return events

    def _usable(self) -> list[LocalSlot]:
        """Return the workers that may get a cell: those whose device is known to be right, where there are several."""
        if self._device is None and len({slot.share.gpu for slot in self._slots}) > 1:
            _ = self.device
        return [slot for slot in self._slots if slot.gone is None]

    def _choose_gpus(self) -> Device:
        """Return the device of the first GPU that works; give up GPUs that do not, or are of another model.

        Raises:
            UsageError: no GPU works, or a GPU that the user named cannot be used beside the others.
        """
        chosen: Device | None = None
        said: list[str] = []
        for slot in list(self._slots):
            try:
                device = slot.device()
                if chosen is None and device.kind == "cpu":  # torch finds no GPU, whatever the driver lists
                    self.close()
                    n_sharing = slot.share.n_sharing
                    self._slots = self._make(plan_shares("cpu", n_sharing, deterministic=slot.share.deterministic))
                    return self._slots[0].device()
                chosen = chosen or device
                if device.name != chosen.name:
                    raise UsageError(f"It is '{device.name}', and figures of '{chosen.name}' are not pooled with it.")
            except UsageError as error:
                if slot.share.is_named:
                    raise UsageError(f"GPU {slot.share.gpu}: {error}") from None
                said.append(str(error))
                self._give_up(slot, str(error))
        if chosen is None:
            raise UsageError("\n".join(["No GPU can be used.", *dict.fromkeys(said)]))
        return chosen

    def _give_up(self, slot: LocalSlot, why: str) -> None:
        slot.stop()
        self._slots.remove(slot)
        remark = f"GPU {slot.share.gpu} is not used: {why[:1].lower()}{why[1:].rstrip('.')}."
        if remark not in self.remarks:
            self.remarks.append(remark)
