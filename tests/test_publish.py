"""Published sites: permanent addresses, links, determinism, interruptions, and what a site says has changed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest

import harness
from harness.report.blocks import TableBlock
from harness.report.views import base
from harness.site import publish as publishing
from harness.site import staging
from harness.site.state import load_state
from harness.support import StoreError, UsageError
from tests.browser import chromium, resize
from tests.command_examples import draw_nothing
from tests.record_factory import make_backbones, make_grid, make_record

RECORDS = [record for task in ("docstrings", "trec") for record in make_grid(("lora", "full"), (32, 512), task=task)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "site"
    with pytest.MonkeyPatch.context() as monkeypatch:
        draw_nothing(monkeypatch)
        harness.publish(folder, {"June 2026": RECORDS, "other": make_grid(("full",), (32,))})
    return folder


@pytest.fixture
def site(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "site"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def addresses(site: Path, report: str = "june-2026") -> dict[str, str]:
    listed = json.loads((site / report / "report.json").read_text("utf-8"))["listed"]
    return {one["address"]: f"{one['part']}: {one['title']}" for one in listed if one["is_current"]}


class Page(HTMLParser):
    """The elements, links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.elements: set[str] = set()
        self.handlers: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            if name in ("href", "src", "action", "srcset", "data"):
                self.links.append(value or "")
            if name == "id":
                self.anchors.add(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_every_link_leads_to_a_file_of_the_site_and_to_an_anchor(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 10
    for path, page in pages.items():
        for link in page.links:
            assert not re.match(r"[a-z]+:|/", link), (path, link)  # relative: works below any path
            address, anchor = urldefrag(unquote(link))
            target = (path.parent / address).resolve() if address else path
            assert target.is_file(), (path, link)
            assert target.is_relative_to(site), (path, link)
            if anchor and target.suffix == ".html":
                assert anchor in pages[target].anchors, (path, link)


def test_nothing_outside_is_asked_for(site: Path) -> None:
    for path in site.rglob("*.html"):
        content = path.read_text("utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', content)
        assert policy is not None
        assert policy[1].startswith("default-src 'none'")
        assert "http" not in policy[1]
        assert "http:" not in content.replace("http-equiv", "")
    assert "url(" not in next(site.glob("assets/*.css")).read_text("utf-8")


def test_reports_share_their_scripts_and_styles(site: Path) -> None:
    names = sorted(path.name.rpartition("-")[0] for path in (site / "assets").iterdir())
    assert names == ["page", "page", "plotly"]
    for report in ("june-2026", "other"):
        assert (site / report / "index.html").stat().st_size < 300_000


def test_the_same_records_give_the_same_bytes(site: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()}
    shown = contents(site)
    again = {"other": make_grid(("full",), (32,)), "June 2026": RECORDS}
    harness.publish(tmp_path / "another", again)
    assert contents(tmp_path / "another") == shown
    harness.publish(site, again)
    assert contents(site) == shown
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was written anew


@pytest.mark.slow
def test_figures_are_drawn_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in ("a", "b"):
        harness.publish(tmp_path / name, {"r": make_grid(("tfidf", "full"), (32, 512))})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    (svg,) = (tmp_path / "a" / "r" / "f").glob("*-learning-curves.svg")
    assert "<svg" in svg.read_text("utf-8")


def test_addresses_stay_when_records_and_views_are_added(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = addresses(site)
    view = base.View(
        position=1,
        in_panel=lambda *_: [TableBlock("A new view", ["a"], [["1"]])],
        csv=lambda _: pd.DataFrame({"a": [1]}),
    )
    known = dict(base.in_order())
    monkeypatch.setattr("harness.site.items.in_order", lambda: [("new_view", view), *known.items()])
    more = [
        *RECORDS,
        *make_grid(("linear-probe", "full"), (32, 512), task="aaa"),
        *make_grid(("linear-probe",), (32, 2048), task="trec"),
        *make_grid(("full",), (32, 512), task="trec", backbone="another/backbone", weights="other"),
        *make_grid(("full",), (32, 512), task="trec", device="another device"),
        *make_grid(("full",), (32, 512), task="trec", data="e" * 32),
    ]
    harness.publish(site, {"June 2026": more})
    after = addresses(site)
    gone = before.keys() - after.keys()
    assert all(one.startswith("ranks") for one in gone)  # ranks of other methods, since names hold backbones now
    assert len(after) > len(before)
    assert any("A new view" in title for title in after.values())
    of_panel = "learning-curves"
    (address,) = (one for one in before if one.startswith("docstrings-") and one.endswith(of_panel))
    assert before[address] == after[address]
    for one in before:
        assert (site / "june-2026" / "f" / f"{one}.html").is_file()


def test_two_panels_never_share_an_address(tmp_path: Path) -> None:
    records = [
        *make_grid(("full",), (32,), task="SST2"),
        *make_grid(("full",), (32,), task="sst2"),
        *make_grid(("full",), (32,), task="тест"),
        *make_grid(("full",), (32,), task="тост"),
        *make_grid(("full",), (32,), task="x" * 100 + "a"),
        *make_grid(("full",), (32,), task="x" * 100 + "b"),
        *make_grid(("full",), (32,), task="sst2", device="b"),
    ]
    harness.publish(tmp_path, {"r": records})
    listed = json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))["listed"]
    curves = [one for one in listed if one["address"].endswith("learning-curves")]
    assert len(curves) == len({one["address"] for one in curves}) == len({one["part"] for one in curves}) == 7
    assert all(re.fullmatch(r"[a-z0-9-]{1,120}", one["address"]) for one in listed)


def test_a_figure_that_went_keeps_its_page(site: Path) -> None:
    before = addresses(site)
    harness.publish(site, {"June 2026": [record for record in RECORDS if record.cell.task == "trec"]})
    gone = before.keys() - addresses(site).keys()
    assert any(one.startswith("docstrings-") for one in gone)
    for one in gone:
        page = (site / "june-2026" / "f" / f"{one}.html").read_text("utf-8")
        assert "The report no longer has this" in page
    test_every_link_leads_to_a_file_of_the_site_and_to_an_anchor(site)
    harness.publish(site, {"June 2026": RECORDS})
    assert addresses(site) == before
    page = (site / "june-2026" / "f" / f"{min(gone)}.html").read_text("utf-8")
    assert "no longer" not in page


def test_each_figure_has_its_numbers(site: Path) -> None:
    folder = site / "june-2026" / "f"
    (path,) = folder.glob("trec-*-learning-curves.csv")
    frame = pd.read_csv(path)
    own = frame[(frame["line"] == "full") & (frame["n_train"] == 512)]
    scores = [r.score.value for r in RECORDS if (r.cell.task, r.cell.method, r.cell.n_train) == ("trec", "full", 512)]
    assert own["score"].item() == pytest.approx(sum(scores) / len(scores))
    listed = json.loads((folder.parent / "report.json").read_text("utf-8"))["listed"]
    for one in listed:
        endings = ("html", "csv", *(("png", "svg") if one["is_figure"] else ()))
        assert all((folder / f"{one['address']}.{ending}").stat().st_size for ending in endings), one


def test_other_reports_and_other_files_stay(site: Path) -> None:
    (site / "CNAME").write_text("example.org", "utf-8")
    (site / "june-2026" / "notes.txt").write_text("mine", "utf-8")
    other = contents(site / "other")
    harness.publish(site, {"June 2026": make_grid(("full", "lora"), (32,))})
    assert contents(site / "other") == other
    assert (site / "CNAME").read_text("utf-8") == "example.org"
    assert (site / "june-2026" / "notes.txt").read_text("utf-8") == "mine"
    index = (site / "index.html").read_text("utf-8")
    assert index.count('class="card"') == 2


def test_a_file_of_somebody_else_is_not_replaced(site: Path, tmp_path: Path) -> None:
    foreign = site / "new" / "index.html"
    foreign.parent.mkdir()
    foreign.write_text("mine", "utf-8")
    before = contents(site)
    with pytest.raises(UsageError, match=r"holds new/index\.html, which no `harness publish` wrote"):
        harness.publish(site, {"new": make_grid(("full",), (32,))})
    assert contents(site) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine", "utf-8")
    with pytest.raises(UsageError, match=r"index\.html that this command did not write"):
        harness.publish(tmp_path / "mine", {"new": make_grid(("full",), (32,))})


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, StoreError("full")])
def test_an_interrupted_publish_leaves_the_site_as_it_was(
    site: Path, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(site)
    with monkeypatch.context() as patched:

        def fail(*_: Any, **__: Any) -> str:
            raise error

        patched.setattr(publishing.pages, "index_page", fail)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            harness.publish(site, {"June 2026": make_grid(("full",), (32,))})
    assert contents(site) == before


def test_a_publish_that_ends_while_files_move_is_completed_by_the_next(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = make_grid(("full",), (32,))
    expected = Path(shutil.copytree(site, tmp_path / "expected"))
    harness.publish(expected, {"June 2026": changed})
    harness.publish(expected, {"third": changed})
    n_moved = 0
    replace = Path.replace

    def stop(self: Path, target: Any) -> Any:
        nonlocal n_moved
        n_moved += ".publishing" not in str(target)
        if n_moved > 7:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(staging.Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            harness.publish(site, {"June 2026": changed})
    harness.publish(site, {"third": changed})
    assert contents(site) == contents(expected)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    evil = "\"><script>alert(1)</script><img src=x onerror=alert(2)> ' [x](javascript:1) **b**"
    records = []
    for record in make_grid(("full", "tfidf"), (32, 512)):
        cell = dataclasses.replace(record.cell, task=f"t{evil}", method=f"{record.cell.method}{evil}")
        records.append(dataclasses.replace(record, cell=cell, device=f"d{evil}", suite=evil))
    records.append(make_record("lora", status="failed", error=evil))
    harness.publish(tmp_path / "site", {f"n{evil}": records})
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path)
        assert page.handlers == []
        assert not any(link.startswith(("javascript:", "x")) for link in page.links), path
        assert "<script>" not in path.read_text("utf-8"), path
        is_report = path.name == "index.html" and path.parent.name != "site"
        assert ("script" in page.elements) == is_report, path
    test_every_link_leads_to_a_file_of_the_site_and_to_an_anchor((tmp_path / "site").resolve())


def test_the_site_says_what_changed(site: Path) -> None:
    worse = [
        make_record("lora", 512, record.cell.seed, accuracy=0.4, task="trec")
        if (record.cell.method, record.cell.n_train, record.cell.task) == ("lora", 512, "trec")
        else record
        for record in RECORDS
    ]
    published = harness.publish(
        site, {"June 2026": [*worse, *make_grid(("head",), (32,), task="trec")], "new": RECORDS}
    )
    assert published.regressions["June 2026"]["scores"] == 1
    assert "new" not in published.regressions
    history = json.loads((site / "june-2026" / "report.json").read_text("utf-8"))["history"]
    assert "changes" not in history[0]
    (score,) = history[1]["changes"]["scores"]
    assert (score["task"], score["variant"], score["n_train"], score["verdict"]) == ("trec", "lora", 512, "worse")
    assert history[1]["changes"]["cells_by_change"] == {"new": 3}
    page = (site / "june-2026" / "changes.html").read_text("utf-8")
    assert page.count("<section") == 2
    assert "1 scores worse" not in page
    assert "1 score worse" in page


def test_the_kept_state_holds_scores_by_row_and_no_predictions(site: Path) -> None:
    folder = site / "june-2026"
    assert '"predicted"' not in (folder / "records.jsonl").read_text("utf-8")
    kept = load_state(folder)
    record = next(record for record in RECORDS if record.cell.method == "full")
    rows = kept.by_row[record.id, record.device]
    assert rows.values.mean() == pytest.approx(record.score.value)
    assert len(harness.read_records(folder / "records.jsonl")) == len(RECORDS)
    (folder / "rows.npz").write_bytes(b"PK damaged")
    with pytest.raises(StoreError, match=r"rows\.npz cannot be read"):
        harness.publish(site, {"June 2026": RECORDS[:-1]})


def test_sources_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.records.jsonl import write_jsonl

    monkeypatch.chdir(tmp_path)
    other = [dataclasses.replace(record, suite="second") for record in make_grid(("full",), (32,), task="trec")]
    write_jsonl([*make_grid(("full",), (32,)), *other], tmp_path / "june.jsonl")
    assert list(harness.publish("site", "june.jsonl").reports) == ["june"]
    assert list(harness.publish("site", ["Our June=june.jsonl"]).reports) == ["Our June"]
    assert (tmp_path / "site" / "our-june" / "index.html").is_file()
    assert list(harness.publish("site", "june.jsonl", by_suite=True).reports) == ["quickstart", "second"]
    with pytest.raises(UsageError, match="NAME=SOURCE"):
        harness.publish("site", {"a b": RECORDS, "A-B": RECORDS})
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("", "utf-8")
    with pytest.raises(UsageError, match="is a report, which does not hold the records"):
        harness.publish("site", "report")


def test_a_panel_keeps_its_address_with_more_backbones(tmp_path: Path) -> None:
    harness.publish(tmp_path, {"r": make_backbones(1)})
    before = {one for one in addresses(tmp_path, "r") if one.endswith(("learning-curves", "seconds", "memory"))}
    harness.publish(tmp_path, {"r": make_backbones(3)})
    assert len(before) == 3
    assert before <= addresses(tmp_path, "r").keys()


@pytest.mark.slow
def test_pages_work_from_a_folder_and_fit_a_phone(site: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile", width=390) as browser:
        resize(browser, 390)
        for page in ("index.html", "june-2026/index.html", "june-2026/figures.html", "june-2026/changes.html"):
            browser.get((site / page).as_uri())
            if page == "june-2026/index.html":
                wait = "return document.documentElement.dataset.ready === 'true' && !!window.Plotly"
                deadline = time.monotonic() + 60
                while not browser.execute_script(wait):
                    assert time.monotonic() < deadline, browser.get_log("browser")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 390, page
            assert browser.execute_script("return getComputedStyle(document.body).maxWidth") != "none"  # it has styles
        assert browser.get_log("browser") == []


@pytest.mark.parametrize("content", ["[]", "{", '{"reports": 3, "files": []}', '{"reports": [3], "files": []}'])
def test_a_damaged_list_of_a_site_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / staging.SITE_FILE).write_text(content)
    with pytest.raises(StoreError, match="not the list of files of a published site"):
        staging.reports_of(tmp_path)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "a/b", ""])
def test_a_site_lists_only_folders_of_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / staging.SITE_FILE).write_text(json.dumps({"reports": ["a-b", name], "files": []}))
    with pytest.raises(StoreError, match="expected lower-case letters, digits and hyphens"):
        staging.reports_of(tmp_path)
