"""The report's page in a real browser: it loads, answers, sorts, draws, fits, and can be used by everybody."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from pathlib import Path

import pandas as pd
import pytest

from harness.analysis.stats import pareto_front
from harness.api.results import read_records
from harness.records.record import Cost
from harness.report.answer import LIMITS, footnote, in_words
from harness.report.page import write_page
from harness.report.page_data import panels_data
from harness.report.rows import each_row
from harness.report.tables import comparison
from harness.report.views.base import ReportData
from tests.browser import chromium, load, resize
from tests.pages import data_of
from tests.record_factory import make_backbones, make_grid, make_record

REFERENCE = Path(__file__).parents[1] / "results" / "earlier" / "amd-epyc-2-threads"
SCREENS = [(1440, 900), (390, 844)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of two tasks, with a failure, a method that has no labels and names that are hostile."""
    evil = "<b>lora</b><img src=x onerror=alert(1)>" + "y" * 300
    records = [r for task in ("docstrings", "sst2") for r in make_grid(task=task, seeds=(0, 1, 2))]
    records += [make_record("zero-shot", 0, accuracy=0.5), make_record(evil, 128, seed=0, accuracy=0.66)]
    records.append(make_record("full", 8192, status="out_of_memory", error="needed 9 GB"))
    point = records[0].curve[0]
    curve = tuple(dataclasses.replace(point, step=i, seconds=i * 1.0, validation=0.1 * i) for i in range(6))
    full = next(i for i, r in enumerate(records) if r.cell.method == "full" and r.cell.n_train == 2048)
    records[full] = dataclasses.replace(records[full], curve=curve)
    return write_page(records, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    """One browser for all tests in this file: it takes seconds to start."""
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(chrome, page):
    """The browser with the page of `page`, as the last test left it."""
    if chrome.current_url != page.as_uri():
        resize(chrome, 1440)
        chrome.get("about:blank")
        chrome.get_log("performance")  # what the browser asked itself when it started
        load(chrome, page)
    return chrome


@pytest.fixture(scope="module")
def reference():
    return ReportData(list(read_records(REFERENCE)))


@pytest.fixture(scope="module")
def pages(reference, tmp_path_factory):
    """Reports of the published results, and of records that are made up."""
    folder = tmp_path_factory.mktemp("pages")
    few = make_grid(methods=("majority", "tfidf", "linear-probe", "head", "lora", "full"), sizes=(48, 192))
    sources = {
        "reference": reference,
        "few": few,
        "one": [make_record()],
        "imported": [dataclasses.replace(r, cost=Cost(), predictions=None, curve=()) for r in few],
        "failed": [make_record(status="failed", error="ValueError: no")],
        "backbones": make_backbones(),
        "settings": [make_record("lora", config={"rank": rank}, accuracy=0.6 + rank / 100) for rank in (4, 8)],
    }
    return {name: write_page(source, folder / f"{name}.html") for name, source in sources.items()}


def open_all(browser):
    browser.execute_script("document.querySelectorAll('details.part').forEach(part => part.open = true)")
    time.sleep(0.3)


def choose(browser, selector, value):
    script = (
        "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(script, selector, str(value))


def text(browser, selector):
    said = browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)
    return said.replace("\u00a0", " ")


def column(browser, n):
    rows = "[...document.querySelectorAll('#full-table tbody tr')]"
    return browser.execute_script(f"return {rows}.map(row => row.children[arguments[0]].textContent)", n)


def test_it_loads_without_an_error_and_asks_nobody(browser):
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"].partition(":")[0])
    assert asked <= {"file", "data", "blob", "about"}


def test_every_figure_is_drawn_when_it_is_opened(browser):
    assert browser.execute_script("return document.querySelectorAll('.scatterlayer').length") == 0
    open_all(browser)
    for name in ("curves", "cost", "anytime"):
        layer = f"#{name}-figure .scatterlayer"
        found = f"document.querySelectorAll('{layer} .point, {layer} .js-line')"
        n_points = browser.execute_script(f"return {found}.length")
        assert n_points > 0, name
    assert browser.execute_script("return document.querySelectorAll('#front-figure circle').length") == 7


MOVE = """
    const slider = document.getElementById('limit-' + arguments[0]);
    slider.value = arguments[1];
    slider.dispatchEvent(new Event('input'));
"""


def test_sliders_change_the_answer_and_grey_out_what_does_not_fit(browser):
    before = text(browser, "#answer .said")
    assert before.startswith("With 2,048 labels, use full")
    browser.execute_script(MOVE, "n_train", 0)  # 32, 128, ...
    after = text(browser, "#answer .said")
    assert after.startswith("With 32 labels, use linear-probe")
    assert browser.execute_script("return document.querySelectorAll('#full-table tr.unfit').length") > 10
    browser.execute_script("document.getElementById('only-fitting').click()")
    assert browser.execute_script("return document.querySelectorAll('#full-table tr.unfit').length") == 0
    browser.execute_script("document.getElementById('only-fitting').click()")
    browser.execute_script(MOVE, "n_train", 99)
    assert text(browser, "#answer .said") == before


def test_sorting_sorts_both_ways_and_filtering_filters(browser):
    open_all(browser)
    for expected in (True, False):
        browser.execute_script("document.querySelectorAll('#full-table thead button')[3].click()")
        scores = [float(score) for score in column(browser, 3) if score != "–"]
        assert scores == sorted(scores, reverse=expected)
        assert scores
    header = "document.querySelectorAll('#full-table thead th')[3]"
    sort = browser.execute_script(f"return {header}.getAttribute('aria-sort')")
    assert sort == "ascending"
    typed = "const f = document.getElementById('filter'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))"
    browser.execute_script(typed, "tfidf")
    assert set(column(browser, 0)) == {"tfidf"}
    browser.execute_script(typed, "")


def test_another_task_is_another_answer(browser):
    titles = browser.execute_script("return [...document.getElementById('panel').options].map(o => o.textContent)")
    assert len(titles) == 2
    choose(browser, "#panel", 1)
    parts = "[...document.querySelectorAll('#standings [data-panel]')]"
    shown = f"return {parts}.filter(p => !p.hidden).map(p => p.textContent)"
    (answer,) = browser.execute_script(shown)
    assert "sst2" in answer
    choose(browser, "#panel", 0)


@pytest.mark.parametrize(("axis", "key"), list(enumerate(("train", "memory", "trainable", "stored", "predict"))))
def test_the_front_of_every_cost_is_the_one_that_is_computed_here(browser, page, axis, key):
    choose(browser, "#axis", axis)
    filled = """
        return document.getElementById('cost-figure').data.filter(t => t.mode === 'markers').flatMap(
            t => t.y.filter((_, i) => !t.marker.symbol[i].endsWith('-open')))
    """
    rows = data_of(page.read_text("utf-8"))["panels"][0]["rows"]
    front = pareto_front(pd.array(rows[key], dtype="Float64"), pd.array(rows["score"], dtype="Float64"))
    expected = [score for score, on_front in zip(rows["score"], front, strict=True) if on_front]
    assert sorted(browser.execute_script(filled)) == sorted(expected)


def test_names_are_names(browser):
    open_all(browser)
    assert browser.execute_script("return document.querySelectorAll('img[src=x], #full-table b').length") == 0
    assert any(name.startswith("<b>lora</b><img") for name in column(browser, 0))


@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_overflows_and_everybody_can_use_it(browser, width):
    from axe_core_python.selenium import Axe

    resize(browser, width)
    open_all(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    found = Axe().run(browser)["violations"]
    bad = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert bad == []


def test_it_can_be_read_in_the_dark(page, tmp_path):
    from axe_core_python.selenium import Axe

    with chromium(tmp_path / "profile", dark=True) as found:
        load(found, page)
        open_all(found)
        ground = found.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(20, 23, 27)"
        bad = [one["id"] for one in Axe().run(found)["violations"] if one["impact"] in ("serious", "critical")]
        assert bad == []


# ---- the first screen, and labels, of several reports


@pytest.fixture
def other(chrome):
    """The browser, for a page that the test loads."""
    return chrome


@pytest.mark.parametrize(("width", "height"), SCREENS)
@pytest.mark.parametrize("name", ["reference", "few", "one", "imported"])
def test_answer_sliders_and_figure_are_on_the_first_screen(other, pages, name, width, height):
    resize(other, width, height)
    load(other, pages[name])
    ends = """
        return ['#answer .said', '#sliders', '#front-figure svg', '#panel'].map(name => {
            const box = document.querySelector(name).getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom, box.width * box.height];
        })
    """
    for left, top, right, bottom, area in other.execute_script(ends):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert area > 0
    n_panels = other.execute_script("return document.getElementById('panel').options.length")
    for panel in range(n_panels):
        choose(other, "#panel", panel)
        assert (
            other.execute_script("return document.querySelector('#front-figure svg').getBoundingClientRect().bottom")
            <= height
        )
        assert other.execute_script("return document.querySelector('#front-figure svg').clientHeight") >= (
            120 if name in ("imported", "one") else 200
        )


def test_a_report_of_failures_says_so_and_draws_nothing(other, pages):
    load(other, pages["failed"])
    assert text(other, "#answer .said") == "Nothing was scored."
    assert other.execute_script("return document.querySelector('#front').checkVisibility()") is False
    open_all(other)
    assert [entry for entry in other.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_answer_needs_no_scripts(pages, reference):
    shown = pages["reference"].read_text("utf-8").split('id="answer"')[1].split("</section>")[0]
    assert "With 32 labels (8/class), use" in shown.replace("\u00a0", " ")
    assert "setfit" in shown


BUDGETS = """
    const found = [];
    const sliders = ['n_train', 'train', 'memory', 'trainable'].map(name => document.getElementById('limit-' + name));
    const move = (slider, value) => {
        if (!slider) return;
        slider.value = value;
        slider.dispatchEvent(new Event('input'));
    };
    const reset = () => sliders.forEach((slider, i) => i && move(slider, slider.max));
    const note = () => found.push({
        at: sliders[0] ? Number(sliders[0].value) : 0,
        limits: sliders.slice(1).map(slider => slider?.dataset.limit || null),
        said: document.querySelector('#answer .said').textContent,
        note: document.querySelector('#answer .notes').textContent,
        use: document.querySelector('#answer .use')?.textContent || null,
    });
    for (let at = 0; at <= Number(sliders[0]?.max || 0); at += 1) {
        move(sliders[0], at);
        reset();
        note();
        for (const slider of sliders.slice(1)) {
            if (!slider) continue;
            for (let i = 0; i < Number(slider.max); i += 3) { move(slider, i); note(); }
            reset();
        }
        move(sliders[1], Math.floor(sliders[1].max / 2));
        move(sliders[3], Math.floor(sliders[3].max / 2));
        note();
    }
    return found;
"""


@pytest.mark.parametrize("name", ["reference", "few", "backbones"])
def test_every_slider_gives_the_answer_that_is_computed_here(other, pages, reference, name):
    """The best against a computation from the table of comparison.csv; the words against those of `answer`."""
    few = make_grid(methods=("majority", "tfidf", "linear-probe", "head", "lora", "full"), sizes=(48, 192))
    report = reference if name == "reference" else ReportData(make_backbones() if name == "backbones" else few)
    load(other, pages[name])
    n_answers = 0
    for i, (panel, data) in enumerate(zip(report.panels, panels_data(report), strict=True)):
        choose(other, "#panel", i)
        rows = each_row(data["rows"])
        for found in other.execute_script(BUDGETS):
            limits = {key: float(limit) for key, limit in zip(LIMITS, found["limits"], strict=True) if limit}
            expected = _best(comparison(report.observations), panel, data["sizes"][found["at"]], limits)
            assert (found["use"] or "").removesuffix("…") == (expected or "")[: 29 if len(expected or "") > 30 else 30]
            words = in_words(found["at"], data, rows, limits)
            said = "".join(one if len(one) <= 30 or not kind else one[:29] + "…" for kind, one in words)
            assert found["said"].replace("\u00a0", " ") == said
            assert found["note"] == footnote(data["sizes"][found["at"]], data, rows, limits)
            n_answers += 1
    assert n_answers > 30


def _best(frame, panel, size, limits):
    """Return the method with the best mean score within limits, from the columns of comparison.csv."""
    same = (frame["task"] == panel.task) & (frame["device"] == panel.device) & (frame["budget"] == panel.budget)
    if panel.backbone is not None:
        same &= frame["backbone"].isna() | (frame["backbone"] == panel.backbone).fillna(False)
    own = frame[same & frame["score"].notna()]
    here = own[(own["n_train"] == size.n_train) & (own["draw"] == size.draw)]
    free = own[(own["n_train"] == 0) & ~own["variant"].isin(here["variant"])]
    rivals = pd.concat([here, free])
    for name, column in (("train", "train_seconds"), ("memory", "memory_bytes"), ("trainable", "n_trainable")):
        if name in limits:
            rivals = rivals[(rivals[column] <= limits[name]).fillna(False)]
    if rivals.empty:
        return None
    ordered = rivals.sort_values(["score", "variant"], ascending=[not panel.higher_is_better, True])
    return str(ordered["variant"].iloc[0])


LABELS = """
    const own = document.querySelector(arguments[0]);
    return [...own.querySelectorAll('.direct-label, .annotation-text')].map(label => {
        const box = label.getBoundingClientRect();
        return [label.textContent, box.left, box.top, box.right, box.bottom];
    })
"""


@pytest.mark.parametrize("name", ["reference", "backbones"])
@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_no_label_covers_another_and_no_name_is_long(other, pages, name, width, height):
    resize(other, width, height)
    load(other, pages[name])
    open_all(other)
    n_labels = 0
    for panel in range(other.execute_script("return document.getElementById('panel').options.length")):
        choose(other, "#panel", panel)
        n_sizes = other.execute_script("return Number(document.getElementById('limit-n_train')?.max || 0)")
        for at in range(n_sizes + 1):
            if n_sizes:
                other.execute_script(MOVE, "n_train", at)
            for figure in ("front", "curves", "cost", "anytime"):
                labels = other.execute_script(LABELS, f"#{figure}-figure")
                assert len(labels) <= 8, (figure, [label[0] for label in labels])
                for name, left, _, right, _ in labels:
                    assert len(name) <= 30, name
                    assert left >= 0, (figure, name)
                    assert right <= width, (figure, name)
                for a, b in itertools.combinations(labels, 2):
                    apart = a[3] <= b[1] or b[3] <= a[1] or a[4] <= b[2] + 1 or b[4] <= a[2] + 1
                    assert apart, (panel, at, figure, a, b)
                n_labels += len(labels)
    assert n_labels > (50 if name == "reference" else 10)
    colours = (
        "return new Set([...document.querySelectorAll('#front-figure .point')].map(p => p.getAttribute('fill'))).size"
    )
    assert other.execute_script(colours) <= 9  # eight, and grey


def test_a_reader_colours_and_greys_methods(other, pages):
    resize(other, 1440, 900)
    load(other, pages["reference"])
    choose(other, "#panel", 2)
    open_all(other)
    names = "return [...document.querySelectorAll('#curves .chip')].map(chip => chip.textContent)"
    before = other.execute_script(names)
    choose(other, "#curves .chips select", "dora")
    after = other.execute_script(names)
    assert "dora" not in before
    assert "dora" in after
    assert len(after) <= 8
    other.execute_script("[...document.querySelectorAll('#curves .chip')].find(c => c.textContent === 'dora').click()")
    assert "dora" not in other.execute_script(names)


@pytest.mark.parametrize("place", ["#answer .use", "#standings td.best .has-tip", "#full-table .has-tip"])
def test_a_keyboard_reaches_the_settings_of_a_method(other, pages, place):
    load(other, pages["settings"])
    open_all(other)
    other.execute_script("document.querySelector(arguments[0]).focus()", place)
    assert text(other, "#tip") == "rank=8"
    assert other.execute_script("return document.activeElement.getAttribute('aria-describedby')") == "tip"
