"""What fine-tuning methods can be told to do: schedules, accumulation, anchoring, early stopping, unfreezing."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.backbones.locate import BackboneFiles
from harness.measure.device import Device
from harness.methods import methods
from harness.methods.discriminative import Discriminative
from harness.methods.gradual_unfreezing import GradualUnfreezing
from harness.methods.last_layers import LastLayers
from harness.records.record import Budget
from harness.running.worker import Worker
from harness.tasks import Rows, Task
from harness.training.batches import Batch
from harness.training.blocks import Stack
from harness.training.budget import BudgetProgress, learning_rate_factor
from harness.training.compiled import compiling_pays
from harness.training.inputs import TokenInputs
from harness.training.loop import EarlyStopping, FitResult, Optimisation, ParameterGroup, train
from harness.training.optimisers import is_matrix
from tests.toys import make_bench


def test_every_schedule_ends_at_its_floor() -> None:
    ends = {"linear": 0.0, "cosine": 0.0, "constant": 1.0, "slanted-triangular": 1 / 32, "inverse-sqrt": 0.1**0.5}
    for schedule, floor in ends.items():
        factors = [learning_rate_factor(schedule, at / 1000, 0.1) for at in range(1001)]  # type: ignore[arg-type]
        assert factors[100] == pytest.approx(1.0)
        assert factors[1000] == pytest.approx(floor, abs=1e-12)
        assert min(factors[100:]) == pytest.approx(floor, abs=1e-12)
        assert learning_rate_factor(schedule, 0.0, 0.0) == 1.0  # type: ignore[arg-type]
    # Howard and Ruder, 2018, section 3.2, with T = 1000, cut_frac = 0.1 and ratio = 32.
    for at in range(1001):
        p = at / 100 if at < 100 else 1 - (at - 100) / 900
        assert learning_rate_factor("slanted-triangular", at / 1000, 0.1) == pytest.approx((1 + p * 31) / 32)


class _OneBatch:
    """The same rows in every step."""

    def __init__(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        self._batch = Batch((features,), targets, len(targets), 1, len(targets))

    def __len__(self) -> int:
        return 1

    def epoch(self, _: int) -> Iterator[Batch]:
        yield self._batch


def _train_linear(steps: int, *, weight: torch.Tensor, **how: Any) -> tuple[nn.Parameter, FitResult]:
    """A bare matrix trained to tell two classes apart."""
    torch.manual_seed(0)
    features = torch.randn(12, weight.shape[0])
    targets = (features[:, 0] > 0).long()
    parameter = nn.Parameter(weight.clone())
    outcome = train(
        forward=lambda batch: batch.inputs[0] @ parameter,
        loss=lambda outputs, wanted, _: nn.functional.cross_entropy(outputs, wanted),
        batches=_OneBatch(features, targets),
        groups=[ParameterGroup([parameter], 1e-2)],
        optimisation=Optimisation(warmup=0.0, schedule="constant", max_grad_norm=None, **how),
        progress=BudgetProgress(Budget(steps=steps), 1, 1, lambda: 0.0),
        flops=None,
        device=torch.device("cpu"),
        precision="fp32",
        on_step=lambda *_: None,
    )
    return parameter, outcome


def test_accumulated_pieces_are_one_step() -> None:
    start = torch.zeros(4, 2)
    whole, _ = _train_linear(10, weight=start)
    for pieces in (2, 5, 100):
        in_pieces, outcome = _train_linear(10, weight=start, accumulation=pieces)
        torch.testing.assert_close(in_pieces, whole, rtol=1e-4, atol=1e-6)
        assert outcome.steps == 10


def test_l2_to_the_starting_point_is_its_gradient() -> None:
    start, strength = torch.full((4, 2), 0.3), 0.5
    ours, _ = _train_linear(20, weight=start, l2_start=strength)
    free, _ = _train_linear(20, weight=start)
    torch.manual_seed(0)
    features = torch.randn(12, 4)
    targets = (features[:, 0] > 0).long()
    plain = nn.Parameter(start.clone())
    optimiser = torch.optim.AdamW([plain], lr=1e-2, weight_decay=0.0)
    for _ in range(20):
        loss = nn.functional.cross_entropy(features @ plain, targets) + strength / 2 * ((plain - start) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    assert (ours - start).norm() < (free - start).norm()


def test_early_stopping_restores_the_best() -> None:
    scores = iter([(0.5, 0.0), (0.7, -1.0), (0.7, -2.0), (0.6, 0.0), (0.9, 0.0)])
    seen: list[torch.Tensor] = []

    def evaluate() -> tuple[tuple[float, ...], float]:
        seen.append(current[0].detach().clone())
        return next(scores), 10.0

    current: list[torch.Tensor] = []
    weight = torch.zeros(4, 2)
    torch.manual_seed(0)
    features = torch.randn(12, 4)
    targets = (features[:, 0] > 0).long()
    parameter = nn.Parameter(weight)
    current.append(parameter)
    outcome = train(
        forward=lambda batch: batch.inputs[0] @ parameter,
        loss=lambda outputs, wanted, _: nn.functional.cross_entropy(outputs, wanted),
        batches=_OneBatch(features, targets),
        groups=[ParameterGroup([parameter], 1e-2)],
        optimisation=Optimisation(),
        progress=BudgetProgress(Budget(steps=100), 1, 1, lambda: 0.0),
        flops=None,
        device=torch.device("cpu"),
        precision="fp32",
        on_step=lambda *_: None,
        early_stopping=EarlyStopping(evaluate, patience=2),
    )
    assert outcome.stopped_by == "early_stopping"
    assert outcome.steps == 20  # every fifth of a hundred steps, four times
    assert [point.validation for point in outcome.curve if point.validation is not None] == [0.5, 0.7, 0.7, 0.6]
    torch.testing.assert_close(parameter.detach(), seen[1], rtol=0, atol=0)
    assert outcome.flops == 40.0


@pytest.mark.parametrize("name", ["full", "lora", "last-layers"])
def test_gradient_checkpointing_and_accumulation_change_memory_only(
    name: str, toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:

    def probabilities(**settings: Any) -> np.ndarray:
        off = {"dropout": 0.0, "transformer_dropout": 0.0, "adapter_dropout": 0.0}
        cls = methods.get(name)
        off = {setting: value for setting, value in off.items() if setting in cls.model_fields}
        method = cls(**{"min_steps": 5, "epochs": 1, "precision": "fp32", **off, **settings})
        bench = make_bench(toy, tiny, cpu)
        fitted = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
        return fitted.predict(Rows(toy.test, np.arange(20)), bench)

    plain = probabilities()
    np.testing.assert_allclose(probabilities(gradient_checkpointing=True), plain, atol=1e-5)
    np.testing.assert_allclose(probabilities(accumulation=4), plain, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a compiler")
@pytest.mark.parametrize(
    ("name", "settings"),
    [("full", {}), ("lora", {}), ("last-layers", {"k": 1}), ("full", {"patience": 5, "validation_fraction": 0.4})],
)
def test_compiled_blocks_compute_the_same_and_are_gone_afterwards(
    name: str, settings: dict[str, Any], toy: Task, tiny: BackboneFiles, cpu: Device
) -> None:
    found, costs = [], []
    for compiles in (False, True):
        cls: Any = methods.get(name)
        off = {"dropout": 0.0, "transformer_dropout": 0.0, "adapter_dropout": 0.0}
        off = {setting: value for setting, value in off.items() if setting in cls.model_fields}
        method = cls(min_steps=6, epochs=1, precision="fp32", compile=compiles, **off, **settings)
        bench = make_bench(toy, tiny, cpu)
        fitted = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
        assert not any("forward" in vars(module) for module in fitted.model.modules())
        found.append(fitted.predict(Rows(toy.test, np.arange(20)), bench))
        costs.append((bench.ledger.train_flops, bench.clock.seconds("warmup"), bench.clock.seconds("fit")))
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    assert costs[1][0] == pytest.approx(costs[0][0])
    assert costs[0][1] is None
    assert costs[1][1] > costs[1][2]  # compiling is where the time went, and no training


def test_compiling_is_chosen_where_the_fit_is_long(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def compile_nothing(forward: Any, **_: Any) -> Any:
        if inspect.ismethod(forward):  # bitsandbytes compiles functions of its own when it is imported
            compiled.append(forward)
        return forward

    monkeypatch.setattr(torch, "compile", compile_nothing)
    answers = []
    for wanted, step_seconds in ((False, 0.0), ("auto", 0.0), ("auto", 1e6)):
        bench = make_bench(toy, tiny, cpu)
        method = methods.get("lora")(min_steps=6, epochs=1, precision="fp32", compile=wanted)  # type: ignore[call-arg]
        with monkeypatch.context() as patched:
            patched.setattr("harness.training.warmup.time", _Clock(step_seconds))
            fitted = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
        answers.append(fitted.predict(Rows(toy.test, np.arange(20)), bench))
        assert bool(compiled) == (step_seconds > 0)
        assert ("compile" in bench.ledger.remarks) == (wanted == "auto")
    assert "compiled: 6 steps" in bench.ledger.remarks["compile"]
    for other in answers[1:]:  # timing the steps leaves no trace
        np.testing.assert_array_equal(other, answers[0])
    assert compiling_pays(1.0, 299, None) is False
    assert compiling_pays(1.0, 300, None) is True
    assert compiling_pays(1.0, 10**9, 60.0) is False


class _Clock:
    """A clock in the place of the module `time` that moves by the same seconds between two looks."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._at = seconds, 0.0

    def perf_counter(self) -> float:
        self._at += self._seconds
        return self._at


