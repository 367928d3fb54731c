"""Texts of the drawn figures: no two overlap, none leaves the figure, and names of methods are short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.records.labels import MAX_LABEL
from harness.report.axes import look
from harness.report.blocks import Block, Picture
from harness.report.direct import Named, _spread, label_points, settle
from harness.report.highlights import GREY, MOST_COLOURED, highlighted
from harness.report.panels import curves_of
from harness.report.views.base import ReportData, panel_blocks, sections
from harness.store import stream_source
from tests.record_factory import make_backbones

RESULTS = Path(__file__).parents[1] / "results"
REFERENCE, EARLIER = RESULTS / "reference", RESULTS / "earlier"


def pictures(blocks: Iterator[Block] | list[Block]) -> list[Picture]:
    """Return the pictures but for confusion matrices, whose labels stand outside until they are saved."""
    return [block for block in blocks if isinstance(block, Picture) and block.stem != "confusions"]


def faults(figure: Figure, names: set[str]) -> list[str]:
    """Return what is wrong with the texts of a figure, drawn as it is saved."""
    with look():
        figure.draw_without_rendering()
        found = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
        boxes = [(" ".join(one.get_text().split()), Text.get_window_extent(one)) for one in found]  # without arrows
    outer = figure.bbox
    # Ticks beyond the limits of an axis have boxes, but are not drawn.
    ticks = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        for label in (tick.label1, tick.label2)
    }
    shown = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis._update_ticks()
        for label in (tick.label1, tick.label2)
    }
    kept = [
        (said, box) for (said, box), one in zip(boxes, found, strict=True) if id(one) not in ticks or id(one) in shown
    ]
    wrong = [
        f"'{said}' leaves the figure"
        for said, box in kept
        if box.x0 < outer.x0 - 1 or box.x1 > outer.x1 + 1 or box.y0 < outer.y0 - 1 or box.y1 > outer.y1 + 1
    ]
    for i, (said, a) in enumerate(kept):
        for other, b in kept[i + 1 :]:
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
                wrong.append(f"'{said}' and '{other}' overlap")
    return wrong + [f"{name} is too long" for name in names if len(name) > MAX_LABEL]


def names_of(report: ReportData) -> set[str]:
    return set(report.comparison["variant"])


@pytest.fixture(scope="module")
def two_threads() -> ReportData:
    return ReportData(stream_source(str(EARLIER / "amd-epyc-2-threads")))


@pytest.mark.parametrize("task", ["sst2", "trec"])
def test_texts_of_a_crowded_panel_do_not_overlap(two_threads: ReportData, task: str) -> None:
    (panel,) = (panel for panel in two_threads.panels if panel.task == task)
    drawn = pictures(panel_blocks(two_threads, panel))
    assert {picture.stem for picture in drawn} >= {"learning-curves", "seconds", "phases", "memory"}
    for picture in drawn:
        assert faults(picture.draw(), names_of(two_threads)) == [], picture.stem


def test_at_most_eight_methods_are_coloured_and_named(two_threads: ReportData) -> None:
    (panel,) = (panel for panel in two_threads.panels if panel.task == "sst2")
    lines = set(curves_of(panel)["line"])
    chosen = highlighted(panel, two_threads.standings_of(panel))
    styles = two_threads.styles_of(panel)
    assert len(lines) > 30
    assert len(chosen) == MOST_COLOURED
    assert {line for line in lines if not styles[line].is_muted} == set(chosen)
    assert len({styles[line].colour for line in chosen}) == MOST_COLOURED
    assert {styles[line].colour for line in lines - set(chosen)} == {GREY}
    assert all(len(set(to_rgb(styles[line].colour))) > 1 or styles[line].colour == "#222222" for line in chosen)
    best = panel.rows[panel.rows["score"].notna()].sort_values("score").iloc[-1]
    assert best["variant"] in chosen
    figure = next(one for one in pictures(panel_blocks(two_threads, panel)) if one.stem == "learning-curves").draw()
    named = {text.get_text().removesuffix(" (no labels)") for text in figure.axes[0].texts} & lines
    assert named == set(chosen)


def test_texts_of_several_backbones_do_not_overlap() -> None:
    report = ReportData(make_backbones())
    (panel,) = report.panels
    for picture in pictures(panel_blocks(report, panel)):
        assert faults(picture.draw(), names_of(report)) == [], picture.stem
    styles = report.styles_of(panel)
    named = [line for line, style in styles.items() if not style.is_muted]
    assert len(named) == MOST_COLOURED
    looks = {(styles[line].colour, styles[line].marker, styles[line].dash) for line in named}
    assert len(looks) == len(named)


def test_ends_are_as_near_as_others_allow() -> None:
    wanted = np.array([0.10, 0.11, 0.5, 0.99, 1.0, 1.0])
    levels = _spread(wanted, 0.05)
    assert (np.diff(levels) >= 0.05 - 1e-9).all()
    assert levels[2] == pytest.approx(0.5)
    assert levels[:2].mean() == pytest.approx(wanted[:2].mean())
    assert levels[-1] <= 1.02


def test_many_points_in_one_place_get_labels_of_their_own() -> None:
    with look():
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        settle(figure)
        names = [f"bottleneck-adapter[lr=0.00{i}]" for i in range(8)]
        label_points(axes, [Named(0.98, 0.97, name, "#0173b2") for name in names])
    assert {text.get_text() for text in axes.texts} == set(names)
    assert faults(figure, set(names)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", [pytest.param(REFERENCE, id="all"), *(pytest.param(one, id=one.name) for one in EARLIER.iterdir())]
)
def test_texts_of_all_reference_results_do_not_overlap(folder: Path) -> None:
    report = ReportData(stream_source(str(folder)))
    drawn = [(panel.title, one) for panel in report.panels for one in pictures(panel_blocks(report, panel))]
    drawn += [(section.heading, one) for section, blocks in sections(report) for one in pictures(blocks)]
    wrong = {(title, one.stem): found for title, one in drawn if (found := faults(one.draw(), names_of(report)))}
    assert wrong == {}
