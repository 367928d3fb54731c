"""Default learning rates fall with the width of the backbone, in the steps that are taken and in what cells are called.

A constant rate that suits a width of 384 destroyed all-mpnet-base-v2 (768) on SST-2: the accuracy fell to 0.5.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import f1_score

from harness.analysis import guessing_loss, learned_nothing
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.choose.candidates import Candidate
from harness.choose.last_fit import LastFit
from harness.measure.device import Device
from harness.methods import methods
from harness.methods._fine_tuning import KNOWN_WIDTH
from harness.methods.configure import parse_methods
from harness.records.record import Budget, CurvePoint, Predictions, Record
from harness.report.caption import cautions
from harness.report.panels import panels
from harness.running.worker import Worker
from harness.tasks import Task
from harness.testing.backbones import save_tiny_bert
from tests.record_factory import make_record
from tests.toys import make_bench, run_one


@pytest.fixture(scope="module")
def by_width(tmp_path_factory: pytest.TempPathFactory) -> dict[int, BackboneFiles]:
    folder = tmp_path_factory.mktemp("widths")
    return {
        width: locate_backbone(str(save_tiny_bert(folder / f"bert-{width}", layers=1, width=width)))
        for width in (32, 384, 768)
    }


def largest_change(name: str, toy: Task, files: BackboneFiles, cpu: Device, **settings: Any) -> tuple[float, str]:
    """Return the largest change of a number inside the transformer in one step, and what the ledger says of the rate.

    The first step of AdamW changes each number by the learning rate: its moments are the gradient and its square.
    """
    plain = {"weight_decay": 0.0, "warmup": 0.0, "schedule": "constant", "dropout": 0.0, "precision": "fp32"}
    method = methods.get(name)(**{"min_steps": 1, "epochs": 0.01, **plain, **settings})
    bench = make_bench(toy, files, cpu)
    before = method.build(bench).transformer.state_dict()  # type: ignore[attr-defined]
    bench = make_bench(toy, files, cpu)
    fitted: Any = method.fit(Worker(cpu, None).training_rows(toy, 24, 0, "stratified"), bench)
    after = fitted.model.transformer.state_dict()
    changes = [float((after[key] - before[key]).abs().max()) for key in after if after[key].dtype is torch.float32]
    return max(changes), bench.ledger.remarks.get("learning_rate", "")


@pytest.mark.parametrize(("name", "default"), [("full", 1e-4), ("bitfit", 3e-3)])
def test_a_default_rate_is_halved_at_twice_the_width(
    name: str, default: float, toy: Task, by_width: dict[int, BackboneFiles], cpu: Device
) -> None:
    for width, rate in ((32, default), (384, default), (768, default / 2)):
        change, said = largest_change(name, toy, by_width[width], cpu)
        assert change == pytest.approx(rate, rel=2e-2)
        lower = f"{rate:.3g}: the default of {default:g} is that of backbones of width 384"
        assert said == ("" if width <= 384 else lower)


def test_a_rate_that_was_given_is_used_as_it_is(toy: Task, by_width: dict[int, BackboneFiles], cpu: Device) -> None:
    change, said = largest_change("full", toy, by_width[768], cpu, learning_rate=2e-4)
    assert (change, said) == (pytest.approx(2e-4, rel=2e-2), "")


def test_records_state_default_settings_and_the_rate_that_was_used(
    toy: Task, by_width: dict[int, BackboneFiles], cpu: Device
) -> None:
    budget = Budget(steps=1)
    found = {}
    for width, files in by_width.items():
        for text in ("full", "full[learning_rate=0.002]"):
            record = run_one(toy, files, parse_methods([text])[0], cpu, size="12", seed=0, budget=budget)
            assert record.status == "ok", record.error
            found[width, text] = (record.facts.at_defaults, record.facts.learning_rate)
    own = methods.get("full").model_fields["learning_rate"].default
    for width in by_width:
        falls = width > KNOWN_WIDTH
        assert found[width, "full"] == (True, pytest.approx(own * KNOWN_WIDTH / width) if falls else None)
        assert found[width, "full[learning_rate=0.002]"] == (False, None)


def test_rates_of_random_weights_and_of_the_head_stay(by_width: dict[int, BackboneFiles]) -> None:
    wide: Any = by_width[768]
    assert methods.get("from-scratch")().rate_share(wide) == 1.0  # type: ignore[attr-defined]
    full: Any = methods.get("full")()
    assert full.rate_share(wide) == 0.5
    assert not hasattr(methods.get("head")(), "rate_share")


def test_only_cells_whose_rate_has_changed_have_another_identity(by_width: dict[int, BackboneFiles]) -> None:
    for name, settings, width, more in (
        ("full", {}, 384, 0),
        ("full", {}, 768, 1),
        ("full", {"learning_rate": 2e-5}, 768, 0),
        ("lora", {}, 768, 1),
        ("from-scratch", {}, 768, 0),
        ("linear-probe", {}, 768, 0),
    ):
        method, files = methods.get(name)(**settings), by_width[width]
        assert method.cell_version(files, "classes") - method.version_on(files, "classes") == more, (name, width)


STUCK = [0.68, 0.48, 0.31, 0.40, 0.55, 0.69, 0.69, 0.69]
"""As on SST-2, with a rate of 3e-4."""


def fit_of(
    losses: list[float], predicted: list[int], n_classes: int = 2, *, seed: int = 0, method: str = "full"
) -> Record:
    """Return a record of a fit on equally frequent classes, scored as a task scores it, by scikit-learn."""
    target = np.arange(len(predicted)) % n_classes
    record = make_record(method, 100, seed)
    assert record.score is not None
    right = float((target == predicted).mean())
    macro = float(f1_score(target, predicted, average="macro", zero_division=0))
    return replace(
        record,
        curve=tuple(CurvePoint(step=at, seconds=float(at), train_loss=loss) for at, loss in enumerate(losses)),
        predictions=Predictions(rows="r", predicted=np.array(predicted), target=target),
        score=replace(record.score, value=right, others={"macro_f1": macro}),
        provenance=replace(record.provenance, dataset={"n_classes": n_classes}),
    )


@pytest.mark.parametrize(
    ("losses", "predicted", "useless"),
    [
        (STUCK, [1] * 100, True),
        (STUCK, [1] * 99 + [0], True),
        (STUCK, [0, 1] * 50, False),  # right on all rows with little confidence: few steps at a low rate
        ([0.70, 0.69, 0.60, 0.45, 0.33, 0.30, 0.28, 0.25], [1] * 100, False),
        ([0.69, 0.69, 0.69, 0.69, 0.69, 0.69, 0.50, 0.40], [1] * 100, False),
        ([], [1] * 100, False),
    ],
)
def test_a_fit_that_predicts_one_class_at_the_loss_of_guessing_learned_nothing(
    losses: list[float], predicted: list[int], useless: bool
) -> None:
    record = fit_of(losses, predicted)
    assert learned_nothing(record, guessing_loss(np.array([0, 1] * 50))) == useless
    assert learned_nothing(record) == useless
    if predicted != [1] * 99 + [0]:  # without predictions, only one class alone is told from others
        assert learned_nothing(replace(record, predictions=None)) == useless


@pytest.mark.parametrize("n_classes", [2, 6, 77])
def test_one_class_is_told_from_the_macro_f1(n_classes: int) -> None:
    losses = [np.log(n_classes)] * 8
    assert learned_nothing(replace(fit_of(losses, [1] * 154, n_classes), predictions=None))
    half = [at % n_classes if at >= 77 else 1 for at in range(154)]
    assert not learned_nothing(replace(fit_of(losses, half, n_classes), predictions=None))


def test_several_classes_predicted_at_chance_are_not_one_class() -> None:
    """Without predictions, a macro F1 of at most 1 / n_classes alone does not show that one class was predicted."""
    predicted = np.array([0] * 22 + [1] * 14 + [2] * 6 + [3] * 58)
    record = fit_of([np.log(4)] * 8, list(predicted), n_classes=4)
    assert record.score is not None
    assert record.score.others["macro_f1"] < 1 / 4
    assert not learned_nothing(record)
    assert not learned_nothing(replace(record, predictions=None))


def test_the_loss_of_guessing_is_the_entropy_of_the_shares() -> None:
    strata = np.array([0] * 90 + [1] * 7 + [3] * 3)
    assert guessing_loss(strata) == pytest.approx(scipy.stats.entropy([90, 7, 3]))
    assert not learned_nothing(fit_of([0.36], [0] * 50), guessing_loss(strata))
    assert learned_nothing(fit_of([0.36], [0] * 50), guessing_loss(strata[:97]))


def test_tables_name_fits_that_learned_nothing() -> None:
    """A seed that collapsed is counted and named: the mean over seeds would hide it."""
    good, one_class = [0, 1] * 50, [1] * 100
    records = [fit_of(STUCK if seed == 1 else [0.01], one_class if seed == 1 else good, seed=seed) for seed in range(3)]
    records += [fit_of([0.01], good, seed=seed, method="lora") for seed in range(3)]
    (panel,) = panels(records)
    assert dict(zip(panel.rows["variant"], panel.rows["n_learned_nothing"], strict=True)) == {"full": 1, "lora": 0}
    (said,) = (line for line in cautions(panel) if "learned nothing" in line)
    assert said.endswith("A lower learning rate may help: full at 100 (1 of 3 seeds)")


def test_a_fit_that_learned_nothing_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next method takes its place, though the test rows were predicted and the fit ended with `ok`."""
    full = Candidate(methods.get("full")(), "full", is_cheap=False)
    words = Candidate(methods.get("tfidf")(), "tfidf", is_cheap=True)
    stuck = fit_of(STUCK, [1] * 100)
    records = {"full": stuck, "tfidf": make_record("tfidf", 100, 0)}
    said: list[str] = []
    search: Any = SimpleNamespace(
        task=SimpleNamespace(train_strata=np.array([0, 1] * 50), has_classes=True),
        n_rows=100,
        end=0.0,
        say=said.append,
        runner=SimpleNamespace(run=lambda planned, *_: records[planned.cell.method]),
    )
    last = LastFit(search, tmp_path, 1.0)
    monkeypatch.setattr(last, "_ranked", lambda: [(full, 0.9), (words, 0.8)])
    monkeypatch.setattr(last, "_in_time", lambda _: stuck)
    monkeypatch.setattr(last, "_as_much_as_fits", lambda _: records["tfidf"])
    assert last.fit(tmp_path / "model") == (records["tfidf"], words)
    assert "its last fit learned nothing: it gives nearly all texts one class" in last.missed["full"]
    assert any(line.startswith("full: the fit learned nothing") for line in said)
