"""Cells in Ray actors, on this machine or a cluster's: a run survives the death of an actor or its node.

The driver decides on which node each actor lives, so that an actor knows how many share its node. Ray restarts a
process that dies on that node; a node that dies takes its actors out of the run.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.backbones import BackboneFiles
from harness.measure import Device
from harness.running import AttentiveClock, Job
from harness.schedule.messages import Event
from harness.schedule.ray_actor import Hello
from harness.schedule.ray_cluster import connect, plan_places
from harness.schedule.ray_slot import PAUSE_SECONDS, RaySlot
from harness.schedule.slot import Limits, SlotWorkers, best_slot
from harness.support import UsageError
from harness.tasks import Task

START_SECONDS = 600.0
"""Longest start of the first actor: a cluster that others use has to have room for it."""

_POLITE = (
    "The Ray cluster runs its workers at a low priority (nice {niceness}): beside anything else on those machines, "
    "cells take longer. Start it with RAY_worker_niceness=0 in the environment of `ray start`."
)


class RayWorkers(SlotWorkers):
    """One Ray actor per GPU where there are GPUs, else one per node or per so many cores; each runs one cell at a time.

    An actor sends `Begun` when it has all that the cell needs. The driver enforces `cell_seconds` of `limits`. Where
    `host_bytes` is set, an actor is limited to an even share of its own node's memory, whatever its value.

    Args:
        device: `auto`, `cpu` or `cuda`; `auto` uses nodes with GPUs only, where there are any.
        cache: folder of the feature cache, on each node; None keeps features in memory only.
        address: of a cluster: `auto` for one that this machine is part of, or `HOST:PORT`; None starts one here.
        n_workers: number of cells that may run at the same time, spread evenly over nodes; None is all that fit.
        cores_per_worker: cores of an actor; None divides a node's among the actors on it.
        deterministic: whether only kernels that repeat their results run.
        limits: limits on a cell.

    Attributes:
        remarks: remarks for the user on nodes and actors that are not used.
    """

    def __init__(
        self,
        device: str,
        cache: Path | None,
        *,
        address: str | None = None,
        n_workers: int | None = None,
        cores_per_worker: int | None = None,
        deterministic: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.remarks: list[str] = []
        self._asked_for = (device, n_workers, cores_per_worker)
        self._cache = None if cache is None else str(cache.absolute())
        self._address = address
        self._deterministic = deterministic
        self._limits = limits or Limits()
        self._ray: Any = None
        self._is_ours = False
        self._slots: list[RaySlot] = []
        self._waiting: deque[tuple[Job, Any]] = deque()
        self._given: dict[str, tuple[Task, Any]] = {}
        self._backbones: tuple[BackboneFiles, ...] = ()
        self._being_checked: list[RaySlot] = []
        self._device: Device | None = None
        self._attention = AttentiveClock()

    @property
    def device(self) -> Device:
        """Device of the first actor to answer; the actors are started, and one is waited for.

        Raises:
            UsageError: there is no such cluster, it has no room, or no actor can be used.
        """
        if self._device is None:
            self._await_first()
        assert self._device is not None
        return self._device

    @property
    def shares_machine(self) -> bool:
        """Whether several cells run on one processor at a time, so that their times are unreliable."""
        return self.device.cells_at_a_time > 1

    @property
    def n_free(self) -> int:
        """Number of cells that could be started now; a cell may wait for an actor that is still starting."""
        self.warm_up()
        return len(self._slots) - self.n_running

    @property
    def n_running(self) -> int:
        """Number of cells that are running, or wait for an actor to start."""
        return len(self._waiting) + sum(slot.job is not None for slot in self._slots)

    def warm_up(self) -> None:
        """Start the actors now: they import what they need while the driver gets ready."""
        if self._slots:
            return
        self._ray, self._is_ours = connect(self._address)
        try:
            places, remarks = plan_places(self._ray.nodes(), *self._asked_for)
        except UsageError:
            self.close()
            raise
        self.remarks += remarks
        is_limited, is_local = self._limits.host_bytes is not None, self._address is None
        for place in places:
            slot = RaySlot(
                self._ray,
                place,
                self._cache,
                is_limited=is_limited,
                is_local=is_local,
                deterministic=self._deterministic,
                limits=self._limits,
            )
            self._slots.append(slot)
            slot.greet(self._backbones)

    def preload(self, files: BackboneFiles) -> None:
        """Do nothing: a worker on another machine loads a backbone with its first cell."""

    def refusals(self, backbones: Sequence[BackboneFiles]) -> dict[str, str]:
        """Return why backbones cannot be loaded on the nodes whose actors have started by now, by their fingerprints.

        Nodes that start later and cannot load them are not used. To go on with the others, call it again with these.
        """
        self._backbones = tuple(backbones)
        self._await_first()
        self._being_checked = [slot for slot in self._slots if slot.is_ready or slot.refusals]
        for slot in self._being_checked:
            slot.greet(self._backbones)
        while any(slot in self._slots and not (slot.is_ready or slot.refusals) for slot in self._being_checked):
            self._look(PAUSE_SECONDS)
        checked, self._being_checked = self._being_checked, []
        refused = {
            one.fingerprint: [s.refusals[one.fingerprint] for s in checked if one.fingerprint in s.refusals]
            for one in backbones
        }
        return {fingerprint: "\n".join(dict.fromkeys(said)) for fingerprint, said in refused.items() if said}

    def start(self, job: Job, task: Task) -> None:
        """Run a cell on the first actor that is free; `events` returns its result."""
        self.warm_up()
        given = self._given.get(task.name)
        if given is None or given[0] is not task:
            # Pickled here, since arrays that Ray itself shares among processes are read-only.
            given = self._given[task.name] = (task, self._ray.put(pickle.dumps(task)))
        self._waiting.append((job, given[1]))
        self._hand_out()

    def decide(self, job: Job, *, goes_on: bool) -> None:
        """Do nothing: actors pass rungs by, and their fits go on."""

    def close(self) -> None:
        """End all actors now, and the cluster if it was started here; the cells that they were running are lost."""
        for slot in self._slots:
            slot.end()
        if self._is_ours:
            self._ray.shutdown()
        self._is_ours, self._slots = False, []
        self._waiting.clear()
        self._given.clear()

    def _await_first(self) -> None:
        """Start the actors if there are none, and wait until one has answered."""
        self.warm_up()
        until = time.monotonic() + START_SECONDS
        while not any(slot.is_ready or slot.refusals for slot in self._slots):
            self._look(PAUSE_SECONDS)
            if time.monotonic() > until:
                raise UsageError(
                    f"No worker started on the Ray cluster in {START_SECONDS:g} s. Are its cores taken? `ray status` "
                    "says; fewer cores for each worker may be free."
                )

    def _hand_out(self) -> None:
        while self._waiting and (free := [slot for slot in self._slots if slot.is_ready and slot.job is None]):
            job, task = self._waiting.popleft()
            best_slot(free, job).start(job, task, self._attention.look())

    def _look(self, timeout: float) -> list[tuple[Job, Event]]:
        """Wait for a message, take in all that have come, and give cells to free actors."""
        awaited = [slot.awaited for slot in self._slots if slot.awaited is not None]
        if awaited:
            self._ray.wait(awaited, timeout=timeout)
        else:
            time.sleep(timeout)
        now = self._attention.look()
        found: list[tuple[Job, Event]] = []
        for slot in list(self._slots):
            try:
                hello = slot.answer()
                if hello is not None:
                    self._welcome(slot, hello)
            except UsageError as error:
                self._give_up(slot, str(error))
                continue
            found += slot.events(now)
        self._hand_out()
        return found

    def _welcome(self, slot: RaySlot, hello: Hello) -> None:
        """Let an actor that has answered get cells.

        Raises:
            UsageError: it cannot be used.
        """
        assert hello.device is not None
        self._device = self._device or hello.device
        if hello.device.name != self._device.name:
            raise UsageError(f"its device is '{hello.device.name}', and figures of '{self._device.name}' are not mixed")
        if hello.niceness > 0:
            remark = _POLITE.format(niceness=hello.niceness)
            if remark not in self.remarks:
                self.remarks.append(remark)
        if slot.asked is not self._backbones:
            slot.greet(self._backbones)
        elif not hello.refusals:
            slot.is_ready = True
        elif slot in self._being_checked:
            slot.refusals = {one: f"{why} (Node {slot.place.address}.)" for one, why in hello.refusals.items()}
        else:
            raise UsageError(" ".join(hello.refusals.values()))

    def _give_up(self, slot: RaySlot, why: str) -> None:
        self.remarks.append(f"A worker on node {slot.place.address} is not used: {why.rstrip('.')}.")
        self._slots.remove(slot)
        slot.end()
        if not self._slots:
            raise UsageError("\n".join(["No worker of the Ray cluster can be used.", *dict.fromkeys(self.remarks)]))
