"""A place for one Ray actor: it is greeted before it gets a cell, listened to, killed, greeted again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import harness
from harness.backbones import BackboneFiles
from harness.running import Job
from harness.schedule.messages import Alive, Event, Lost
from harness.schedule.ray_actor import CellActor, Hello
from harness.schedule.ray_cluster import Place
from harness.schedule.slot import Limits, Slot
from harness.support import UsageError

_PATIENCE_SECONDS = 120.0
"""Seconds that an actor's restart may fail before it is given up."""

_MOST_FAILED_GREETINGS = 5
"""Deaths in a row of an actor before it is given up, if they also took longer than `_RESTART_SECONDS`."""

_RESTART_SECONDS = 30.0
"""Longest restart on a busy machine; until it is done, greetings may fail as if the actor were gone."""

PAUSE_SECONDS = 0.5
"""Pause before a failed greeting is repeated."""


class RaySlot(Slot):
    """A place for one actor, whose process Ray restarts after it has died.

    Args:
        ray: the module, connected.
        place: where the actor lives.
        cache: folder of the feature cache there; None keeps features in memory only.
        is_limited: whether a cell may hold no more than an even share of the node's memory.
        is_local: whether the node is this machine, and ends with this process.
        deterministic: whether only kernels that repeat their results run.
        limits: limits on a cell.

    Attributes:
        is_ready: whether it has answered, has all backbones, and has not died since.
        refusals: why it cannot load backbones that it was asked about, by their fingerprints.
        asked: the backbones that it was asked about last.
    """

    def __init__(
        self,
        ray: Any,
        place: Place,
        cache: str | None,
        *,
        is_limited: bool,
        is_local: bool,
        deterministic: bool,
        limits: Limits,
    ) -> None:
        super().__init__(limits)
        self.place = place
        self.where = f" on node {place.address}"
        self.is_ready = False
        self.refusals: dict[str, str] = {}
        self.asked: Sequence[BackboneFiles] = ()
        self._ray = ray
        self._is_local = is_local
        grace = limits.own_grace_seconds
        self._actor = _start(
            ray, place, cache, is_limited=is_limited, is_local=is_local, grace=grace, deterministic=deterministic
        )
        self._hello: Any = None
        self._stream: Any = None
        self._greet_at: float | None = None
        self._fails_since: float | None = None
        self._n_deaths = 0
        self._life = self._ended_life = ""

    @property
    def awaited(self) -> Any:
        """Reference that `ray.wait` can wait for, until the actor answers or a cell goes on; None where none is due."""
        return self._hello if self.job is None else self._stream

    def greet(self, backbones: Sequence[BackboneFiles]) -> None:
        """Ask the actor what it is and whether it can load the backbones; it is not ready before it has answered."""
        self.is_ready, self.refusals, self._greet_at = False, {}, None
        self.asked = backbones
        self._hello = self._actor.hello.remote([_from_anywhere(files) for files in backbones])

    def answer(self) -> Hello | None:
        """Return the actor's answer to a greeting if there is one; greet it again where it is time to.

        Raises:
            UsageError: it has no device, has another version of the harness, or does not come back.
        """
        if self._greet_at is not None and time.monotonic() >= self._greet_at:
            self.greet(self.asked)
        if self._hello is None or not self._has_said(self._hello):
            return None
        exceptions, hello = self._ray.exceptions, self._hello
        self._hello = None
        try:
            said: Hello = self._ray.get(hello)
        except exceptions.ActorUnavailableError as error:  # it is being restarted
            if self._fails_for() > _PATIENCE_SECONDS:
                raise UsageError(f"it has not come back for {_PATIENCE_SECONDS:g} s: {_reason(error)}") from None
            self._greet_later()
            return None
        except exceptions.ActorUnschedulableError:
            raise UsageError("the node is gone") from None
        except exceptions.ActorDiedError as error:
            # Ray may be restarting it already when it is told to end it: then it dies once more, in this very call.
            self._n_deaths += 1
            if self._fails_for() > _RESTART_SECONDS and self._n_deaths > _MOST_FAILED_GREETINGS:
                raise UsageError(_reason(error)) from None
            self._greet_later()
            return None
        except exceptions.RayError as error:
            raise UsageError(_reason(error)) from None
        if said.life == self._ended_life:  # killed, and not dead yet: or never told
            if self._fails_for() > _PATIENCE_SECONDS:
                raise UsageError(f"it has not ended for {_PATIENCE_SECONDS:g} s")
            self._kill()
            self._greet_later()
            return None
        self._life, self._fails_since, self._n_deaths = said.life, None, 0
        if said.version != harness.__version__:
            raise UsageError(f"it has version {said.version} of the harness, not {harness.__version__}")
        if said.device is None:
            raise UsageError(said.why_not)
        return said

    def start(self, job: Job, task: Any, now: float) -> None:
        """Give the actor a cell; `task` is a reference to a pickled task."""
        self._assign(job, now)
        files = None if job.files is None else _from_anywhere(job.files)
        self._stream = self._actor.run.options(num_returns="streaming").remote(replace(job, files=files), [task])

    def stop(self) -> None:
        """Have Ray restart the process; the cell that it was running is over."""
        self.job = self._stream = None
        self._ended_life = self._life
        self._kill()
        self.greet(self.asked)

    def end(self) -> None:
        """End the actor for good."""
        self.job = self._stream = None
        with suppress(self._ray.exceptions.RayError, ValueError):  # a cluster that is gone has no actors either
            self._ray.kill(self._actor)

    def _kill(self) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor, no_restart=False)
        number = self._ended_life.partition("-")[0]
        if number:  # a stopped process hears nothing, Ray included
            with suppress(self._ray.exceptions.RayError):
                _process_ender(self._ray, self.place).remote(int(number))

    def _fails_for(self) -> float:
        """Return the seconds since the first of the greetings that have failed in a row."""
        now = time.monotonic()
        self._fails_since = self._fails_since or now
        return now - self._fails_since

    def _greet_later(self) -> None:
        self._greet_at = time.monotonic() + PAUSE_SECONDS

    def _has_said(self, source: Any) -> bool:
        return bool(self._ray.wait([source], timeout=0)[0])

    def _next_or_loss(self) -> Event | Alive | None:
        if not self._has_said(self._stream):
            return None
        exceptions = self._ray.exceptions
        try:
            event: Event | Alive = self._ray.get(next(self._stream))
        except (StopIteration, exceptions.RayError) as error:
            of_memory = isinstance(error, exceptions.OutOfMemoryError)
            if self._is_local:  # the kernel that kills is this machine's, and can be asked
                of_memory = of_memory or self._was_memory_short()
            how = f"was lost{self.where} (Ray: {_reason(error)})"
            if isinstance(error, exceptions.ActorUnavailableError):  # it is being restarted: no more is known
                how = f"died{self.where}"
            return Lost(how, of_memory)
        return event


