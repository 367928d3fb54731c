"""`qlora`: linear layers in four bits against numbers computed by hand, and fits on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.measure.flops import count_flops
from harness.methods.configure import parse_methods
from harness.running.worker import Worker
from harness.support.errors import UnsupportedError
from harness.tasks import Task
from tests.toys import make_bench, run_one, test_rows

bnb = pytest.importorskip("bitsandbytes")

from harness.training.quantised import FourBitLinear, quantise_linear_layers  # noqa: E402

CPU = torch.device("cpu")

# Dettmers et al., 2023, appendix E: the 16 values of the 4-bit normal float.
NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
# One bit of sign; the other three name one of these, as bitsandbytes' FP4 has them.
FP4 = np.array([sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 8, 12, 4, 6, 2, 3)])


def by_hand(weight: torch.Tensor, table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The matrix after quantising its blocks of 64 to the nearest values of a table, times their largest number."""
    blocks = weight.double().numpy().reshape(-1, 64)
    scales = np.abs(blocks).max(axis=1, keepdims=True)
    nearest = np.abs(blocks[..., None] / scales[..., None] - table).argmin(axis=-1)
    return np.asarray((table[nearest] * scales).reshape(weight.shape))


def four_bits(linear: nn.Linear, quantisation: Any = "nf4", *, double: bool = False) -> FourBitLinear:
    return FourBitLinear(linear, CPU, quantisation, double_quantisation=double, computed_in=torch.float32)


@pytest.mark.parametrize("width", [128, 32, 96, 80])  # bitsandbytes' own layer is wrong in the last three
@pytest.mark.parametrize(
    ("quantisation", "table", "stored"),
    # In bfloat16, some numbers lie exactly between two of FP4's.
    [("nf4", NF4, torch.float32), ("nf4", NF4, torch.bfloat16), ("fp4", FP4, torch.float32)],
)
def test_the_product_is_that_of_the_matrix_dequantised_by_hand(
    quantisation: str, table: np.ndarray[Any, Any], stored: torch.dtype, width: int
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, 48)
    linear.weight.data = linear.weight.data.to(stored)
    x = torch.randn(3, 5, width, requires_grad=True)
    expected = by_hand(linear.weight.detach(), table)
    for double, tolerance in ((False, 1e-5), (True, 2e-2)):
        layer = four_bits(linear, quantisation, double=double)
        for training in (True, False):
            found = layer.train(training)(x)
            wanted = x.detach().double().numpy() @ expected.T + linear.bias.detach().double().numpy()
            np.testing.assert_allclose(found.detach().double().numpy(), wanted, atol=tolerance)
            x.grad = None
            found.sum().backward()
            assert x.grad is not None
            np.testing.assert_allclose(x.grad.double().numpy()[0, 0], expected.sum(0), atol=10 * tolerance)
    assert layer.bias is not None
    assert layer.bias.dtype is torch.float32


def test_autocast_rounds_the_product_as_that_of_a_linear_layer() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    layer = FourBitLinear(linear, CPU, "nf4", double_quantisation=False, computed_in=torch.bfloat16)
    x = torch.randn(7, 64)
    same = nn.Linear(64, 32)
    same.weight.data = torch.from_numpy(by_hand(linear.weight.detach(), NF4)).float()
    same.bias.data = linear.bias.data
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = layer(x), same(x)
    assert found.dtype is wanted.dtype is torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2)


def test_evaluating_between_steps_changes_nothing() -> None:
    """On a CPU with bfloat16 instructions, bitsandbytes' layer repacks its matrix for good and loses gradients."""
    layer = four_bits(nn.Linear(64, 64), double=True)
    packed = layer.weight.detach().clone()
    x = torch.randn(4, 64, requires_grad=True)
    first = layer(x)
    with torch.no_grad():
        layer.eval()(x)
    assert torch.equal(layer.weight.detach(), packed)
    assert torch.equal(layer.train()(x), first)
    layer(x).sum().backward()
    assert x.grad is not None


def test_operations_are_those_of_linear_layers() -> None:
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32)).requires_grad_(False)
    x = torch.randn(5, 7, 64, requires_grad=True)
    expected = count_flops(lambda: model(x).sum().backward())
    assert quantise_linear_layers(model, CPU, "nf4", double_quantisation=True, computed_in=torch.float32) == 2
    assert count_flops(lambda: model(x).sum().backward()) == expected == 2 * 2 * 35 * (64 * 96 + 96 * 32)
    first: Any = model[0]  # the kernel that a GPU uses, and its backward pass
    assert count_flops(lambda: bnb.matmul_4bit(x, first.weight, first.weight.quant_state).sum().backward()) == (
        2 * 2 * 35 * 64 * 96
    )


def test_a_shared_layer_stays_shared_and_no_random_number_is_drawn() -> None:
    shared = nn.Linear(64, 64)
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": nn.Sequential(shared), "kept": nn.Linear(64, 64)})
    torch.manual_seed(0)
    state = torch.get_rng_state()
    n = quantise_linear_layers(model, CPU, "nf4", double_quantisation=True, computed_in=torch.float32, kept=["kept"])
    assert n == 1
    assert model["a"][0] is model["b"][0]  # type: ignore[index]
    assert type(model["kept"]) is nn.Linear
    assert torch.equal(torch.get_rng_state(), state)


