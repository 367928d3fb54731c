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

from harness.analysis import guessing_loss, learned_nothing
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.choose.candidates import Candidate
from harness.choose.last_fit import LastFit
from harness.measure.device import Device
from harness.methods import methods
from harness.records.record import CurvePoint
from harness.report.caption import cautions
from harness.report.panels import panels
from harness.running.worker import Worker
from harness.tasks import Task
from harness.testing.backbones import save_tiny_bert
from tests.record_factory import make_record
from tests.toys import make_bench


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


@pytest.mark.parametrize(
    ("losses", "useless"),
    [
        ([0.68, 0.48, 0.31, 0.40, 0.55, 0.69, 0.69, 0.69], True),  # as on SST-2 with a rate of 3e-4
        ([0.70, 0.69, 0.60, 0.45, 0.33, 0.30, 0.28, 0.25], False),
        ([0.69, 0.69, 0.69, 0.69, 0.69, 0.69, 0.50, 0.40], False),
        ([], False),
    ],
)
def test_a_fit_that_ends_at_the_loss_of_the_shares_learned_nothing(losses: list[float], useless: bool) -> None:
    curve = tuple(CurvePoint(step=at, seconds=float(at), train_loss=loss) for at, loss in enumerate(losses))
    assert learned_nothing(make_record("full", 100, 0, curve=curve), guessing_loss(np.array([0, 1] * 50))) == useless


def test_the_loss_of_guessing_is_the_entropy_of_the_shares() -> None:
    strata = np.array([0] * 90 + [1] * 7 + [3] * 3)
    assert guessing_loss(strata) == pytest.approx(scipy.stats.entropy([90, 7, 3]))
    curve = (CurvePoint(step=1, seconds=1.0, train_loss=0.36),)
    assert not learned_nothing(make_record("full", 100, 0, curve=curve), guessing_loss(strata))
    assert learned_nothing(make_record("full", 100, 0, curve=curve), guessing_loss(strata[:97]))


def test_tables_name_fits_that_learned_nothing() -> None:
    """A seed that collapsed is counted and named: the mean over seeds would hide it."""
    stuck = (CurvePoint(step=1, seconds=1.0, train_loss=3.0),)
    learns = (CurvePoint(step=1, seconds=1.0, train_loss=0.01),)
    records = [make_record("full", 32, seed, curve=stuck if seed == 1 else learns) for seed in range(3)]
    records += [make_record("lora", 32, seed, curve=learns) for seed in range(3)]
    records = [replace(record, provenance=replace(record.provenance, dataset={"n_classes": 12})) for record in records]
    (panel,) = panels(records)
    assert dict(zip(panel.rows["variant"], panel.rows["n_learned_nothing"], strict=True)) == {"full": 1, "lora": 0}
    (said,) = (line for line in cautions(panel) if "learned nothing" in line)
    assert said.endswith("A lower learning rate may help: full at 32 (1 of 3 seeds)")


def test_a_fit_that_learned_nothing_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next method takes its place, though the test rows were predicted and the fit ended with `ok`."""
    full = Candidate(methods.get("full")(), "full", is_cheap=False)
    words = Candidate(methods.get("tfidf")(), "tfidf", is_cheap=True)
    stuck = make_record("full", 100, 0, curve=(CurvePoint(step=1, seconds=1.0, train_loss=0.69),))
    records = {"full": stuck, "tfidf": make_record("tfidf", 100, 0)}
    said: list[str] = []
    search: Any = SimpleNamespace(
        task=SimpleNamespace(train_strata=np.array([0, 1] * 50)),
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
    assert "its last fit learned nothing: its training loss ended at 0.69" in last.missed["full"]
    assert any(line.startswith("full: the fit learned nothing") for line in said)
