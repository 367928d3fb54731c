"""Initial values of LoRA against peft's own results, and against a few lines of algebra."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.backbones.model import load_backbone
from harness.measure.device import Device
from harness.methods import load_artifact, save_artifact
from harness.records import Budget
from harness.tasks import Task
from harness.testing.laboratory import state_hash
from harness.training.low_rank_start import START, lora_layers
from tests.lora_fits import BRIEF, CHANGING, INITS, begun, configured, hidden, plain_peft, product, rows_of
from tests.tiny_architectures import save_tiny
from tests.toys import make_bench, test_rows


@pytest.mark.parametrize(
    ("init", "architecture"),
    [
        pytest.param(init, architecture, marks=[pytest.mark.slow] if architecture != "encoder" else [])
        for init in INITS
        for architecture in ("encoder", "causal", "sequence-to-sequence")
    ],
)
def test_training_starts_from_the_pretrained_function(
    init: str, architecture: str, toy: Task, tiny_backbones: dict[str, BackboneFiles], cpu: Device
) -> None:
    files = tiny_backbones[architecture]
    pristine = load_backbone(files).pristine
    before = state_hash(pristine)
    method = configured(f"lora[{BRIEF},init={init},targets=all-linear]")
    model, _, _ = begun(method, rows_of(toy, cpu), make_bench(toy, files, cpu))
    assert model.training
    torch.testing.assert_close(hidden(model.eval().transformer), hidden(pristine), rtol=1e-4, atol=1e-4)
    assert state_hash(pristine) == before
    layers = lora_layers(model.transformer).values()
    # Else this test would show nothing.
    assert init not in CHANGING or max(float(product(layer).abs().max()) for layer in layers) > 1e-3
    for layer in layers:
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert a.dtype is b.dtype is torch.float32
        assert float(a.abs().max()) > 0 or init == "mica"
        if init not in CHANGING:
            assert float(product(layer).abs().max()) <= (1e-6 if init == "orthogonal" else 0.0)


@pytest.mark.parametrize("stored", ["gpt2", "in bfloat16"])
@pytest.mark.parametrize("init", ["orthogonal", "pissa", "olora", "mica", "corda", "lora-ga"])
def test_transposed_and_rounded_matrices(
    init: str, stored: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = tiny if stored != "gpt2" else locate_backbone(str(save_tiny("gpt2", tmp_path_factory.mktemp("gpt2"))))
    precision = "fp32" if stored == "gpt2" else "bf16"
    made = []
    for which in (init, "default"):
        method = configured(f"lora[precision={precision},rank=4,init={which},targets=all-linear]")
        model, _, _ = begun(method, rows_of(toy, cpu, 16), make_bench(toy, files, cpu))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            made.append(hidden(model.eval().transformer))
        types = {layer.get_base_layer().weight.dtype for layer in lora_layers(model.transformer).values()}
        assert types == {torch.float32 if precision == "fp32" else torch.bfloat16}
    far = 1e-4 if precision == "fp32" else 5e-2  # of states with a deviation of 1
    torch.testing.assert_close(made[0], made[1], rtol=far, atol=far)


def compare_with_peft(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Compare A^T A and B B^T, which no signs of directions change, and the matrix that is left."""
    there = lora_layers(theirs)
    assert set(there) == set(lora_layers(ours))
    for name, layer in lora_layers(ours).items():
        other = there[name]
        for get in (
            lambda one: one.lora_A["default"].weight.T @ one.lora_A["default"].weight,
            lambda one: one.lora_B["default"].weight @ one.lora_B["default"].weight.T,
        ):
            size = float(get(other).abs().max())
            torch.testing.assert_close(get(layer), get(other), rtol=0, atol=tolerance * max(size, 1e-3))
        left = layer.get_base_layer().weight + (product(layer, START) if START in layer.lora_A else 0)
        torch.testing.assert_close(left, other.get_base_layer().weight, rtol=0, atol=tolerance)


