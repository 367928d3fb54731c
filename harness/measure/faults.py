"""Recognise an accelerator that has failed: nothing more can run on it in this process.

CUDA reports such an error to the call that meets it, and again to every later call of the process
(docs.nvidia.com/cuda/cuda-runtime-api, "cudaError_t": "the process must be terminated and relaunched"). It may be
reported late, by a call that did nothing wrong. Only a new process can use the device again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Final

from harness.measure.device import Device
from harness.measure.failures import is_out_of_memory
from harness.support import text_of

_MOST_SECONDS: Final = 30.0
"""Longest wait for an answer of the device."""

_OF_A_DEVICE = re.compile(r"\b(cuda|hip|triton|nvrtc|cublas|cudnn|cusolver|cusparse|cufft)|CUBLAS|CUDNN", re.IGNORECASE)

_FATAL = re.compile(
    r"device-side assert|illegal (memory access|instruction|address)|misaligned address|unspecified launch failure"
    r"|launch failure|launch timed out|invalid (program counter|address space)|hardware (stack )?error|uncorrectable"
    r"|context is (destroyed|invalid)|device is lost|GPU is lost|fallen off the bus|unknown error"
    r"|(CUBLAS|CUSOLVER|CUSPARSE|CUDNN)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)",
    re.IGNORECASE,
)

_HARMLESS = re.compile(
    r"invalid argument|invalid value|invalid configuration|invalid device (function|ordinal|symbol)|no kernel image"
    r"|unsupported PTX|too many resources|not supported|not permitted|capturing|out of memory",
    re.IGNORECASE,
)
"""Errors of one call, after which the device goes on (cudaError_t 1, 2, 9, 98, 101, 209, 222, 701, 801, 900 to 908)."""


def device_failure(error: BaseException) -> str | None:
    """Return the line of an exception, or of its causes, that says that an accelerator has failed; None without one.

    A lack of memory is no such failure: the device goes on.
    """
    import torch

    for one in _with_causes(error):
        if not isinstance(one, RuntimeError) or is_out_of_memory(one):
            continue
        text = text_of(one)
        fatal = _FATAL.search(text) if _OF_A_DEVICE.search(text) else None
        if fatal is not None:
            return _line_of(text, fatal.start())
        if isinstance(one, torch.AcceleratorError) and not _HARMLESS.search(text):
            return _line_of(text, 0)
    return None


def failure_of(device: Device, seconds: float = _MOST_SECONDS) -> str | None:
    """Return why an accelerator can run nothing more in this process; None if it answers, or is no accelerator.

    Args:
        device: the device.
        seconds: longest wait for its queue. A device that does not answer has failed; its thread stays behind.
    """
    if device.kind == "cpu":
        return None
    said: list[BaseException | None] = []

    def ask() -> None:
        try:
            device.synchronise()
            said.append(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the device does not work
            said.append(error)

    asking = threading.Thread(target=ask, name="asks the device", daemon=True)
    asking.start()
    asking.join(seconds)
    if not said:
        return f"it did not answer for {seconds:g} s"
    return None if said[0] is None else _line_of(text_of(said[0]), 0) or type(said[0]).__name__


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and those that it was raised from or while handling."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        waiting += [one.__context__, one.__cause__]


def _line_of(text: str, at: int) -> str:
    """Return the line of a text that holds a position."""
    begin = text.rfind("\n", 0, at) + 1
    return text[begin:].partition("\n")[0].strip()
