"""The memory that a cell needs: its peak, and the weights that lay in memory before it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from harness.analysis.frame import tidy_frame
from harness.measure.failures import is_out_of_memory
from harness.records.facts import Facts
from harness.records.record import Cost, Record
from harness.running.worker import _check_memory
from harness.support.errors import OutOfMemoryError
from tests.record_factory import make_record


def of(role: Any, **cost: Any) -> Record:
    return dataclasses.replace(make_record(), facts=Facts(role=role), cost=Cost(**cost))


@pytest.mark.parametrize(
    ("role", "peak", "shared", "needed"),
    [
        ("frozen features", 50, 300, 350),  # stated: the sum
        ("fine-tuning", 900, 0, 900),
        ("prompting", 700, 200, 900),
        ("frozen features", 50, None, 450),  # an older record: 4 bytes for each of 100 frozen parameters
        ("frozen features", 5_000, None, 5_400),
        ("fine-tuning", 900, None, 900),  # which held its own copy
        ("prompting", 50, None, 450),
        ("prompting", 700, None, 700),  # which loaded its own language model
        (None, 700, None, 700),
    ],
)
def test_needed_memory_is_the_peak_and_the_shared_weights(role: Any, peak: int, shared: int | None, needed: int):
    record = of(role, peak_device_bytes=peak, shared_weights_bytes=shared, n_parameters=103, n_trainable=3)
    assert record.memory_bytes == needed
    assert tidy_frame([record])["memory_bytes"].tolist() == [needed]


def test_unknown_figures_stay_unknown():
    assert of("frozen features", n_parameters=103).memory_bytes is None
    assert of("frozen features", peak_device_bytes=50).memory_bytes == 50


def test_a_record_without_the_new_fields_loads_and_one_with_them_keeps_them():
    record = of("prompting", peak_device_bytes=7, weights_bytes=300, shared_weights_bytes=200)
    value = json.loads(json.dumps(record.to_json()))
    assert Record.from_json(value).cost == record.cost
    for name in ("weights_bytes", "shared_weights_bytes"):
        del value["cost"][name]
    assert Record.from_json(value).cost.shared_weights_bytes is None


def test_a_budget_limits_what_is_needed_wherever_it_lies():
    cost = Cost(peak_device_bytes=60, shared_weights_bytes=50)
    _check_memory(cost, 110)
    with pytest.raises(OutOfMemoryError, match=r"110 bytes \(60 above the baseline, 50 for weights that cells share\)"):
        _check_memory(cost, 109)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (torch.AcceleratorError("CUDA error: out of memory", 2), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("unable to mmap 9 bytes from file: Cannot allocate memory (12)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_allocation_are_out_of_memory(error: Exception, is_memory: bool):
    assert is_out_of_memory(error) is is_memory
