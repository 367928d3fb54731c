"""End a worker process with everything that it has started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import psutil

TERMINATE_SECONDS = 1.0
"""How long a worker and its children have between being asked to end and being killed."""

_JOIN_SECONDS = 5.0


def end_worker(process: BaseProcess) -> None:
    """End a worker, its process group, and children that have left the group.

    They are asked to end (SIGTERM), woken where they are stopped (SIGCONT), and killed a second later (SIGKILL).
    """
    family = _descendants(process.pid)
    if os.name == "posix":
        _signal(process.pid, signal.SIGTERM)
        _signal(process.pid, signal.SIGCONT)
        wait([process.sentinel], TERMINATE_SECONDS)
        _signal(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.join(_JOIN_SECONDS)
    _kill(family)


def end_group_of(process: BaseProcess) -> None:
    """End what a worker that has died has left in its process group."""
    if os.name == "posix" and process.pid is not None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def is_stopped(pid: int | None) -> bool:
    """Return whether a process is stopped (SIGSTOP)."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    return False


def _descendants(pid: int | None) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _signal(pid: int | None, number: int) -> None:
    """Signal the group that a process leads; the process alone where it does not lead one yet."""
    if pid is None:
        return
    with suppress(OSError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()  # psutil refuses where the number belongs to another process by now
