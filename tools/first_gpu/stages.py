"""The stages in the order of their worth, with the seconds that each may take on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tools.first_gpu import faults, kernels, machine, memory, methods, rivals, speed
from tools.first_gpu.trial import Trial

STAGES: Final[dict[str, tuple[Callable[[Trial], None], float]]] = {
    "environment": (machine.environment, 5),
    "methods": (methods.methods_in_small, 90),
    "fault": (faults.after_a_fault, 30),
    "memory-1b": (memory.one_billion, 50),
    "rivals": (rivals.against_trainer, 40),
    "memory-3b": (memory.three_billion, 60),
    "ceilings": (machine.ceilings, 8),
    "in-context": (speed.in_context, 30),
    "features": (speed.features, 15),
    "steps": (speed.small_steps, 30),
    "same": (methods.same_again, 15),
    "launches": (kernels.launches, 15),
    "out-of-memory": (faults.out_of_memory, 15),
    "energy": (machine.energy, 5),
    "graph": (kernels.replayed, 15),
    "packed": (speed.packed, 45),
}
