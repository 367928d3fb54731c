"""The report's page as a text: what is in it, how large it is, and that no name or message does any harm in it."""

from __future__ import annotations

import dataclasses
import re

import pytest

from harness.records.record import Provenance
from harness.report import latex
from harness.report.page import page_html, write_page
from harness.report.panels import panels
from harness.report.tables import comparison
from harness.support import text
from harness.support.errors import UsageError
from tests.pages import data_of, outside_scripts
from tests.record_factory import make_grid, make_record

EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '" onmouseover="alert(1)" \'',
    "<img src=x onerror=alert(1)>",
    "\u202edlrow olleh\u202c",
    '=HYPERLINK("http://evil")',
    "x" * 10_000,
    "a\x00b\nc\u2028d",
]


def test_a_page_asks_nothing_of_anybody(tmp_path):
    page = write_page(make_grid(), tmp_path / "r.html").read_text("utf-8")
    assert "default-src 'none'" in page
    shown = outside_scripts(page)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", shown)
    assert "url(" not in page.split("<style>")[1].split("</style>")[0]


def test_the_data_are_those_of_the_comparison():
    records = make_grid()
    (panel,) = data_of(page_html(records))["panels"]
    assert panel["metric"] == "accuracy"
    rows = panel["rows"]
    assert len(rows["line"]) == 24
    at = next(i for i in range(24) if rows["line"][i] == "full" and rows["n_train"][i] == 2048)
    expected = [r for r in records if r.cell.method == "full" and r.cell.n_train == 2048]
    assert rows["score"][at] == pytest.approx(sum(r.score.value for r in expected) / 3, rel=1e-4)
    assert rows["best"][at]
    assert rows["predict"][at] == pytest.approx(0.9 / 200 * 1000)
    assert rows["stored"][at] == expected[0].cost.artifact_bytes


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_names_and_messages_do_no_harm(evil):
    records = [
        *make_grid(methods=("full",), sizes=(32,)),
        make_record(evil, 32, task=evil, backbone=evil, device=evil, config={evil: evil}),
        make_record(evil, 32, task=evil, status="failed", error=evil),
    ]
    page = page_html(records)
    shown = outside_scripts(page)
    assert "alert(1)" not in shown or "&lt;" in shown or "&quot;" in shown
    assert "<script" not in shown
    assert "<img src=x" not in shown
    assert 'onmouseover="' not in shown
    assert len(re.findall("<script", page.split(re.search(r"<script>", page)[0])[0])) == 1  # the data, nothing before
    for letter in ("\u202e", "\x00", "\u2028"):
        assert letter not in shown
    assert data_of(page)["panels"]
    for panel in panels(records):
        tex = latex.latex_pivot(panel)
        assert "\x00" not in tex
        assert not re.search(r"(?<!\\)[#%&](?!\s)", re.sub(r"\\\\$|&", "", tex))


def test_what_latex_would_read_as_a_command_is_set_as_it_is():
    assert latex.escape(r"\input{x} 50% a_b $x$ ~^#&") == (
        r"\textbackslash{}input\{x\} 50\% a\_b \$x\$ \textasciitilde{}\textasciicircum{}\#\&"
    )


def test_a_table_for_a_paper_is_exact_to_the_letter():
    records = [
        make_record("full", 32, 0, accuracy=0.8, seconds=4.0),
        make_record("tfidf", 32, 0, accuracy=0.6, backbone=None, config={"c": 1.0}, seconds=0.02),
        make_record("lora", 32, 0, status="out_of_memory"),
    ]
    (panel,) = panels(records)
    assert latex.latex_pivot(panel, {("tfidf", "32")}) == "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{docstrings \textperiodcentered{} all-MiniLM-L6-v2 \textperiodcentered{} AMD EPYC, 2 threads. "
            r"accuracy: mean over 1 seed with its 95 \% interval. bold is best, $\ast$ is tied with it. "
            r"Training seconds (train: encoding, tuning and fitting), peak memory and trainable parameters are "
            r"those at each method's largest size. With one seed an interval covers test rows only: another "
            r"seed may differ by more. Not all cells have a score (1 out of memory).}",
            r"\begin{tabular}{lrrrr}",
            r"\toprule",
            r"method & 32 & train & peak memory & trainable \\",
            r"\midrule",
            r"full & \textbf{0.800} {\scriptsize [0.739--0.850]} & 4.0 s & 940 MB & 22.7M \\",
            r"tfidf & 0.600$^\ast$ {\scriptsize [0.531--0.665]} & 20 ms & 30 MB & 14.0k \\",
            r"lora & -- {\scriptsize (1 out of memory)} & -- & -- & -- \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def test_failures_only_one_cell_and_none():
    page = outside_scripts(page_html([make_record(status="failed", error="ValueError: no")]))
    assert "Nothing was scored" in page
    assert "ValueError: no" in page
    page = outside_scripts(page_html([make_record()]))
    assert "With one seed an interval covers test rows only" in page
    assert "Everything that was tried ended with a score" in page
    with pytest.raises(UsageError, match="nothing to report"):
        page_html([])


def test_intervals_of_few_seeds_say_what_they_cover():
    assert "With three seeds, intervals labelled" in outside_scripts(page_html(make_grid(sizes=(32,))))
    assert "With two seeds, intervals labelled" in outside_scripts(page_html(make_grid(sizes=(32,), seeds=(0, 1))))
    assert "seeds, intervals labelled" not in outside_scripts(page_html(make_grid(sizes=(32,), seeds=range(5))))


def test_the_interval_of_the_best_is_that_of_its_draw():
    records = [
        *(make_record("full", 48, seed, accuracy=0.9, draw="stratified") for seed in range(3)),
        *(make_record("full", 48, seed, accuracy=0.6, draw="balanced") for seed in range(3)),
    ]
    table = comparison(records).set_index("draw")
    shown = outside_scripts(page_html(records)).split('id="curves"')[0]
    for draw in ("stratified", "balanced"):
        row = table.loc[draw]
        score, ends = text.score(row["score"]), text.interval(row["score_low"], row["score_high"])
        assert f'<td>{score} <span class="interval">{ends}</span>' in shown


def test_missing_cells_are_counted():
    records = make_grid(methods=("full", "lora"), sizes=(32,))[:-1]
    assert "1 cell is missing: " in outside_scripts(page_html(records))


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, 30])
def test_ten_thousand_cells_fit_in_six_megabytes(n_seeds):
    """9,990 cells: 37 methods of 18 sizes on 5 tasks; and with the same cells ten times as many seeds."""
    records = []
    for task in range(5):
        for method in range(37):
            for size in range(18):
                made = make_record(f"method-{method}", 16 * (size + 1), task=f"task-{task}", n_test=40)
                bare = dataclasses.replace(made, predictions=None)
                for seed in range(n_seeds):
                    cell = dataclasses.replace(bare.cell, seed=seed)
                    records.append(dataclasses.replace(bare, cell=cell))
    assert len(records) == 3330 * n_seeds
    assert isinstance(records[0].provenance, Provenance)
    assert len(page_html(records).encode()) <= 6_000_000
