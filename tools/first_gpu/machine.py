"""The machine: what it is, and the rates that utilisation and energy rest on."""

from __future__ import annotations

import statistics
import time

import torch

from harness.measure.nvml import current_gpu
from harness.measure.rate import measure_rate
from tools.first_gpu.trial import Trial


def environment(trial: Trial) -> None:
    """State the device, the versions, and what the meters can read."""
    import peft
    import transformers

    gpu = current_gpu()
    trial.say(
        "environment",
        device=trial.device.name,
        torch=torch.__version__,
        transformers=transformers.__version__,
        peft=peft.__version__,
        threads=trial.device.threads,
        bf16=trial.device.native_bf16,
        tf32=torch.backends.cuda.matmul.allow_tf32,
        nvml=gpu is not None,
        energy_joules=gpu.energy_joules() if gpu else None,
        others=gpu.other_processes() if gpu else None,
        slowed_by=gpu.slowed_by() if gpu else None,
        driver_bytes=gpu.used_bytes() if gpu else None,
    )


def ceilings(trial: Trial) -> None:
    """Compare the harness's rate of matrix products with many products in a row; measure copies."""
    side = 128 if trial.is_dry else 8192
    rates = {} if trial.is_dry else {name: measure_rate(trial.device, name) / 1e12 for name in ("bf16", "fp32")}
    left, right = (torch.randn(side, side, device=trial.there, dtype=torch.bfloat16) for _ in range(2))
    seconds = trial.milliseconds(lambda: [left @ right for _ in range(20)], 5) / 20e3
    source = torch.randn(2**16 if trial.is_dry else 2**30, device=trial.there)
    target = torch.empty_like(source)
    copied = trial.milliseconds(lambda: target.copy_(source), 10) / 1e3
    trial.say(
        "ceilings",
        harness_bf16_tflops=rates.get("bf16"),
        harness_fp32_tflops=rates.get("fp32"),
        sustained_bf16_tflops=2 * side**3 / seconds / 1e12,
        copy_gb_per_second=2 * source.nbytes / copied / 1e9,
    )


def energy(trial: Trial) -> None:
    """Compare the driver's counter of energy with its own watts, over seconds of products."""
    gpu = current_gpu()
    before = gpu.energy_joules() if gpu else None
    if gpu is None or before is None:
        trial.say("energy", readable=False)
        return
    matrix = torch.randn(8192, 8192, device=trial.there, dtype=torch.bfloat16)
    watts, readings = [], set()
    started = time.perf_counter()
    while time.perf_counter() - started < 3:
        _ = matrix @ matrix
        trial.device.synchronise()
        readings.add(gpu.energy_joules())
        watts.append(gpu._library.nvmlDeviceGetPowerUsage(gpu._handle) / 1e3)
    seconds = time.perf_counter() - started
    trial.say(
        "energy",
        joules=(gpu.energy_joules() or 0.0) - before,
        by_watts=statistics.fmean(watts) * seconds,
        updates_per_second=len(readings) / seconds,
    )
