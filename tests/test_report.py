from __future__ import annotations

import csv
import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness.analysis import stats
from harness.records.record import Budget, Cost
from harness.report.axes import save_figure
from harness.report.blocks import markdown_table
from harness.report.observations import observe
from harness.report.panels import curves_of, panels
from harness.report.pivot import pivot, pivot_table
from harness.report.styles import lines_in, styles
from harness.report.tables import comparison
from harness.report.terminal import terminal_table, terminal_tables
from harness.report.views.failures import failures
from harness.report.views.learning_curves import draw_learning_curves
from harness.report.views.pairs import all_pairs
from harness.report.views.seconds import draw_score_against_seconds, seconds_of
from harness.report.write import write_report
from harness.support import text
from harness.support.errors import StoreError, UsageError
from tests.record_factory import METHODS, make_grid, make_record, with_facts


def correctness(record):
    return record.predictions.predicted == record.predictions.target


# ---- tables


def markdown_report(records, folder):
    return write_report(records, folder, formats=("png",)).with_name("report.md").read_text("utf-8")


def test_a_row_of_the_comparison_summarises_its_seeds():
    records = make_grid(methods=("lora", "full"), sizes=(32, 128))
    table = comparison(records)
    assert len(table) == 4
    mine = [record for record in records if record.cell.method == "lora" and record.cell.n_train == 128]
    (row,) = table[(table["method"] == "lora") & (table["n_train"] == 128)].to_dict("records")
    expected = stats.summarise_scores([r.score.value for r in mine], np.stack([correctness(r) for r in mine]))
    assert (row["score"], row["score_low"], row["score_high"]) == (expected.mean, expected.low, expected.high)
    assert (row["n_seeds"], row["basis"]) == (3, "seeds and test rows")
    assert row["fit_seconds"] == np.median([r.cost.fit_seconds for r in mine])
    assert row["train_seconds"] == np.median([r.cost.train_seconds for r in mine])
    assert row["train_score"] == pytest.approx(np.mean([r.train_score for r in mine]))
    assert (row["peak_bytes"], row["memory"]) == (mine[0].cost.peak_rss_above_baseline_bytes, "host")
    assert row["n_trainable"] == mine[0].cost.n_trainable


def test_without_predictions_or_with_another_metric_the_interval_is_over_seeds_only():
    records = make_grid(methods=("lora",), sizes=(32,))
    bare = [dataclasses.replace(record, predictions=None) for record in records]
    assert comparison(bare)["basis"].tolist() == ["seeds only"]
    macro = [dataclasses.replace(r, score=dataclasses.replace(r.score, value=r.score.value - 0.1)) for r in records]
    assert comparison(macro)["basis"].tolist() == ["seeds only"]
    one = comparison(bare[:1])
    assert one["basis"].tolist() == ["test rows only"]
    assert one["score_low"].tolist() == [bare[0].score.low]


def test_nothing_is_pooled_over_devices_budgets_backbones_data_or_configurations():
    base = make_record()
    other = [
        make_record(device="H200"),
        make_record(budget=Budget(epochs=1)),
        make_record(backbone="other"),
        make_record(weights="w"),
        make_record(data="e" * 32),
        make_record(config={"rank": 4}),
        make_record(version=2),
        make_record(draw="balanced"),
        make_record(n_train=64),
    ]
    table = comparison([base, *other])
    assert len(table) == 1 + len(other)
    assert (table["n_seeds"] == 1).all()
    titles = [panel.title for panel in panels(table)]
    assert len(titles) == len(set(titles)) == 4  # of two devices, budgets and data; backbones share one
    names = table[["task", "data", "device", "budget", "n_train", "draw", "variant"]]
    assert not names.duplicated().any()


def test_memory_is_the_accelerators_where_there_is_one():
    cost = Cost(fit_seconds=1.0, peak_device_bytes=7, peak_rss_bytes=9, peak_rss_above_baseline_bytes=8)
    table = comparison([dataclasses.replace(make_record(), cost=cost)])
    assert (table["peak_bytes"][0], table["memory"][0]) == (7, "device")
    nothing = comparison([dataclasses.replace(make_record(), cost=Cost())])
    assert nothing[["peak_bytes", "memory", "fit_seconds", "train_seconds", "n_trainable"]].isna().all(axis=None)


