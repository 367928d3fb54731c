"""Clocks, memory and FLOPs against independent counts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.clock import PhaseClock
from harness.measure.device import Device, _computes_bf16, find_device, processor_name
from harness.measure.flops import FlopsModel, count_flops, fit_flops
from harness.measure.memory import MemoryMeter
from harness.support.errors import UsageError
from tests.toys import FakeTime


def test_phases_are_exclusive_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    time = FakeTime()
    monkeypatch.setattr("harness.measure.clock.time", time)
    clock = PhaseClock()
    started = time.perf_counter()
    with clock.phase("fit"):
        time.sleep(0.03)
        with clock.phase("encode"):
            time.sleep(0.05)
            with clock.paused():
                time.sleep(0.04)
        time.sleep(0.02)
    total = time.perf_counter() - started
    seconds = clock.by_phase()
    assert seconds["fit_seconds"] == pytest.approx(0.05)
    assert seconds["encode_seconds"] == pytest.approx(0.05)
    assert seconds["load_seconds"] is None
    assert clock.train_seconds == pytest.approx(total - 0.04)


def test_charged_seconds_count_while_a_phase_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.clock.time", FakeTime())
    clock = PhaseClock()
    with clock.phase("fit"):
        clock.charge("encode", 5.0)
        assert clock.train_seconds == 5.0
    assert clock.seconds("encode") == 5.0


_SAMPLED = """
import sys, time
import numpy as np
from harness.measure.memory import MemoryMeter
np.ones(10_000_000)  # 80 MB that are given back before the meter starts
with MemoryMeter() as meter:
    print("READY", flush=True)
    sys.stdin.readline()
    held = [np.ones(5_000_000) for _ in range(4)]  # 160 MB
    time.sleep(0.1)
    print("HELD", flush=True)  # until it has been looked at
    sys.stdin.readline()
    del held
    time.sleep(0.1)
print(meter.peak_rss_bytes, meter.peak_rss_above_baseline_bytes, flush=True)
"""


def test_peak_memory_is_what_a_sampler_outside_sees() -> None:
    psutil = pytest.importorskip("psutil")
    child = subprocess.Popen([sys.executable, "-c", _SAMPLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "READY"
    watched = psutil.Process(child.pid)
    before = watched.memory_info().rss
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline().strip() == "HELD"
    peak = watched.memory_info().rss
    child.stdin.write("\n")
    child.stdin.flush()
    absolute, above = map(int, child.stdout.readline().split())
    child.wait(timeout=30)
    assert absolute == pytest.approx(peak, rel=0.1)
    assert above == pytest.approx(peak - before, rel=0.1)
    assert above == pytest.approx(160e6, rel=0.1)


def test_an_inner_meter_does_not_make_the_outer_forget() -> None:
    with MemoryMeter() as outer:
        held = np.ones(12_000_000)
        del held
        with MemoryMeter() as inner:
            pass
    assert outer.peak_rss_above_baseline_bytes > 80e6
    assert inner.peak_rss_above_baseline_bytes < 40e6


def test_the_peak_of_reused_work_counts() -> None:
    with MemoryMeter() as meter:
        meter.note(123_000_000)
    assert meter.peak_rss_above_baseline_bytes >= 123_000_000


def closed_form_bert(n_rows: int, length: int, layers: int, width: int, inner: int) -> float:
    """Forward FLOPs of a BERT encoder: four projections, two feed-forward products, scores and their use."""
    tokens = n_rows * length
    return layers * (2.0 * tokens * (4 * width**2 + 2 * width * inner) + 4.0 * tokens * length * width)


def test_flops_of_bert_are_the_closed_form(tiny: BackboneFiles) -> None:
    model = load_backbone(tiny).pristine

    def forward(n_rows: int, length: int) -> None:
        ids = torch.ones((n_rows, length), dtype=torch.long)
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    fitted = fit_flops(forward)
    for shape in ((1, 5), (7, 33), (16, 64)):
        expected = closed_form_bert(*shape, layers=2, width=32, inner=64)
        assert count_flops(lambda shape=shape: forward(*shape)) == pytest.approx(expected, rel=0.01)
        assert fitted.batch(*shape) == pytest.approx(expected, rel=0.01)


def test_training_flops_are_three_times_forward_when_everything_is_trained(tiny: BackboneFiles) -> None:
    model = load_backbone(tiny).fresh(torch.device("cpu"))
    ids = torch.ones((4, 32), dtype=torch.long)
    mask = torch.ones_like(ids)

    def step() -> None:
        model(input_ids=ids, attention_mask=mask).last_hidden_state.sum().backward()

    recomputed = 2 * 2.0 * (4 * 32) * 32 * 32  # fused attention's backward pass computes the scores again, by layer
    assert count_flops(step) == pytest.approx(3 * closed_form_bert(4, 32, 2, 32, 64) + recomputed, rel=1e-3)


def test_a_count_that_no_quadratic_explains_is_refused() -> None:
    weight = torch.ones(64, 64)
    with pytest.raises(ValueError, match="quadratic"):
        fit_flops(lambda rows, length: torch.ones(rows * length**3 // 64, 64) @ weight)


def test_devices() -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:NUMBER"):
        find_device("tpu")
    device = find_device("cpu")
    assert device.threads >= 1
    assert Device("cpu", "x", 1, native_bf16=True).precision("auto") == "bf16"
    assert Device("cpu", "x", 1, native_bf16=False).precision("auto") == "fp32"
    assert Device("cpu", "x", 1, native_bf16=False).precision("bf16") == "bf16"


_FULL_CELL = """
from pathlib import Path
from harness.backbones.locate import DEFAULT_BACKBONE, locate_backbone
from harness.running.attempt import Job
from harness.running.worker import Worker
from harness.measure.device import find_device
from harness.methods import methods
from harness.records.record import Budget
from harness.planning.suites import load_suite
from harness.tasks import kinds
from tests.toys import plan_one
task = kinds.get("classification").prepare(load_suite("quickstart").task("docstrings"), None)
files = locate_backbone(DEFAULT_BACKBONE)
planned = plan_one(task, files, methods.get("full")(), size="192", budget=Budget(steps=20))
record = Worker(find_device("cpu"), None).run(Job(planned, files, "tests"), task)
print("PEAK", record.cost.peak_rss_bytes, flush=True)
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n", "AMD EPYC (family 25, model 1)"),
        ("cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n", "AMD EPYC (family 26, model 2)"),
        ("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763\n\nmodel name\t: other\n", "AMD EPYC 7763"),
    ],
)
def test_processors_behind_one_name_are_told_apart(cpuinfo: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: cpuinfo)
    assert processor_name() == name


