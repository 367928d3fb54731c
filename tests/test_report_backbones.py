"""Reports over several backbones: a configuration is a method, its settings and a backbone, and none is pooled."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from harness.analysis.naming import abbreviated, full_names
from harness.records.labels import MAX_LABEL
from harness.report.across import across_tasks
from harness.report.compare import compare_methods
from harness.report.conclusion import conclude
from harness.report.contrasts import standings
from harness.report.page import page_html
from harness.report.panels import curves_of, panels
from harness.report.rows import each_row
from harness.report.tables import comparison
from harness.report.views.base import ReportData
from harness.report.views.seconds import seconds_of
from harness.report.views.transfer import transfer_gains
from harness.report.write import write_report
from tests.record_factory import make_grid, make_record

SMALL, LARGE = "sentence-transformers/paraphrase-MiniLM-L3-v2", "sentence-transformers/all-mpnet-base-v2"


def grid(**fields):
    """Three methods on two backbones, of which one scores 10 points more, and two baselines."""
    made = make_grid(("majority", "tfidf"), (32, 128), **fields)
    for backbone, gain in ((SMALL, 0.0), (LARGE, 0.1)):
        for record in make_grid(("linear-probe", "lora", "full"), (32, 128), **fields):
            cell = record.cell
            accuracy = record.score.value + gain
            made.append(
                make_record(
                    cell.method, cell.n_train, cell.seed, backbone=backbone, weights=backbone[-9:], accuracy=accuracy,
                    seconds=record.cost.train_seconds * (1 + 4 * (gain > 0)), **fields,
                )
            )  # fmt: skip
    return made


def as_table(records):
    """Return the records as a plain table, without the harness's own frames."""
    return pd.DataFrame(
        [
            {
                "task": r.cell.task,
                "method": r.cell.method,
                "backbone": r.cell.backbone or "",
                "n": r.cell.n_train,
                "seed": r.cell.seed,
                "score": r.score.value,
                "seconds": r.cost.train_seconds,
            }
            for r in records
        ]
    )


@pytest.fixture(scope="module")
def records():
    return grid()


def test_scores_and_seconds_are_those_of_one_method_and_backbone(records):
    plain = (
        as_table(records)
        .groupby(["method", "backbone", "n"])
        .agg(score=("score", "mean"), seconds=("seconds", "median"))
    )
    (panel,) = panels(records)
    assert len(panel.rows) == len(plain) == 16
    for row in panel.rows.itertuples():
        expected = plain.loc[(row.method, "" if pd.isna(row.backbone) else row.backbone, row.n_train)]
        assert row.score == pytest.approx(expected["score"])
        assert row.train_seconds == pytest.approx(expected["seconds"])
        assert row.n_seeds == 3
        end = "" if pd.isna(row.backbone) else f" · {row.backbone.rsplit('/', 1)[-1]}"
        assert pd.isna(row.backbone_label) == (end == "")
        assert row.configuration == row.method
    assert panel.title.startswith("docstrings · 2 backbones · ")
    assert (panel.backbone, panel.weights) == (None, None)


def test_names_are_short_and_say_which_backbone_they_mean(records):
    (panel,) = panels(records)
    assert all(len(name) <= MAX_LABEL for name in panel.rows["variant"])
    assert panel.rows["variant"].nunique() == 8
    for short, name in panel.backbones:
        assert short in name
    assert {name for _, name in panel.backbones} == {SMALL, LARGE}


def test_standings_are_paired_differences_between_configurations(records):
    found = standings(records)
    plain = as_table(records)
    at = plain[plain["n"] == 128].groupby(["method", "backbone"])["score"].mean()
    best_method, best_backbone = at.idxmax()
    here = found[found["n_train"] == 128]
    best = here[here["is_best"]].iloc[0]
    assert (best["score"], best["backbone"]) == (pytest.approx(at.max()), best_backbone)
    assert best["variant"].startswith(best_method)
    rows = {(r.cell.method, r.cell.backbone, r.cell.seed): r for r in records if r.cell.n_train == 128}
    right = {key: (r.predictions.predicted == r.predictions.target).astype(float) for key, r in rows.items()}
    for row in here[~here["is_best"]].itertuples():
        backbone = None if pd.isna(row.backbone) else row.backbone
        method = row.variant.split(" · ")[0]
        own = [right[best_method, best_backbone, s] - right[method, backbone, s] for s in range(3)]
        assert row.behind == pytest.approx(np.mean(own))
        assert (row.n_seeds, row.n_rows) == (3, 200)
    assert len(here) == 8  # baselines once


def test_the_front_is_that_of_all_configurations(records):
    (panel,) = panels(records)
    data = seconds_of(panel)
    points = list(zip(data["train_seconds"], data["score"], strict=True))
    for point, is_on_front in zip(points, data["on_front"], strict=True):
        beaten = any(s <= point[0] and v >= point[1] and (s, v) != point for s, v in points)
        assert is_on_front != beaten


def test_figures_colour_by_configuration_and_mark_by_backbone(records):
    report = ReportData(records)
    (panel,) = report.panels
    found, curves = report.styles_of(panel), curves_of(panel)
    rows = curves.drop_duplicates("line")
    for name, own in rows[rows["backbone_label"].notna()].groupby("configuration"):
        shown = [found[line] for line in own["line"] if not found[line].is_muted]
        assert len({style.colour for style in shown}) == 1, name
        assert len({style.marker for style in shown}) == len({style.dash for style in shown}) == len(shown)
    for _, own in rows.groupby("backbone_label"):
        assert len({(found[line].marker, found[line].dash) for line in own["line"]}) == 1
    coloured = {found[line].colour for line in rows["line"] if not found[line].is_muted}
    assert len(coloured) == 5