def test_no_cell_is_dropped_in_silence():
    records = make_grid(methods=("full", "lora"), sizes=(32,), seeds=(0, 1, 2, 3))
    full = [record for record in records if record.cell.method == "full"]
    kept = [record for record in records if record.cell.method == "lora"]
    kept += [full[0], make_record("full", 32, 1, status="failed"), make_record("full", 32, 2, status="out_of_memory")]
    kept += [make_record("head", 64, seed, status="unsupported", error="no\nmore") for seed in (0, 1)]
    table = comparison(kept).set_index("method")
    assert table.loc["full", "note"] == "1 failed, 1 out of memory, 1 missing"
    assert table.loc["full", ["n_ok", "n_seeds", "n_failed", "n_missing"]].tolist() == [1, 1, 1, 1]
    assert pd.isna(table.loc["head", "score"])
    assert table.loc["head", "note"] == "2 unsupported"
    assert pd.isna(table.loc["lora", "note"])
    (panel,) = panels(kept)
    shown = markdown_table(pivot_table(panel))
    assert "(1 failed, 1 out of memory, 1 missing)" in shown
    assert "– (2 unsupported)" in shown
    found = failures(kept)
    assert found[["variant", "status", "reason", "seeds"]].to_numpy().tolist() == [
        ["full", "failed", "ValueError: it broke", "1"],
        ["full", "out_of_memory", "ValueError: it broke", "2"],
        ["head", "unsupported", "no", "0, 1"],
    ]


def test_only_the_latest_attempt_counts_whatever_the_order():
    failed = make_record(status="failed")
    mended = dataclasses.replace(make_record(), attempt=2)
    for records in ([failed, mended], [mended, failed]):
        table = comparison(records)
        assert table[["n_ok", "n_failed"]].to_numpy().tolist() == [[1, 0]]


def test_methods_without_a_backbone_stand_once_beside_all_backbones():
    records = [
        make_record(backbone="a/x"),
        make_record(backbone="b/y"),
        make_record("tfidf", backbone=None),
        make_record("tfidf", backbone=None, device="H200"),
    ]
    found = {panel.title: sorted(panel.rows["variant"]) for panel in panels(records)}
    device = records[0].device
    assert found == {
        f"docstrings · 2 backbones · {device}": ["lora · x", "lora · y", "tfidf"],
        "docstrings · H200": ["tfidf"],
    }


def test_the_pivot_has_the_best_first_and_bold_and_names_sizes_by_class():
    records = make_grid(methods=("linear-probe", "full"), sizes=(32, 2048)) + make_grid(
        methods=("full",), sizes=(96,), draw="balanced"
    )
    (panel,) = panels(records)
    labels, lines = pivot(panel)
    assert labels == ["32", "96 (8/class)", "2,048"]
    assert [line.variant for line in lines] == ["full", "linear-probe"]
    assert [[entry.is_best for entry in line.entries] for line in lines] == [[False, False, True], [True, False, False]]
    assert lines[1].entries[1].score == text.ABSENT
    header, rule, first, _ = markdown_table(pivot_table(panel)).splitlines()
    assert header.split(" | ")[-3:] == ["train", "peak memory", "trainable |"]
    assert rule.count("--:") == 6
    assert "**0.840** [" in first
    errors = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, higher_is_better=False))
        for r in make_grid(methods=("linear-probe", "full"), sizes=(2048,))
    ]
    assert pivot(panels(errors)[0])[1][0].variant == "linear-probe"


def test_pairs_are_compared_on_the_seeds_and_rows_they_share():
    records = make_grid(methods=("full", "linear-probe", "tfidf"), sizes=(32, 2048))
    del records[0]  # seed 0 of full at 32
    found = all_pairs(records)
    found = found[found["variant"].isin(["full", "linear-probe"]) & found["baseline"].isin(["full", "linear-probe"])]
    assert found["n_train"].tolist() == [32, 2048]
    assert found["n_seeds"].tolist() == [2, 3]
    by = {(r.cell.method, r.cell.n_train, r.cell.seed): correctness(r) for r in records}
    last = found.iloc[1]
    assert last["variant"] == "full"  # it is ahead
    a, b = (np.stack([by[method, 2048, seed] for seed in range(3)]) for method in ("full", "linear-probe"))
    expected = stats.paired_difference(a, b)
    assert (last["difference"], last["low"], last["high"]) == (expected.mean, expected.low, expected.high)
    assert last["p_value"] == expected.p_value
    apart = [make_record("full", n_test=100), make_record("lora", n_test=200)]
    assert all_pairs(apart)["n_rows"].tolist() == [0]  # not paired: other rows


