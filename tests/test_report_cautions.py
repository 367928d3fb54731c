"""Captions of tables: cut texts, seeds and missing cells, alike in all renderings; and hostile names."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness.analysis.columns import Cut, cut
from harness.records.record import Record
from harness.report import latex, write
from harness.report.caption import cautions, coverage, scores_said
from harness.report.compare import compare_methods
from harness.report.contrasts import standings
from harness.report.page import page_html
from harness.report.panels import panels
from harness.report.pivot import pivot
from harness.report.tables import comparison
from harness.report.terminal import terminal_compared, terminal_table, terminal_tables
from harness.report.write import write_report
from harness.support import text
from tests.pages import data_of, outside_scripts
from tests.record_factory import make_grid, make_record, noted

ALL_CUT = {"truncated_train_rows": "300 of 360", "truncated_test_rows": "40 of 40", "longest_test_tokens": "128"}


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and not saved, which takes most of a report's time."""
    monkeypatch.setattr(write, "save_figure", lambda _, stem, __: [stem.with_suffix(".png")])


def terminal(records: list[Record]) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(records))
    return console.export_text()


def unwrapped(shown: str) -> str:
    """A rendering as one line of plain words: without LaTeX's, Markdown's and HTML's own signs."""
    shown = re.sub(r"\\text(less|greater)\{\}|-\{\}-", lambda found: {"-": "--"}.get(found[0][0], "<"), shown)
    shown = shown.replace("\\", "").replace("&#x27;", "'").replace("&amp;", "&")
    return " ".join(shown.split())


# ---- texts that were cut


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ({}, Cut()),
        ({"truncated_test_rows": "10 of 40"}, Cut(test=0.25, side="right")),
        ({"truncated_test_rows": "10 of 40", "longest_test_tokens": "64"}, Cut(test=0.25, tokens=64, side="right")),
        ({"truncated_train_rows": "1 of 4, on the left"}, Cut(train=0.25, side="left")),
        # the drawn training texts may all be shorter than the limit
        ({"truncated_train_rows": "1 of 4", "longest_train_tokens": "9", "longest_test_tokens": "8"},
         Cut(train=0.25, side="right")),
        ({"truncated_train_rows": "some", "truncated_test_rows": "5 of 4"}, Cut()),
        ({"truncated_test_rows": "0 of 0"}, Cut()),
    ],
)  # fmt: skip
def test_the_notes_on_cut_texts_are_read_into_numbers(notes: dict[str, str], expected: Cut) -> None:
    assert cut(noted(make_record(), **notes)) == expected