def test_the_page_answers_with_a_method_and_a_backbone(records):
    html = page_html(records)
    said = re.sub("<[^>]*>", "", re.search('<p class="said">(.*?)</p>', html, re.DOTALL)[1])
    plain = as_table(records)
    method, backbone = plain[plain["n"] == 128].groupby(["method", "backbone"])["score"].mean().idxmax()
    assert f"use {method} · " in said
    data = json.loads(re.search('id="data">(.*?)</script>', html, re.DOTALL)[1])
    (panel,) = data["panels"]
    rows = each_row(panel["rows"])
    assert (
        Counter(row["name"] for row in rows if row["n_train"] == 128)[
            f"{method} · {said.split('use ')[1].split(':')[0].split(' · ')[1]}"
        ]
        == 1
    )
    assert any(backbone in row["settings"] for row in rows)
    groups = {line: style["group"] for line, style in panel["styles"].items()}
    assert sorted(Counter(groups.values()).values()) == [1, 1, 2, 2, 2]
    assert " · " in conclude(records)


def test_backbones_are_ranked_apart_over_tasks():
    records = [record for task in ("one", "two") for record in grid(task=task)]
    # The third task has one backbone. Its configuration keeps the same name.
    records += make_grid(("full",), (32, 128), task="three", backbone=SMALL, weights=SMALL[-9:])
    rankings = [ranked for ranked in across_tasks(records) if "128" in ranked.title]
    (ranked,) = rankings
    assert len(ranked.methods) + len(ranked.left_out) == 8
    plain = as_table([r for r in records if r.cell.task == "one" and r.cell.n_train == 128])
    order = plain.groupby(["method", "backbone"])["score"].mean().sort_values(ascending=False)
    assert [name.split(" · ")[0] for name in ranked.methods][:3] == [method for method, _ in order.index[:3]]
    assert set(ranked.tasks) == {"one", "two"}


def test_from_scratch_is_compared_within_its_backbone():
    records = grid()
    records += [make_record("from-scratch", 128, seed, backbone=b, weights=b[-9:], accuracy=0.3)
                for b in (SMALL, LARGE) for seed in range(3)]  # fmt: skip
    found = transfer_gains(records)
    assert len(found) == 6
    for row in found.itertuples():
        assert row.variant.split(" · ")[1] == row.baseline.split(" · ")[1]


def test_comparing_two_collections_names_the_backbone():
    found = compare_methods(grid(), grid()).rows
    assert found.groupby(["variant", "n_train"]).size().max() == 1
    named = found[found["backbone"].notna()]
    assert named["variant"].str.contains(" · ").all()


def test_one_backbone_keeps_its_names_and_columns(tmp_path):
    records = make_grid(("full", "tfidf"), (32,))
    (panel,) = panels(records)
    assert set(panel.rows["variant"]) == {"full", "tfidf"}
    assert panel.backbones == ()
    write_report(records, tmp_path, formats=("svg",))
    assert "backbone_label" not in (tmp_path / "comparison.csv").read_text().splitlines()[0]
    two = make_grid(("full",), (32,), task="a") + make_grid(("full",), (32,), task="b", backbone=LARGE)
    assert {name for panel in panels(two) for name in panel.rows["variant"]} == {"full"}  # no table holds both


def test_a_seed_that_one_backbone_lacks_is_missing():
    records = [r for r in grid() if not (r.cell.backbone == LARGE and r.cell.seed == 2)]
    found = comparison(records)
    assert (found.loc[(found["backbone"] == LARGE).fillna(False), "n_missing"] == 1).all()
    assert (found.loc[(found["backbone"] == SMALL).fillna(False), "n_missing"] == 0).all()


def test_short_names_of_backbones_differ():
    names = ["all-MiniLM-L6-v2", "paraphrase-MiniLM-L3-v2", "all-mpnet-base-v2", "SmolLM2-135M-Instruct-Q4_1"]
    for longest in (9, 12, 16):
        short = abbreviated(names, longest)
        assert len(set(short.values())) == 4
        assert all(len(value) <= longest for value in short.values())
        assert all(value in name for name, value in short.items())
    assert len(set(abbreviated(["same" * 9, "same" * 9 + "x"], 10).values())) == 2


def test_backbones_that_need_more_room_get_it():
    backbones = ("google-bert/bert-base-uncased", "google-bert/bert-large-uncased", "a/roberta-base", "a/roberta-large")
    cells = [make_record(method, backbone=b).cell for b in backbones for method in ("gradual-unfreezing", "full")]
    names = [name.variant for name in full_names(cells, [{}] * 8, tables=["t"] * 8)]
    assert names[-1] == "full · roberta-large"
    assert len(set(names)) == 8
    assert all(len(name) <= MAX_LABEL for name in names)


def test_long_settings_and_backbones_share_thirty_characters():
    cells, defaults, tables = [], [], []
    for backbone in (SMALL, LARGE):
        for rate in (0.001, 0.002):
            record = make_record(
                "gradual-unfreezing", backbone=backbone, config={"learning_rate": rate, "epochs": 7 * rate}
            )
            cells.append(record.cell)
            defaults.append({})
            tables.append("t")
    names = [name.variant for name in full_names(cells, defaults, tables=tables)]
    assert len(set(names)) == 4
    assert all(len(name) <= MAX_LABEL for name in names)


def test_two_fingerprints_of_one_backbone_are_two():
    records = [dataclasses.replace(r, cell=dataclasses.replace(r.cell, weights=weights))
               for weights in ("aaaaaaaa1", "aaaaaaaa2", "bbbb") for r in make_grid(("full",), (32,))]  # fmt: skip
    (panel,) = panels(records)
    assert panel.rows["variant"].nunique() == 3
