"""Expected probes of encoders: conditional means, robustness, contamination, and the effect of a backbone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.forecast.curves import SCORE_SPREADS
from harness.forecast.encoders import EncoderModel, clean, from_logit, publisher, to_logit
from harness.forecast.pooled import Lift, Where, kernel
from harness.records.encoders import EncoderFacts, PublishedEncoder, PublishedResult

TASKS = ("a", "b", "c", "d")


def made(n: int, seed: int = 0, noise: float = 0.1, publishers: int = 0) -> list[PublishedEncoder]:
    """Return encoders whose logits are one quality, scaled by task, and noise."""
    draws = np.random.default_rng(seed)
    shared = draws.normal(size=max(publishers, 1))
    found = []
    for i in range(n):
        owner = i % publishers if publishers else i
        quality = shared[owner] if publishers else draws.normal()
        results = tuple(
            PublishedResult(task, from_logit(level + quality + noise * draws.normal()), 0.01, 10)
            for task, level in zip(TASKS, (0.0, 1.0, 2.0, -1.0), strict=True)
        )
        facts = EncoderFacts(n_parameters=int(1e8 * math.exp(quality)), width=512, pretraining="sentence encoder")
        found.append(PublishedEncoder(f"org{owner}/m{i}", facts, results))
    return found


def test_three_tasks_tell_of_the_fourth_as_the_conditional_normal_does() -> None:
    encoders = made(120)
    model = EncoderModel(encoders)
    rows = np.array([[to_logit(r.accuracy) for r in e.results] for e in encoders])
    mean, cov = rows.mean(0), np.cov(rows.T)
    known = np.array([1.0, 2.1, 2.9])
    by_hand = mean[3] + cov[3, :3] @ np.linalg.solve(cov[:3, :3], known - mean[:3])
    facts = EncoderFacts()  # nothing known of it but three scores
    found = model.expected("new/one", facts, {t: from_logit(v) for t, v in zip(TASKS, known, strict=False)})["d"]
    assert found.mean == pytest.approx(by_hand, abs=0.08)
    assert found.low < found.accuracy < found.high
    assert not found.is_measured


def test_encoders_of_a_publisher_tell_of_its_others() -> None:
    encoders = made(60, publishers=12)
    held = max(encoders, key=lambda encoder: encoder.results[0].accuracy)
    model = EncoderModel([encoder for encoder in encoders if encoder is not held])
    known = model.expected(held.name, EncoderFacts(), {})["a"]
    unknown = model.expected("nobody/m0", EncoderFacts(), {})["a"]
    truth = to_logit(held.results[0].accuracy)
    assert abs(known.mean - truth) < abs(unknown.mean - truth)
    assert known.sd < unknown.sd


def test_an_outlier_moves_the_others_little() -> None:
    encoders = made(60)
    random = PublishedEncoder("x/random", EncoderFacts(), tuple(PublishedResult(t, 0.02) for t in TASKS))
    ask = {"a": 0.6, "b": 0.8}
    without = EncoderModel(encoders).expected("new/one", EncoderFacts(), ask)["c"]
    with_it = EncoderModel([*encoders, random]).expected("new/one", EncoderFacts(), ask)["c"]
    assert with_it.accuracy == pytest.approx(without.accuracy, abs=0.01)


def test_a_contaminated_result_changes_nothing() -> None:
    encoders = made(40)
    cheat = replace(encoders[3].results[0], accuracy=0.999, has_seen_task=True)
    tainted = [*encoders]
    tainted[3] = replace(encoders[3], results=(cheat, *encoders[3].results[1:]))
    without = [*encoders]
    without[3] = replace(encoders[3], results=encoders[3].results[1:])
    assert clean(tainted[3]).results == encoders[3].results[1:]
    asked = (encoders[3].name, None, None)
    assert EncoderModel(tainted).expected(*asked) == EncoderModel(without).expected(*asked)


def test_the_effect_against_itself_is_none_and_a_better_encoder_has_one() -> None:
    encoders = sorted(made(60), key=lambda encoder: encoder.results[0].accuracy)
    model = EncoderModel(encoders)
    best, worst = encoders[-1].name, encoders[0].name
    assert model.effect(worst, worst).mean == 0.0
    found = model.effect(best, worst)
    gaps = [
        to_logit(a.accuracy) - to_logit(b.accuracy)
        for a, b in zip(encoders[-1].results, encoders[0].results, strict=True)
    ]
    assert found.mean == pytest.approx(np.mean(gaps))
    assert found.between == pytest.approx(np.std(gaps, ddof=1))
    assert found.n_results == 4
    assert found.n_unknown == 4


def test_the_publisher_is_the_first_part_of_the_name() -> None:
    assert publisher("Org/model") == "org"
    assert publisher("model") == "model"


def test_logits_are_cut_where_nothing_finer_is_known() -> None:
    assert from_logit(to_logit(0.73)) == pytest.approx(0.73)
    assert to_logit(0.0) == to_logit(0.001)


def test_a_lift_adds_its_covariance_by_backbone_task_and_role() -> None:
    lift = Lift("big", "fine-tuning", 0.3, 0.1, 0.2, 0.4)
    base = Where(0.0, 0.0, "t", "full", "f")
    there, elsewhere = replace(base, lift=lift), replace(base, lift=lift, task="u")
    probe = replace(base, lift=replace(lift, role="frozen features"), task="u")
    plain = kernel([base], [base, replace(base, task="u")], SCORE_SPREADS)[0]
    found = kernel([there], [base, there, elsewhere, probe], SCORE_SPREADS)[0]
    assert found[0] == plain[0]
    assert found[1] == pytest.approx(plain[0] + 0.1**2 + 0.2**2 + 0.4**2)
    assert found[2] == pytest.approx(plain[1] + 0.1**2 + 0.4**2)
    assert found[3] == pytest.approx(plain[1] + 0.1**2)
