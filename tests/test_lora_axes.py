"""Settings of LoRA against peft's own results, and against a few lines of algebra."""

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
from harness.methods import load_artifact, methods, save_artifact
from harness.methods._fine_tuning import FineTuning
from harness.methods._lora_targets import chosen_layers
from harness.methods.configure import parse_methods
from harness.records import Budget
from harness.running.worker import Worker
from harness.support.errors import UsageError
from harness.tasks import Rows, Task
from harness.testing.laboratory import state_hash
from harness.training.low_rank_start import START, lora_layers
from harness.training.low_rank_steps import LowRankPair, LowRankSteps
from tests.tiny_architectures import save_tiny
from tests.toys import make_bench, test_rows

INITS = ["gaussian", "orthogonal", "pissa", "pissa-niter-16", "olora", "mica", "eva", "corda", "lora-ga"]
CHANGING = {"pissa", "pissa-niter-16", "olora", "corda", "lora-ga"}
BRIEF = "min_steps=6,epochs=1,precision=fp32,rank=4"


def configured(text: str) -> Any:
    (method,) = parse_methods([text])
    assert isinstance(method, FineTuning)
    return method


def rows_of(task: Task, cpu: Device, n: int = 48) -> Rows:
    return Worker(cpu, None).training_rows(task, n, 0, "stratified")


def hidden(transformer: nn.Module) -> torch.Tensor:
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = transformer(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return found


def begun(method: Any, rows: Rows, bench: Any) -> tuple[Any, Any, Any]:
    """The model before its first step, with its inputs and batches."""
    examples = bench.form.examples(rows, bench, 0)
    model = method.build(bench)
    model.train()
    inputs = method.make_inputs(model, examples, bench)
    items = examples.items_of(np.arange(len(rows)))
    batches = inputs.batches(items, examples.targets[items], batch_size=method.batch_size, seed=bench.seed)
    method.begin(model, inputs, batches, bench)
    return model, inputs, batches


def product(layer: Any, name: str = "default") -> torch.Tensor:
    found: torch.Tensor = layer.scaling[name] * layer.lora_B[name].weight @ layer.lora_A[name].weight
    return found.detach()


# ---- initial values


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


def plain_peft(files: BackboneFiles, **settings: Any) -> tuple[Any, Any]:
    """A copy of the pristine transformer without dropout, and a configuration that names queries and values."""
    from peft import LoraConfig

    transformer = copy.deepcopy(load_backbone(files).pristine)
    for module in transformer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return transformer, LoraConfig(r=4, lora_alpha=16, target_modules=["query", "value"], **settings)


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


# ---- steps


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
