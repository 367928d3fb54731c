"""Figures of a report at their edges: planted records against pandas, scipy and sums by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from rich.console import Console

from harness.advice.answer import answer_question
from harness.advice.question import Question
from harness.analysis import stats
from harness.records.record import Cost, CurvePoint, Record, Score
from harness.report.across import across_tasks
from harness.report.blocks import markdown_table
from harness.report.caption import cautions
from harness.report.compare import compare_methods
from harness.report.contrasts import standings
from harness.report.latex import latex_pivot
from harness.report.page import page_html
from harness.report.panels import panels
from harness.report.pivot import pivot, pivot_table
from harness.report.tables import comparison
from harness.report.terminal import terminal_compared, terminal_table
from harness.report.views.every_size import every_size
from harness.report.views.gaps import overfitting_gaps
from harness.report.views.heat_map import heat_map_data, heat_map_title, one_setting
from harness.report.views.phases import draw_phases, phases_of
from harness.report.views.seconds import seconds_of
from harness.support.errors import UsageError
from tests.pages import data_of
from tests.record_factory import make_record, noted


def bare(method: str, seed: int, value: float, **changes: Any) -> Record:
    """A record without predictions, with this score."""
    metric, higher = changes.pop("metric", "accuracy"), changes.pop("higher", True)
    low, high = changes.pop("ends", (None, None))
    made = make_record(method, changes.pop("n_train", 32), seed, **changes)
    return dataclasses.replace(made, predictions=None, score=Score(metric, value, low, high, higher, 200, 200))


def shown(table: Any) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    return console.export_text()


# ---- the cost of training is encoding, tuning and fitting


def test_what_encodes_for_long_is_cheaper_nowhere() -> None:
    """`knn` fits in 1 ms and encodes for 90 s; `lora` takes 7 s in all."""
    costs = {"knn": (90.0, None, 0.001), "lora": (1.0, 2.0, 4.0)}
    records = [
        dataclasses.replace(
            make_record(method, 32, seed, accuracy=0.8),
            cost=Cost(
                encode_seconds=encode, tune_seconds=tune, fit_seconds=fit, predict_seconds=1.0, peak_device_bytes=10**8
            ),
        )
        for method, (encode, tune, fit) in costs.items()
        for seed in range(3)
    ]
    (panel,) = panels(records)
    assert {line.variant: line.train for line in pivot(panel)[1]} == {"knn": "90 s", "lora": "7.0 s"}
    views = {
        "markdown": markdown_table(pivot_table(panel)),
        "every size": markdown_table(every_size(panel)),
        "latex": latex_pivot(panel),
        "terminal": shown(terminal_table(records)),
        "terminal, many sizes": shown(
            terminal_table([dataclasses.replace(r, cell=dataclasses.replace(r.cell, n_train=n)) for r in records
                            for n in (32, 64, 128, 256, 512)])
        ),
    }  # fmt: skip
    for name, view in views.items():
        assert "90 s" in view, name
        assert "7.0 s" in view, name
        assert "train" in view, name
        assert "1 ms" not in view, name
        assert "4.0 s" not in view, name
    (page,) = data_of(page_html(records))["panels"]
    assert "fit" not in page["rows"]
    assert dict(zip(page["rows"]["line"], page["rows"]["train"], strict=True)) == {"knn": 90.001, "lora": 7}
    points = seconds_of(panel).set_index("line")
    assert points["train_seconds"].to_dict() == pytest.approx({"knn": 90.001, "lora": 7.0})
    asked = Question(n_train=32, train_seconds=10)
    fits = {choice.method: choice.fits for choice in answer_question(asked, records).choices}
    assert fits == {"knn": False, "lora": True}
    faster = [dataclasses.replace(r, cost=dataclasses.replace(r.cost, fit_seconds=(r.cost.fit_seconds or 0) / 4))
              for r in records]  # fmt: skip
    found = compare_methods(records, faster).rows.set_index("method")
    assert found["train_ratio"].to_dict() == pytest.approx({"knn": 90.00025 / 90.001, "lora": 4 / 7})
    assert "train b/a" in shown(terminal_compared(compare_methods(records, faster)))


def test_seconds_that_were_disturbed_do_not_enter_the_median_while_others_are_there() -> None:
    records = [make_record("lora", 32, seed, seconds=seconds) for seed, seconds in enumerate((1.0, 2.0, 50.0))]
    records[2] = noted(records[2], unsteady="other processes took 46% of its processors' time")
    (row,) = comparison(records).to_dict("records")
    assert (row["train_seconds"], row["n_unsteady"], row["n_seeds"]) == (1.5, 1, 3)
    alone = comparison([records[2]])
    assert alone["train_seconds"].tolist() == [50.0]
    (panel,) = panels(alone)
    assert any("disturbed in all cells: lora at 32" in said for said in cautions(panel))
    found = compare_methods(records, records)
    assert found.rows["train_ratio"].tolist() == [1.0]


def test_unknown_seconds_are_not_drawn_as_none() -> None:
    shared = make_record()
    shared = dataclasses.replace(shared, provenance=dataclasses.replace(shared.provenance, cells_at_a_time=2))
    (panel,) = panels([shared, make_record("full")])
    figure = draw_phases(phases_of(panel))
    said = [text.get_text().strip() for text in figure.axes[0].texts]
    assert sorted(said) == ["1.9 s", "not known"]


# ---- seeds


def test_methods_without_a_backbone_lack_the_seeds_that_others_have() -> None:
    records = [bare("lora", seed, 0.8) for seed in range(3)]
    records += [bare("tfidf", 0, 0.9, backbone=None)]
    table = comparison(records).set_index("method")
    assert table.loc["tfidf", ["n_missing", "note"]].tolist() == [2, "2 missing"]
    assert table.loc["lora", "n_missing"] == 0


def test_who_is_ahead_on_the_shared_seeds_is_not_called_worse() -> None:
    """`full` has the better mean, since it lacks the seed that was hard; on the same seeds `lora` is far ahead."""
    records = [make_record("lora", 32, seed, accuracy=accuracy, n_test=400)
               for seed, accuracy in enumerate((0.95, 0.95, 0.95, 0.2))]  # fmt: skip
    records += [make_record("full", 32, seed, accuracy=0.8, n_test=400) for seed in range(3)]
    found = standings(records).set_index("variant")
    assert found.loc["full", "is_best"]
    row = found.loc["lora"]
    assert row["behind"] < 0
    assert row["p_value"] < 0.05
    assert row["is_tied"]
    text = cautions(panels(records)[0])
    assert any("1 missing" in said and "fewer seeds" in said for said in text)


def test_a_comparison_of_two_collections_is_over_the_seeds_that_both_have() -> None:
    a = [bare("lora", seed, value) for seed, value in enumerate((0.9, 0.8, 0.1))]
    b = [bare("lora", seed, value) for seed, value in enumerate((0.88, 0.84))]
    (row,) = compare_methods(a, b).rows.to_dict("records")
    assert (row["score_a"], row["score_b"]) == (pytest.approx(0.85), pytest.approx(0.86))
    assert row["difference"] == pytest.approx(row["score_b"] - row["score_a"])
    assert "2 seeds that both have" in row["note"]
    (apart,) = compare_methods(a[:2], [bare("lora", seed, 0.5) for seed in (7, 8)]).rows.to_dict("records")
    assert apart["difference"] == pytest.approx(apart["score_b"] - apart["score_a"])
    assert "different seeds" in apart["note"]


def test_a_comparison_does_not_mix_versions_or_metrics() -> None:
    old = [bare("lora", seed, 0.5) for seed in range(3)]
    new = [bare("lora", seed, 0.8 + 0.01 * seed, version=2) for seed in range(2)]
    for records in ([*old, *new], [*new, *old]):
        (row,) = compare_methods(records, records).rows.to_dict("records")
        assert row["score_a"] == pytest.approx(0.805)
        assert "several versions" in row["note"]
    other = [bare("lora", seed, 0.4, metric="macro_f1") for seed in range(3)]
    found = compare_methods(old, other)
    (row,) = found.rows.to_dict("records")
    assert row["verdict"] == "not known"
    assert pd.isna(row["difference"])
    assert "another metric" in row["note"]
    assert "accuracy" in row["metric"]
    assert "not known" in shown(terminal_compared(found))


def test_the_gap_is_over_the_seeds_of_the_score() -> None:
    records = [make_record("lora", 32, seed) for seed in range(3)]
    assert overfitting_gaps(comparison(records))["gap"].tolist() == pytest.approx([0.1])
    partial = [dataclasses.replace(records[0], train_score=None), *records[1:]]
    assert comparison(partial)["train_score"].isna().all()
    assert overfitting_gaps(comparison(partial)).empty


# ---- metrics and scales


def test_two_metrics_of_one_configuration_are_two_rows_in_two_panels() -> None:
    records = [
        bare("lora", 0, 0.9),
        bare("lora", 1, 0.3, metric="macro_f1"),
        make_record("lora", 32, 2, status="failed"),
    ]
    table = comparison(records)
    assert dict(zip(table["metric"], table["score"], strict=True)) == {"accuracy": 0.9, "macro_f1": 0.3}
    assert table["n_failed"].sum() == 1
    found = panels(records)
    assert [panel.title.rpartition(" · ")[2] for panel in found] == ["accuracy", "macro_f1"]
    assert [len(panel.rows) for panel in found] == [1, 1]
    assert standings(records)["score"].tolist() == [0.9, 0.3]


def test_fractions_and_percents_in_one_table_are_refused() -> None:
    records = [bare("lora", 0, 0.87), bare("full", 0, 91.2)]
    with pytest.raises(UsageError, match=r"two scales: 0\.87 \(lora.*91\.2 \(full.*as fractions"):
        comparison(records)
    assert comparison([bare("lora", 0, 87.0), bare("full", 0, 91.2)])["score"].tolist() == [91.2, 87.0]
    assert len(comparison([bare("lora", 0, 0.9, metric="perplexity"), bare("full", 0, 12.0, metric="perplexity")])) == 2
    assert len(comparison([bare("lora", 0, 0.9, metric="bleu"), bare("full", 0, 30.0, metric="bleu")])) == 2


def test_no_mean_over_tasks_of_fractions_and_percents() -> None:
    records = [
        *(bare("lora", 0, value, task=task) for task, value in (("a", 0.9), ("b", 88.0))),
        *(bare("full", 0, value, task=task) for task, value in (("a", 0.8), ("b", 91.0))),
    ]
    (standing,) = across_tasks(records)
    assert standing.means is None
    fractions = [r for r in records if r.cell.task == "a"] + [
        bare("lora", 0, 0.7, task="c"),
        bare("full", 0, 0.5, task="c"),
    ]
    (standing,) = across_tasks(fractions)
    assert standing.means == pytest.approx((0.8, 0.65))


def test_the_direction_of_a_task_is_its_own_on_each_device() -> None:
    """Errors of the same task that another device has do not turn the ranks of accuracies round."""
    mine = [
        bare(method, 0, value + 0.01 * i, task=task, device="a machine")
        for i, task in enumerate(("sst2", "trec", "imdb"))
        for method, value in (("lora", 0.9), ("full", 0.8))
    ]
    theirs = [
        bare(method, 0, value, task=task, device="the other", metric="error", higher=False)
        for task in ("sst2", "trec", "imdb")
        for method, value in (("lora", 0.2), ("full", 0.1))
    ]
    for records in ([*mine, *theirs], [*theirs, *mine]):
        by_device = {standing.title.rpartition(" · ")[2]: standing for standing in across_tasks(records)}
        assert by_device["a machine"].methods == ("lora", "full")
        assert by_device["the other"].methods == ("full", "lora")
        for standing in by_device.values():
            assert standing.ranking.mean_ranks == (1, 2)


def test_ranks_are_those_of_scipy_with_ties_and_directions_and_name_what_lacks_seeds() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, size=(5, 3)) / 10
    higher = [True, False, True, True, False]
    methods = ("full", "knn", "lora")
    records = [
        bare(method, seed, float(values[i, j]), task=f"task-{i}", metric="f1" if up else "mae", higher=up)
        for i, up in enumerate(higher)
        for j, method in enumerate(methods)
        for seed in range(1 if (i, j) == (2, 1) else 2)
    ]
    (standing,) = across_tasks(records)
    ranks = np.stack([scipy.stats.rankdata(-row if up else row) for row, up in zip(values, higher, strict=True)])
    expected = dict(zip(methods, ranks.mean(axis=0), strict=True))
    assert dict(zip(standing.methods, standing.ranking.mean_ranks, strict=True)) == pytest.approx(expected)
    assert standing.ranking.p_value == pytest.approx(scipy.stats.friedmanchisquare(*ranks.T).pvalue)
    assert standing.means is None
    assert standing.fewer_seeds == (("knn", "task-2"),)
    assert "fewer seeds than others: knn on task-2" in standing.said


def test_a_heat_map_names_its_setting_and_keeps_two_states_of_a_task_apart() -> None:
    records = [bare(m, 0, v, data=d * 32) for m, v in (("lora", 0.9), ("full", 0.8)) for d in "de"]
    records += [bare("lora", 0, 0.1, device="slow"), bare("full", 0, 0.2, device="slow")]
    chosen = one_setting(panels(records), 32)
    assert heat_map_title(chosen, 32) == "Scores at 32 labels · all-MiniLM-L6-v2 · AMD EPYC, 2 threads"
    data = heat_map_data(chosen, 32)
    assert len(data) == 4
    assert data["task"].nunique() == 2


# ---- panels


def test_no_two_panels_share_a_title_and_none_takes_the_best_of_another() -> None:
    """Results from two files: their data differ after the eighth letter."""
    records = [
        bare(method, 0, value, data=f"imported from {name}.csv", device="H100 (imported)")
        for name, values in (("one", (0.9, 0.8)), ("two", (0.6, 0.7)))
        for method, value in zip(("lora", "full"), values, strict=True)
    ]
    found = panels(records)
    assert len({panel.title for panel in found}) == 2
    ranked = standings(records)
    best = {title: rows.loc[rows["is_best"], "variant"].tolist() for title, rows in ranked.groupby("panel")}
    assert best == {found[0].title: ["lora"], found[1].title: ["full"]}


def test_a_method_with_and_without_a_backbone_keeps_both_rows() -> None:
    records = [bare("knn", 0, 0.9), bare("knn", 0, 0.4, backbone=None), bare("lora", 0, 0.8)]
    rows = [set(zip(panel.rows["variant"], panel.rows["score"], strict=True)) for panel in panels(records)]
    assert sorted(rows, key=len) == [{("knn", 0.4)}, {("knn", 0.9), ("lora", 0.8)}]


def test_curves_during_training_are_those_of_their_backbone() -> None:
    def with_curve(backbone: str, value: float, **changes: Any) -> Record:
        points = tuple(CurvePoint(step, float(step), None, 0.5, value) for step in (1, 2))
        return make_record("lora", backbone=backbone, curve=points, **changes)

    shared = with_curve("c", 0.3)
    shared = dataclasses.replace(shared, provenance=dataclasses.replace(shared.provenance, cells_at_a_time=4))
    found = data_of(page_html([with_curve("a", 0.1), with_curve("b", 0.2), shared]))["panels"]
    curves = {curve["line"]: curve["validation"] for panel in found for curve in panel["anytime"]}
    assert curves == {"lora · a": [0.1, 0.1], "lora · b": [0.2, 0.2]}


# ---- intervals and p-values


def test_equal_scores_of_seeds_do_not_make_an_interval_of_no_width() -> None:
    found = stats.summarise_scores([0.85, 0.85, 0.85])
    assert (found.low, found.high, found.basis) == (None, None, "none")
    table = comparison([bare("lora", seed, 0.85, ends=(0.8, 0.9)) for seed in range(2)])
    assert table[["score_low", "score_high", "basis"]].to_numpy().tolist() == [[0.8, 0.9, "test rows only"]]
    assert any("no interval" in said for said in cautions(panels([bare("lora", seed, 0.85) for seed in range(2)])[0]))


def test_equal_scores_of_seeds_do_not_prove_a_difference() -> None:
    rounded = [bare("lora", seed, 0.86) for seed in range(2)] + [bare("full", seed, 0.85) for seed in range(2)]
    row = standings(rounded).set_index("variant").loc["full"]
    assert pd.isna(row["p_value"])
    assert pd.isna(row["is_tied"])
    known = stats.unpaired_difference([0.86, 0.86], [0.85, 0.85], (0.02**2, 0.01**2))
    assert known.basis == "test rows only"
    assert known.p_value == pytest.approx(2 * scipy.stats.norm.sf(0.01 / np.hypot(0.02, 0.01)))
    assert known.p_value is not None
    assert known.p_value > 0.05


@pytest.mark.parametrize(("n_seeds", "n_rows"), [(1, 3), (2, 4), (3, 9)])
def test_the_same_difference_on_every_row_is_the_sign_test(n_seeds: int, n_rows: int) -> None:
    found = stats.paired_difference(np.ones((n_seeds, n_rows)), np.zeros((n_seeds, n_rows)))
    assert found.p_value == pytest.approx(scipy.stats.binomtest(n_rows, n_rows).pvalue)
    assert found.low is None


# ---- advice


def test_advice_leaves_out_scores_above_the_highest_there_is() -> None:
    records = [bare("lora", seed, 0.8, task=task) for task in ("a", "b") for seed in range(2)]
    percent = [bare("lora", seed, 80.0, task="c") for seed in range(2)]
    told = answer_question(Question(n_train=32), [*records, *percent])
    alone = answer_question(Question(n_train=32), records)
    assert told.choices[0].score == pytest.approx(alone.choices[0].score)
    assert any("2 records of c are left out" in note for note in told.notes)
    with pytest.raises(UsageError, match="as fractions"):
        answer_question(Question(n_train=32), percent)


def test_the_interval_of_a_matthews_score_ends_at_one() -> None:
    """Two seeds near the top: Student's interval alone would reach far beyond what the metric can be."""

    def scored(seed: int, value: float) -> Record:
        record = bare("lora", seed, value)
        assert record.score is not None
        return dataclasses.replace(record, score=dataclasses.replace(record.score, metric="matthews"))

    row = comparison([scored(0, 0.80), scored(1, 0.88)]).iloc[0]
    assert row["score_low"] < 0.84
    assert row["score_high"] == 1.0
    percents = comparison([scored(0, 80.0), scored(1, 88.0)]).iloc[0]  # imported ones keep their scale
    assert percents["score_high"] > 100