# ---- the method


def fit(text: str, task: Task, files: BackboneFiles, device: Device, n: int = 96) -> Any:
    [method] = parse_methods([text])
    bench = make_bench(task, files, device)
    rows = Worker(device, None).training_rows(task, n, 0, "stratified")
    return method.fit(rows, bench), bench


@pytest.mark.parametrize(("architecture", "precision"), [("encoder", "bf16"), ("causal", "fp32")])
def test_learns(
    architecture: str, precision: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    text = f"qlora[learning_rate=1e-2,epochs=20,precision={precision},patience=20]"
    fitted, bench = fit(text, toy, tiny_backbones[architecture], cpu, n=200)
    answers = fitted.predict(test_rows(toy), bench)
    assert (answers.argmax(axis=1) == toy.test_labels).mean() > 0.8


@pytest.mark.parametrize("architecture", ["encoder", "causal"])
def test_starts_from_the_quantised_function(
    architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    """The hidden states are those of the backbone with its blocks' matrices dequantised by hand."""
    from harness.training.blocks import Stack

    files = tiny_backbones[architecture]
    [method] = parse_methods(["qlora[double_quantisation=false,quantisation=nf4]"])
    model: Any = method.build(make_bench(toy, files, cpu)).eval()
    plain = load_backbone(files).fresh(CPU).eval()
    for block in Stack(plain).blocks:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                flat = module.weight.detach().reshape(-1)
                padded = nn.functional.pad(flat, (0, -len(flat) % 64))
                exact = by_hand(padded, NF4)[: len(flat)].reshape(module.weight.shape)
                module.weight.data = torch.from_numpy(exact).float()
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        wanted = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_trains_as_many_parameters_as_peft_on_transformers_own_quantised_model(
    toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModel, BitsAndBytesConfig

    files = tiny_backbones["causal"]
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    theirs: Any = AutoModel.from_pretrained(files.folder, quantization_config=config, dtype=torch.float32)
    wrapped = get_peft_model(
        prepare_model_for_kbit_training(theirs),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type=TaskType.FEATURE_EXTRACTION),
    )
    [method] = parse_methods(["qlora"])
    model: Any = method.build(make_bench(toy, files, cpu))
    ours = sum(value.numel() for value in model.transformer.parameters() if value.requires_grad)
    assert ours == wrapped.get_nb_trainable_parameters()[0]
    quantised = [value for value in wrapped.parameters() if getattr(value, "quant_state", None) is not None]
    own = [value for value in model.parameters() if getattr(value, "quant_state", None) is not None]
    assert len(own) == len(quantised) > 0
    for one, other in zip(own, quantised, strict=True):
        assert torch.equal(one.reshape(-1), other.reshape(-1))


def test_another_process_of_loading_gives_the_same_predictions(
    toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    from harness.methods.artifact import load_artifact, save_artifact

    [method] = parse_methods(["qlora[min_steps=10,epochs=1]"])
    fitted, bench = fit("qlora[min_steps=10,epochs=1]", toy, tiny, cpu)
    save_artifact(fitted, method, tmp_path, bench)
    again = make_bench(toy, tiny, cpu, seed=5)
    _, restored = load_artifact(tmp_path, again)
    np.testing.assert_array_equal(restored.predict(test_rows(toy), again), fitted.predict(test_rows(toy), bench))


def test_counts_the_operations_that_lora_does(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    how = "[targets=all-linear,min_steps=4,epochs=1,precision=fp32]"
    costs = [run_one(toy, tiny, parse_methods([name + how])[0], cpu, size="24").cost for name in ("lora", "qlora")]
    assert costs[0].train_flops == costs[1].train_flops
    assert costs[0].n_parameters == costs[1].n_parameters
    assert costs[0].n_trainable == costs[1].n_trainable


@pytest.mark.parametrize("double", [True, False])
def test_weights_are_counted_as_packed(double: bool, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    """Half a byte a number, and a scale for each 64: 4 bytes, or 1 and 4 more for each 256 scales."""
    from harness.training.blocks import Stack

    [method] = parse_methods([f"qlora[double_quantisation={double},precision=fp32,min_steps=2,epochs=1]"])
    cost = run_one(toy, tiny, method, cpu, size="12").cost
    pristine = load_backbone(tiny).pristine
    matrices = [
        module.weight.numel()
        for block in Stack(pristine).blocks
        for module in block.modules()
        if isinstance(module, nn.Linear)
    ]
    packed = sum(n // 2 + ((n // 64 + 4 * -(-n // 64 // 256)) if double else n // 64 * 4) for n in matrices)
    assert cost.n_parameters is not None
    buffers = sum(value.nbytes for value in pristine.buffers())
    assert cost.weights_bytes == packed + 4 * (cost.n_parameters - sum(matrices)) + buffers
    assert cost.shared_weights_bytes is not None
    unpacked = sum(value.numel() for value in pristine.parameters()) - sum(matrices)
    assert cost.shared_weights_bytes <= 4 * unpacked + buffers


def test_refuses_blocks_without_linear_layers(toy: Task, cpu: Device, find: Callable[[str], BackboneFiles]) -> None:
    files = find("gpt2")
    [method] = parse_methods(["qlora"])
    with pytest.raises(UnsupportedError, match="Use lora"):
        method.build(make_bench(toy, files, cpu))
