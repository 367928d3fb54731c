"""The training loop's parts against closed forms and plain PyTorch."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.backbones.pooling import pool
from harness.features.tokens import pad
from harness.measure.device import Device
from harness.methods import methods
from harness.records.record import Budget
from harness.tasks import Task
from harness.training.batches import shuffled
from harness.training.budget import BudgetProgress, learning_rate_factor
from harness.training.forms import answer_form
from harness.training.inputs import TokenInputs
from harness.training.loop import Optimisation, ParameterGroup, train
from harness.training.model import PooledModel
from harness.training.vocabulary import CompactEmbedding
from tests.toys import make_bench, run_one


def progress(budget: Budget, seconds: float = 0.0, **options: int) -> BudgetProgress:
    return BudgetProgress(
        budget, options.get("default_steps", 100), options.get("steps_per_epoch", 10), lambda: seconds
    )


def test_progress_is_the_largest_fraction_spent() -> None:
    both = progress(Budget(epochs=4, train_seconds=10), seconds=5.0)
    both.step = 10
    assert both.fraction() == 0.5
    assert both.fractions() == {"epochs": 0.25, "train_seconds": 0.5}
    assert both.stopped_by() is None
    both.step = 40
    assert both.stopped_by() == "epochs"


def test_default_length_applies_only_where_the_budget_names_none() -> None:
    assert progress(Budget(train_seconds=9)).step_limit == 100
    assert progress(Budget(steps=7)).step_limit == 7
    assert progress(Budget(epochs=2.5)).step_limit == 25
    assert progress(Budget(epochs=3, steps=7)).step_limit == 7


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_rise_peak_and_end_at_their_floor(schedule: str) -> None:
    factors = [learning_rate_factor(schedule, at / 1000, 0.1) for at in range(1001)]  # type: ignore[arg-type]
    assert factors[0] == 0.0
    assert factors[100] == pytest.approx(1.0)
    assert factors[1000] == pytest.approx(0.0, abs=1e-9)
    assert all(later >= earlier for earlier, later in itertools.pairwise(factors[:101]))
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[100:]))


def test_linear_schedule_is_transformers_own() -> None:
    from transformers import get_linear_schedule_with_warmup

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimiser, 10, 100)
    for step in range(100):
        assert learning_rate_factor("linear", step / 100, 0.1) == pytest.approx(theirs.get_last_lr()[0])
        optimiser.step()
        theirs.step()


def test_every_row_once_an_epoch_and_lengths_together() -> None:
    lengths = np.random.default_rng(0).integers(4, 60, size=500)
    first, second = (shuffled(500, 16, lengths, seed=3, epoch=epoch) for epoch in (0, 1))
    assert sorted(np.concatenate(first)) == list(range(500))
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    assert [b.tolist() for b in first] == [b.tolist() for b in shuffled(500, 16, lengths, seed=3, epoch=0)]
    padded = sum(len(batch) * lengths[batch].max() for batch in first)
    plain = sum(len(batch) * lengths[batch].max() for batch in shuffled(500, 16, None, seed=3, epoch=0))
    assert padded < 1.1 * lengths.sum() < plain


def test_pooling_reads_real_tokens_only() -> None:
    hidden = torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
    for row, (start, end) in enumerate(((0, 5), (0, 2), (2, 5))):
        torch.testing.assert_close(pool(hidden, mask, "mean")[row], hidden[row, start:end].mean(0))
        torch.testing.assert_close(pool(hidden, mask, "cls")[row], hidden[row, start])
        torch.testing.assert_close(pool(hidden, mask, "last")[row], hidden[row, end - 1])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_compact_embedding_gives_what_the_full_one_gives(
    weight_decay: float, tiny: BackboneFiles, toy: Task, cpu: Device
) -> None:
    """Plain AdamW over the whole vocabulary, on the same batches, is the independent result."""
    backbone = load_backbone(tiny)
    bench = make_bench(toy, tiny, cpu)
    rows = [np.asarray(row, dtype=np.int32) for row in ([2, 7, 21, 3], [2, 9, 9, 22, 3], [2, 30, 3], [2, 11, 21, 3])]
    targets = np.array([0, 1, 2, 0])
    optimisation = Optimisation(warmup=0.2, max_grad_norm=1.0)

    def fitted(compact: bool) -> PooledModel:
        torch.manual_seed(0)
        head = answer_form("classes").head(backbone.hidden_size, 3, 0.0)
        model = PooledModel(backbone.fresh(torch.device("cpu")), head, "mean").eval()
        inputs = TokenInputs(model, rows, pad_id=0, compact=compact, device=torch.device("cpu"))
        batches = inputs.batches(np.arange(len(rows)), targets, batch_size=2, seed=0)
        outcome = train(
            forward=inputs.forward,
            loss=answer_form("classes").loss,
            batches=batches,
            groups=[
                ParameterGroup(list(model.transformer.parameters()), 1e-2, weight_decay),
                ParameterGroup(list(model.head.parameters()), 1e-2, weight_decay),
            ],
            optimisation=optimisation,
            progress=bench.progress(12, len(batches)),
            flops=None,
            device=torch.device("cpu"),
            precision="fp32",
            on_step=lambda *_: None,
        )
        assert (len(model.transformer.get_input_embeddings().weight) < 30) == compact
        inputs.close(outcome.decay[0])
        return model

    plain, narrow = fitted(compact=False), fitted(compact=True)
    before = backbone.pristine.state_dict()["embeddings.word_embeddings.weight"]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(narrow.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
    after = narrow.state_dict()["transformer.embeddings.word_embeddings.weight"]
    assert torch.equal(after[25], before[25]) == (weight_decay == 0.0)  # a word that no row has


def test_loop_is_plain_adamw(tiny: BackboneFiles, toy: Task, cpu: Device) -> None:
    """Ten steps of the loop against ten written out: schedule, decay groups, clipping."""
    bench = make_bench(toy, tiny, cpu)
    torch.manual_seed(0)
    ours = torch.nn.Linear(6, 3)
    plain = copy.deepcopy(ours)
    features = torch.randn(20, 6)
    targets = torch.randint(0, 3, (20,))
    from harness.training.batches import FeatureBatches

    batches = FeatureBatches(features.numpy(), targets.numpy(), batch_size=5, seed=1, device=torch.device("cpu"))
    train(
        forward=lambda batch: ours(*batch.inputs),
        loss=answer_form("classes").loss,
        batches=batches,
        groups=[ParameterGroup(list(ours.parameters()), 5e-2, 0.1)],
        optimisation=Optimisation(warmup=0.0, schedule="linear", max_grad_norm=0.5),
        progress=bench.progress(10, len(batches)),
        flops=None,
        device=torch.device("cpu"),
        precision="fp32",
        on_step=lambda *_: None,
    )
    optimiser = torch.optim.AdamW(
        [{"params": [plain.weight], "weight_decay": 0.1}, {"params": [plain.bias], "weight_decay": 0.0}], lr=5e-2
    )
    step = 0
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            if step == 10:
                break
            for group in optimiser.param_groups:
                group["lr"] = 5e-2 * (1 - step / 10)
            torch.nn.functional.cross_entropy(plain(*batch.inputs), batch.targets).backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
    torch.testing.assert_close(ours.weight, plain.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.bias, plain.bias, rtol=1e-5, atol=1e-6)


def test_divergence_is_a_failure_with_advice(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    method = methods.get("full")(learning_rate=1e30, max_grad_norm=None, warmup=0.0, precision="fp32")
    record = run_one(toy, tiny, method, cpu)
    assert record.status == "failed"
    assert record.error is not None
    assert "try a learning rate below" in record.error
    assert record.score is None


def test_curve_follows_the_budget(toy: Task, tiny: BackboneFiles, cpu: Device) -> None:
    record = run_one(toy, tiny, methods.get("full")(), cpu, budget=Budget(steps=64))
    steps = [point.step for point in record.curve]
    assert steps == sorted(steps)
    assert steps[-1] == 64
    assert len(steps) <= 40
    assert all(math.isfinite(point.train_loss or math.nan) for point in record.curve)
    assert record.curve[-1].flops == pytest.approx(record.cost.train_flops)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_dropout_drops_the_share_it_says_and_keeps_the_mean(p: float) -> None:
    from harness.training.dropout import SixteenBitDropout

    torch.manual_seed(0)
    layer = SixteenBitDropout(p)
    values = torch.ones(401, 1003, requires_grad=True)  # not a multiple of the four elements that share a word
    dropped = layer(values)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / values.numel()) + 1e-5)
    assert float(dropped.detach().mean()) == pytest.approx(1.0, abs=0.01)
    for lane in range(4):  # each of the four elements of a word on its own
        lane_share = float((dropped.reshape(-1)[lane::4] == 0).float().mean())
        assert lane_share == pytest.approx(p, abs=0.01)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, dropped.detach())
    assert layer.eval()(values) is values


def test_dropout_masks_are_not_repeated_and_follow_the_seed() -> None:
    from harness.training.dropout import SixteenBitDropout

    layer = SixteenBitDropout(0.3)
    torch.manual_seed(1)
    first, second = layer(torch.ones(4096)), layer(torch.ones(4096))
    torch.manual_seed(1)
    assert torch.equal(layer(torch.ones(4096)), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_a_compact_vocabulary_changes_nothing_that_is_computed(family: str) -> None:
    """Families differ in how they use ids: RoBERTa's positions follow from where the padding id stands."""
    from transformers import AutoConfig, AutoModel

    pad_id = 1 if family == "roberta" else 0
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if family == "distilbert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    if family == "electra":
        sizes["embedding_size"] = 16
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=60, max_position_embeddings=24, pad_token_id=pad_id, bos_token_id=2, eos_token_id=3, **sizes
    )
    model = AutoModel.from_config(config).eval()
    rows = [np.array(row, dtype=np.int32) for row in ([2, 40, 41, 3], [2, 55, 3], [2, 9, 9, 41, 50, 3])]

    def hidden(used: list[np.ndarray]) -> torch.Tensor:
        ids, mask = pad(used, pad_id)
        with torch.no_grad():
            states = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
        return states * torch.from_numpy(mask)[..., None]

    expected = hidden(rows)
    assert CompactEmbedding.fits(model, rows, pad_id)
    narrow = CompactEmbedding(model, rows, pad_id)
    assert model.get_input_embeddings().num_embeddings < 12
    torch.testing.assert_close(hidden([narrow.translate(row) for row in rows]), expected)
    narrow.restore(1.0)
    torch.testing.assert_close(hidden(rows), expected)