@pytest.mark.usefixtures("no_figures")
def test_every_rendering_says_how_many_texts_were_cut(tmp_path: Path) -> None:
    records = [noted(record, **ALL_CUT) for record in make_grid(methods=("linear-probe", "lora"), sizes=(32,))]
    records += make_grid(methods=("tfidf",), sizes=(32,))
    said = (
        "All of the test texts and 83 % of the training texts were cut at 128 tokens for all methods that read the "
        "backbone; max_length of the task (--max-length) sets the limit"
    )
    write_report(records, tmp_path, formats=("png",))
    for shown in (
        terminal(records),
        (tmp_path / "report.md").read_text("utf-8"),
        (tmp_path / "report.html").read_text("utf-8"),
        (tmp_path / "tables" / "docstrings.tex").read_text("utf-8"),
    ):
        assert said in unwrapped(shown)
        assert "truncated_t" not in shown
    with (tmp_path / "comparison.csv").open(encoding="utf-8", newline="") as file:
        shares = {row["method"]: (row["train_rows_cut"], row["test_rows_cut"]) for row in csv.DictReader(file)}
    assert shares["lora"] == (repr(300 / 360), "1.0")
    assert shares["tfidf"] == ("", "")
    with (tmp_path / "cells.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            parts = sum(float(row[f"{part}_seconds"] or 0) for part in ("encode", "tune", "fit"))
            assert float(row["train_seconds"]) == pytest.approx(parts)


def test_methods_whose_texts_were_cut_otherwise_are_named_apart() -> None:
    records = [
        noted(make_record("lora"), truncated_test_rows="3 of 400", longest_test_tokens="128"),
        noted(make_record("full"), truncated_test_rows="1 of 10000, on the left", longest_test_tokens="64"),
        make_record("head"),
    ]
    said = [line for line in cautions(panels(records)[0]) if "cut" in line]
    assert sorted(line.partition(";")[0] for line in said) == [
        "0.8 % of the test texts were cut at 128 tokens for lora",
        "Less than 0.1 % of the test texts were cut at 64 tokens, on the left for full",
    ]


def test_methods_without_training_texts_join_those_whose_test_texts_were_cut_alike() -> None:
    records = [
        noted(make_record("full"), truncated_train_rows="2 of 10", truncated_test_rows="3 of 10"),
        noted(make_record("label-similarity", 0), truncated_test_rows="3 of 10"),
    ]
    [said] = [line for line in cautions(panels(records)[0]) if "cut" in line]
    assert said.startswith("30 % of the test texts and 20 % of the training texts were cut")
    assert "for all methods that read the backbone" in said


# ---- tables that fit the terminal


@pytest.mark.parametrize("width", [72, 80, 100])
def test_no_line_is_wider_than_the_terminal_and_no_name_is_broken(width: int) -> None:
    names = ("linear-probe", "tfidf", "full")
    for sizes in ((32,), (32, 512, 2048), (32, 64, 128, 512, 2048)):
        console = Console(width=width, file=io.StringIO(), color_system=None)
        for table in terminal_tables(make_grid(methods=names, sizes=sizes), width):
            console.print(table)
        shown = console.file.getvalue()
        assert max(map(len, shown.splitlines())) <= width
        assert all(f" {name} " in shown for name in names)
        assert "trainable" in shown


# ---- the same facts in Markdown and LaTeX


def facts_of_markdown(report: str) -> list[list[str]]:
    table = re.search(r"^\| method.*?\n\n", report, re.MULTILINE | re.DOTALL)
    assert table is not None
    fields = [field.strip().replace("**", "") for line in table[0].splitlines() for field in line.strip("|").split("|")]
    return [re.sub(r"[\[\],()–-]", " ", field).split() for field in fields if field and ":" not in field]


def facts_of_latex(table: str) -> list[list[str]]:
    body = table.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "").replace("\\\\\n", "&")
    body = (
        re.sub(r"\\textbf\{(.*?)\}", r"\1", body)
        .replace(r"\scriptsize", "")
        .replace(r"$^\ast$", "")
        .replace("$^?$", "")
    )
    return [re.sub(r"[\[\],(){}\\–-]", " ", field).split() for field in body.split("&") if field.strip()]


@pytest.mark.usefixtures("no_figures")
def test_latex_says_what_markdown_says(tmp_path: Path) -> None:
    records = make_grid(methods=("full", "lora", "tfidf"), sizes=(32, 2048))
    records = [r for r in records if (r.cell.method, r.cell.n_train, r.cell.seed) != ("lora", 32, 0)]
    failed = make_record("full", 2048, 2, status="out_of_memory")
    records = [*(r for r in records if r.id != failed.id), failed, make_record("head", 32, 0, status="failed")]
    records = [noted(record, **ALL_CUT) for record in records]
    write_report(records, tmp_path, formats=("png",))
    markdown = (tmp_path / "report.md").read_text("utf-8")
    table = (tmp_path / "tables" / "docstrings.tex").read_text("utf-8")
    rows = facts_of_markdown(markdown)
    assert facts_of_latex(table) == rows
    assert ["1", "missing"] in [row[-2:] for row in rows]
    (panel,) = panels(records)
    for said in (scores_said(panel), *coverage(panel), *cautions(panel)):
        for shown in (markdown, table, outside_scripts(page_html(records))):
            assert said in unwrapped(shown)
    assert "mean over 2 to 3 seeds" in scores_said(panel)
    assert any("1 failed, 1 out of memory, 3 missing" in said for said in cautions(panel))
    ranked = standings(records)
    ranked = ranked[ranked["is_tied"].fillna(False) & ~ranked["is_best"]]
    tied = {(row.variant, row.n_train) for row in ranked.itertuples()}
    assert table.count(r"$^\ast$") == len(tied)


