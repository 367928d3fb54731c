"""Optimisers for large models: bfloat16 weights that keep small updates, and moments in 8 bits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import _fine_tuning, methods
from harness.methods.artifact import artifact_size_bytes, load_artifact, save_artifact
from harness.methods.configure import parse_methods
from harness.records.record import Budget
from harness.records.workload import OF_MATRICES, RANKED, TRAINED_BYTES
from harness.running.worker import Worker
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Task
from harness.training.loop import EarlyStopping, ParameterGroup
from harness.training.optimisers import NarrowAdamW, optimiser_of, round_to_bfloat16, split_off, state_bytes
from tests.toys import make_bench, run_one, test_rows

NARROW = ("bfloat16-stochastic", "bfloat16-kahan")
SETTINGS = [
    "optimiser=adamw-8bit",
    *(f"masters={masters},precision=bf16" for masters in NARROW),
]


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randint(0, 2**16, shape, dtype=torch.int32, generator=torch.Generator().manual_seed(seed))


# ---- rounding


@pytest.mark.parametrize("value", [1.001, -1.003, 3.14159e-5, -2.5e7, 1.0, 0.0])
def test_stochastic_rounding_is_unbiased_and_gives_a_neighbour(value: float) -> None:
    n = 40_000
    exact = torch.full((n,), value)
    found = exact.clone()
    round_to_bfloat16(found, noise((n,), 1))
    below = np.float32(value).view(np.uint32) & np.uint32(0xFFFF0000)
    neighbours = {float(np.uint32(bits).view(np.float32)) for bits in (below, below + np.uint32(0x10000))}
    assert set(found.tolist()) <= (neighbours if below != np.float32(value).view(np.uint32) else {float(exact[0])})
    assert torch.equal(found, found.bfloat16().float())
    share = (exact[0].item() - min(neighbours)) / (max(neighbours) - min(neighbours))
    spread = (max(neighbours) - min(neighbours)) * math.sqrt(share * (1 - share) / n)
    assert abs(found.double().mean().item() - exact[0].item()) <= 4 * spread + 1e-12


def test_what_rounding_loses_gives_the_number_back() -> None:
    exact = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 10_000)
    rounded = exact.clone()
    lost = split_off(rounded, torch.empty(10_000, dtype=torch.int32))
    assert torch.equal(rounded, exact.bfloat16().float())  # none lies exactly between two
    assert torch.equal((rounded.view(torch.int32) + lost.to(torch.int16)).view(torch.float32), exact)


def steps(rounding: str, dtype: torch.dtype, n: int, gradient: float, rate: float, start: float) -> torch.Tensor:
    """64 numbers after n steps with a constant gradient: each step is the learning rate."""
    parameter = nn.Parameter(torch.full((64, 1), start, dtype=dtype))
    optimiser = NarrowAdamW([{"params": [parameter], "weight_decay": 0.0}], rounding, 3, lr=rate)  # type: ignore[arg-type]
    for _ in range(n):
        parameter.grad = torch.full_like(parameter, gradient)
        optimiser.step()
    return parameter.detach().float()


def test_kahan_keeps_ten_thousand_updates_that_rounding_loses() -> None:
    n, rate = 10_000, 1e-5
    exact = steps("bfloat16-kahan", torch.float32, n, 1.0, rate, 1.0)
    kept = steps("bfloat16-kahan", torch.bfloat16, n, 1.0, rate, 1.0)
    mean = steps("bfloat16-stochastic", torch.bfloat16, n, 1.0, rate, 1.0)
    assert exact[0].item() == pytest.approx(0.9, abs=1e-3)
    one = torch.ones(1, dtype=torch.bfloat16)
    assert torch.equal(one - rate, one)  # plain bfloat16 never moves
    assert (kept - exact).abs().max() <= 2**-8  # an ulp of bfloat16 below 1; moments are rounded by chance
    assert (kept - exact.bfloat16().float()).median() == 0
    assert (mean.mean() - exact.mean()).abs() <= 4 * mean.std() / math.sqrt(64)


# ---- AdamW


@pytest.mark.parametrize("piece_numbers", [None, 7])
def test_follows_torchs_adamw_on_a_quadratic(piece_numbers: int | None) -> None:
    """Float32 parameters as torch's in float64; those in bfloat16 stay near, whatever the pieces."""
    torch.manual_seed(0)
    targets = [torch.randn(5, 6), torch.randn(6), torch.randn(40)]

    def run(dtype: torch.dtype, make: Any) -> tuple[list[torch.Tensor], Any]:
        parameters = [nn.Parameter(torch.zeros_like(target, dtype=dtype)) for target in targets]
        optimiser = make([{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:]}])
        for step in range(60):
            for at, (parameter, target) in enumerate(zip(parameters, targets, strict=True)):
                late = at == 2 and step < 20  # joins later, as in gradual unfreezing
                parameter.grad = None if late else (2 * (parameter.detach() - target)).to(dtype)
            optimiser.step()
        return [parameter.detach().double() for parameter in parameters], (optimiser, parameters)

    exact, (theirs, known) = run(
        torch.float64, lambda groups: torch.optim.AdamW([{"weight_decay": 0.0, **group} for group in groups], lr=3e-2)
    )
    for rounding in NARROW:

        def ours(groups: Any, rounding: Any = rounding) -> NarrowAdamW:
            return NarrowAdamW(groups, rounding, 0, lr=3e-2, piece_numbers=piece_numbers)

        found, (optimiser, parameters) = run(torch.float32, ours)
        for one, other in zip(found, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        for parameter, double in zip(parameters, known, strict=True):
            for moment in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(
                    optimiser.state[parameter][moment].double(), theirs.state[double][moment], rtol=1e-5, atol=1e-6
                )
        narrow, _ = run(torch.bfloat16, ours)
        for one, other in zip(narrow, exact, strict=True):
            torch.testing.assert_close(one, other, rtol=0.03, atol=0.03)


def test_the_same_seed_rounds_the_same_and_another_does_not() -> None:
    def run(seed: int) -> torch.Tensor:
        parameter = nn.Parameter(torch.ones(50, 4, dtype=torch.bfloat16))
        optimiser = NarrowAdamW([{"params": [parameter]}], "bfloat16-stochastic", seed, lr=1e-4)
        for _ in range(5):
            parameter.grad = torch.ones_like(parameter)
            torch.rand(7)  # dropout draws from another generator
            optimiser.step()
        return parameter.detach()

    torch.manual_seed(0)
    first = run(1)
    torch.manual_seed(5)
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))


