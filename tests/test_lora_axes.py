"""Steps, layers and ranks of LoRA against peft's own results; settings that are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._lora_targets import chosen_layers
from harness.methods.configure import parse_methods
from harness.records import Budget
from harness.support.errors import UsageError
from harness.tasks import Task
from harness.training.low_rank_start import lora_layers
from harness.training.low_rank_steps import LowRankPair, LowRankSteps
from tests.lora_fits import BRIEF, configured, plain_peft, rows_of
from tests.toys import make_bench


def made_pairs(n: int = 3, rank: int = 4) -> Any:
    """A model of peft with a few adapted layers and gradients."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    plain = nn.Sequential(*(nn.Linear(10, 10) for _ in range(n)))
    model: Any = get_peft_model(plain, LoraConfig(r=rank, lora_alpha=8, target_modules=[str(at) for at in range(n)]))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, std=0.3)
    return model


def pairs_of(model: Any) -> list[LowRankPair]:
    layers = lora_layers(model).values()
    return [
        LowRankPair(one.lora_A["default"].weight, one.lora_B["default"].weight, one.scaling["default"])
        for one in layers
    ]


@pytest.mark.parametrize("rule", ["riemannian", "lora-fa"])
def test_steps_are_pefts(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import optimizers

    models = [made_pairs(), made_pairs()]
    hooks = LowRankSteps(pairs_of(models[0]), rule)
    if rule == "riemannian":
        theirs: Any = optimizers.create_riemannian_optimizer(models[1], torch.optim.SGD, lr=1e-2)
        ours: Any = torch.optim.SGD([v for v in models[0].parameters() if v.requires_grad], lr=1e-2)
    else:
        monkeypatch.setattr("peft.optimizers.lorafa.is_bf16_available", lambda: False)  # it would round gradients
        theirs = optimizers.create_lorafa_optimizer(models[1], r=4, lora_alpha=8, lr=1e-2)
        b_only = [value for name, value in models[0].named_parameters() if "lora_B" in name]
        ours = torch.optim.AdamW(b_only, lr=1e-2, eps=1e-6, weight_decay=0.0)
    for step in range(4):
        draws = torch.Generator().manual_seed(step)
        for at, model in enumerate(models):
            draws.manual_seed(step)
            for name, value in model.named_parameters():
                if "lora_" in name:
                    gradient = torch.randn(value.shape, generator=draws)
                    value.grad = gradient if rule == "riemannian" or "lora_B" in name else None
            if at == 0:
                hooks.before_update()
        ours.step()
        theirs.step()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)  # of steps of 0.04


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_rates_of_lora_plus_are_pefts(name: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from peft.optimizers import create_loraplus_optimizer

    method = configured(f"{name}[learning_rate=0.001,b_rate_ratio=16]")
    model = method.build(make_bench(toy, tiny, cpu))
    theirs: Any = create_loraplus_optimizer(model.transformer, torch.optim.AdamW, lr=0.001, loraplus_lr_ratio=16)
    expected = {id(value): group["lr"] for group in theirs.param_groups for value in group["params"]}
    *groups, head = method.parameter_groups(model)
    assert {id(value): group.learning_rate for group in groups for value in group.parameters} == expected
    assert set(expected.values()) == {0.001, 0.016}
    assert head.learning_rate == method.head_learning_rate


def test_lora_fa_trains_b_alone(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from peft.optimizers import create_lorafa_optimizer

    bench = make_bench(toy, tiny, cpu)
    method = configured(f"lora[{BRIEF},update=lora-fa]")
    start = {name: value.clone() for name, value in method.build(bench).named_parameters()}
    fitted = method.fit(rows_of(toy, cpu), bench)
    moved = {name for name, value in fitted.model.named_parameters() if not torch.equal(value, start[name])}
    assert {name for name in moved if "lora_" in name} == {name for name in start if "lora_B" in name}
    transformer, config = plain_peft(tiny)
    from peft import get_peft_model

    theirs: Any = get_peft_model(transformer, config)
    create_lorafa_optimizer(theirs, r=4, lora_alpha=16, lr=1e-3)
    n_head = sum(value.numel() for value in fitted.model.head.parameters())
    assert fitted.n_trainable - n_head == theirs.get_nb_trainable_parameters()[0]
    plain = configured(f"lora[{BRIEF}]").fit(rows_of(toy, cpu), make_bench(toy, tiny, cpu))
    assert 2 * (fitted.n_trainable - n_head) == plain.n_trainable - n_head


# ---- adapted layers and their ranks


@pytest.mark.parametrize(
    ("typed", "theirs"),
    [
        ("layers=[0,-1]", {"target_modules": ["query", "value"], "layers_to_transform": [0, 5]}),
        ("layers=3", {"target_modules": ["query", "value"], "layers_to_transform": [3]}),
        ("targets=[query,output.dense]", {"target_modules": ["query", "output.dense"]}),
        ("targets=key", {"target_modules": ["key"]}),
        ("rank_pattern=[query:4,value:16]", {"rank_pattern": {"query": 4, "value": 16}}),
        ("targets=[key],layers=[1],rank_pattern=[layer.1.*:2]", {"target_modules": ["key"], "layers_to_transform": 1}),
        ("targets=mlp", {"target_modules": r".*layer\.\d+\.(intermediate|output)\.dense"}),
        ("targets=all-linear,layers=[2]", {"target_modules": r".*layer\.2\..*(query|key|value|dense)"}),
    ],
)
def test_layers_and_ranks_are_those_that_peft_adapts(
    typed: str, theirs: dict[str, Any], toy: Task, minilm: BackboneFiles, cpu: Device
) -> None:
    from peft import LoraConfig, get_peft_model

    pristine = copy.deepcopy(load_backbone(minilm).pristine).to("meta")
    with torch.device("meta"):
        model: Any = get_peft_model(pristine, LoraConfig(r=2 if "layer.1" in typed else 8, **theirs))
    expected = {name: layer.r["default"] for name, layer in lora_layers(model).items()}
    method = configured(f"lora[{typed}]")
    assert method.why_not(toy, minilm, "cpu") is None
    ours = method.build(make_bench(toy, minilm, cpu)).transformer
    assert {name: layer.r["default"] for name, layer in lora_layers(ours).items()} == expected
    assert ours.get_nb_trainable_parameters() == model.get_nb_trainable_parameters()
    scales = {layer.scaling["default"] * layer.r["default"] for layer in lora_layers(ours).values()}
    assert scales == {16.0}
    first = min((int(name.split(".")[2]) for name in expected), default=0)
    assert method.workload(64, Budget(), 6).passes_per_text == pytest.approx(2 - first / 6 * ("layers" in typed))
    planned = method.n_added(384, 6)
    assert planned == pytest.approx(ours.get_nb_trainable_parameters()[0], rel=0.1)


def test_layers_are_counted_in_both_stacks() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=9, d_model=8, d_kv=2, d_ff=8, num_layers=3, num_decoder_layers=2, num_heads=2)
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    found = chosen_layers(model, "attention", (-1,), ["q", "v"])
    assert {name.split(".layer.")[0] for name in found} == {"encoder.block.2", "decoder.block.1"}
    assert len(found) == 2 * 3  # the decoder attends twice
    assert {name.split(".layer.")[0] for name in chosen_layers(model, "mlp", (2,), None)} == {"encoder.block.2"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("lora[targets=qery]", r"no linear layer in the blocks of a BertModel is called 'qery'. Take attention, mlp"),
        ("lora[layers=[0,9]]", r"layers=\[0, 9\] was given; a BertModel has \d blocks. Name blocks from 0 to \d, or"),
        ("lora[rank_pattern=[key:4]]", r"rank_pattern names 'key'; .* Adapted are query, value"),
        ("lora[init=pissa,rank=33]", r"init=pissa takes 33 directions of layer '.*query', which has 32 to give"),
        ("lora[init=lora-ga,rank=17]", "init=lora-ga takes 17 directions .* at most 16, or init=default"),
    ],
)
def test_settings_that_do_not_fit_a_backbone_are_refused_at_planning(
    typed: str, message: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    import re

    method = configured(typed)
    reason = method.why_not(toy, tiny, "cpu")
    assert reason is not None
    assert re.search(message, reason), reason


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("lora[init=foo]", "expected 'default', 'gaussian', 'orthogonal'"),
        ("lora[init=loftq]", r"makes up for what quantising lost. Use qlora\[init=loftq\]"),
        ("dora[init=pissa]", "init=pissa does not fit 'dora'. Use one of default, gaussian, orthogonal, eva"),
        ("qlora[init=olora]", "init=olora does not fit 'qlora'. Use one of .*loftq"),
        ("lora[init=orthogonal,rank=3]", "needs even ranks"),
        ("lora[init=orthogonal,rank_pattern=[query:5]]", "needs even ranks"),
        ("lora[init_rows=64]", "init=default reads no rows"),
        ("lora[init=mica,b_rate_ratio=2]", "trains A alone"),
        ("lora[update=lora-fa,b_rate_ratio=2]", "trains B alone"),
        ("dora[update=lora-fa]", "Use lora or rslora"),
        ("lora[rank_pattern=[query]]", r"expected NAME:RANK, such as \[query:4,value:16\]"),
        ("lora[rank_pattern=['(:4']]", "no regular expression"),
        ("lora[layers=[1,1]]", "different numbers of blocks"),
        ("lora[layers=[]]", "leave it out for all blocks"),
        ("lora[targets=[]]", "needs names of layers"),
    ],
)
def test_settings_that_make_no_sense_are_refused_when_given(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_methods([typed])


def test_patterns_given_as_a_mapping_and_defaults_that_keep_identities() -> None:
    cls: Any = methods.get("lora")
    assert cls(rank_pattern={"query": 4}).config()["rank_pattern"] == ["query:4"]
    assert cls(rank_pattern={"query": 4}) == configured("lora[rank_pattern=query:4]")
    assert not {"init", "init_rows", "update", "b_rate_ratio", "layers", "rank_pattern"} & set(cls().config())
    for settings in ({"layers": (0, -1), "targets": ("query",)}, {"init": "eva", "init_rows": 64}):
        assert cls(**cls(**settings).config()) == cls(**settings)