def _process_ender(ray: Any, place: Place) -> Any:
    """Return a task on the actor's own node that kills one of its processes by number."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def end_process(pid: int) -> None:  # defined here, so that Ray sends its code and the node need not import it
        import pathlib
        import signal

        with suppress(OSError):
            if b"CellActor" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():  # else another has its number now
                os.kill(pid, signal.SIGKILL)

    here = NodeAffinitySchedulingStrategy(place.node, soft=False)
    return ray.remote(end_process).options(num_cpus=0, scheduling_strategy=here)


def _start(
    ray: Any,
    place: Place,
    cache: str | None,
    *,
    is_limited: bool,
    is_local: bool,
    grace: float,
    deterministic: bool,
) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    variables = {"OMP_NUM_THREADS": str(place.n_threads)}
    if is_local:  # what the driver can import, its own children can
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    made = ray.remote(CellActor).options(
        num_cpus=place.n_threads,
        num_gpus=1 if place.device == "cuda" else 0,
        max_restarts=-1,
        max_task_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
        runtime_env={"env_vars": variables},
    )
    return made.remote(place.device, cache, place.n_here, is_limited, grace, deterministic=deterministic)


def _from_anywhere(files: BackboneFiles) -> BackboneFiles:
    """Return the same files by a path that does not depend on a process's folder."""
    return replace(files, folder=files.folder.absolute())


def _reason(error: BaseException) -> str:
    """Return the last line of Ray's message, which states the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")[:500]
