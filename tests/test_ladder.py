"""Learning ladders: which configurations share a line, and how many parameters are enough."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harness.records.predictions import Predictions
from harness.records.record import Record
from harness.report.ladder import MIN_NUMBERS, ladders, places, said_of
from harness.report.views.base import ReportData, sections
from harness.report.views.ladders import LADDERS, draw_ladder
from tests.record_factory import BACKBONE, make_record, with_facts

N_TEST = 1000


def rung(method: str, n_trainable: int, n_right: int, seed: int = 0, role: str = "fine-tuning", **config) -> Record:
    """A record that answers the first `n_right` of 1,000 rows right: rows that others get right, and some more."""
    record = make_record(method, 64, seed, n_test=N_TEST, config={"batch_size": 16, **config}, backbone=BACKBONE)
    target = np.random.default_rng(7).integers(0, 12, size=N_TEST)
    right = (np.arange(N_TEST) + 13 * seed) % N_TEST < n_right
    predictions = Predictions(rows="rows", predicted=np.where(right, target, (target + 1) % 12), target=target)
    assert record.score is not None
    score = dataclasses.replace(record.score, value=n_right / N_TEST, low=None, high=None)
    cost = dataclasses.replace(record.cost, n_trainable=n_trainable)
    return with_facts(dataclasses.replace(record, score=score, cost=cost, predictions=predictions), role=role)


def ladder(scores: dict[int, int], seeds=(0, 1, 2), method: str = "lora") -> list[Record]:
    """Records of a method's ranks, with 100 parameters a rank."""
    return [rung(method, 100 * rank, n, seed, rank=rank) for rank, n in scores.items() for seed in seeds]


def only(records: list[Record]) -> pd.DataFrame:
    (place,) = places(ladders(records))
    return place


def test_the_fewest_parameters_within_a_point_that_are_not_worse():
    place = only(ladder({1: 700, 2: 800, 4: 896, 8: 897, 16: 900}))
    assert list(place["n_trainable"]) == [100, 200, 400, 800, 1600]
    assert list(place["variant"][place["is_best"]]) == ["lora[rank=16]"]
    assert list(place["variant"][place["saturates"]]) == ["lora[rank=4]"]
    assert place["behind"].to_list() == pytest.approx([0.2, 0.1, 0.004, 0.003, 0.0])
    said = said_of(place)
    assert said.startswith("lora[rank=4] with 400 trainable parameters (0.896)")
    assert said.endswith("All 2 with fewer are shown to be worse.")


def test_intervals_are_those_of_paired_rows():
    """One seed: the interval of the difference is that of a paired t-test over test rows."""
    records = ladder({1: 700, 2: 800, 4: 880, 8: 900}, seeds=(0,))
    row = only(records).set_index("variant").loc["lora[rank=4]"]
    right = [(r.predictions.predicted == r.predictions.target).astype(float) for r in records if r.predictions]
    difference = right[3] - right[2]
    half = stats.t.ppf(0.975, N_TEST - 1) * difference.std(ddof=1) / np.sqrt(N_TEST)
    assert (row["behind_low"], row["behind_high"]) == pytest.approx((0.02 - half, 0.02 + half))
    assert "there is one seed" in said_of(only(records))


def test_enough_needs_the_whole_interval_within_the_margin():
    # One row of 1,000 differs: 0.1 points, and the interval ends below a point.
    place = only(ladder({1: 700, 2: 800, 4: 899, 8: 900}))
    first = place[place["saturates"]].iloc[0]
    assert (first["variant"], first["behind_high"] <= 0.01) == ("lora[rank=4]", True)
    assert " is enough: 0.1 points behind" in said_of(place)
    # Nine rows: the mean is within a point, the interval is not.
    wide = only(ladder({1: 700, 2: 800, 4: 891, 8: 900}))
    first = wide[wide["is_within"] & ~wide["is_best"]].iloc[0]
    assert first["behind_high"] > 0.01
    assert " is enough" not in said_of(wide)


def test_no_saturation_where_the_largest_is_ahead_of_all():
    said = said_of(only(ladder({1: 500, 2: 600, 4: 700, 8: 800})))
    assert said.startswith("No saturation: lora[rank=8] with 800 trainable parameters (0.800) is the best")
    assert said.endswith("All 3 with fewer are shown to be worse.")


