"""Pairs, ties and ranks: against scipy, against by-hand computation, against brute force."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from harness.analysis import ranks, stats
from harness.metrics import metrics
from harness.metrics.rows import pseudo_values
from harness.records.predictions import Predictions
from harness.records.record import Score
from harness.report.across import across_tasks
from harness.report.compare import compare_methods
from harness.report.contrasts import standings, tied_with_best
from harness.report.tables import comparison
from harness.report.views.across import across_frame
from harness.report.views.gaps import overfitting_gaps
from harness.report.views.pairs import all_pairs
from harness.report.views.transfer import transfer_gains
from harness.support.errors import UsageError
from tests.record_factory import make_grid, make_predictions, make_record

# ---- many comparisons


def test_holm_is_the_step_down_of_the_paper():
    # Holm's own example of four hypotheses: times 4, 3, 2 and 1, never falling.
    assert ranks.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ranks.holm([None, 0.5, 0.6]) == [None, 1.0, 1.0]
    assert ranks.holm([]) == []


def test_friedman_is_scipys_and_the_critical_differences_are_those_of_demsars_table():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(9, 5)).round(1)  # with ties
    found = ranks.rank(scores, [True] * 9)
    expected = scipy.stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    # Table 5(a) of Demsar (2006): q at 0.05 for 2, 3, 5 and 10 classifiers.
    for k, q in ((2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)):
        width = ranks.rank(rng.normal(size=(14, k)), [True] * 14).critical_difference
        assert width == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=1e-3)
    lower = ranks.rank(scores, [False] * 9).mean_ranks
    assert np.asarray(lower) + np.asarray(found.mean_ranks) == pytest.approx(6)


def test_ranks_over_fewer_than_five_tasks_are_not_tested():
    scores = np.random.default_rng(0).normal(size=(5, 4))
    few, enough = ranks.rank(scores[:4], [True] * 4), ranks.rank(scores, [True] * 5)
    assert (few.statistic, few.p_value, few.critical_difference) == (None, None, None)
    assert few.mean_ranks == tuple(scipy.stats.rankdata(-scores[:4], axis=1).mean(axis=0))
    assert enough.p_value == pytest.approx(scipy.stats.friedmanchisquare(*scores.T).pvalue)


def test_bars_join_what_is_not_apart():
    assert ranks.cliques([1.0, 1.5, 2.9, 4.0], 1.5) == [(0, 1), (1, 2), (2, 3)]
    assert ranks.cliques([1.0, 4.0], 1.5) == []
    assert ranks.cliques([2.0, 1.0, 1.5], 5) == [(0, 2)]


# ---- what a row adds


def test_pseudo_values_of_a_mean_are_its_rows():
    predictions = make_predictions(0.7, 50, key=("a",))
    found = pseudo_values("accuracy", predictions)
    assert found == pytest.approx((predictions.predicted == predictions.target).astype(float))


@pytest.mark.parametrize("metric", ["macro_f1", "matthews"])
def test_pseudo_values_are_those_of_leaving_out_each_row(metric):
    rng = np.random.default_rng(1)
    target = rng.integers(0, 3, 40)
    predicted = np.where(rng.random(40) < 0.7, target, rng.integers(0, 3, 40))
    spec = metrics.get(metric)
    whole = spec.compute(predicted, target)
    by_hand = [40 * whole - 39 * spec.compute(np.delete(predicted, row), np.delete(target, row)) for row in range(40)]
    assert pseudo_values(metric, Predictions("r", predicted, target)) == pytest.approx(by_hand)


def test_bleu_has_pseudo_values_whose_spread_is_that_of_the_bootstrap():
    rng = np.random.default_rng(3)
    words = ["the", "a", "dog", "cat", "runs", "sees", "big", "small", "house", "tree"]
    references = [[" ".join(rng.choice(words, 9))] for _ in range(150)]
    texts = [" ".join(w if rng.random() < 0.7 else rng.choice(words) for w in right[0].split()) for right in references]
    spec = metrics.get("bleu")
    statistics = spec.row_statistics(texts, references)
    found = pseudo_values("bleu", Predictions("r", statistics=statistics))
    error = found.std(ddof=1) / math.sqrt(len(found))
    drawn = [rng.integers(0, 150, 150) for _ in range(400)]
    spread = np.std([spec.from_statistics({name: array[rows] for name, array in statistics.items()}) for rows in drawn])
    assert error == pytest.approx(spread, rel=0.2)


def test_metrics_that_are_not_known_or_not_stored_have_none():
    assert pseudo_values("loss", make_predictions(0.7, 50, key=("a",))) is None
    assert pseudo_values("bleu", make_predictions(0.7, 50, key=("a",))) is None


# ---- pairs and ties


def correctness(record):
    return (record.predictions.predicted == record.predictions.target).astype(float)


def test_with_one_seed_the_pair_is_the_paired_t_test_over_rows():
    records = make_grid(methods=("full", "linear-probe", "tfidf"), sizes=(2048,), seeds=(0,))
    by = {record.cell.method: correctness(record) for record in records}
    pairs = all_pairs(records).set_index(["variant", "baseline"])
    assert len(pairs) == 3
    for (a, b), row in pairs.iterrows():
        assert row["p_value"] == pytest.approx(scipy.stats.ttest_rel(by[a], by[b]).pvalue)
        assert row["basis"] == "test rows only"
    assert pairs["p_corrected"].tolist() == ranks.holm(pairs["p_value"].tolist())


def test_who_is_tied_is_what_paired_tests_with_holms_correction_say():
    records = make_grid(methods=("full", "lora", "linear-probe", "tfidf"), sizes=(512,))
    table = standings(records).set_index("variant")
    by = {m: np.stack([correctness(r) for r in records if r.cell.method == m]) for m in table.index}
    means = {method: rows.mean() for method, rows in by.items()}
    best = max(means, key=means.get)
    assert table.index[0] == best
    others = [method for method in table.index if method != best]
    expected = ranks.holm([stats.paired_difference(by[best], by[method]).p_value for method in others])
    assert table.loc[others, "p_value"].tolist() == expected
    assert table.loc[others, "is_tied"].tolist() == [p >= 0.05 for p in expected]
    assert tied_with_best(standings(records)) == [m for m, p in zip(others, expected, strict=True) if p >= 0.05]
    assert table.loc[others, "behind"].tolist() == pytest.approx([means[best] - means[method] for method in others])


def test_methods_without_labels_stand_at_every_size_and_are_paired_with_every_seed():
    free = make_record("zero-shot", 0, 0, accuracy=0.6)
    records = [*make_grid(methods=("linear-probe",), sizes=(32, 128)), free]
    table = standings(records)
    assert table.groupby("n_train")["variant"].apply(sorted).to_dict() == {
        32: ["linear-probe", "zero-shot"],
        128: ["linear-probe", "zero-shot"],
    }
    probe = np.stack([correctness(r) for r in records if r.cell.n_train == 128])
    expected = stats.paired_difference(probe, np.stack([correctness(free)] * 3))
    row = table[(table["n_train"] == 128) & ~table["is_best"]].iloc[0]
    assert (row["behind"], row["n_rows"], row["n_seeds"]) == (pytest.approx(abs(expected.mean)), 200, 3)


def test_a_lower_metric_turns_everything_round():
    records = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, metric="perplexity", higher_is_better=False))
        for r in make_grid(methods=("full", "tfidf"), sizes=(2048,))
    ]
    table = standings(records)
    assert table["variant"].tolist() == ["tfidf", "full"]
    assert table["behind"].iloc[1] > 0


def test_what_has_no_rows_is_compared_without_pairing():
    bare = [dataclasses.replace(r, predictions=None) for r in make_grid(methods=("full", "tfidf"), sizes=(512,))]
    (row,) = all_pairs(bare).to_dict("records")
    scores = {m: [r.score.value for r in bare if r.cell.method == m] for m in ("full", "tfidf")}
    expected = scipy.stats.ttest_ind(scores["full"], scores["tfidf"], equal_var=False)
    assert (row["p_value"], row["n_rows"], row["basis"]) == (pytest.approx(expected.pvalue), 0, "seeds only")
    nothing = [dataclasses.replace(r, score=dataclasses.replace(r.score, low=None, high=None)) for r in bare]
    alone = standings([r for r in nothing if r.cell.seed == 0])
    assert alone["is_tied"].isna().tolist() == [False, True]


def test_transfer_is_what_from_scratch_lacks():
    records = make_grid(methods=("full", "lora", "tfidf"), sizes=(128,))
    scratch = [make_record("from-scratch", 128, seed, accuracy=0.3) for seed in range(3)]
    gains = transfer_gains([*records, *scratch])
    assert gains["variant"].tolist() == ["lora", "full"] or gains["variant"].tolist() == ["full", "lora"]
    assert (gains["difference"] > 0.1).all()
    assert transfer_gains(records).empty


def test_the_gap_is_training_less_test_score():
    gaps = overfitting_gaps(comparison(make_grid(methods=("full",), sizes=(32,))))
    assert gaps["gap"].iloc[0] == pytest.approx(gaps["train_score"].iloc[0] - gaps["score"].iloc[0])


# ---- across tasks


def test_a_ranking_names_what_it_leaves_out():
    records = [r for task in ("a", "b", "c") for r in make_grid(methods=("full", "tfidf"), sizes=(128,), task=task)]
    records += make_grid(methods=("lora",), sizes=(128,), task="a")
    (found,) = across_tasks(records)
    assert found.tasks == ("a", "b", "c")
    assert found.methods == ("full", "tfidf")
    assert found.ranking.mean_ranks == (1.0, 2.0)
    assert found.left_out == ["lora"]
    assert found.n_tasks == {"full": 3, "tfidf": 3, "lora": 1}
    frame = across_frame([found])
    assert frame["n_tasks"].tolist() == [3, 3, 1]
    assert frame["mean_rank"].isna().tolist() == [False, False, True]
    assert across_tasks(make_grid(sizes=(32,))) == []


def test_means_over_tasks_are_made_of_one_metric_only():
    records = make_grid(methods=("full", "tfidf"), sizes=(128,), task="a")
    other = make_grid(methods=("full", "tfidf"), sizes=(128,), task="b")
    assert across_tasks(records) == []
    (same,) = across_tasks(records + other)
    scores = [r.score.value for r in records + other if r.cell.method == "full"]
    assert same.means[same.methods.index("full")] == pytest.approx(np.mean(scores))
    mixed = [dataclasses.replace(r, score=dataclasses.replace(r.score, metric="f1")) for r in other]
    (found,) = across_tasks(records + mixed)
    assert found.means is None


# ---- two collections


def test_a_collection_is_no_better_than_itself():
    records = make_grid(methods=("full", "tfidf"), sizes=(32, 128))
    found = compare_methods(records, records)
    assert (found.rows["difference"] == 0).all()
    assert set(found.rows["verdict"]) == {"no difference shown"}
    assert (found.only_a, found.only_b) == (0, 0)
    assert (found.rows["train_ratio"] == 1).all()


def test_what_got_worse_is_said_and_another_device_is_no_time():
    before = make_grid(methods=("full", "tfidf"), sizes=(512,))
    after = [
        make_record("full", 512, seed, accuracy=0.4, device="other", seconds=5.0) if r.cell.method == "full" else r
        for r in before
        for seed in [r.cell.seed]
    ]
    rows = compare_methods(before, after).rows.set_index("method")
    assert rows.loc["full", "verdict"] == "worse"
    assert rows.loc["full", "note"] == "another device"
    assert pd.isna(rows.loc["full", "train_ratio"])
    assert rows.loc["tfidf", "verdict"] == "no difference shown"
    assert rows["n_rows"].tolist() == [200, 200]


def test_devices_are_compared_with_themselves():
    slow = make_grid(methods=("full",), sizes=(512,), device="slow")
    fast = [dataclasses.replace(r, device="fast", cost=dataclasses.replace(r.cost, fit_seconds=0.1)) for r in slow]
    found = compare_methods(slow + fast, slow + fast)
    assert len(found.rows) == 2
    assert found.rows["train_ratio"].tolist() == [1.0, 1.0]
    assert set(found.rows["note"]) == {"the same records"}
    (row,) = compare_methods(slow, fast).rows.to_dict("records")
    assert row["note"] == "another device"
    with pytest.raises(UsageError, match="in common"):
        compare_methods(slow, [*fast, *(dataclasses.replace(r, device="third") for r in slow)])


def test_backbones_with_one_name_are_not_mixed():
    records = [
        r for name in ("a/bert", "b/bert") for r in make_grid(methods=("full", "lora"), sizes=(32,), backbone=name)
    ]
    table = standings(records)
    assert table["is_best"].sum() == 1
    assert set(table["variant"]) == {f"{method} · {name}/bert" for method in ("full", "lora") for name in "ab"}


def test_a_mended_method_is_compared_with_what_it_was():
    before = [make_record("full", 512, seed, accuracy=0.5) for seed in range(3)]
    after = [make_record("full", 512, seed, accuracy=0.8, version=2) for seed in range(3)]
    (row,) = compare_methods(before, after).rows.to_dict("records")
    assert (row["verdict"], row["note"]) == ("better", "another version")


def test_scores_that_are_no_means_of_rows_have_intervals_over_both():
    rng = np.random.default_rng(0)
    records = []
    for seed in range(3):
        record = make_record("full", 512, seed)
        target = record.predictions.target % 2
        predicted = np.where(rng.random(target.size) < 0.85, target, 1 - target)
        value = metrics.get("matthews").compute(predicted, target)
        predictions = Predictions("rows", predicted, target)
        score = Score("matthews", value, None, None, True, target.size)
        records.append(dataclasses.replace(record, score=score, predictions=predictions))
    row = comparison(records).iloc[0]
    assert row["basis"] == "seeds and test rows"
    assert row["score_low"] < row["score"] < row["score_high"]
    assert row["score"] == pytest.approx(np.mean([r.score.value for r in records]))
