"""The equations in the docstrings of methods that peft implements, against what its layers compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.methods import methods

IN, OUT = 12, 20


def adapted(name: str, **settings: Any) -> tuple[nn.Module, dict[str, torch.Tensor], Any]:
    """Return a layer that peft adapts as the method says, with random added parameters, these, and the method."""
    from peft import get_peft_model

    torch.manual_seed(0)
    method = methods.get(name)(**settings)
    net = nn.Sequential()
    net.add_module("layer", nn.Linear(IN, OUT))
    config = method.peft_config(net, SimpleNamespace(seeded=lambda _: 1))
    config.target_modules = ["layer"]
    model = get_peft_model(net, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    found = {key.split("model.layer.")[-1].removesuffix(".weight"): value for key, value in model.state_dict().items()}
    return model, {key.removesuffix(".default"): value for key, value in found.items()}, method


def base(parts: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return x @ parts["base_layer"].T


def addition(parts: dict[str, torch.Tensor], x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return x @ (parts["base_layer"] + matrix).T + parts["base_layer.bias"]


def lora(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    return addition(p, x, m.alpha / m.rank * p["lora_B"] @ p["lora_A"])


def rslora(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    return addition(p, x, m.alpha / m.rank**0.5 * p["lora_B"] @ p["lora_A"])


def dora(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    matrix = p["base_layer"] + m.alpha / m.rank * p["lora_B"] @ p["lora_A"]
    length = matrix.norm(dim=1)  # of each output unit
    magnitude = next(value for key, value in p.items() if "magnitude" in key)
    return magnitude * (x @ matrix.T) / length + p["base_layer.bias"]


def adalora(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    values = torch.diag(p["lora_E"][:, 0])
    return addition(p, x, m.alpha / m.initial_rank * p["lora_B"] @ values @ p["lora_A"])


def loha(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    first, second = p["hada_w1_a"] @ p["hada_w1_b"], p["hada_w2_a"] @ p["hada_w2_b"]
    return addition(p, x, m.alpha / m.rank * first * second)


def lokr(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    second = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
    return addition(p, x, m.alpha / m.rank * torch.kron(p["lokr_w1"], second))


def vera(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any, shared: Any) -> torch.Tensor:
    a, b = shared
    inner = p["vera_lambda_d"] * (x @ a[:, :IN].T)
    return base(p, x) + p["base_layer.bias"] + p["vera_lambda_b"] * (inner @ b[:OUT].T)


def oft(p: dict[str, torch.Tensor], x: torch.Tensor, m: Any) -> torch.Tensor:
    size = m.block_size
    blocks = []
    for values in p["oft_R"]:
        skew = torch.zeros(size, size)
        rows, columns = torch.triu_indices(size, size, 1)
        skew[rows, columns] = values
        skew = skew - skew.T
        blocks.append((torch.eye(size) + skew) @ torch.linalg.inv(torch.eye(size) - skew))
    rotation = torch.block_diag(*blocks)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(IN), atol=1e-4, rtol=0)
    return x @ (p["base_layer"] @ rotation).T + p["base_layer.bias"]


EQUATIONS = [
    ("lora", lora, {"rank": 3}),
    ("rslora", rslora, {"rank": 3}),
    ("dora", dora, {"rank": 3}),
    ("adalora", adalora, {"rank": 2, "initial_rank": 4}),
    ("loha", loha, {"rank": 3}),
    ("lokr", lokr, {"rank": 1}),
    ("oft", oft, {"block_size": 4}),
]


@pytest.mark.parametrize(("name", "equation", "settings"), EQUATIONS, ids=[name for name, _, _ in EQUATIONS])
def test_a_layer_computes_its_equation(name: str, equation: Any, settings: dict[str, Any]) -> None:
    model, parts, method = adapted(name, **settings)
    x = torch.randn(5, IN)
    with torch.no_grad():
        torch.testing.assert_close(model(x), equation(parts, x, method), atol=1e-3, rtol=1e-3)
        assert (model(x) - base(parts, x) - parts["base_layer.bias"]).abs().max() > 0.01


def test_vera_scales_shared_matrices() -> None:
    model, parts, method = adapted("vera", rank=4)
    shared = model.base_model.vera_A["default"], model.base_model.vera_B["default"]
    x = torch.randn(5, IN)
    with torch.no_grad():
        torch.testing.assert_close(model(x), vera(parts, x, method, shared), atol=1e-4, rtol=1e-4)


def test_fourierft_adds_an_inverse_transform() -> None:
    model, parts, method = adapted("fourierft", n_frequencies=7)
    layer: Any = model.base_model.model.layer
    spectrum = torch.zeros(OUT, IN)
    rows, columns = layer.indices["default"]
    spectrum[rows, columns] = parts["fourierft_spectrum"]
    x = torch.randn(5, IN)
    with torch.no_grad():
        wanted = addition(parts, x, method.scaling * torch.fft.ifft2(spectrum).real)
        torch.testing.assert_close(model(x), wanted, atol=1e-3, rtol=1e-3)


def test_ia3_rescales_outputs_of_keys_and_inputs_of_the_last_layer() -> None:
    from peft import IA3Config, get_peft_model

    net = nn.Sequential()
    net.add_module("key", nn.Linear(IN, OUT))
    net.add_module("out", nn.Linear(OUT, IN))
    model: Any = get_peft_model(net, IA3Config(target_modules=["key", "out"], feedforward_modules=["out"])).eval()
    key, out = model.base_model.model.key, model.base_model.model.out
    x = torch.randn(5, IN)
    with torch.no_grad():
        assert (key.ia3_l["default"] == 1).all()
        for layer in (key, out):
            layer.ia3_l["default"].normal_()
        keys = key.ia3_l["default"].flatten() * key.base_layer(x)
        wanted = out.base_layer(out.ia3_l["default"].flatten() * keys)
        torch.testing.assert_close(model(x), wanted)
