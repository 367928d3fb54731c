"""Figures across tasks and phases: their data without drawing, and that they are drawn at all."""

from __future__ import annotations

import pytest

from harness.report.across import across_tasks
from harness.report.axes import save_figure
from harness.report.panels import panels
from harness.report.styles import lines_in, styles
from harness.report.views.across import draw_ranks
from harness.report.views.heat_map import draw_heat_map, heat_map_data, one_setting
from harness.report.views.memory import draw_memory, memory_of
from harness.report.views.phases import PHASES, draw_phases, phases_of
from tests.record_factory import make_grid, make_record


@pytest.fixture(scope="module")
def records():
    grids = [r for task in ("a", "b") for r in make_grid(methods=("full", "tfidf", "head"), sizes=(32, 128), task=task)]
    return [*grids, make_record("lora", 128, task="a")]


def test_the_heat_map_is_the_distance_to_each_tasks_best(records):
    data = heat_map_data(panels(records), 128)
    assert set(data["task"]) == {"a", "b"}
    assert (data.groupby("task")["behind"].min() == 0).all()
    assert (data.groupby("task")["behind"].max() == 1).all()
    for _, of_task in data.groupby("task"):
        best, worst = of_task["score"].max(), of_task["score"].min()
        assert of_task["behind"].tolist() == pytest.approx([(best - s) / (best - worst) for s in of_task["score"]])
    assert heat_map_data(panels(records), 999).empty


def test_a_heat_map_is_of_one_machine(records):
    other = [
        r for task in ("a", "b", "c") for r in make_grid(methods=("full",), sizes=(128,), task=task, device="other")
    ]
    assert {panel.device for panel in one_setting(panels(records + other), 128)} == {"other"}
    assert one_setting(panels(records), 999) == []


def test_phases_are_the_medians_at_the_largest_size(records):
    panel = next(panel for panel in panels(records) if panel.task == "a")
    data = phases_of(panel)
    assert set(data["phase"]) == set(PHASES)
    own = [r for r in records if r.cell.task == "a" and (r.cell.method, r.cell.n_train) == ("full", 128)]
    fit = data[(data["variant"] == "full") & (data["phase"] == "fit_seconds")]["seconds"].iloc[0]
    assert fit == sorted(r.cost.fit_seconds for r in own)[1]


def test_memory_is_the_median_peak(records):
    panel = next(panel for panel in panels(records) if panel.task == "a")
    data = memory_of(panel)
    assert data[data["line"] == "full"]["memory_bytes"].tolist() == [940_000_000] * 2


def test_all_are_drawn_in_three_formats(records, tmp_path):
    panel = panels(records)[0]
    figures = {
        "heat": draw_heat_map(heat_map_data(panels(records), 128), "scores"),
        "ranks": draw_ranks(across_tasks(records)[-1]),
        "phases": draw_phases(phases_of(panel)),
        "memory": draw_memory(memory_of(panel), styles(lines_in(memory_of(panel)))),
    }
    for name, figure in figures.items():
        for path in save_figure(figure, tmp_path / name):
            assert path.stat().st_size > 2000, path
