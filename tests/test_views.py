"""Views of the report: a file in harness/report/views/ is all that a table or figure needs."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

from harness.report import views as package
from harness.report import write
from harness.report.folder import check_report_folder
from harness.report.views.base import views
from harness.report.write import write_report
from harness.support.errors import UsageError
from tests.record_factory import make_grid

TOY_FIGURE = """
from matplotlib.figure import Figure
from harness.report.panels import curves_of
from harness.report.views.base import panel_figure, views

def draw(data, styles):
    figure = Figure()
    figure.subplots().plot(data["n_train"].astype(float), data["score"].astype(float))
    return figure

views.add("toy_figure", panel_figure("toy", "Toy & figure", data=curves_of, draw=draw))
"""

TOY_TABLE = """
from harness.report.blocks import TableBlock
from harness.report.views.base import Section, View, views

def table(report):
    return report.comparison[["variant", "score"]]

def blocks(report):
    rows = [[str(name), f"{score:.2f}"] for name, score in table(report).itertuples(index=False)]
    yield TableBlock("Toy table", ["method", "toy"], [*rows, ["<b>*x*", "1"]])

views.add("toy_table", View(position=300, csv=table, in_section=blocks, section=Section("toys", "Toys & co")))
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of views, as if they lay in the package."""
    known = views.names()
    monkeypatch.setattr(views, "_members", {name: views.get(name) for name in known})
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    for name, source in {"toy_figure": TOY_FIGURE, "toy_table": TOY_TABLE}.items():
        (tmp_path / f"{name}.py").write_text(source)
        importlib.import_module(f"{package.__name__}.{name}")
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")


@pytest.mark.usefixtures("toys")
def test_a_new_file_is_all_that_a_view_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "save_figure", lambda _, stem, __: [stem.with_suffix(".png")])
    written = write_report(make_grid(methods=("tfidf", "full"), sizes=(32,)), tmp_path / "out", ("png",))
    markdown, page = written.with_name("report.md").read_text("utf-8"), written.read_text("utf-8")
    assert (
        "![Toy &amp; figure: docstrings · all-MiniLM-L6-v2 · AMD EPYC, 2 threads](figures/docstrings-toy.png)"
        in markdown
    )
    assert "## Toys &amp; co\n\n| method | toy |\n| :-- | --: |\n| tfidf | 0.40 |\n| full | 0.45 |" in markdown
    assert "[toy_table.csv](toy_table.csv)" in markdown
    assert (tmp_path / "out" / "toy_table.csv").read_text("utf-8").startswith("variant,score\ntfidf,")
    answer = page.split('id="more"')[1].split('id="table"')[0]
    assert 'alt="Toy &amp; figure: docstrings' in answer
    section = page.split('id="toys"')[1].split("</details>")[0]
    assert '<th scope="row">full</th><td>0.45</td>' in section
    assert "&lt;b&gt;*x*" in section
    assert "<b>" not in section
    assert '<a href="#toys">Toys &amp; co</a>' in page


def test_a_views_name_is_that_of_its_file() -> None:
    """A folder is checked for the files of a report by the names of these modules alone."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert set(views.names()) == modules - {"base"}


@pytest.mark.parametrize("name", ["comparison.csv", "failures.csv", "across.csv", "cells.csv", "report.md"])
def test_a_file_that_no_report_wrote_is_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=name):
        check_report_folder(tmp_path)
    (tmp_path / name).rename(tmp_path / "notes.csv")
    check_report_folder(tmp_path)