@pytest.mark.parametrize(("optimiser", "masters"), list(TRAINED_BYTES))
def test_state_takes_the_bytes_that_plans_count(optimiser: Any, masters: Any) -> None:
    if optimiser == "adamw-8bit":
        pytest.importorskip("bitsandbytes")
    dtype = torch.float32 if masters == "float32" else torch.bfloat16
    parameter = nn.Parameter(torch.randn(512, 256).to(dtype))
    group = ParameterGroup([parameter], 1e-3, 0.01, is_of_matrices=optimiser in OF_MATRICES)
    made = optimiser_of([group], optimiser, masters, rank=16)
    (parameter.float() ** 2).sum().backward()
    made.step()
    assert parameter.grad is not None
    expected = TRAINED_BYTES[optimiser, masters]
    rank = 16 if optimiser in RANKED else 1
    assert parameter.element_size() == expected.master
    assert parameter.grad.element_size() == expected.gradient
    assert state_bytes(made) == pytest.approx(expected.state_bytes(512, 256, rank), abs=16)


def test_8_bits_stay_near_adamw() -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    target = torch.randn(80, 60)
    found = []
    for optimiser in ("adamw", "adamw-8bit"):
        parameter = nn.Parameter(torch.zeros(80, 60))
        made = optimiser_of([ParameterGroup([parameter], 1e-2, 0.01)], optimiser)  # type: ignore[arg-type]
        for _ in range(100):
            parameter.grad = 2 * (parameter.detach() - target)
            made.step()
        found.append(parameter.detach())
    assert (found[0] - found[1]).norm() / found[0].norm() < 0.05


def test_early_stopping_restores_bfloat16_parameters() -> None:
    parameter = nn.Parameter(torch.randn(4, 4).bfloat16())
    scores = iter([1.0, 2.0, 0.0])
    stopper = EarlyStopping(lambda: ((next(scores),), 0.0), patience=2)
    kept = []
    for _ in range(3):
        kept.append(parameter.detach().clone())
        stopper.check([parameter], [1.0])
        parameter.data.add_(1.0)
    stopper.restore([parameter])
    assert torch.equal(parameter.detach(), kept[1])


# ---- fits


def fit(text: str, task: Task, files: BackboneFiles, device: Device, n: int = 96, **how: Any) -> Any:
    [method] = parse_methods([text])
    bench = make_bench(task, files, device, **how)
    rows = Worker(device, None).training_rows(task, n, 0, "stratified")
    return method, method.fit(rows, bench), bench


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_losses_are_close_to_those_of_float32(settings: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    if "8bit" in settings:
        pytest.importorskip("bitsandbytes")
    common = "transformer_dropout=0,dropout=0,learning_rate=3e-3,precision=" + (
        "bf16" if "bf16" in settings else "fp32"
    )
    curves = []
    for own in ("", "," + settings.replace(",precision=bf16", "")):
        _, _, bench = fit(f"full[{common}{own}]", toy, tiny, cpu, budget=Budget(steps=60))
        curves.append(np.array([point.train_loss for point in bench.ledger.curve]))
    assert curves[0][-1] < 0.5 * curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], atol=0.1 * curves[0][0])


