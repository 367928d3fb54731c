"""`compare` on releases: planted changes of scores, costs and identities are found, noise is not."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import harness
from harness.analysis.ratios import mean_log_ratio
from harness.records.jsonl import write_jsonl
from harness.records.record import Record
from harness.report.compare import Compared, compare_methods, compare_releases
from harness.support import UsageError
from tests.commands import run_apart
from tests.record_factory import make_grid, make_record, with_facts

SEEDS = range(5)


def with_cost(record: Record, **costs: float) -> Record:
    return dataclasses.replace(record, cost=dataclasses.replace(record.cost, **costs))


def timed(seconds: list[float], peak: float = 1e8, **fields: Any) -> list[Record]:
    """Cells of one configuration, one a seed, with these seconds of fitting and no other seconds of training."""
    records = [make_record("full", 512, seed, **fields) for seed in range(len(seconds))]
    return [
        with_cost(
            record, encode_seconds=0.0, tune_seconds=0.0, fit_seconds=own, peak_rss_above_baseline_bytes=int(peak)
        )
        for record, own in zip(records, seconds, strict=True)
    ]


def only(found: Compared) -> dict[str, Any]:
    (row,) = found.rows.to_dict("records")
    return row


# ---- ratios


def test_the_test_of_ratios_is_the_paired_t_test_of_logarithms() -> None:
    rng = np.random.default_rng(0)
    logs = rng.normal(0.05, 0.1, 7)
    found = mean_log_ratio(logs)
    known = scipy.stats.ttest_1samp(logs, 0.0)
    ends = known.confidence_interval(0.95)
    assert found.p_value == pytest.approx(known.pvalue)
    assert (math.log(found.low), math.log(found.high)) == pytest.approx((ends.low, ends.high))
    assert found.ratio == pytest.approx(scipy.stats.gmean(np.exp(logs)))
    shifted = scipy.stats.ttest_1samp(logs + 0.3, math.log(1.1), alternative="greater")
    assert mean_log_ratio(logs + 0.3, 0.1).p_value == pytest.approx(2 * shifted.pvalue)
    down = mean_log_ratio(-(logs + 0.3), 0.1)
    assert down.p_value == pytest.approx(2 * shifted.pvalue)
    assert mean_log_ratio([0.2] * 3).p_value == 0.0
    assert mean_log_ratio([0.05] * 3, 0.1).p_value == 1.0
    for wrong in ([], [0.1], [0.1, math.inf], [math.nan] * 3):
        with pytest.raises(ValueError, match="at least 2 finite"):
            mean_log_ratio(wrong)


@pytest.mark.parametrize("true", [0.0, math.log(1.1), -math.log(1.1)])
def test_changes_within_the_tolerance_are_rarely_called_changes(true: float) -> None:
    rng = np.random.default_rng(1)
    alarms = [mean_log_ratio(rng.normal(true, 0.05, 3), 0.1).p_value < 0.05 for _ in range(2000)]
    assert np.mean(alarms) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


# ---- scores


def test_one_seed_is_tested_as_scipy_pairs_rows() -> None:
    before, after = make_record("full", 512, 0, accuracy=0.7), make_record("full", 512, 0, accuracy=0.6)
    row = only(compare_methods([before], [after]))
    rows = [(one.predictions.predicted == one.predictions.target).astype(float) for one in (before, after)]
    known = scipy.stats.ttest_rel(rows[1], rows[0])
    assert row["p_value"] == pytest.approx(known.pvalue)
    ends = known.confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high))
    assert row["difference"] == pytest.approx(after.score.value - before.score.value)


def test_a_planted_shift_is_found_and_noise_is_not() -> None:
    """Each configuration is measured twice; the noise is that of another initialisation."""
    rng = np.random.default_rng(3)
    before, after = [], []
    for i in range(30):
        for seed in SEEDS:
            task, shift = f"t{i}", 0.12 if i == 7 else 0.0
            base = 0.7 + 0.01 * seed
            before.append(make_record("full", 512, seed, task=task, accuracy=base + rng.normal(0, 0.01)))
            again = make_record("full", 512, seed + 100, task=task, accuracy=base - shift + rng.normal(0, 0.01))
            cell = dataclasses.replace(again.cell, seed=seed)
            after.append(dataclasses.replace(again, cell=cell))
    found = compare_methods(before, after)
    told = found.rows[found.rows["verdict"] != "no difference shown"]
    assert told["task"].tolist() == ["t7"]
    assert told["verdict"].tolist() == ["worse"]
    assert found.regressions()["scores"] == 1
    # Holm's correction, by hand: the k-th smallest of n p-values counts n - k + 1 times.
    p_values = found.rows["p_value"].to_numpy(float)
    order = np.argsort(p_values)
    by_hand = np.minimum(1, np.maximum.accumulate((30 - np.arange(30)) * p_values[order]))
    assert found.rows["p_corrected"].to_numpy(float)[order] == pytest.approx(by_hand)


def test_records_that_nobody_measured_again_do_not_weaken_the_test() -> None:
    same = [record for i in range(100) for record in make_grid(("full",), (512,), task=f"t{i}")]
    before, after = (
        [make_record("lora", 512, seed, accuracy=accuracy) for seed in range(3)] for accuracy in (0.7, 0.5)
    )
    found = compare_methods([*same, *before], [*same, *after])
    row = found.rows[found.rows["method"] == "lora"].iloc[0]
    assert row["p_corrected"] == row["p_value"]
    assert row["verdict"] == "worse"
    others = found.rows[found.rows["method"] == "full"]
    assert set(others["verdict"]) == {"no difference shown"}
    assert set(others["train_verdict"]) == {"no change shown"}
    assert others["p_corrected"].isna().all()
    assert found.devices["n_configurations"].tolist() == [1, 1, 1]


def test_defaults_that_changed_are_compared() -> None:
    def default(rate: float, accuracy: float, *, is_default: bool = True) -> list[Record]:
        made = [make_record("lora", 512, seed, accuracy=accuracy, config={"rate": rate, "rank": 8}) for seed in SEEDS]
        return [with_facts(record, at_defaults=is_default) for record in made]

    row = only(compare_methods(default(0.1, 0.8), default(0.2, 0.6)))
    assert (row["verdict"], row["note"]) == ("worse", "other defaults: rate 0.1 → 0.2")
    own = default(0.1, 0.8), default(0.2, 0.6, is_default=False)
    with pytest.raises(UsageError, match="in common"):
        compare_methods(*own)


# ---- costs


def test_seconds_and_memory_are_compared_beyond_the_tolerance() -> None:
    before = timed([1.0, 1.1, 1.2, 0.9])
    slower = timed([1.5, 1.6, 1.9, 1.4], peak=1.05e8)
    row = only(compare_methods(before, slower))
    logs = np.log([1.5, 1.6 / 1.1, 1.9 / 1.2, 1.4 / 0.9])
    assert row["train_ratio"] == pytest.approx(math.exp(logs.mean()))
    assert row["train_p"] == pytest.approx(
        2 * scipy.stats.ttest_1samp(logs, math.log(1.1), alternative="greater").pvalue
    )
    assert (row["train_verdict"], row["memory_verdict"]) == ("more", "no change shown")
    assert row["memory_ratio"] == pytest.approx(1.05)
    found = compare_releases([("a", before), ("b", slower)], tolerance=0.01)
    assert only(found)["memory_verdict"] == "more"
    assert {name: n for name, n in found.regressions().items() if n} == {"train": 1, "memory": 1}
    assert only(compare_methods(slower, before))["train_verdict"] == "less"


def test_costs_are_not_compared_where_they_mean_nothing() -> None:
    before, after = timed([1.0, 1.1, 1.2]), timed([9.0, 9.1, 9.3])
    moved = [dataclasses.replace(record, device="another") for record in after]
    row = only(compare_methods(before, moved))
    assert (row["train_verdict"], row["memory_verdict"]) == ("not known", "not known")
    assert compare_methods(before, moved).devices.empty
    shared = [
        dataclasses.replace(record, provenance=dataclasses.replace(record.provenance, cells_at_a_time=2))
        for record in after
    ]
    row = only(compare_methods(before, shared))
    assert (row["train_verdict"], row["memory_verdict"]) == ("not known", "no change shown")
    disturbed = [after[0], after[1], with_facts(with_cost(after[2], fit_seconds=99.0), unsteady="swapped")]
    row = only(compare_methods(before, disturbed))
    assert row["train_ratio"] == pytest.approx(math.sqrt(9.0 / 1.0 * 9.1 / 1.1))
    assert row["train_verdict"] == "not known"  # two seeds are left


def test_a_device_has_one_ratio_over_its_configurations() -> None:
    rng = np.random.default_rng(5)
    before, after, logs = [], [], []
    for i in range(6):
        ratio = math.exp(0.3 + rng.normal(0, 0.02))
        before += timed([1.0, 2.0, 3.0], task=f"t{i}")
        after += timed([ratio, 2 * ratio, 3 * ratio], task=f"t{i}")
        logs.append(math.log(ratio))
    devices = compare_methods(before, after).devices.set_index("measure")
    ends = scipy.stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    row = devices.loc["train"]
    assert (row["ratio"], row["n_configurations"]) == (pytest.approx(math.exp(np.mean(logs))), 6)
    assert (math.log(row["low"]), math.log(row["high"])) == pytest.approx((ends.low, ends.high))


# ---- cells


def changed(before: list[Record], after: list[Record]) -> dict[tuple[str, str], tuple[int, str | None]]:
    cells = compare_releases([("a", before), ("b", after)], may_be_disjoint=True).cells
    return {
        (row["change"], row["method"]): (row["n_cells"], None if (row["why"] is None) else row["why"])
        for row in cells.astype(object).where(cells.notna(), None).to_dict("records")
    }


def test_each_part_of_the_identity_is_named() -> None:
    before = make_grid(("lora", "full", "head", "linear-probe", "tfidf"), (32,))

    def after_of(record: Record) -> Record:
        parts: dict[str, dict[str, Any]] = {
            "lora": {"config": {"batch_size": 16, "rank": 16, "init": "pissa"}},
            "full": {"version": 2},
            "head": {"data": "e" * 32},
            "linear-probe": {"weights": "0123456789", "version": 3},
            "tfidf": {},
        }
        return dataclasses.replace(record, cell=dataclasses.replace(record.cell, **parts[record.cell.method]))

    found = changed(before, [after_of(record) for record in before])
    assert found == {
        ("changed identity", "lora"): (3, "configuration: init=pissa is new, rank 8 → 16"),
        ("changed identity", "full"): (3, "method version 1 → 2"),
        ("changed identity", "head"): (3, "data dddddddd → eeeeeeee"),
        ("changed identity", "linear-probe"): (3, "method version 1 → 3; weights 53aa5117 → 01234567"),
    }


def test_new_missing_failed_and_moved_cells_are_told_apart() -> None:
    before = make_grid(("lora", "full", "head", "tfidf"), (32,))
    after = [
        *make_grid(("linear-probe",), (32,)),
        *(record for record in before if record.cell.method == "tfidf"),
        *(dataclasses.replace(record, device="b") for record in before if record.cell.method == "head"),
        *(make_record("full", 32, seed, status="out_of_memory", error="no room") for seed in range(3)),
    ]
    assert changed(before, after) == {
        ("new", "linear-probe"): (3, ""),
        ("missing", "lora"): (3, ""),
        ("another device", "head"): (3, "AMD EPYC, 2 threads → b"),
        ("failed", "full"): (3, "ok → out of memory: no room"),
    }
    assert changed(after, before)["succeeded", "full"] == (3, "out of memory → ok")


def test_configurations_are_matched_with_the_nearest_and_never_guessed() -> None:
    def cells(*configs: dict[str, Any]) -> list[Record]:
        return [make_record("lora", 32, 0, config=config) for config in configs]

    found = compare_releases(
        [
            ("a", cells({"rank": 4, "rate": 1}, {"rank": 8, "rate": 1})),
            ("b", cells({"rank": 4, "rate": 1, "init": "x"}, {"rank": 8, "rate": 1, "init": "x"})),
        ],
        may_be_disjoint=True,
    ).cells
    assert found["change"].tolist() == ["changed identity"] * 2
    assert set(found["why"]) == {"configuration: init=x is new"}
    ambiguous = changed(cells({"rank": 4}, {"rank": 8}), cells({"rank": 16}, {"rank": 32}))
    assert {change for change, _ in ambiguous} == {"new", "missing"}


# ---- several releases


def test_each_release_is_compared_with_the_one_before() -> None:
    first = make_grid(("full", "lora"), (512,))
    second = [make_record("full", 512, seed, accuracy=0.3) for seed in range(3)] + first[3:]
    found = compare_releases([("one", first), ("two", second), ("three", first)])
    rows = found.rows.set_index(["method", "release_a", "release_b"])["verdict"]
    assert rows["full", "one", "two"] == "worse"
    assert rows["full", "two", "three"] == "better"
    assert set(rows["lora"]) == {"no difference shown"}
    assert len(found.rows) == 4


def made_by(records: list[Record], version: str) -> list[Record]:
    return [
        dataclasses.replace(record, provenance=dataclasses.replace(record.provenance, harness=version))
        for record in records
    ]


def test_versions_of_the_harness_are_releases() -> None:
    old, new = make_grid(("full",), (512,)), [make_record("full", 512, seed, accuracy=0.3) for seed in range(3)]
    found = harness.compare([*made_by(new, "0.10.0"), *made_by(old, "0.9.1")], by="version")
    row = only(found)
    assert (row["release_a"], row["release_b"], row["verdict"]) == ("0.9.1", "0.10.0", "worse")
    with pytest.raises(UsageError, match=r"one version of the harness, 0\.1\.0"):
        harness.compare(old, by="version")
    with pytest.raises(UsageError, match="expected version or commit"):
        harness.compare(old, by="week")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected 0 or more"):
        harness.compare(old, new, cost_tolerance=-1)


@pytest.mark.parametrize(
    ("change", "codes"),
    [("none", (0, 0, 0)), ("score", (1, 1, 0)), ("seconds", (0, 1, 0)), ("missing", (0, 1, 0)), ("failed", (0, 1, 0))],
)
def test_exit_codes(change: str, codes: tuple[int, int, int], tmp_path: Path) -> None:
    before = timed([1.0, 1.1, 1.2]) + make_grid(("lora",), (512,))
    after = {
        "none": before,
        "score": [*before[:3], *(make_record("lora", 512, seed, accuracy=0.2) for seed in range(3))],
        "seconds": [*timed([2.0, 2.1, 2.3]), *before[3:]],
        "missing": before[:-1],
        "failed": [*before[:-1], make_record("lora", 512, 2, status="failed")],
    }[change]
    write_jsonl(before, tmp_path / "a.jsonl")
    write_jsonl(after, tmp_path / "b.jsonl")
    for option, code in zip(([], ["--fail-on-regression"], ["--no-fail-on-regression"]), codes, strict=True):
        assert run_apart("compare", "a.jsonl", "b.jsonl", *option, cwd=tmp_path)[0] == code, option
    assert run_apart("compare", "a.jsonl", cwd=tmp_path)[0] == 2