def test_the_comparison_can_be_shown_within_a_hundred_columns():
    variants = [make_record("lora", 32, seed, config={"rank": 4, "batch_size": 16}) for seed in range(3)]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(make_grid() + variants + [make_record("full", 2048, 5, status="out_of_memory")]))
    shown = console.export_text()
    for method in METHODS:
        assert method in shown
    assert "lora[rank=4]" in shown  # not taken for markup
    assert "22.7M" in shown
    assert "2,048" in shown
    assert "1 out of" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_a_task_that_defaults_were_chosen_on_bears_a_dagger_and_says_why(tmp_path):
    def chosen_here(records, said):
        return [
            dataclasses.replace(r, provenance=dataclasses.replace(r.provenance, dataset={"defaults_chosen_here": said}))
            for r in records
        ]

    records = chosen_here(make_grid(sizes=(32,)), True) + chosen_here(make_grid(sizes=(32,), task="sst2"), False)
    records += make_grid(sizes=(32,), task="older")  # from before it was recorded
    assert {panel.task: panel.defaults_chosen_here for panel in panels(records)} == {
        "docstrings": True,
        "sst2": False,
        "older": False,
    }
    table = comparison(records).groupby("task")["defaults_chosen_here"].agg(list)
    assert all(table["docstrings"])
    assert not any(table["sst2"])
    assert pd.array(table["older"], dtype="boolean").isna().all()
    footnote = "† default settings were chosen on this task's training and validation rows (docs/reference/defaults.md)"
    page = markdown_report(records, tmp_path)
    assert page.count(footnote) == 1
    daggers = [line for line in page.splitlines() if line.startswith("## ") and line.endswith("†")]
    assert [line.split()[1] for line in daggers] == ["docstrings"]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(records))
    shown = " ".join(console.export_text().split())
    assert shown.count(footnote) == 1
    assert shown.count("†") == 2


def test_what_a_backbone_has_seen_and_what_overlaps_is_said_once_a_table(tmp_path):
    grid = make_grid(sizes=(32,))
    name = next(r.cell.backbone for r in grid if r.cell.backbone)
    dataset = {"seen_by": [name], "overlaps": ["other/data: 653 of its texts are test texts here"]}
    seen = [dataclasses.replace(r, provenance=dataclasses.replace(r.provenance, dataset=dataset)) for r in grid]
    others = [
        dataclasses.replace(r, provenance=dataclasses.replace(r.provenance, dataset={"seen_by": ["someone/else"]}))
        for r in make_grid(sizes=(32,), task="sst2")
    ]
    assert {panel.task: panel.seen_by for panel in panels(seen + others)} == {
        "docstrings": ("the backbone",),
        "sst2": (),
    }
    page = markdown_report(seen + others, tmp_path)
    assert page.count("‡ the backbone is known to have been trained on this data set") == 1
    assert page.count("Known overlap: other/data: 653 of its texts are test texts here") == 1
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(seen))
    shown = " ".join(console.export_text().split())
    assert "‡ the backbone is known" in shown
    assert "Known overlap: other/data" in shown


def test_a_choice_of_settings_is_counted_and_not_listed_cell_by_cell(tmp_path):
    records = [
        with_facts(r, tuned_trials="8 tried, best 3", tuned_settings={"rank": 8}, remarks={"other": "x"})
        for r in make_grid(methods=("lora",), sizes=(32,))
    ]
    page = markdown_report(records + make_grid(methods=("full",), sizes=(32,)), tmp_path)
    assert "- 3 of 6 cells chose settings on rows held out from n_train" in page
    assert "note: other: x" in page
    assert "tuned_" not in page