@pytest.mark.parametrize("name", ["full", "last-layers", "gradual-unfreezing", "discriminative"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_saves_and_restores_the_same_predictions(
    name: str, settings: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    if "8bit" in settings:
        pytest.importorskip("bitsandbytes")
    more = ",patience=1,l2_start=0.01,accumulation=2" if name == "full" else ",min_steps=8,epochs=1"
    method, fitted, bench = fit(f"{name}[{settings}{more}]", toy, tiny, cpu, n=48)
    types = {parameter.dtype for parameter in fitted.model.transformer.parameters() if parameter.dim() > 1}
    assert (torch.bfloat16 in types) == ("masters" in settings)
    assert all(parameter.dtype is torch.float32 for parameter in fitted.model.head.parameters())
    assert all(parameter.dtype is torch.float32 for parameter in fitted.model.parameters() if parameter.dim() == 1)
    assert save_artifact(fitted, method, tmp_path, bench) == artifact_size_bytes(fitted, method)
    again = make_bench(toy, tiny, cpu, seed=9)
    _, restored = load_artifact(tmp_path, again)
    np.testing.assert_array_equal(restored.predict(test_rows(toy), again), fitted.predict(test_rows(toy), bench))


def test_a_float32_model_predicts_what_the_bfloat16_one_does(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """Autocast rounds the same matrices in the same way; the embedding is rounded once, and stays so."""
    _, fitted, bench = fit("full[masters=bfloat16-kahan,precision=bf16,min_steps=8,epochs=1]", toy, tiny, cpu)
    [plain] = parse_methods(["full[precision=bf16,min_steps=8,epochs=1]"])
    wide = plain.restore(fitted.tensors(), fitted.state(), bench)
    np.testing.assert_array_equal(wide.predict(test_rows(toy), bench), fitted.predict(test_rows(toy), bench))


def test_other_embeddings_shrink_as_in_full_training(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """The compact embedding leaves out rows without a gradient, and multiplies them by the decay at the end."""
    _, fitted, _ = fit(
        "full[masters=bfloat16-kahan,precision=bf16,weight_decay=0.5,learning_rate=1e-2]",
        toy, tiny, cpu, n=24, budget=Budget(steps=20),
    )  # fmt: skip
    [plain] = parse_methods(["full[precision=bf16]"])
    start = plain.build(make_bench(toy, tiny, cpu)).transformer.get_input_embeddings().weight  # type: ignore[attr-defined]
    after = fitted.model.transformer.get_input_embeddings().weight.detach().float()
    assert after.shape == start.shape
    ratio = (after / start.detach()).nanmedian()
    assert 0.85 < ratio < 0.99


# ---- what is refused


def test_refuses_what_cannot_be(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    for text, why in (
        ("full[masters=bfloat16-kahan,optimiser=adamw-8bit]", "optimiser=adamw"),
        ("full[masters=bfloat16-kahan,precision=fp32]", "precision=auto or bf16"),
        ("lora[masters=bfloat16-kahan]", "masters"),
        ("full[masters=bfloat16]", "bfloat16-kahan"),
    ):
        with pytest.raises(UsageError, match=why):
            parse_methods([text])
    wide = Device(**{**vars(cpu), "native_bf16": False})
    [method] = parse_methods(["full[masters=bfloat16-kahan]"])
    rows = Worker(cpu, None).training_rows(toy, 12, 0, "stratified")
    with pytest.raises(UnsupportedError, match="masters=float32"):
        method.fit(rows, make_bench(toy, tiny, wide))


def test_says_that_bitsandbytes_is_missing(monkeypatch: pytest.MonkeyPatch, tiny: BackboneFiles) -> None:
    import importlib.metadata

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for text in ("lora[optimiser=adamw-8bit]", "qlora"):
        [method] = parse_methods([text])
        assert "not installed; pip install" in str(method.why_unsupported("classification", tiny, "cpu"))
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.49.2")
    assert "0.49.2 is installed" in str(methods.get("qlora")().why_unsupported("classification", tiny, "cpu"))


def test_defaults_change_no_identity_and_no_number(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    for name in ("full", "lora"):
        config = methods.get(name)().config()
        assert "optimiser" not in config
        assert "masters" not in config
    assert _fine_tuning.FineTuning.newer_settings >= {"optimiser"}
    record = run_one(toy, tiny, methods.get("full")(), cpu, size="24", budget=Budget(steps=4))
    assert record.status == "ok", record.error
    assert "masters" not in record.cell.config
