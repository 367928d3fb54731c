"""Kernels by arithmetic against those that torch's dispatcher sees, and estimates that follow them on a GPU."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.backbones.shapes import write_shape
from harness.cost.closed_form import amount
from harness.cost.estimate import Estimator, Figure
from harness.cost.launches import LAUNCH_SECONDS, pass_launches, step_launches
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.records.workload import Workload
from harness.tasks import Task
from tests.toys import plan_one

GPU = Device("cuda", "a GPU", threads=4, native_bf16=True, memory_bytes=24 * 10**9)
VIEWS = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze"),
    *("detach", "alias", "as_strided", "unbind", "split", "empty", "empty_like", "empty_strided"),
}


class Kernels(TorchDispatchMode):
    """Counter of operations that compute or copy something."""

    n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += func.__name__.split(".")[0] not in VIEWS
        return func(*args, **(kwargs or {}))


def counted(architecture: str, n_blocks: int, targets: list[str]) -> tuple[int, int]:
    """Kernels of a forward pass, and of a forward and a backward pass."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100}
    config = AutoConfig.for_model(architecture, **sizes, num_hidden_layers=n_blocks, use_cache=False)
    model: Any = AutoModel.from_config(config).train()
    if targets:
        model = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.1, target_modules=targets))
    ids = torch.ones(2, 8, dtype=torch.long)
    with Kernels() as forward, torch.autocast("cpu", dtype=torch.bfloat16):
        states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    with Kernels() as backward:
        states.float().sum().backward()
    return forward.n, forward.n + backward.n


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [("bert", []), ("llama", []), ("bert", ["query", "value"]), ("llama", ["q_proj", "v_proj"])],
)
def test_kernels_of_a_block_are_those_that_the_dispatcher_sees(architecture: str, targets: list[str]) -> None:
    few, many = (counted(architecture, n_blocks, targets) for n_blocks in (1, 2))
    forward, both = (after - before for before, after in zip(few, many, strict=True))
    work = Workload(texts_per_step=1, additions=float(len(targets)))
    one, two = (
        step_launches(work, *((0.0, n_blocks) if targets else (n_blocks, 0.0)), checkpoints=False)
        for n_blocks in (1.0, 2.0)
    )
    print(f"{architecture} {targets}: {forward} forward, {both} in all; by arithmetic {two - one:.0f}")
    assert pass_launches(1, 1, work.additions) == pytest.approx(forward, rel=0.1)
    assert two - one == pytest.approx(both, rel=0.2)


def test_a_step_of_a_small_model_takes_the_launches_of_its_kernels(toy: Task, tmp_path: Path) -> None:
    files = {name: write_shape(name, tmp_path / name) for name in ("bert-base-like", "llama-3.1-8b-like")}
    of = {
        (name, method): plan_one(toy, found, parse_methods([method])[0], size="96")
        for (name, found), method in itertools.product(files.items(), ("full[batch_size=1]", "lora[batch_size=64]"))
    }
    small, large = of["bert-base-like", "full[batch_size=1]"], of["llama-3.1-8b-like", "lora[batch_size=64]"]
    work = amount(small, toy, files["bert-base-like"], GPU)
    estimator = Estimator({toy.name: toy}, GPU)
    assert estimator.estimate(small).train_seconds == pytest.approx(work.train_launches * LAUNCH_SECONDS)
    assert estimator.estimate(small).basis == "formula"
    one_row = plan_one(
        toy, files["bert-base-like"], parse_methods(["full[batch_size=1, accumulation=1]"])[0], size="96"
    )
    steps = one_row.method.workload(96, one_row.cell.budget, 12).steps
    assert 0.004 < estimator.estimate(small).train_seconds / steps < 0.02  # seconds of a step, however few its tokens
    of_8b = Estimator({toy.name: toy}, GPU)
    heavy = amount(large, toy, files["llama-3.1-8b-like"], GPU)
    assert of_8b.estimate(large).train_seconds > 1.5 * heavy.train_launches * LAUNCH_SECONDS
    # Records replace the assumption: a cell that the device's speed explains, and one that it does not.
    figure = Figure(10.0, 0.0, 10.0, 0.0, None, heavy, 96, "records")
    estimator.add_figure(large, dataclasses.replace(figure, train_seconds=heavy.train_flops / 1e14))
    assert estimator.flops_per_second() == pytest.approx(1e14)
    estimator.add_figure(small, dataclasses.replace(figure, amount=work, train_seconds=work.train_launches * 9e-6))
    assert estimator.launch_seconds() == pytest.approx(9e-6)
    assert estimator.flops_per_second() == pytest.approx(1e14)
    on_cpu = Estimator({toy.name: toy}, dataclasses.replace(GPU, kind="cpu"))
    assert on_cpu.estimate(small).train_seconds == pytest.approx(work.train_flops / on_cpu.flops_per_second(), rel=0.01)
