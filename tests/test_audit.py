"""Audits of default settings: paired differences in points, the flag, and where it is shown."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from harness.advice.answer import answer_question
from harness.advice.question import Question
from harness.api.auditing import TASKS, audit_grid
from harness.cli import advised
from harness.cli.catalogue import audits_of
from harness.methods.base import methods
from harness.planning.suites import load_suite
from harness.records import audits
from harness.records.audits import AuditedDefault, write_audits
from harness.report.auditing import audit
from harness.report.blocks import TableBlock, markdown_table
from harness.report.caption import cautions
from harness.report.latex import latex_pivot
from harness.report.learning_rates import best_rates
from harness.report.panels import panels
from harness.report.pivot import pivot_table
from harness.report.tables import comparison
from harness.report.views.base import ReportData, panel_blocks
from harness.support.errors import UsageError
from tests.record_factory import make_record, with_facts

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


def other(n_right, task="one", seed=0, at_defaults=None, n_trainable=1000, **config):
    """A record of 1,000 test rows, of which a run of `n_right` is right; other tasks have other rows."""
    made = make_record("lora", 128, seed, task=task, backbone="a/b", n_test=1000, config={**LORA, **config})
    target = made.predictions.target
    correct = (np.arange(1000) + 37 * seed) % 1000 < n_right
    predictions = dataclasses.replace(made.predictions, predicted=np.where(correct, target, (target + 1) % 12))
    made = dataclasses.replace(
        made,
        predictions=predictions,
        score=dataclasses.replace(made.score, value=n_right / 1000),
        cost=dataclasses.replace(made.cost, n_trainable=n_trainable),
    )
    return with_facts(made, at_defaults=at_defaults)


def grid(scores, seeds=(0, 1, 2)):
    """Records of settings `rate` by task: {task: {rate: right rows}}; the default has the rate None."""
    return [
        other(n, task, seed, at_defaults=rate is None, **({} if rate is None else {"rate": rate}))
        for task, by_rate in scores.items()
        for rate, n in by_rate.items()
        for seed in seeds
    ]


def test_other_settings_are_chosen_on_other_tasks():
    scores = {
        "one": {None: 600, 1: 700, 2: 650},
        "two": {None: 600, 1: 640, 2: 690},
        "three": {None: 600, 1: 700, 2: 610},
    }
    found = audit(grid(scores))
    # By hand: `one` goes by two and three (rate 1: +70, 2: +50), `two` by one and three (1: +100, 2: +30), `three` by
    # one and two (1: +70, 2: +70; the first in order).
    (over,) = found.defaults
    assert over.points == pytest.approx((10 + 4 + 10) / 3, abs=1e-3)
    assert (over.held_out, over.better, over.n_trials) == ("tasks", {"rate": 1}, 2)
    assert over.is_behind
    assert over.said.startswith("rate=1 does best of 3; settings chosen on other tasks score +8.0 points")
    assert {place.task: place.settings[0] for place in found.places} == {task: {"rate": 1} for task in scores}


def test_the_best_of_many_by_chance_is_no_evidence():
    """Forty settings that are the default in all but noise: the best is ahead, and a flag would be wrong."""
    rng = np.random.default_rng(3)
    records = [
        other(600 + (int(rng.normal(0, 50)) if rate else 0), task, 0, rate == 0, **({"rate": rate} if rate else {}))
        for task in ("one", "two", "three", "four")
        for rate in range(40)
    ]
    by_rate = [np.mean([r.score.value for r in records if r.cell.config.get("rate", 0) == rate]) for rate in range(40)]
    assert 100 * (max(by_rate) - by_rate[0]) > 2
    (found,) = audit(records).defaults
    assert found.points < 100 * (max(by_rate) - by_rate[0]) - 2


def test_one_task_is_judged_on_other_seeds_and_rows():
    (found,) = audit(grid({"one": {None: 600, 1: 700, 2: 500}})).defaults
    assert (found.held_out, found.better) == ("seeds and test rows", {"rate": 1})
    assert found.points == pytest.approx(10, abs=1e-3)
    assert found.is_behind
    assert not audit(grid({"one": {None: 600, 1: 700}}, seeds=(0,))).defaults  # nothing else to choose on


def test_one_task_without_a_difference_is_not_flagged_for_the_best_of_many():
    """Thirty settings on one task, each right on 60 % of the rows by chance."""
    rng = np.random.default_rng(0)
    records = []
    for rate in range(30):
        for seed in (0, 1, 2):
            made = other(600, "one", seed, rate == 0, **({"rate": rate} if rate else {}))
            correct = rng.random(1000) < 0.6
            target = made.predictions.target
            predictions = dataclasses.replace(made.predictions, predicted=np.where(correct, target, (target + 1) % 12))
            score = dataclasses.replace(made.score, value=float(correct.mean()))
            records.append(dataclasses.replace(made, predictions=predictions, score=score))
    (found,) = audit(records).defaults
    best = max(np.mean([r.score.value for r in records[3 * i : 3 * i + 3]]) for i in range(30))
    assert 100 * best - found.default > 1.0
    assert not found.is_behind
    assert abs(found.points) < 1.5


def test_only_known_defaults_and_settings_of_the_same_size_count():
    scores = {"one": {None: 600, 1: 700}, "two": {None: 600, 1: 700}}
    unknown = [with_facts(record, at_defaults=None) for record in grid(scores)]
    assert not audit(unknown).defaults
    assert audit(unknown, {"lora": LORA}).defaults == audit(grid(scores)).defaults
    assert not audit(unknown, {"lora": {**LORA, "rank": 4}}).defaults
    larger = [
        dataclasses.replace(r, cost=dataclasses.replace(r.cost, n_trainable=2000)) if "rate" in r.cell.config else r
        for r in grid(scores)
    ]
    assert not audit(larger).defaults


def test_a_scaled_default_is_compared_with_given_rates_of_the_version_before():
    """On wide backbones the default rate falls, and its cells carry a version one higher."""
    records = grid({"one": {None: 600, 1: 700}, "two": {None: 600, 1: 700}})
    wide = [
        dataclasses.replace(r, cell=dataclasses.replace(r.cell, version=1 if "rate" in r.cell.config else 2))
        for r in records
    ]
    assert not audit(wide).defaults
    scaled = [r if "rate" in r.cell.config else with_facts(r, learning_rate=5e-5) for r in wide]
    (found,) = audit(scaled).defaults
    assert (found.version, found.is_behind) == (2, True)


def test_a_report_flags_the_defaults_that_its_own_records_show_to_be_behind():
    records = grid({"one": {None: 600, 1: 700}, "two": {None: 600, 1: 700}})
    report = ReportData(records)
    flagged = report.comparison[report.comparison["default_points_behind"].notna()]
    assert set(flagged["variant"]) == {"lora"}
    assert set(flagged["default_better"]) == {"rate=1"}
    for panel in report.panels:
        assert panel.behind == {"lora"}
        assert "lora §" in markdown_table(pivot_table(panel))
        assert r"lora \S{}" in latex_pivot(panel)
        said = " ".join(cautions(panel))
        assert "§ Default settings that are behind others" in said
        assert "lora by 10.0 points (rate=1 does better)" in said
        blocks = list(panel_blocks(report, panel))
        shown = "\n".join(
            markdown_table(block) if isinstance(block, TableBlock) else getattr(block, "markdown", "")
            for block in blocks
        )
        assert "tied with it: lora §" in shown or "lora §" in shown


def rated(method, rates, backbone="a/b", tasks=("one", "two"), **facts):
    """Records of a method at several learning rates: {rate: right rows of 1,000}."""
    made = []
    for rate, n in rates.items():
        for task in tasks:
            for seed in (0, 1, 2):
                record = other(n, task, seed, learning_rate=rate)
                cell = dataclasses.replace(record.cell, method=method, backbone=backbone)
                made.append(with_facts(dataclasses.replace(record, cell=cell), **facts))
    return made


def test_best_rates_are_multiples_of_that_of_full():
    records = rated("full", {1e-5: 600, 1e-4: 800, 1e-3: 400})
    records += rated("lora", {1e-4: 500, 1e-3: 799, 2e-3: 800, 1e-2: 300})
    records += rated("lora", {1e-3: 700, 1e-2: 710}, backbone="c/d")
    found = {(one.method, one.backbone): one for one in best_rates(records)}
    lora = found["lora", "a/b"]
    assert (lora.rate, lora.low, lora.high) == (2e-3, 1e-3, 2e-3)  # one row of 1,000 tells nothing
    assert (lora.ratio, lora.ratio_low, lora.ratio_high) == pytest.approx((20, 10, 20))
    assert (lora.is_at_end, found["lora", "c/d"].is_at_end) == (False, True)
    assert found["lora", "c/d"].ratio is None  # no `full` on that backbone
    assert (lora.tasks, lora.sizes, lora.n_seeds, lora.score) == (("one", "two"), (128,), 3, 80.0)


def test_only_places_with_all_rates_count_and_rates_as_they_were_used():
    records = rated("full", {1e-5: 600, 1e-4: 700})
    records += rated("full", {1e-5: 900}, tasks=("three",))  # one rate: no comparison
    (found,) = best_rates(records)
    assert (found.rate, found.tasks) == (1e-4, ("one", "two"))
    scaled = rated("full", {1e-5: 600}) + rated("full", {1e-4: 700}, learning_rate=5e-5)
    (found,) = best_rates(scaled)
    assert (found.rate, found.rates) == (5e-5, (1e-5, 5e-5))
    assert not best_rates(rated("full", {1e-5: 600}))


def test_what_ships_is_about_methods_as_they_are():
    for fact in audits.audited_defaults():
        assert isinstance(fact, AuditedDefault)
        assert fact in audits_of(methods.get(fact.method)), f"{fact.method} changed since its audit"
        assert fact.is_behind or fact.held_out is None  # others are no audit of their own


def test_the_grid_of_rates_has_full_and_each_rate_but_the_default():
    own = methods.get("lora").model_fields["learning_rate"].default
    grid = audit_grid("lora", rates=f"1e-2,1e-5,{own}")
    assert [name for name in grid["methods"] if name.startswith("lora")] == [
        "lora",
        "lora[learning_rate=1e-05]",
        "lora[learning_rate=0.01]",
    ]
    assert grid["methods"][0] == "full"
    assert audit_grid("full", rates=[1e-5, 1e-2])["methods"][1:] == [
        "full[learning_rate=1e-05]",
        "full[learning_rate=0.01]",
    ]
    for wrong in ("1e-3", "0,1e-3", "a,b", "-1,2"):
        with pytest.raises(UsageError, match="rates"):
            audit_grid("lora", rates=wrong)


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


def test_advice_marks_flagged_defaults(monkeypatch):
    (fact,) = audit(sides(0.6, 0.7)).defaults
    monkeypatch.setattr(audits, "_flagged", lambda: (fact,))
    records = [record for task in ("one", "two", "three") for record in sides(0.6, 0.7, task)]
    answer = answer_question(Question(n_train=128), records)
    found = {choice.method: choice for choice in answer.choices}
    assert found["lora"].default_points_behind == fact.points
    assert found["lora"].default_better == "tune=8"
    assert found["lora[tune=8]"].default_better is None
    console = Console(width=200, record=True, file=io.StringIO())
    monkeypatch.setattr(advised, "make_console", lambda: console)
    advised.show(answer, 0, "r.jsonl", reference=False, every=True)
    said = " ".join(console.export_text().split())
    assert "lora §" in said
    assert f"lora by {fact.points:.1f} points (tune=8 does better)" in said