_XEON = (
    "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\nflags\t\t: "
)


@pytest.mark.parametrize(
    ("cpuinfo", "name", "computes_bf16"),
    [
        (f"{_XEON}avx512_bf16 avx512_fp16 amx_tile amx_bf16", "(family 6, model 207)", True),
        (f"{_XEON}avx512_bf16 avx512_fp16", "(family 6, model 207), no AMX", False),
        ("vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9755\nflags\t\t: avx512_bf16", "AMD EPYC 9755", True),
        ("Features\t: asimd bf16\n", "", True),
    ],
)
def test_a_processor_without_amx_has_another_name_and_computes_in_float32(
    cpuinfo: str, name: str, computes_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: cpuinfo)
    assert processor_name().endswith(name)
    flags = frozenset(cpuinfo.rpartition(":")[2].split())
    assert _computes_bf16(flags) is computes_bf16


@pytest.mark.slow
def test_peak_memory_of_full_fine_tuning_is_what_a_sampler_outside_sees() -> None:
    """The whole life of the process is sampled; nothing before or after the cell needs more than it does."""
    import psutil

    child = subprocess.Popen(
        [sys.executable, "-c", _FULL_CELL], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    )
    watched = psutil.Process(child.pid)
    peak = 0
    while child.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.005)
    assert child.stdout is not None
    [line] = [line for line in child.stdout.read().splitlines() if line.startswith("PEAK")]
    print(line, "sampled outside", peak)
    assert int(line.split()[1]) == pytest.approx(peak, rel=0.1)


def test_rows_that_are_run_at_their_own_lengths_share_what_a_batch_costs_once() -> None:
    model = FlopsModel(per_token=3.0, per_token_length=2.0, per_row=5.0, constant=100.0)
    lengths = [4, 7, 9]
    together = sum(3.0 * n + 2.0 * n * n + 5.0 for n in lengths)
    assert model.rows(lengths, rows_per_batch=32) == together + 100.0
    assert model.rows(lengths, rows_per_batch=2) == together + 200.0
    assert model.rows([], rows_per_batch=2) == 0.0
