"""Optimisers that need less memory than AdamW: their steps, their state, and fits with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.cost.memory import Regime, training_memory
from harness.cost.optimising import bytes_of, optimiser_flops, trained_part
from harness.cost.shape import read_shape
from harness.measure.device import Device
from harness.methods import methods
from harness.methods.artifact import artifact_size_bytes, load_artifact, save_artifact
from harness.methods.configure import parse_methods
from harness.records.record import Budget
from harness.records.workload import OF_MATRICES, Optimiser, step_flops
from harness.running.worker import Worker
from harness.support.errors import UnsupportedError, UsageError
from harness.tasks import Task
from harness.testing.backbones import save_tiny_bert
from harness.training import by_matrix, loop, sampling
from harness.training.loop import ParameterGroup
from harness.training.low_rank import LowRankAdamW, leading_directions
from harness.training.optimisers import SampledAdamW, optimiser_of, state_bytes
from tests.live_tensors import Live
from tests.tiny_architectures import save_tiny
from tests.toys import make_bench, run_one, test_rows

SAVING = (*sorted(OF_MATRICES), "lisa")
RATE = 1e-2

Array = npt.NDArray[np.float64]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stepped(make: Any, start: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """A matrix after steps with the given gradients."""
    parameter = nn.Parameter(start.clone())
    made = make(parameter)
    for gradient in gradients:
        for group in made.param_groups:
            group["lr"] = group.get("peak", group["lr"])
        parameter.grad = gradient.clone()
        made.step()
    return parameter.detach()


def ours(optimiser: Optimiser, decay: float = 0.0, rank: int = 4) -> Any:
    def make(parameter: nn.Parameter) -> Any:
        return optimiser_of([ParameterGroup([parameter], RATE, decay, is_of_matrices=True)], optimiser, rank=rank)

    return make


GRADIENTS = [random(12, 20, seed=seed) * 10.0 ** (seed - 2) for seed in range(1, 4)]
START = random(12, 20)


# ---- one step


def test_adafactor_is_that_of_transformers_at_ten_times_the_rate() -> None:
    from transformers.optimization import Adafactor

    def theirs(parameter: nn.Parameter) -> Any:
        return Adafactor(
            [parameter], lr=10 * RATE, scale_parameter=True, relative_step=False, warmup_init=False, eps=(1e-30, 1e-3)
        )

    torch.testing.assert_close(
        stepped(ours("adafactor"), START, GRADIENTS), stepped(theirs, START, GRADIENTS), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_muon_moves_along_the_nearest_orthogonal_matrix(shape: tuple[int, int]) -> None:
    """Its five iterations bring singular values between 0.6 and 1.3; the size is that of AdamW's steps."""
    gradient = random(*shape, seed=5)
    change = (torch.zeros(shape) - stepped(ours("muon"), torch.zeros(shape), [gradient])) / RATE
    left, _, right = torch.linalg.svd(gradient.double(), full_matrices=False)
    inside = left.T @ (change.double() / (0.2 * math.sqrt(20))) @ right.T
    assert 0.6 < float(inside.diag().min()) <= float(inside.diag().max()) < 1.3
    assert float((inside - torch.diag(inside.diag())).abs().max()) < 0.05
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)


def adam(values: list[Array]) -> list[Array]:
    """AdamW's direction for each of a sequence of gradients."""
    average, squares, found = np.zeros_like(values[0]), np.zeros_like(values[0]), []
    for step, value in enumerate(values, 1):
        average, squares = 0.9 * average + 0.1 * value, 0.999 * squares + 0.001 * value**2
        found.append(average / (1 - 0.9**step) / (np.sqrt(squares / (1 - 0.999**step)) + 1e-8))
    return found