def test_many_sizes_and_several_panels_are_shown_too():
    sizes = (8, 16, 32, 64, 128, 256)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(make_grid(methods=("full",), sizes=sizes) + make_grid(sizes=(32,), device="H200")))
    shown = console.export_text()
    assert all(re.search(rf"\b{size}\b", shown) for size in sizes)
    assert "H200" in shown
    assert len(terminal_tables([make_record(), make_record(task="sst2")])) == 2


# ---- plots


def test_the_data_of_the_curves_are_the_rows_of_the_comparison():
    records = [*make_grid(), make_record("full", 64, status="failed")]
    data = pd.concat([curves_of(panel) for panel in panels(records)])
    table = comparison(records).dropna(subset=["score"])
    merged = data.merge(table, left_on=["line", "n_train"], right_on=["variant", "n_train"], suffixes=("", "_table"))
    assert len(merged) == len(data) == len(table)
    assert (merged["score"] == merged["score_table"]).all()
    assert (merged["low"] == merged["score_low"]).all()


def test_the_front_of_each_panel_is_its_own():
    records = make_grid() + make_grid(methods=("majority",), sizes=(32,), device="H200")
    data = pd.concat([seconds_of(panel) for panel in panels(records)])
    for _, panel in data.groupby("panel"):
        for row in panel.itertuples():
            beaten = ((panel["train_seconds"] < row.train_seconds) & (panel["score"] >= row.score)) | (
                (panel["train_seconds"] <= row.train_seconds) & (panel["score"] > row.score)
            )
            assert row.on_front == (not beaten.any())
    assert data[data["panel"].str.contains("H200")]["on_front"].all()


def test_methods_keep_their_colour_whoever_else_is_there():
    few = styles([("full", "full"), ("lora", "lora")])
    many = styles([(name, name) for name in METHODS] + [("lora[rank=4]", "lora"), ("new", "new")])
    assert few["full"] == many["full"]
    assert few["lora"] == many["lora"]
    assert many["lora[rank=4]"].colour == many["lora"].colour
    assert many["lora[rank=4]"].marker != many["lora"].marker
    forty = styles([(f"m{i}", f"m{i}") for i in range(40)])
    assert len({(style.colour, style.marker) for style in forty.values()}) == 40
    eight = styles([(f"m{i}", f"m{i}") for i in range(8)])
    assert len({style.colour for style in eight.values()}) == 8


@pytest.mark.parametrize(
    "records",
    [
        [make_record()],
        [make_record("zero-shot", 0, seconds=0.0), make_record("zero-shot-2", 0, seconds=0.0)],
        [make_record("zero-shot", 0), *make_grid(methods=("full",), sizes=(32, 33, 4096))],
        [dataclasses.replace(make_record(), cost=Cost())],
        [dataclasses.replace(make_record(), score=dataclasses.replace(make_record().score, low=None, high=None))],
        [make_record("_a$\\frac$\x1b[0m\n_" + "x" * 90), make_record("名前", task="\0<!--&")],
    ],
    ids=["one", "no labels", "close sizes", "no seconds", "no interval", "hostile"],
)
def test_odd_cases_are_drawn(tmp_path, records):
    for panel in panels(records):
        drawn = styles(lines_in(curves_of(panel)))
        for figure in (
            draw_learning_curves(curves_of(panel), drawn),
            draw_score_against_seconds(seconds_of(panel), drawn),
        ):
            png, svg, _ = save_figure(figure, tmp_path / "figure")
            assert png.read_bytes().startswith(b"\x89PNG")
            ET.parse(svg)


def test_two_panels_are_not_drawn_in_one_figure():
    data = pd.concat([curves_of(panel) for panel in panels([make_record(), make_record(device="H200")])])
    with pytest.raises(ValueError, match="2 panels"):
        draw_learning_curves(data, styles(lines_in(data)))


# ---- the report


