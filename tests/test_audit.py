"""Audits of default settings: paired differences in points, the flag, and where it is shown."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from harness.api.auditing import TASKS, audit_grid
from harness.cli.catalogue import audits_of
from harness.methods.base import methods
from harness.planning.suites import load_suite
from harness.records import audits
from harness.records.audits import AuditedDefault, write_audits
from harness.report.audit import audit
from harness.report.caption import cautions
from harness.report.panels import panels
from harness.report.tables import comparison
from harness.support.errors import UsageError
from tests.record_factory import make_record

LORA = {"batch_size": 16, "rank": 8}


def sides(default, tuned, task="one", seeds=(0, 1, 2), method="lora", backbone="a/b"):
    """Records of a method with its defaults and tuned, of 400 test rows."""
    made = []
    for seed in seeds:
        shared = {"task": task, "backbone": backbone, "n_test": 400}
        made.append(make_record(method, 128, seed, accuracy=default + 0.01 * seed, config=LORA, **shared))
        made.append(make_record(method, 128, seed, accuracy=tuned + 0.01 * seed, config={**LORA, "tune": 8}, **shared))
    return made


def right(record):
    return (record.predictions.predicted == record.predictions.target).astype(float)


def test_a_default_is_compared_row_by_row_with_one_seed():
    """One seed and one task: the interval is that of a paired t-test over test rows."""
    records = sides(0.6, 0.75, seeds=(0,))
    (found,) = audit(records).defaults
    difference = 100 * (right(records[1]) - right(records[0]))
    half = stats.t.ppf(0.975, 399) * difference.std(ddof=1) / 20
    assert found.points == pytest.approx(difference.mean(), abs=1e-3)
    assert (found.low, found.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=2e-3)
    assert (found.default, found.tuned) == pytest.approx((60.0, 75.0), abs=0.3)
    assert found.is_behind
    assert (found.n_trials, found.n_seeds, found.tasks, found.sizes) == (8, 1, ("one",), (128,))


def test_tasks_have_equal_weight_and_independent_errors():
    both = sides(0.6, 0.7, "one") + sides(0.6, 0.62, "two")
    found = audit(both)
    one, two = found.places
    (over,) = found.defaults
    assert over.points == pytest.approx((one.points + two.points) / 2, abs=1e-3)
    half = np.hypot(one.high - one.low, two.high - two.low) / 4
    assert (over.low, over.high) == pytest.approx((over.points - half, over.points + half), abs=2e-3)


@pytest.mark.parametrize(("tuned", "flagged"), [(0.60, False), (0.615, False), (0.70, True), (0.5, False)])
def test_only_more_than_two_points_beyond_noise_are_flagged(tuned, flagged):
    (found,) = audit(sides(0.6, tuned)).defaults
    assert found.is_behind is flagged
    unknown = dataclasses.replace(found, low=None, high=None)
    noisy = dataclasses.replace(found, points=5.0, low=-0.1, high=10.1)
    assert not unknown.is_behind
    assert not noisy.is_behind


def test_lower_is_better_turns_the_sign():
    records = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, higher_is_better=False)) for r in sides(0.6, 0.75)
    ]
    (found,) = audit(records).defaults
    assert found.points == pytest.approx(-15, abs=0.5)
    assert found.low < found.points < found.high
    assert not found.is_behind


def test_backbones_methods_and_seeds_are_not_mixed():
    records = sides(0.6, 0.7) + sides(0.6, 0.5, backbone="c/d") + sides(0.6, 0.6, method="full")
    records = [r for r in records if not (r.cell.backbone == "c/d" and "tune" in r.cell.config and r.cell.seed == 2)]
    records += sides(0.1, 0.9, method="head")[:1]  # one side alone says nothing
    found = {(one.method, one.backbone): one for one in audit(records).defaults}
    assert set(found) == {("lora", "a/b"), ("lora", "c/d"), ("full", "a/b")}
    assert found["lora", "a/b"].points > 5
    assert found["lora", "c/d"].points < -5
    assert found["lora", "c/d"].n_seeds == 2
    assert found["lora", "c/d"].low is None  # two seeds have no interval


def test_facts_are_written_merged_and_refused(tmp_path):
    path = tmp_path / "facts.json"
    first = audit(sides(0.6, 0.7)).defaults
    write_audits(first, path)
    write_audits(audit(sides(0.6, 0.5, backbone="c/d")).defaults, path)
    write_audits(audit(sides(0.6, 0.8)).defaults, path)  # replaces the first
    found = [audits._read(value) for value in json.loads(path.read_text())]
    assert [(one.backbone, one.points > 15) for one in found] == [("a/b", True), ("c/d", False)]
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(UsageError, match="holds no audits"):
        write_audits(first, tmp_path / "other.json")


def test_tables_flag_exactly_the_audited_defaults(monkeypatch):
    (fact,) = audit(sides(0.6, 0.7)).defaults
    monkeypatch.setattr(audits, "_flagged", lambda: (fact,))
    own = sides(0.6, 0.7)
    other = [
        make_record("lora", 128, config={**LORA, "rank": 4}, backbone="a/b", task="one"),
        make_record("lora", 128, config=LORA, backbone="a/b", task="two", version=2),
        make_record("lora", 128, config=LORA, backbone="c/d", task="three"),
    ]
    found = comparison([*own, *other])
    flagged = found[found["default_points_behind"].notna()]
    assert len(flagged) == 1
    assert flagged["default_points_behind"].tolist() == [fact.points]
    said = [line for panel in panels(found) for line in cautions(panel) if "audit" in line]
    assert len(said) == 1
    assert f"lora by {fact.points:.1f} points" in said[0] or "by" in said[0]


def test_what_ships_is_about_methods_as_they_are():
    for fact in audits.audited_defaults():
        assert isinstance(fact, AuditedDefault)
        assert fact in audits_of(methods.get(fact.method)), f"{fact.method} changed since its audit"


def test_the_grid_holds_each_method_as_it_is_and_tuned():
    grid = audit_grid("lora, full", trials=4)
    assert grid["methods"] == ["lora", "lora[tune=4]", "full", "full[tune=4]"]
    every = audit_grid()["methods"]
    assert {"full", "setfit", "bitfit", "gradual-unfreezing"} <= set(every)
    assert not {"majority", "linear-probe", "from-scratch", "zero-shot"} & set(every)
    suite = load_suite(grid["suite"])
    assert not any(suite.task(name).chosen_on for name in TASKS)
    with pytest.raises(UsageError, match="no learning rate"):
        audit_grid("linear-probe")
    with pytest.raises(UsageError, match="at least 2"):
        audit_grid("lora", trials=1)
