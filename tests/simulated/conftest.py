"""Tests of this folder run in a process that has the simulated GPU; `tests/test_simulated_gpu.py` starts it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

collect_ignore_glob = [] if "SIMULATED_LIBRARY" in os.environ else ["test_*.py", "cuda.py", "four_bits.py"]


@pytest.fixture(autouse=True)
def _healthy_device() -> Iterator[None]:
    """Each test gets a device that works, with all of its memory."""
    from tests.simulated.state import STATE

    STATE.reset()
    capacity = STATE.capacity
    yield
    STATE.is_dead, STATE.faults_after, STATE.capacity = False, None, capacity