@pytest.mark.parametrize("is_wide", [True, False])
def test_galore_is_adam_in_the_leading_singular_directions(is_wide: bool) -> None:
    given = [gradient if is_wide else gradient.T for gradient in GRADIENTS]
    plain = [gradient.double().numpy() for gradient in GRADIENTS]
    basis = np.linalg.svd(plain[0])[0][:, :4]
    expected = START.double().numpy()
    for direction in adam([basis.T @ gradient for gradient in plain]):
        expected = expected * (1 - RATE * 0.1) - RATE * 2 * math.sqrt(8 / 4) * basis @ direction
    found = stepped(ours("galore", 0.1), START if is_wide else START.T.contiguous(), given)
    torch.testing.assert_close(
        (found if is_wide else found.T).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("is_wide", [True, False])
def test_apollo_scales_each_channel_by_the_ratio_of_projected_norms(is_wide: bool) -> None:
    given = [gradient if is_wide else gradient.T for gradient in GRADIENTS]
    plain = [gradient.double().numpy() for gradient in GRADIENTS]
    maker = LowRankAdamW([nn.Parameter(START.clone())], "apollo", 4, lr=RATE)
    drawn = maker._drawn(12, 4, 1, 0).double().numpy()
    assert drawn.std() == pytest.approx(0.5, rel=0.3)  # of variance 1 / rank
    projected = [drawn.T @ gradient for gradient in plain]
    expected, last = START.double().numpy(), math.inf
    for gradient, low, direction in zip(plain, projected, adam(projected), strict=True):
        update = gradient * np.linalg.norm(direction, axis=0) / np.linalg.norm(low, axis=0)
        size = np.linalg.norm(update)
        update *= min(1.0, 1.01 * last / size)
        last = np.linalg.norm(update)
        expected = expected - RATE * math.sqrt(12 / 4) * update
    found = stepped(ours("apollo"), START if is_wide else START.T.contiguous(), given)
    torch.testing.assert_close(
        (found if is_wide else found.T).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5
    )


def test_apollos_first_step_is_as_large_as_adamws() -> None:
    """Each number moves by the rate with AdamW; here so on average over a channel."""
    start, gradient = torch.zeros(256, 512), random(256, 512)
    change = stepped(ours("apollo", rank=32), start, [gradient])
    assert float(change.square().mean().sqrt()) == pytest.approx(RATE, rel=0.1)


def test_projections_are_renewed_and_leading_directions_are_those_of_the_svd() -> None:
    matrix = random(9, 30, seed=3)
    basis = leading_directions(matrix, 3)
    known = torch.linalg.svd(matrix)[0][:, :3]
    torch.testing.assert_close((basis.T @ known).abs(), torch.eye(3), rtol=1e-4, atol=1e-4)
    parameter = nn.Parameter(START.clone())
    made = LowRankAdamW([{"params": [parameter]}], "galore", 3, lr=RATE, renewed_every=2)
    seen = []
    for seed in range(3):
        parameter.grad = random(12, 20, seed=seed)
        made.step()
        seen.append(made.state[parameter]["projection"].clone())
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        leading_directions(torch.full((3, 4), math.nan), 2)


@pytest.mark.parametrize("optimiser", sorted(OF_MATRICES))
def test_weight_decay_is_that_of_adamw_for_the_same_rate(optimiser: Optimiser) -> None:
    found = stepped(ours(optimiser, 0.5), START, [torch.zeros_like(START)] * 3)
    torch.testing.assert_close(found, START * (1 - RATE * 0.5) ** 3)


def test_the_state_of_parameters_without_a_gradient_is_forgotten() -> None:
    """A parameter that rests starts again like a new one, as AdamW's first step does."""
    one, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    made = SampledAdamW([one, other], lr=RATE, weight_decay=0.0)
    for moves in ((True, True), (False, True), (True, False)):
        for parameter, moving in zip((one, other), moves, strict=True):
            parameter.grad = torch.full((3,), 2.0) if moving else None
        made.step()
        assert (one in made.state, other in made.state) == moves
    torch.testing.assert_close(one.detach(), torch.full((3,), 1 - 2 * RATE))


@pytest.mark.parametrize("optimiser", ["muon", "galore", "apollo"])
def test_operations_of_a_step_are_those_that_torch_counts(optimiser: Optimiser) -> None:
    parameter = nn.Parameter(random(24, 40))
    made = ours(optimiser)(parameter)
    parameter.grad = random(24, 40, seed=1)
    made.step()  # the first one finds GaLore's projection
    with FlopCounterMode(display=False) as counter:
        made.step()
    assert made.step_flops == counter.get_total_flops() == step_flops(optimiser, 24, 40, 4)


# ---- which parameters, and their bytes


def fit(text: str, task: Task, files: BackboneFiles, device: Device, n: int = 48, **how: Any) -> Any:
    [method] = parse_methods([text])
    bench = make_bench(task, files, device, **how)
    rows = Worker(device, None).training_rows(task, n, 0, "stratified")
    return method, method.fit(rows, bench), bench


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The optimisers of fits, as they are made."""
    found: list[Any] = []

    def keep(*given: Any) -> Any:
        found.append(optimiser_of(*given))
        return found[-1]

    monkeypatch.setattr(loop, "optimiser_of", keep)
    return found


def test_matrices_of_blocks_are_apart_and_adamw_trains_the_rest(
    toy: Task, tiny: BackboneFiles, cpu: Device, made: list[Any]
) -> None:
    _, fitted, bench = fit("full[optimiser=muon]", toy, tiny, cpu, budget=Budget(steps=2))
    special, plain = made[0]._parts
    assert type(special) is torch.optim.Muon
    assert type(plain) is torch.optim.AdamW
    transformer = fitted.model.transformer
    matrices = {
        name
        for name, value in transformer.named_parameters()
        if value.dim() == 2 and "embeddings" not in name  # a BERT has linear layers and embeddings alone
    }
    held = {id(value) for group in special.param_groups for value in group["params"]}
    assert {name for name, value in transformer.named_parameters() if id(value) in held} == matrices
    n = sum(value.numel() for name, value in transformer.named_parameters() if name in matrices)
    assert bench.ledger.remarks["optimiser"].startswith(f"muon for the {n:,} numbers of {len(matrices)} matrices")
    n_held = sum(len(group["params"]) for group in made[0].param_groups)
    assert n_held == sum(1 for value in fitted.model.parameters() if value.requires_grad)


@pytest.mark.parametrize("optimiser", SAVING)
def test_the_state_of_a_fit_takes_the_bytes_of_the_forecast(
    optimiser: Optimiser, toy: Task, tiny: BackboneFiles, cpu: Device, made: list[Any]
) -> None:
    more = {"lisa": ",optimiser_blocks=1", "galore": ",optimiser_rank=5", "apollo": ",optimiser_rank=5"}.get(
        optimiser, ""
    )
    method, fitted, _ = fit(f"full[optimiser={optimiser}{more}]", toy, tiny, cpu, budget=Budget(steps=3))
    shape = read_shape(tiny.folder)
    assert shape is not None
    assert sum(rows * columns for rows, columns in shape.matrices) == shape.block_parameters
    held = {id(value): value for group in made[0].param_groups for value in group["params"]}
    own = {id(value): name for name, value in fitted.model.transformer.named_parameters()}
    # The embedding in training has the rows that occur, and is no part of the model any more.
    outside = sum(v.numel() for k, v in held.items() if v.dim() > 1 and "layer" not in own.get(k, ""))
    work = method.workload(48, Budget(), shape.n_blocks)
    found = trained_part(
        method, work, shape, blocks=float(shape.n_blocks), through=0.0, added=0.0, outside=outside, checkpoints=False
    )
    state = found.state_bytes
    if state is None:
        state = found.parameters * bytes_of(method).state
        assert found.resting == shape.n_blocks - 1
    vectors = [value for value in held.values() if value.dim() == 1 and value in made[0].state]
    expected = state + 8 * sum(value.numel() for value in vectors)
    assert state_bytes(made[0]) == pytest.approx(expected, abs=8 * len(held))  # a number of steps for each
    if optimiser in OF_MATRICES:
        n = shape.n_blocks
        counted = sum(
            step_flops(optimiser, *matrix.shape, 5) for g in made[0]._parts[0].param_groups for matrix in g["params"]
        )
        assert made[0].step_flops == counted
        pooler = counted - optimiser_flops(method, work, shape)
        assert 0 <= pooler <= counted / (5 * n)


def test_the_peak_of_a_step_of_lisa_is_that_of_the_tensors_alive(tmp_path: Path) -> None:
    """Within 10 %: two of six blocks have gradients and moments, and the others keep fewer activations."""
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 500}
    config = BertConfig(**sizes, intermediate_size=512, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    config.save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert shape is not None
    model = BertModel(config, add_pooling_layer=False).train()
    method = methods.get("full")(optimiser="lisa")
    hooks = sampling.SampledBlocks(list(model.encoder.layer), 2, 0, lambda _: None)  # type: ignore[arg-type, return-value]
    live = Live()
    live.watch(*model.parameters())
    with live:
        made = optimiser_of([ParameterGroup(list(model.parameters()), 1e-4)], "lisa")
        for _ in range(2):
            ids = torch.randint(5, 500, (16, 32))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            states.float().mean().backward()
            made.step()
            made.zero_grad()
    work = method.workload(64, Budget(), shape.n_blocks)
    outside = sum(value.numel() for value in model.embeddings.parameters())
    trained = trained_part(
        method, work, shape, blocks=6.0, through=0.0, added=0.0, outside=float(outside), checkpoints=False
    )
    expected = training_memory(shape, trained, Regime(bits16=True, mask_bytes=0.0), n_rows=16, length=32).peak_bytes
    assert len(hooks.drawn) == 2
    assert expected == pytest.approx(live.peak, rel=0.10)


# ---- fits


@pytest.mark.parametrize("optimiser", SAVING)
def test_losses_fall(optimiser: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    settings = (
        f"full[optimiser={optimiser},learning_rate=3e-3,head_learning_rate=3e-3]"  # the backbone is not pretrained
    )
    _, _, bench = fit(settings, toy, tiny, cpu, n=96, budget=Budget(steps=90))
    losses = [point.train_loss for point in bench.ledger.curve]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("name", "optimiser"),
    [
        *(("full", optimiser) for optimiser in SAVING),
        *((name, "galore") for name in ("last-layers", "gradual-unfreezing", "discriminative", "from-scratch")),
        ("discriminative", "lisa"),
        ("gradual-unfreezing", "muon"),
    ],
)
def test_saves_and_restores_the_same_predictions(
    name: str, optimiser: str, toy: Task, tiny: BackboneFiles, cpu: Device, tmp_path: Path
) -> None:
    more = ",patience=1,l2_start=0.01,accumulation=2" if name == "full" else ",min_steps=8,epochs=1"
    method, fitted, bench = fit(f"{name}[optimiser={optimiser}{more}]", toy, tiny, cpu)
    assert save_artifact(fitted, method, tmp_path, bench) == artifact_size_bytes(fitted, method)
    again = make_bench(toy, tiny, cpu, seed=9)
    _, restored = load_artifact(tmp_path, again)
    np.testing.assert_array_equal(restored.predict(test_rows(toy), again), fitted.predict(test_rows(toy), bench))


@pytest.mark.parametrize("optimiser", SAVING)
def test_pieces_of_a_batch_give_the_same_fit(optimiser: str, toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    plain = f"optimiser={optimiser},dropout=0,transformer_dropout=0,precision=fp32"
    found = []
    for pieces in (1, 4):
        _, fitted, _ = fit(f"full[{plain},accumulation={pieces}]", toy, tiny, cpu, budget=Budget(steps=12))
        found.append(fitted.predict(test_rows(toy), make_bench(toy, tiny, cpu)))
    np.testing.assert_allclose(*(getattr(one, "probabilities", one) for one in found), atol=2e-3)


def test_lisa_trains_the_drawn_blocks_and_the_rest_of_the_model(
    toy: Task, cpu: Device, tmp_path: Path, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = locate_backbone(str(save_tiny_bert(tmp_path / "deep", layers=5)))
    drawn: list[list[int]] = []
    draw = sampling.SampledBlocks._draw

    def drawing(self: Any) -> None:
        draw(self)
        drawn.append(self.drawn)

    monkeypatch.setattr(sampling.SampledBlocks, "_draw", drawing)
    _, fitted, bench = fit("full[optimiser=lisa]", toy, deep, cpu, budget=Budget(steps=20))
    assert len(drawn) == 2  # every ten steps
    assert all(len(one) == 2 for one in drawn)
    [method] = parse_methods(["full[optimiser=lisa]"])
    before = method.build(make_bench(toy, deep, cpu)).state_dict()  # type: ignore[attr-defined]
    after = fitted.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {int(name.split("layer.")[1].split(".")[0]) for name in moved if "layer." in name}
    assert layers == set(drawn[0]) | set(drawn[1])
    assert any("word_embeddings" in name for name in moved)
    assert any(name.startswith("head") for name in moved)
    assert all(value.requires_grad for value in fitted.model.parameters())
    names = {id(value): name for name, value in fitted.model.named_parameters()}
    stateful = {names[id(value)] for value in made[-1].state if id(value) in names}
    assert {int(name.split("layer.")[1].split(".")[0]) for name in stateful if "layer." in name} == set(drawn[1])
    full = fit("full", toy, deep, cpu, budget=Budget(steps=20))[2].ledger.train_flops
    assert 2 / 3 < bench.ledger.train_flops / full < 0.9  # three blocks of five take two thirds


# ---- rates, identity, refusals


def test_rates_of_matrices_follow_the_width_in_their_own_way(
    toy: Task, cpu: Device, tmp_path: Path, made: list[Any]
) -> None:
    wide = locate_backbone(str(save_tiny_bert(tmp_path / "wide", layers=1, width=768)))
    for text, matrices, rest in (
        ("full[optimiser=adafactor]", 1e-3 / math.sqrt(2), 5e-5),
        ("full[optimiser=adafactor,learning_rate=2e-4]", 2e-3, 2e-4),
        ("full[optimiser=muon]", 1e-4 / math.sqrt(2), 5e-5),
        ("full[optimiser=apollo]", 5e-5, 5e-5),
    ):
        _, _, bench = fit(text, toy, wide, cpu, n=16, budget=Budget(steps=1))
        special, plain = made[-1]._parts
        assert [group["peak"] for group in special.param_groups] == [pytest.approx(matrices)]
        assert sorted({group["peak"] for group in plain.param_groups}) == [
            pytest.approx(rest),
            1e-3,
        ]  # the head's stays
        assert f"with a rate of {matrices:.3g}; AdamW" in bench.ledger.remarks["optimiser"]


def test_settings_are_part_of_the_identity_where_they_differ() -> None:
    assert not {"optimiser", "optimiser_rank", "optimiser_blocks"} & set(methods.get("full")().config())
    [found] = parse_methods(["full[optimiser=galore,optimiser_rank=4]"])
    assert found.config()["optimiser"] == "galore"
    assert found.config()["optimiser_rank"] == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bitfit[optimiser=muon]", "expected one of adamw, adamw-8bit"),
        ("lora[optimiser=galore]", "For them use full"),
        ("gradual-unfreezing[optimiser=lisa]", "expected one of"),
        ("last-layers[optimiser=lisa]", "expected one of"),
        ("full[optimiser=muon,masters=bfloat16-kahan]", "needs masters=float32"),
        ("full[optimiser_rank=4]", "optimiser_rank is for optimiser=apollo or galore"),
        ("full[optimiser=galore,optimiser_blocks=4]", "optimiser_blocks is for optimiser=lisa"),
        ("full[optimiser=lisa,compile=true]", "compile=false"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_methods([text])


def test_backbones_without_blocks_or_matrices_are_refused_at_planning(tiny: BackboneFiles, tmp_path: Path) -> None:
    [method] = parse_methods(["full[optimiser=lisa,optimiser_blocks=3]"])
    assert "trains 3 blocks at a time" in str(method.why_unsupported("classification", tiny, "cpu"))
    with pytest.raises(UnsupportedError, match="optimiser=adamw"):
        by_matrix.check_matrices(nn.Embedding(3, 4))


def test_a_backbone_with_shared_blocks_is_refused(tmp_path: Path) -> None:
    albert = locate_backbone(str(save_tiny("albert", tmp_path)))
    [method] = parse_methods(["full[optimiser=lisa,optimiser_blocks=1]"])
    assert "share one set of weights" in str(method.why_unsupported("classification", albert, "cpu"))
    assert parse_methods(["full"])[0].why_unsupported("classification", albert, "cpu") is None


def test_a_cell_runs_and_its_record_says_how(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    record = run_one(toy, tiny, methods.get("full")(optimiser="apollo"), cpu, size="24", budget=Budget(steps=4))
    assert record.status == "ok", record.error
    assert record.cell.config["optimiser"] == "apollo"
