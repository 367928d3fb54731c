"""Measure one cell beside its phases: memory, and disturbances by other work."""

from __future__ import annotations

from harness.measure.device import Device
from harness.measure.failures import Failures
from harness.measure.memory import MemoryMeter
from harness.measure.nvml import DriverWatch, current_gpu
from harness.measure.steadiness import Steadiness


class Meters:
    """Meters around a cell's training and predicting; figures are available on leaving.

    A meter that fails leaves its figure None, and `failures` gives the reason; entering and leaving never raise.

    Args:
        device: device of the cell; None measures only the memory of the host.

    Attributes:
        memory: meter of the process and the accelerator, by part: `fit` and `predict`.
        peak_driver_bytes: peak memory of the accelerator according to its driver.
        disturbed_by: disturbance of the processors or the accelerator, in words.
        failures: reasons for missing figures.
    """

    def __init__(self, device: Device | None = None) -> None:
        self.failures = Failures()
        self.memory = MemoryMeter(device.torch_device() if device is not None else None)
        self.memory.failures = self.failures
        gpu = self.failures.guard("driver", current_gpu) if device is not None and device.kind == "cuda" else None
        self._watch = DriverWatch(gpu)
        self._steadiness: Steadiness | None = None
        self.peak_driver_bytes: int | None = None
        self.disturbed_by: str | None = None

    def __enter__(self) -> Meters:
        self._steadiness = self.failures.guard("steadiness", Steadiness)
        try:
            self.failures.guard("driver", self._watch.__enter__)
            self.memory.__enter__()
        except BaseException:  # an interrupt: nobody will leave, and no thread stays behind
            self._watch.__exit__()
            raise
        return self

    def end_fit(self) -> None:
        """End the part `fit` and begin `predict`."""
        self.memory.end_part("fit")

    def __exit__(self, *error: object) -> None:
        try:
            self.memory.end_part("predict" if "fit" in self.memory.by_part else "fit")
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            self.memory.__exit__(None, None, None)
        finally:
            self.failures.guard("driver", self._watch.__exit__)
        if self._watch.failure is not None:
            self.failures.note("driver", self._watch.failure)
        if "driver" not in self.failures:
            self.peak_driver_bytes = self._watch.peak_bytes
            self.disturbed_by = self._watch.disturbance()
        if self.disturbed_by is None and self._steadiness is not None:
            self.disturbed_by = self.failures.guard("steadiness", self._steadiness.disturbance)