@pytest.mark.usefixtures("no_figures")
def test_what_is_not_known_to_be_tied_is_not_shown_as_worse(tmp_path: Path) -> None:
    records = [dataclasses.replace(make_record(name, accuracy=at), predictions=None) for name, at in
               (("lora", 0.9), ("full", 0.8))]  # fmt: skip
    records = [
        dataclasses.replace(r, score=dataclasses.replace(r.score, low=None, high=None)) for r in records if r.score
    ]
    write_report(records, tmp_path, formats=("png",))
    assert "not known: full" in (tmp_path / "report.md").read_text("utf-8")
    assert "nothing is tied" not in (tmp_path / "report.md").read_text("utf-8")
    assert "$^?$" in (tmp_path / "tables" / "docstrings.tex").read_text("utf-8")
    assert "not known: full" in (tmp_path / "report.html").read_text("utf-8")


# ---- names that are none


HOSTILE = [
    "[/b][bold red]",
    "lone \ud800 half",
    "a|b|c",
    "x" * 3000,
    "<script>alert(1)</script>",
    "\\input{x} $a_b^c$ 50% #&~ {}",
    "`code` **bold** [link](http://evil)",
    "--max \x1b[31mred\x1b[0m\r\nnext",
    "\u202edlrow :warning:",
    "[opt] *star",
    "=1+1",
]


@pytest.mark.parametrize("where", ["task", "method", "error"])
@pytest.mark.parametrize("evil", HOSTILE, ids=range(len(HOSTILE)))
def test_names_do_no_harm_in_any_rendering(evil: str, where: str) -> None:
    name: dict[str, Callable[[], list[Record]]] = {
        "task": lambda: [make_record(task=evil), make_record("full", task=evil), make_record(task="other")],
        "method": lambda: [make_record(evil), make_record("full", config={"of": evil})],
        "error": lambda: [make_record(), make_record("full", status="failed", error=evil)],
    }
    records = name[where]()
    for found in panels(records):
        n_labels = len(pivot(found)[0])
        table = latex.latex_pivot(found)
        body = table.split(r"\midrule")[1].split(r"\bottomrule")[0]
        for line in filter(str.strip, body.replace("\\\\\n", "\n").splitlines()):
            assert len(re.findall(r"(?<!\\)&", line)) == n_labels + 3
            assert not line.startswith(("[", "*"))
        assert not re.search(r"(?<!\\)[#%]", table)
        assert table.count("\\input") == 0
    shown = terminal(records)
    assert "\x1b" not in shown
    assert ":warning:" in shown or ":warning:" not in evil or where == "error"
    assert "[/b]" in shown or "[/b]" not in evil or where == "error"
    page = page_html(records)
    assert "<script>alert" not in page
    assert data_of(page)["panels"]
    page.encode("utf-8")
    compared = compare_methods(records, records)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal_compared(compared))
    assert "\x1b" not in console.export_text()
    assert len(comparison(records)) == len(records)
    assert text.markdown(evil).encode("utf-8")
    assert not re.search(r"(?<!\\)[|`*]", text.markdown(evil))


def test_a_report_of_hostile_names_is_written_whole(tmp_path: Path) -> None:
    evil = " ".join(HOSTILE)
    records = [make_record(evil, task=evil), make_record("full", task=evil, status="failed", error=evil, seed=1)]
    write_report(records, tmp_path, formats=("png",))
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "<script" not in report
    for block in re.split(r"\n\n+", report):
        if block.startswith("| "):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block[:200]
    for path in tmp_path.glob("*.csv"):
        path.read_text("utf-8")


def test_the_report_says_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    records = make_grid(methods=("full",), sizes=(32,))
    dataset = {"left_out": {"no text": 11}, "n_classes_not_scored": 4, "n_classes": 7, "warnings": ["a | b."]}
    records = [dataclasses.replace(r, provenance=dataclasses.replace(r.provenance, dataset=dataset)) for r in records]
    write_report(records, tmp_path)
    told = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for page in told:
        assert "11 rows left out (no text)" in page
        assert "4 of 7 classes are trained on and not scored" in page
    assert r"a \| b" in told[0]
