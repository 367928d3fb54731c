"""Choosing among several backbones: what there is time for is tried, the rest is left out with a message."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.backbones.locate import BackboneFiles
from harness.choose.candidates import Belief, Candidate, find_candidates
from harness.choose.encoders import backbone_effects
from harness.choose.folds import validation_folds
from harness.choose.outlook import Outlook, Step, plan_ahead
from harness.choose.runner import Runs
from harness.choose.search import Search
from harness.choose.whole_fits import run_whole_fits
from harness.forecast.evidence import gather
from harness.methods.configure import parse_methods
from harness.records.record import Record
from harness.store.reading import reference_records
from harness.tasks.base import Task
from tests.record_factory import make_record
from tests.searches import search_of


def search_among(
    toy: Task, backbones: Sequence[BackboneFiles], seconds: dict[str, float], said: list[str]
) -> tuple[Search, list[str]]:
    """Return a search of 300 s whose fits take at once, but are expected to take some seconds by backbone."""
    entrants = find_candidates(parse_methods(["linear-probe", "full"]), toy, backbones, "cpu")
    done: list[str] = []

    def plan(_: Task, method: Any, *__: Any, files: BackboneFiles | None = None) -> Any:
        return SimpleNamespace(method=method, files=files)

    def estimate(planned: Any) -> Any:
        takes = seconds[planned.files.name]
        return SimpleNamespace(seconds=takes, train_seconds=takes, basis="records")

    def run(planned: Any, *_: Any, **__: Any) -> Record:
        done.append(f"{planned.method.name} on {planned.files.name}")
        return make_record(planned.method.name, 200, 0, accuracy=0.8, n_test=60)

    runner = SimpleNamespace(plan=plan, estimate=estimate, run=run, now=time.monotonic)
    folds = validation_folds(toy)[:1]
    found = Search(cast(Runs, runner), toy, folds, entrants, Belief([], 3), time.monotonic() + 300, None, said.append)
    found.first = backbones[0]
    (probe,) = (one for one in entrants if one.is_cheap and one.files is backbones[0])
    found.run(probe, 0, found.end)
    return found, done


def test_a_backbone_without_time_is_left_out_and_another_is_tried(
    toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles
) -> None:
    said: list[str] = []
    search, done = search_among(toy, [tiny, tiny_llama], {tiny.name: 5.0, tiny_llama.name: 1e4}, said)
    run_whole_fits(search)
    assert f"full on {tiny.name}" in done
    assert not any(tiny_llama.name in one for one in done)
    assert any(line.startswith(f"{tiny_llama.name} is left out: its quickest fit would take about") for line in said)
    said.clear()
    search, done = search_among(toy, [tiny, tiny_llama], {tiny.name: 5.0, tiny_llama.name: 5.0}, said)
    run_whole_fits(search)
    assert any(tiny_llama.name in one for one in done)
    assert not any("left out" in line for line in said)


def test_candidates_are_methods_with_backbones(toy: Task, tiny: BackboneFiles, tiny_llama: BackboneFiles) -> None:
    methods = parse_methods(["tfidf", "linear-probe", "setfit"])
    found = {(one.method.name, one.files) for one in find_candidates(methods, toy, [tiny, tiny_llama], "cpu")}
    # setfit serves encoders only; words need no backbone and are fitted once.
    assert found == {("tfidf", None), ("linear-probe", tiny), ("linear-probe", tiny_llama), ("setfit", tiny)}
    labels = [one.label for one in find_candidates(methods, toy, [tiny, tiny_llama], "cpu")]
    assert len(set(labels)) == len(labels)
    assert [one.label for one in find_candidates(methods, toy, [tiny], "cpu")] == ["tfidf", "linear-probe", "setfit"]


def test_a_backbone_shares_its_luck_with_all_its_methods(tiny: BackboneFiles, tiny_llama: BackboneFiles) -> None:
    """A good probe on it raises what is expected of full fine-tuning on it, more than on another."""
    probe, full = parse_methods(["linear-probe", "full"])
    candidates = [
        Candidate(one, "", one is probe, None, files) for files in (tiny, tiny_llama) for one in (probe, full)
    ]
    mean, covariance = backbone_effects(candidates, tiny)
    assert mean[:2].tolist() == [0.0, 0.0]
    assert (covariance[:2] == 0).all()
    assert 0 < covariance[2, 3] < covariance[3, 3]
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    assert (backbone_effects(candidates, None)[1] == 0).all()


def test_no_fit_enters_that_would_leave_no_time_for_its_last_fit() -> None:
    """A fit takes forty seconds, on a fold and on all rows: with a hundred left it may be tried, with seventy not."""
    points = [p for p in gather(reference_records()).points if p.kind == "classification"]
    entrants = [Candidate(one, one.name, one.name == "tfidf") for one in parse_methods(["tfidf", "last-layers"])]

    def planned(left: float) -> list[str]:
        search = search_of(entrants, Belief(points, 6), left, folds=[SimpleNamespace(n_test=300)], seconds=40.0)
        outlook = Outlook(search, entrants, left)
        return [one.candidate.label for one in plan_ahead(search, outlook, [Step(entrants[1], 0, 42.0)])[0]]

    assert planned(70) == []
    assert planned(100) in ([], ["last-layers"])


def test_expectations_do_not_depend_on_who_else_is_asked_about() -> None:
    points = [p for p in gather(reference_records()).points if p.kind == "classification"]
    names = ["full", "lora", "last-layers", "bitfit"]
    entrants = [Candidate(one, one.name, False) for one in parse_methods(names)]
    belief = Belief(points, 6)
    belief.kin = entrants
    everybody, spread = belief.expect(entrants, [1500.0] * 4, [])
    some, own = belief.expect(entrants[:2], [1500.0] * 2, [])
    assert some == pytest.approx(everybody[:2])
    assert own == pytest.approx(spread[:2, :2])