@pytest.mark.parametrize("init", ["pissa", "olora", "mica"])
def test_values_from_weights_are_pefts(init: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from peft import get_peft_model

    transformer, config = plain_peft(tiny, init_lora_weights=init)
    model, _, _ = begun(configured(f"lora[{BRIEF},init={init}]"), rows_of(toy, cpu), make_bench(toy, tiny, cpu))
    theirs: Any = get_peft_model(transformer, config)
    compare_with_peft(model.transformer, theirs)
    ours = sum(value.numel() for value in model.transformer.parameters() if value.requires_grad)
    assert ours == theirs.get_nb_trainable_parameters()[0]


def test_pissa_by_iterations_keeps_nearly_as_much_as_the_exact_one(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = configured(f"lora[{BRIEF},init=pissa-niter-16]")
    model, _, _ = begun(method, rows_of(toy, cpu, 16), make_bench(toy, tiny, cpu))
    for layer in lora_layers(model.transformer).values():
        weight = layer.get_base_layer().weight.detach()
        most = float(torch.linalg.svdvals(weight)[:4].square().sum())
        assert 0.97 * most < float(product(layer).square().sum()) <= most * (1 + 1e-5)


def test_corda_is_pefts(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from peft import get_peft_model
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    bench = make_bench(toy, tiny, cpu)
    model, _, batches = begun(configured(f"lora[{BRIEF},init=corda,init_rows=32]"), rows_of(toy, cpu), bench)
    transformer, config = plain_peft(tiny, init_lora_weights="corda", corda_config=CordaConfig())

    def run() -> None:
        for batch in list(batches.epoch(0))[:2]:
            for ids, mask in zip(*batch.inputs, strict=True):  # peft reads single texts
                real = ids[mask > 0].unsqueeze(0)
                transformer(input_ids=real, attention_mask=torch.ones_like(real))

    preprocess_corda(transformer, config, run_model=run)
    compare_with_peft(model.transformer, get_peft_model(transformer, config), 1e-3)
    assert bench.ledger.remarks["init"] == "corda read 32 rows"


def test_lora_ga_is_pefts(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from peft import LoraGAConfig, get_peft_model
    from peft.tuners.lora.loraga import preprocess_loraga

    bench = make_bench(toy, tiny, cpu)
    model, _, batches = begun(configured(f"lora[{BRIEF},init=lora-ga,dropout=0]"), rows_of(toy, cpu), bench)
    transformer, config = plain_peft(tiny, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())
    theirs = copy.copy(model)
    theirs._modules = {**model._modules, "transformer": transformer}

    def run() -> None:
        for batch in batches.epoch(0):
            bench.form.loss(theirs(*batch.inputs), batch.targets, 0.0).backward()

    preprocess_loraga(transformer, config, run)
    torch.manual_seed(0)
    wrapped: Any = get_peft_model(transformer, config)
    there = lora_layers(wrapped)
    for name, layer in lora_layers(model.transformer).items():
        for part in ("lora_A", "lora_B"):
            one, other = (getattr(of, part)["default"].weight.detach() for of in (layer, there[name]))
            turned = (one, other) if part == "lora_A" else (one.T, other.T)
            cosine = nn.functional.cosine_similarity(*turned).abs()
            assert float(cosine.min()) > 0.99, name
            torch.testing.assert_close(turned[0].norm(dim=1), turned[1].norm(dim=1), rtol=1e-2, atol=0)


def test_eva_takes_the_principal_components_of_the_inputs_as_peft_does(
    toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    from peft import EvaConfig, get_peft_model
    from peft.tuners.lora.eva import get_eva_state_dict

    model, _, batches = begun(configured(f"lora[{BRIEF},init=eva]"), rows_of(toy, cpu, 96), make_bench(toy, tiny, cpu))
    transformer, config = plain_peft(tiny, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))
    read = [dict(zip(("input_ids", "attention_mask"), batch.inputs, strict=True)) for batch in batches.epoch(0)]
    theirs = get_eva_state_dict(get_peft_model(transformer, config), read, show_progress_bar=False)
    tokens: dict[str, list[torch.Tensor]] = {}
    layers = lora_layers(model.eval().transformer)
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, given, name=name: tokens.setdefault(name, []).append(given[0]))
    with torch.no_grad():
        for one in read:
            model(one["input_ids"], one["attention_mask"])
    for name, layer in layers.items():
        ours = layer.lora_A["default"].weight.detach()
        torch.testing.assert_close(ours @ ours.T, torch.eye(4), atol=1e-4, rtol=0)
        real = [values[one["attention_mask"] > 0] for values, one in zip(tokens[name], read, strict=True)]
        centred = torch.cat(real) - torch.cat(real).mean(0)
        best = float(torch.linalg.svdvals(centred)[:4].square().sum())
        assert float((centred @ ours.T).square().sum()) > 0.97 * best
        others = theirs[f"base_model.model.{name}"].float()
        assert float((ours @ others.T).square().sum()) / 4 > 0.97


def test_eva_refuses_more_directions_than_there_are_tokens(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    from harness.support.errors import UnsupportedError

    with pytest.raises(UnsupportedError, match=r"takes 32 directions .* no batch of them has 64 tokens. Use a smaller"):
        begun(
            configured("lora[precision=fp32,rank=32,init=eva,batch_size=1]"),
            rows_of(toy, cpu, 3),
            make_bench(toy, tiny, cpu),
        )


def test_loftq_makes_up_for_what_quantising_lost(toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from harness.training.quantised import dequantise

    method, bench = configured(f"qlora[{BRIEF},init=loftq]"), make_bench(toy, tiny, cpu)
    model, _, _ = begun(method, rows_of(toy, cpu, 16), bench)
    pristine = load_backbone(tiny).pristine
    for name, layer in lora_layers(model.transformer).items():
        weight: Any = pristine.get_submodule(name).weight
        quantised = dequantise(layer.get_base_layer().weight, torch.float32)
        left = weight - quantised - product(layer)
        rest = torch.linalg.svdvals(weight - quantised)[4:].square().sum().sqrt()  # Eckart and Young
        torch.testing.assert_close(left.norm(), rest, rtol=1e-4, atol=1e-6)
    fitted = method.fit(rows_of(toy, cpu), bench)
    save_artifact(fitted, method, tmp_path, bench)
    _, restored = load_artifact(tmp_path, make_bench(toy, tiny, cpu))
    before, after = (np.asarray(one.predict(test_rows(toy), bench)) for one in (fitted, restored))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("init", ["eva", "corda", "lora-ga", "pissa"])
def test_what_a_start_reads_is_charged_to_the_fit(init: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    benches = {}
    for which in (init, "default"):
        benches[which] = make_bench(toy, tiny, cpu)
        configured(f"lora[{BRIEF},init={which}]").fit(rows_of(toy, cpu), benches[which])
    mine, plain = benches[init].ledger, benches["default"].ledger
    n_read = 48 if init != "pissa" else 0
    n_tokens = plain.train_tokens // 2 if init != "pissa" else 0  # six steps are two passes over 48 rows
    assert mine.train_tokens - plain.train_tokens == n_tokens
    assert mine.train_flops > plain.train_flops
    assert (mine.remarks.get("init") == f"{init} read {n_read} rows") == (n_read > 0)
    declared = configured(f"lora[{BRIEF},init={init}]").workload(48, Budget(), 2)
    assert declared.encoded == {"eva": 48, "corda": 48, "lora-ga": 144, "pissa": 0}[init]


def test_reading_ends_when_half_of_the_time_is_over(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    bench = make_bench(toy, tiny, cpu, budget=Budget(train_seconds=1e-3))
    configured(f"lora[{BRIEF},init=corda,batch_size=4]").fit(rows_of(toy, cpu), bench)
    assert bench.ledger.remarks["init"] == "corda read 4 rows"
    assert bench.ledger.stopped_by == "train_seconds"


@pytest.mark.parametrize("text", [*(f"init={init}" for init in INITS), "update=lora-fa", "init=pissa,update=lora-fa"])
def test_saved_and_loaded_predictions_are_the_same(
    text: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    method, bench = configured(f"lora[{BRIEF},{text}]"), make_bench(toy, tiny, cpu)
    fitted = method.fit(rows_of(toy, cpu), bench)
    save_artifact(fitted, method, tmp_path, bench)
    again, restored = load_artifact(tmp_path, make_bench(toy, tiny, cpu, seed=7))
    assert again == method
    assert restored.n_trainable == fitted.n_trainable
    before, after = (one.predict(test_rows(toy), bench) for one in (fitted, restored))
    np.testing.assert_allclose(np.asarray(after), np.asarray(before), rtol=0, atol=1e-6)