def test_a_report_says_what_was_compared_how_and_what_failed(tmp_path):
    records = [*make_grid(sizes=(32, 128)), make_record("full", 512, 0, status="out_of_time", error="took 9 s\nmore")]
    index = write_report(iter(records), tmp_path / "new" / "report")
    page = index.with_name("report.md").read_text("utf-8")
    assert index == tmp_path / "new" / "report" / "report.html"
    for expected in (
        "## What was compared",
        "seeds: 0, 1, 2",
        "37 in all, 36 ok, 1 out of time",
        "took 9 s |",
        "commit 0123456789ab",
        "torch 2.13.0",
        "fingerprint dddd",
        "200 of 1,800 (capped)",
        "AMD EPYC, 2 threads",
        "clear_refs",
        "## How to read these numbers",
        "crossed random",
    ):
        assert expected in page
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (index.parent / link).is_file()
    assert len(re.findall(r"!\[", page)) == 4
    assert "32 labels: **linear-probe**" in page
    assert len(pd.read_csv(index.parent / "comparison.csv")) == 13
    assert len(pd.read_csv(index.parent / "cells.csv")) == 37
    assert pd.read_csv(index.parent / "failures.csv")["status"].tolist() == ["out_of_time"]
    write_report(records[:-1], index.parent, formats=("png",))
    assert not (index.parent / "failures.csv").exists()


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path):
    records = [*make_grid(sizes=(32, 128)), make_record(task="sst2", status="failed")]
    write_report(records, tmp_path / "a")
    write_report(reversed(records), tmp_path / "b")
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert {str(name) for name in names} >= {
        *("report.html", "report.md", "comparison.csv", "cells.csv", "standings.csv", "pairs.csv", "gaps.csv"),
        *("failures.csv", "tables/docstrings.tex", "figures/docstrings-phases.pdf", "figures/docstrings-memory.svg"),
    }
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_nothing_to_report_is_said():
    for call in (comparison, terminal_table, all_pairs, failures):
        with pytest.raises(UsageError, match="nothing to report"):
            call([])


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        write_report([make_record()], tmp_path / "file" / "report")


def test_hostile_names_do_no_harm(tmp_path):
    evil = "../../<script>alert(1)</script>|![x](http://evil)`$\\*_\n# =1+1\x1b[31m\u202e"
    records = [
        make_record(evil, task=evil, backbone=evil, device=evil, config={evil: evil}),
        make_record(evil, task="=1+1", status="failed", error=evil),
    ]
    page = markdown_report(records, tmp_path / "out" / "report")
    assert "<script" not in page
    assert "![x]" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert not re.search(r"^# =1", page, re.MULTILINE)
    for line in page.splitlines():  # the tables keep their columns
        if line.startswith("| ../.."):
            assert len(re.findall(r"(?<!\\)\|", line)) in (6, 12)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert all(re.fullmatch(r"[a-z0-9-]+\.png", path.name) for path in (tmp_path / "out/report/figures").iterdir())
    for name in ("comparison.csv", "cells.csv", "failures.csv", "standings.csv"):
        with (tmp_path / "out" / "report" / name).open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                assert not any(re.match(r"[=+@\t\r]|-\D", value) for value in row)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(records))
    assert "\x1b" not in console.export_text()


def test_predictions_are_not_kept_in_memory():
    records = make_grid(sizes=(32,))
    seen = observe(records)
    assert all(record.predictions is None for record in seen.records)
    assert observe(seen) is seen
    assert seen.by_row[records[0].id, records[0].device].values.dtype == bool


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.seconds(0.0), "0 s"),
        (text.seconds(0.0004), "<1 ms"),
        (text.seconds(0.0994), "99 ms"),
        (text.seconds(0.0996), "0.1 s"),
        (text.seconds(9.96), "10 s"),
        (text.seconds(150), "2.5 min"),
        (text.seconds(7300), "2.0 h"),
        (text.seconds(None), "–"),
        (text.memory(999.6e6), "1.0 GB"),
        (text.memory(12_000), "12 kB"),
        (text.number(9_999), "9,999"),
        (text.number(999_960), "1.0M"),
        (text.number(22_717_836), "22.7M"),
        (text.score(0.8), "0.800"),
        (text.score(31.42), "31.4"),
        (text.score(pd.NA), "–"),
        (text.markdown("a_b _c_ | 1. x"), r"a_b \_c\_ \| 1. x"),
        (text.markdown("1. x"), r"1\. x"),  # CommonMark: only punctuation is escaped
    ],
)
def test_figures_are_shown_in_the_unit_that_reads_best(shown, expected):
    assert shown == expected
