"""The simulation does what CUDA does: values, devices, waits, memory, faults."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.simulated.state import STATE, limited
from tests.simulated.tensor import MixedDevicesError

CUDA = torch.device("cuda", 0)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def trained(model: nn.Module, device: torch.device) -> list[float]:
    model.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    ids = torch.arange(16).reshape(4, 4).to(device)
    losses = []
    for _ in range(3):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            out = model(ids).mean(1)
        loss = nn.functional.cross_entropy(out.float(), torch.arange(4, device=device) % 3)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def test_trains_as_a_cpu_does() -> None:
    assert trained(small_model(), CUDA) == pytest.approx(trained(small_model(), torch.device("cpu")), rel=1e-2)


def test_a_tensor_says_where_it_is_and_its_values_come_back() -> None:
    there = torch.arange(6.0).reshape(2, 3).to("cuda")
    assert there.is_cuda
    assert there.device == CUDA
    assert torch.equal(there.T.cpu(), torch.arange(6.0).reshape(2, 3).T)
    with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\)"):
        there.numpy()


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there @ here.T,
        lambda there, here: there.add_(here),
        lambda there, here: torch.where(there > 0, there, here),
    ],
)
def test_two_devices_in_one_operation_raise(mix: Callable[..., Any]) -> None:
    with pytest.raises(MixedDevicesError, match="at least two devices, cuda:0 and cpu"):
        mix(torch.ones(2, 2, device="cuda"), torch.ones(2, 2))


def test_single_numbers_of_the_host_are_welcome() -> None:
    assert (torch.ones(2, device="cuda") * torch.tensor(2.0)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("work", "n_waits"),
    [
        (lambda x: x * 2 + x.sum(), 0),
        (lambda x: x.sum().item(), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x[torch.tensor([0])], 1),
        (lambda x: x[torch.zeros(1, dtype=torch.long, device="cuda")], 0),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda _: torch.ones(3).to("cuda"), 1),
        (lambda _: torch.tensor([1.0, 2.0], device="cuda"), 1),
        (lambda _: torch.ones(3).pin_memory().to("cuda", non_blocking=True), 0),
        (lambda _: torch.zeros(3, device="cuda"), 0),
    ],
)
def test_waits_are_counted(work: Callable[[torch.Tensor], Any], n_waits: int) -> None:
    there = torch.ones(3, device="cuda")
    STATE.reset()
    work(there)
    assert STATE.n_waits == n_waits, STATE.waits


def test_memory_is_that_of_live_tensors() -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    there = torch.zeros(1000, device="cuda")
    view = there[10:]
    assert torch.cuda.memory_allocated() - before == 4000
    del there
    assert torch.cuda.memory_allocated() - before == 4000
    del view
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() - before == 4000


def test_autograd_holds_what_the_backward_pass_reads() -> None:
    weight = nn.Parameter(torch.ones(100, 100, device="cuda"))
    before = torch.cuda.memory_allocated()
    out = (torch.ones(50, 100, device="cuda") @ weight).relu().sum()
    assert torch.cuda.memory_allocated() - before == 2 * 50 * 100 * 4 + 4  # the input, the activation, the sum
    out.backward()
    del out
    assert torch.cuda.memory_allocated() - before == weight.grad.nbytes  # type: ignore[union-attr]


def test_runs_out_of_memory_above_its_capacity() -> None:
    with limited(torch.cuda.memory_allocated() + 5000):
        kept = torch.zeros(1000, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            torch.zeros(1000, device="cuda")
        del kept
        torch.zeros(1000, device="cuda")


def test_an_index_out_of_range_kills_the_device() -> None:
    table, there = torch.ones(3, 2, device="cuda"), torch.ones(2, device="cuda")
    with pytest.raises(torch.AcceleratorError, match="device-side assert"):
        nn.functional.embedding(torch.tensor([5], device="cuda"), table)
    for work in (lambda: there + there, torch.cuda.synchronize, torch.cuda.empty_cache, lambda: there.cpu()):
        with pytest.raises(torch.AcceleratorError, match="device-side assert"):
            work()


def test_a_fault_comes_after_so_many_launches() -> None:
    there = torch.ones(2, device="cuda")
    STATE.faults_after = STATE.launches + 2
    for _ in range(2):
        there = there + there
    with pytest.raises(torch.AcceleratorError):
        there + there


def test_tied_parameters_stay_tied_and_copies_stay_apart() -> None:
    model = nn.ModuleDict({"in": nn.Embedding(10, 8), "out": nn.Linear(8, 10)})
    model["out"].weight = model["in"].weight
    held = model["in"].weight
    held.remark = "kept"  # type: ignore[attr-defined]
    model.cuda().to("cuda")
    assert model["out"].weight is model["in"].weight is held
    assert held.remark == "kept"  # type: ignore[attr-defined]
    another = copy.deepcopy(model)
    assert another["out"].weight is another["in"].weight
    with torch.no_grad():
        another["in"].weight.zero_()
    assert held.abs().sum() > 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device is simulated")
def test_devices_are_apart() -> None:
    first, second = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")
    with pytest.raises(MixedDevicesError, match="cuda:0 and cuda:1"):
        first + second
    assert (first.to("cuda:1") + second).device == torch.device("cuda", 1)
    with torch.cuda.device(1):
        assert torch.zeros(1, device="cuda").device == torch.device("cuda", 1)
    before = torch.cuda.memory_allocated(0), torch.cuda.memory_allocated(1)
    kept = torch.zeros(100, device="cuda:1")
    assert (torch.cuda.memory_allocated(0), torch.cuda.memory_allocated(1)) == (before[0], before[1] + kept.nbytes)
