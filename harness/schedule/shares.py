"""Which part of this machine each worker gets: a GPU of its own, and its share of the processors."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from harness.measure import available_threads, gpu_masks, gpu_numbers, prepare_deterministic
from harness.support import UsageError


@dataclass(frozen=True)
class Share:
    """Part of this machine for one worker.

    Attributes:
        device: `auto`, `cpu` or `cuda`.
        gpu: value of CUDA_VISIBLE_DEVICES that shows the worker one GPU, which is its `cuda:0`; None leaves it alone.
        n_sharing: number of workers on the same device.
        number: number of the worker, from 0.
        n_workers: number of all workers; the host's threads are divided among them.
        is_named: whether the user named this GPU.
        deterministic: whether only kernels that repeat their results run.
    """

    device: str
    gpu: str | None = None
    n_sharing: int = 1
    number: int = 0
    n_workers: int = 1
    is_named: bool = False
    deterministic: bool = False

    def take(self) -> None:
        """Prepare this process, before it imports torch: its GPU, its threads, its processors.

        Workers on different GPUs get different processors, so that a cell's times do not depend on its neighbours.
        """
        if self.deterministic:
            prepare_deterministic()
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu
        if self.n_workers == 1:
            return
        os.environ["OMP_NUM_THREADS"] = str(max(1, available_threads() // self.n_workers))
        if self.gpu is not None and hasattr(os, "sched_setaffinity"):
            processors = sorted(os.sched_getaffinity(0))
            each = len(processors) // self.n_workers
            if each:
                with suppress(OSError):  # a sandbox may refuse; the processors are shared then
                    os.sched_setaffinity(0, processors[self.number * each : (self.number + 1) * each])


def plan_shares(
    device: str, n_at_a_time: int = 1, *, all_gpus: bool = False, deterministic: bool = False
) -> list[Share]:
    """Return the share of each worker; neighbours in the list have different GPUs.

    Args:
        device: `auto`, `cpu`, `cuda`, or GPUs by torch's numbers: `cuda:1`, `cuda:0,2`.
        n_at_a_time: number of workers on each device.
        all_gpus: whether to use every GPU that is visible, or named; else the first alone.
        deterministic: whether only kernels that repeat their results run.

    Raises:
        UsageError: there is no GPU of a number.
    """
    numbers = gpu_numbers(device)
    masks: list[str | None] = [None]
    if device != "cpu":
        found = gpu_masks()
        if numbers is not None and not found:  # no list of GPUs: the worker says whether there is one
            masks = [str(number) for number in numbers]
        elif numbers is not None:
            wrong = [number for number in numbers if number >= len(found)]
            if wrong:
                there = ", ".join(f"cuda:{number}" for number in range(len(found))) or "none"
                raise UsageError(f"Device 'cuda:{wrong[0]}' was asked for; the GPUs that torch can use here: {there}.")
            masks = [found[number] for number in numbers]
        elif found:
            masks = list(found)
    masks = masks if all_gpus else masks[:1]
    kind = device.partition(":")[0]
    places = [mask for _ in range(n_at_a_time) for mask in masks]
    return [
        Share(kind, mask, n_at_a_time, number, len(places), numbers is not None, deterministic)
        for number, mask in enumerate(places)
    ]
