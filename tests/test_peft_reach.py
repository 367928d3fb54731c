"""Limits of the types of peft's table: refused when the method is made or planned; and corrections of peft."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._peft_types import FromTable
from harness.methods.configure import parse_methods
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Task
from tests.toys import make_bench

Find = Callable[[str], BackboneFiles]


@pytest.mark.parametrize(
    "text",
    [
        "boft:n_factors=2",  # peft would take 1 without a word
        "frod:density=2",
        "hra:rank=3",  # would not start from the pretrained function
        "osf:frozen_share=1",  # nothing would train
        "supertuning:sparsity=1",
        "lily:n_shared=1",
        "cartridge:n_virtual_tokens=1",
    ],
)
def test_a_setting_beyond_its_limit_is_refused_when_the_method_is_made(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition(":")[2].partition("=")[0]):
        parse_methods([text])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gralora", {"rank": 3}),
        ("gralora", {"n_blocks": 64, "rank": 64}),
        ("miss", {"rank": 1000}),
        ("osf", {"frozen_share": 0.001}),
        ("psoft", {"rank": 1000}),
        ("shira", {"rank": 1000}),
        ("supertuning", {"sparsity": 0.9999}),
        ("waveft", {"n_frequencies": 1000000}),
    ],
)
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_setting_that_does_not_fit_the_matrices_is_refused_when_planned(
    name: str, settings: dict[str, Any], architecture: str, find: Find
) -> None:
    reason = methods.get(name)(**settings).why_unsupported("classification", find(architecture), "cpu")
    assert reason is not None
    assert next(iter(settings)) in reason, "the message has the setting's own name"
    assert "Try" in reason or "Use" in reason


def test_shira_is_refused_where_only_the_narrow_matrices_of_grouped_attention_are_too_small(find: Find) -> None:
    """A rank of 16 asks for every value of a 32 x 32 matrix, and for more than a 16 x 32 matrix has."""
    method: Any = methods.get("shira")
    assert method(rank=16).why_unsupported("classification", find("bert"), "cpu") is None
    assert "at most 10" in str(method(rank=16).why_unsupported("classification", find("llama"), "cpu"))
    assert method(rank=10).why_unsupported("classification", find("llama"), "cpu") is None


def test_no_type_is_refused_because_a_plan_has_no_values(find: Find) -> None:
    """Many types read the weights, or what they draw, which modules without values cannot give."""
    for cls in methods:
        if issubclass(cls, FromTable) and "encoder" in cls.serves:
            assert cls().why_unsupported("classification", find("roberta"), "cpu") is None, cls.name


def test_adaption_prompts_are_refused_where_peft_misreads_attention(find: Find, toy: Task, cpu: Device) -> None:
    """peft takes the groups of heads from widths, which holds only where the heads are as wide as a state."""
    method: Any = methods.get("adaption-prompt")()
    for architecture in ("gpt2", "gemma2", "falcon", "mamba"):
        reason = method.why_unsupported("classification", find(architecture), "cpu")
        assert reason is not None
        assert "Use prefix-tuning or lora" in reason
    model = make_bench(toy, find("llama"), cpu).some_backbone.fresh(torch.device("cpu"))
    model.config.head_dim = 16
    with pytest.raises(UnsupportedError, match="has 4 of 16 and a width of 32"):
        method.adapt(model, make_bench(toy, find("llama"), cpu))


def test_adaption_prompts_compute_the_equation_with_grouped_queries(find: Find, toy: Task, cpu: Device) -> None:
    from peft.tuners.adaption_prompt.layer import AdaptedAttention

    method: Any = methods.get("adaption-prompt")(precision="fp32", n_virtual_tokens=5)
    model: Any = method.build(make_bench(toy, find("llama"), cpu)).eval()
    layer = next(module for module in model.transformer.modules() if isinstance(module, AdaptedAttention))
    own: Any = layer.model
    with torch.no_grad():
        layer.adaption_gate.fill_(0.7)
        x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
        ones = (torch.ones(2, 6, 8), torch.zeros(2, 6, 8))  # the cosines and sines of position 0
        prompts = layer.adaption_prompt[0]
        q = own.q_proj(x).unflatten(-1, (4, 8))
        k, v = (make(prompts).unflatten(-1, (2, 8)).repeat_interleave(2, dim=1) for make in (own.k_proj, own.v_proj))
        read = torch.einsum("bthd,phd->bthp", q, k).div(8**0.5).softmax(-1)
        expected = own(x, position_embeddings=ones, attention_mask=None)[0] + own.o_proj(
            0.7 * torch.einsum("bthp,phd->bthd", read, v).flatten(-2)
        )
        found = layer(hidden_states=x, position_embeddings=ones, attention_mask=None)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama"])
def test_blocks_share_the_matrices_of_lily(architecture: str, targets: str, find: Find, toy: Task, cpu: Device) -> None:
    """peft finds out which layers are alike by the list of targets, and shares nothing where these are full names."""
    from peft.tuners.lily.layer import Linear

    method: Any = methods.get("lily")(precision="fp32", stride=2, targets=targets)
    model: Any = method.build(make_bench(toy, find(architecture), cpu))
    layers = {name: layer for name, layer in model.transformer.named_modules() if isinstance(layer, Linear)}
    alike = {(name.rpartition(".")[2], layer.in_features, layer.out_features) for name, layer in layers.items()}
    second = {id(layer.lily_B["default"].weight) for layer in layers.values()}
    first = {id(layer.lily_A["default"].weight) for layer in layers.values()}
    assert len(second) == len(alike)
    assert len(first) == 2 * len(alike)  # three blocks, two of which share
    assert len(layers) == 3 * len(alike)


@pytest.mark.parametrize("name", ["c3a", "vblora", "road", "boft"])
@pytest.mark.parametrize("architecture", ["electra", "albert"])
def test_blocks_divide_the_widths_of_layers_outside_of_the_transformers_blocks(
    name: str, architecture: str, find: Find, toy: Task, cpu: Device
) -> None:
    """ELECTRA and ALBERT map embeddings of 16 to states of 32, by a layer that all-linear adapts too."""
    method: Any = methods.get(name)(targets="all-linear")
    assert method.why_unsupported("classification", find(architecture), "cpu") is None
    method.build(make_bench(toy, find(architecture), cpu))


def test_a_cartridge_is_refused_where_a_sliding_window_cuts_it(find: Find) -> None:
    method: Any = methods.get("cartridge")
    reason = method(n_virtual_tokens=16).why_unsupported("classification", find("mistral"), "cpu")
    assert reason is not None
    assert "fewer than 16" in reason
    assert method(n_virtual_tokens=15).why_unsupported("classification", find("mistral"), "cpu") is None


def test_trainable_tokens_are_refused_on_a_tokenizer_without_special_tokens(
    find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.methods import _peft_types

    monkeypatch.setattr(_peft_types, "read_tokenizer", lambda _: lambda __: {"input_ids": []})
    reason = methods.get("trainable-tokens")().why_unsupported("classification", find("bert"), "cpu")
    assert reason is not None
    assert "no special tokens" in reason


@pytest.mark.parametrize("name", ["deft", "gralora", "hira", "pvera", "randlora", "tinylora", "unilora", "waveft"])
def test_gpt2_is_adapted_as_the_same_matrices_in_linear_layers(name: str, find: Find, toy: Task, cpu: Device) -> None:
    """GPT-2 stores its matrices transposed; an addition is the same as to a linear layer of the same values."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    settings: dict[str, Any] = {"n_frequencies": 100} if name == "waveft" else {"rank": 8}
    method: Any = methods.get(name)(precision="fp32", **settings)
    transposed = method.build(make_bench(toy, find("gpt2"), cpu)).eval().transformer
    plain = make_bench(toy, find("gpt2"), cpu).some_backbone.fresh(torch.device("cpu"))
    for block in plain.h:
        old = block.attn.c_attn
        block.attn.c_attn = new = nn.Linear(*old.weight.shape)
        new.weight, new.bias = nn.Parameter(old.weight.T.contiguous()), old.bias
    torch.manual_seed(make_bench(toy, find("gpt2"), cpu).seeded("added parameters"))
    same = method.adapt(plain, make_bench(toy, find("gpt2"), cpu)).eval()
    theirs = dict(same.named_parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 32, generator=generator)
    with torch.no_grad():
        for key, value in transposed.named_parameters():
            if value.requires_grad:
                value.add_(0.3 * torch.randn(value.shape, generator=generator))
                theirs[key].copy_(value)
        one, two = (
            next(module for module in model.modules() if isinstance(module, BaseTunerLayer))(x)
            for model in (transposed, same)
        )
        base = next(module for module in same.modules() if isinstance(module, BaseTunerLayer)).get_base_layer()
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    assert not np.allclose(one, base(x).detach(), atol=1e-2)


