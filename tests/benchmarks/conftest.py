"""What the benchmarks share. Run them alone on a quiet machine: `pytest tests/benchmarks --benchmark-only`."""

from __future__ import annotations

import pytest
import torch

from harness.measure.device import Device


@pytest.fixture(autouse=True)
def _threads(cpu: Device) -> None:
    """Both sides of a comparison use the same threads."""
    torch.set_num_threads(cpu.threads)
