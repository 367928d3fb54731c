"""Costs beside published ones: rank correlations against scipy, and which methods are matched."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats

from harness.analysis.agreement import MIN_COMPARED, rank_agreement
from harness.methods import methods
from harness.records.record import CurvePoint
from harness.report.published import against_published
from harness.report.views.base import ReportData, sections
from harness.report.views.published import PUBLISHED
from harness.store.importing import read_results
from harness.store.importing.peft import _method_here
from tests.record_factory import make_record, with_facts


def test_the_correlation_is_scipys_and_the_interval_that_of_bonett_and_wright():
    rng = np.random.default_rng(0)
    ours = {f"m{i}": float(value) for i, value in enumerate(rng.normal(size=12).round(1))}
    theirs = {name: value + float(rng.normal()) for name, value in ours.items()} | {"alone": 1.0}
    found = rank_agreement(ours, theirs)
    names = sorted(ours)
    expected = scipy.stats.spearmanr([ours[n] for n in names], [theirs[n] for n in names])
    assert found.correlation == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)
    z, error = math.atanh(expected.statistic), math.sqrt((1 + expected.statistic**2 / 2) / 9)
    assert (found.low, found.high) == pytest.approx((math.tanh(z - 1.959964 * error), math.tanh(z + 1.959964 * error)))
    assert "alone" not in found.names


def test_the_p_value_of_few_methods_is_exact():
    """All 120 orders of five methods: the share of them with at least this correlation, on either side."""
    ours, theirs = [1.0, 2, 3, 4, 5], [1.0, 3, 2, 5, 4]
    found = rank_agreement(dict(zip("abcde", ours, strict=True)), dict(zip("abcde", theirs, strict=True)))
    all_of = [scipy.stats.spearmanr(order, theirs).statistic for order in itertools.permutations(ours)]
    at_least = sum(value >= found.correlation - 1e-9 for value in all_of)
    assert found.p_value == pytest.approx(2 * at_least / 120)


def test_the_interval_covers_what_it_says():
    """Normal pairs with a known Spearman correlation, 16 methods each: about 95 of 100 intervals contain it."""
    rng = np.random.default_rng(1)
    rho = 0.7
    true = 6 / math.pi * math.asin(rho / 2)
    inside = 0
    for _ in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=16).T
        r = scipy.stats.spearmanr(x, y).statistic
        half = 1.959964 * math.sqrt((1 + r**2 / 2) / 13)
        inside += math.tanh(math.atanh(r) - half) <= true <= math.tanh(math.atanh(r) + half)
    assert 0.90 <= inside / 200 <= 0.99


def test_the_largest_disagreement_comes_first_and_equal_figures_have_no_correlation():
    ours = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    theirs = {"a": 10.0, "b": 60.0, "c": 30.0, "d": 40.0, "e": 50.0}
    found = rank_agreement(ours, theirs)
    assert (found.names[0], found.our_ranks[0], found.their_ranks[0]) == ("b", 2.0, 5.0)
    assert rank_agreement(ours, dict.fromkeys(ours, 1.0)).correlation is None
    same = rank_agreement(ours, ours)
    assert (same.correlation, same.low, same.high) == (1.0, None, None)
    with pytest.raises(ValueError, match="at least"):
        rank_agreement({"a": 1.0}, {"a": 1.0})


def published(method, memory, seconds, **facts):
    """An imported record of 100 steps."""
    made = make_record(
        method, 64, task="theirs", backbone="big", device="GPU (imported)", config={"experiment": method}
    )
    cost = dataclasses.replace(made.cost, peak_device_bytes=memory, fit_seconds=100 * seconds, shared_weights_bytes=0)
    made = dataclasses.replace(made, cost=cost, curve=(CurvePoint(100, 1.0),))
    return with_facts(made, imported_from=f"{method}.json", method_here=method, **facts)


def own(method, memory, seconds, n_steps=10, **changes):
    """A record of our own."""
    made = make_record(method, 32, **changes)
    cost = dataclasses.replace(
        made.cost, peak_rss_above_baseline_bytes=memory, fit_seconds=n_steps * seconds, shared_weights_bytes=0
    )
    return dataclasses.replace(made, cost=cost, curve=(CurvePoint(n_steps, 1.0),))


def test_methods_of_both_are_matched_and_steps_are_divided_out():
    theirs = [published(m, 100 * i, 0.1 * i) for i, m in enumerate(("lora", "full", "ia3", "vera", "oft"), 1)]
    ours = [
        own("lora", 10, 1.0, n_steps=500),  # many steps, each of them the fastest
        own("full", 20, 2.0),
        own("ia3", 30, 3.0),
        own("vera", 50, 4.0),
        own("knn", 1, 0.1),
        own("vera", 40, 4.0, config={"rank": 1}),
    ]
    found = against_published([*theirs, *ours])
    assert set(found["cost"]) == {"memory_bytes", "step_seconds"}
    assert set(found["method"]) == {"lora", "full", "ia3", "vera"}
    assert (found["correlation"] == 1.0).all()
    step = found[found["cost"] == "step_seconds"].set_index("method")
    assert step["ours"].to_dict() == pytest.approx({"lora": 1.0, "full": 2.0, "ia3": 3.0, "vera": 4.0})
    memory = found[found["cost"] == "memory_bytes"].set_index("method")
    assert memory["ours"]["vera"] == 45  # the median of two configurations
    marked = [with_facts(record, at_defaults=record.cell.config == {"rank": 1}) for record in ours]
    memory = against_published([*theirs, *marked])
    assert memory[memory["cost"] == "memory_bytes"].set_index("method")["ours"]["vera"] == 40
    (lead, _, place, table) = dict(sections(ReportData([*theirs, *ours])))[PUBLISHED]
    assert "Spearman" in lead.markdown
    assert "AMD EPYC, 2 threads" in place.markdown
    assert [row[:2] for row in table.rows] == [
        ["docstrings, 32 labels", "peak memory"],
        ["docstrings, 32 labels", "seconds of a step"],
    ]
    assert [row[3] for row in table.rows] == ["1.00", "1.00"]


def test_too_few_methods_in_common_make_no_table():
    theirs = [published(m, 100, 0.1) for m in ("lora", "full", "ia3")]
    ours = [own(m, 10, 1.0) for m in ("lora", "full", "ia3")]
    assert MIN_COMPARED > 3
    assert against_published([*theirs, *ours]).empty
    assert against_published(ours).empty
    assert not dict(sections(ReportData(ours)))[PUBLISHED]


@pytest.mark.parametrize(
    ("peft_config", "optimizer", "expected"),
    [
        ({"init_lora_weights": True}, "AdamW", "lora"),
        ({"use_dora": True}, "AdamW", "dora"),
        ({"use_rslora": True}, "AdamW", "rslora"),
        ({"use_rslora": True, "use_dora": True}, "AdamW", None),
        ({"init_lora_weights": "mica"}, "AdamW", None),
        ({"use_bdlora": {"nblocks": 2}}, "AdamW", None),
        ({}, "lora-fa", None),
    ],
)
def test_variants_of_lora_are_methods_of_their_own_or_none(peft_config, optimizer, expected):
    assert _method_here("lora", peft_config, {"optimizer_type": optimizer}) == expected


def test_pefts_own_results_are_matched_by_type(evidence):
    records = read_results([evidence], "peft")
    by_method = {}
    for record in records:
        raw = json.loads((evidence / record.facts.imported_from).read_text())
        kind = (raw["run_info"]["peft_config"] or {}).get("peft_type")
        by_method.setdefault(record.facts.method_here, set()).add(kind)
    assert by_method["full"] == {None}
    assert by_method["dora"] == by_method["rslora"] == by_method["lora"] == {"LORA"}
    assert by_method["layer-norm"] == {"LN_TUNING"}
    assert by_method[None] == {"LORA", "MISS"}
    ours = {
        "lora",
        "dora",
        "rslora",
        "adalora",
        "fourierft",
        "ia3",
        "loha",
        "lokr",
        "oft",
        "vera",
        "full",
        "layer-norm",
    }
    assert ours | {"prefix-tuning", "prompt-tuning", "p-tuning"} <= by_method.keys() & set(methods.names())