@pytest.fixture(scope="module")
def narrow(tiny: BackboneFiles, tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    """The tiny BERT in a file of bfloat16."""
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("narrow") / "bert"
    shutil.copytree(tiny.folder, folder)
    AutoModel.from_pretrained(tiny.folder).to(torch.bfloat16).save_pretrained(folder)
    return locate_backbone(str(folder))


@pytest.mark.parametrize(
    "name", [cls.name for cls in methods if issubclass(cls, FromTable) and "encoder" in cls.serves]
)
def test_a_backbone_in_bfloat16_is_adapted_and_trains_in_float32(
    name: str, narrow: BackboneFiles, toy: Task, cpu: Device
) -> None:
    """Its layers are of subclasses, which a plan's modules are not."""
    bench = make_bench(toy, narrow, cpu)
    method: Any = methods.get(name)(precision="bf16")
    assert method.why_unsupported("classification", narrow, "cpu") is None
    model = method.build(bench).eval()
    assert any(value.dtype is torch.bfloat16 for value in model.parameters())
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
    ids, before = torch.tensor([[5, 6, 7, 8]]), bench.some_backbone.fresh(torch.device("cpu")).float()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        states, expected = (of(input_ids=ids).last_hidden_state for of in (model.transformer, before))
    torch.testing.assert_close(states, expected.to(states.dtype), rtol=5e-2, atol=5e-2)


def test_adaption_prompts_train_in_float32_beside_matrices_in_bfloat16(find: Find, toy: Task, cpu: Device) -> None:
    method: Any = methods.get("adaption-prompt")(precision="bf16")
    model: Any = method.build(make_bench(toy, find("llama"), cpu))
    assert any(value.dtype is torch.bfloat16 for value in model.transformer.parameters())
    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}