def test_cached_blocks_are_the_whole_model(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles, cpu: Device
) -> None:
    """`last-layers` from cached states is, without dropout, `last-layers` run in whole."""

    class Whole(LastLayers):
        def make_inputs(self, model: Any, rows: Any, bench: Any) -> Any:
            return TokenInputs(model, rows.sequences, pad_id=0, compact=False, device=torch.device("cpu"))

    for files in (tiny, tiny_llama):
        found = []
        for cls in (LastLayers, Whole):
            method = cls(k=1, dropout=0.0, transformer_dropout=0.0, min_steps=10, epochs=1, precision="fp32")
            bench = make_bench(toy, files, cpu)
            fitted = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
            assert "frozen_blocks" not in bench.ledger.remarks
            found.append(fitted.predict(Rows(toy.test, np.arange(20)), bench))
        np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_discriminative_rates_fall_by_block(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:

    method = Discriminative(layer_decay=0.5, learning_rate=1e-3)
    model = method.build(make_bench(toy, tiny, cpu))
    groups = method.parameter_groups(model)
    assert [group.learning_rate for group in groups] == [2.5e-4, 5e-4, 1e-3, method.head_learning_rate]
    listed = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())


def test_unfreezing_goes_down_block_by_block(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:

    bench = make_bench(toy, tiny, cpu)
    method = GradualUnfreezing(unfrozen_by=0.6)
    model = method.build(bench)
    hooks = method.make_hooks(model, bench)
    depths = Stack(model.transformer).parameters_by_depth()
    trains = []
    flops = []
    for fraction in (0.0, 0.25, 0.45, 0.6, 1.0):
        found = hooks.before_step(fraction)
        flops.append(found.batch(8, 16) if found else flops[-1])
        trains.append([all(parameter.requires_grad for parameter in group) for group in depths])
        assert all(parameter.requires_grad for parameter in model.head.parameters())
    assert trains == [[False] * 3, [False, False, True], [False, True, True], [True] * 3, [True] * 3]
    assert flops == sorted(flops)
    assert flops[0] < flops[-1] / 2


def test_what_all_blocks_read_goes_with_the_embeddings() -> None:
    """MPNet registers its relative positions behind the blocks that read them."""
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, MPNetConfig, MPNetModel

    small = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    mpnet = MPNetModel(MPNetConfig(**small, intermediate_size=16), add_pooling_layer=False)
    depths = Stack(mpnet).parameters_by_depth()
    shared = mpnet.encoder.relative_attention_bias.weight
    assert any(parameter is shared for parameter in depths[0])
    assert sum(map(len, depths)) == len(list(mpnet.parameters()))
    llama = LlamaModel(LlamaConfig(**small, intermediate_size=16))
    assert any(parameter is llama.norm.weight for parameter in Stack(llama).parameters_by_depth()[-1])
    bert = BertModel(BertConfig(**small, intermediate_size=16), add_pooling_layer=False)
    assert [len(group) for group in Stack(bert).parameters_by_depth()] == [5, 16, 16]


def test_vectors_are_not_decayed_whatever_their_shape() -> None:
    shapes = {(4,): False, (4, 1): False, (1, 4): False, (1, 1): False, (4, 2): True, (2, 1, 3): True}
    for shape, decayed in shapes.items():
        assert is_matrix(torch.zeros(shape)) == decayed


def test_adalora_survives_more_steps_than_ticks(
    toy: Task, tiny: BackboneFiles, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.methods.adalora._TICKS", 100)
    method = methods.get("adalora")(batch_size=24, initial_rank=4, rank=2)
    bench = make_bench(toy, tiny, cpu, budget=Budget(steps=130))
    fitted: Any = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
    kept = [value for name, value in fitted.model.named_parameters() if "lora_E" in name]
    assert sum(int((value != 0).sum()) for value in kept) <= 2 * len(kept)  # the rank that was asked for, on average
    with pytest.raises(ValueError, match="initial_rank"):
        methods.get("adalora")(rank=12)