def test_it_cannot_be_told_without_tests_or_differences():
    assert said_of(only(ladder({1: 500, 2: 600, 4: 700, 8: 800}, seeds=(0, 1)))).startswith(
        "It cannot be told: 2 seeds are too few"
    )
    alike = said_of(only(ladder({1: 799, 2: 799, 4: 800, 8: 799})))
    assert alike.startswith("It cannot be told: no configuration is shown to be worse")
    assert "lora[rank=1] with 100" in alike


def test_a_best_with_the_fewest_parameters_or_none_near_it_is_said_once():
    smallest = said_of(only(ladder({1: 900, 2: 700, 4: 700, 8: 700})))
    assert (
        smallest == "lora[rank=1] with 100 trainable parameters (0.900) is the best, and no configuration has fewer "
        "parameters."
    )
    far = only(ladder({1: 850, 2: 860, 4: 870, 8: 900}))
    largest = said_of(far.assign(is_tied=True))  # as with few test rows
    assert largest.startswith("It cannot be told: no configuration is shown to be worse than the best, lora[rank=8]")
    assert "None with fewer is within 1 point of it." in largest


def test_configurations_that_differ_in_size_only_share_a_line():
    records = ladder({1: 700, 2: 800, 4: 850})
    records += [rung("lora", 400, 840, seed, rank=4, learning_rate=1) for seed in (0, 1, 2)]
    records += [rung("full", 90_000, 860, seed) for seed in (0, 1, 2)]
    lines = dict(only(records)[["variant", "line"]].itertuples(index=False, name=None))
    assert len({line for variant, line in lines.items() if "learning_rate" not in variant and "lora" in variant}) == 1
    assert len(set(lines.values())) == 3
    assert lines["full"] == "full"


def test_methods_that_adapt_no_backbone_are_left_out_and_few_numbers_make_no_ladder():
    records = ladder({1: 700, 2: 800, 4: 850, 8: 860})
    others = [rung("from-scratch", 5000, 900, role="from scratch"), make_record("tfidf", 64, backbone=None)]
    assert not {"from-scratch", "tfidf"} & set(only([*records, *others])["variant"])
    few = ladder({2**i: 700 + i for i in range(MIN_NUMBERS - 1)})
    assert ladders(few).empty
    assert list(ladders(few).columns) == list(ladders(records).columns)


def test_lower_is_better_turns_the_sign():
    records = []
    for record in ladder({1: 700, 2: 300, 4: 200, 8: 201}):
        assert record.score is not None
        records.append(dataclasses.replace(record, score=dataclasses.replace(record.score, higher_is_better=False)))
    place = only(records).set_index("variant")
    assert place["behind"].to_dict() == pytest.approx(
        {"lora[rank=1]": 0.5, "lora[rank=2]": 0.1, "lora[rank=4]": 0.0, "lora[rank=8]": 0.001}
    )
    assert place["behind_low"]["lora[rank=1]"] < 0.5 < place["behind_high"]["lora[rank=1]"]
    assert place["saturates"]["lora[rank=4]"]


def test_the_report_has_a_part_with_a_sentence_and_a_figure_for_each_task():
    records = ladder({1: 700, 2: 800, 4: 896, 8: 897, 16: 900})
    records += [rung("knn", 0, 600, seed, role="frozen features") for seed in (0, 1, 2)]
    blocks = dict(sections(ReportData(records)))[LADDERS]
    shown = "\n".join(getattr(block, "markdown", "") for block in blocks)
    assert "lora\\[rank=4\\] with 400 trainable parameters" in shown
    (axes,) = draw_ladder(ladders(records)).axes
    assert axes.get_xscale() == "log"
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "none"  # 0 parameters have a place of their own
    assert "1,000" in labels
    assert not dict(sections(ReportData(records[:3])))[LADDERS]


def test_the_axis_names_powers_of_ten():
    records = [rung("lora", n, 700, rank=n) for n in (300, 40_000, 5_000_000, 3_000_000_000)]
    (axes,) = draw_ladder(ladders(records)).axes
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["100", "1,000", "10k", "100k", "1M", "10M", "100M", "1B", "10B"]
