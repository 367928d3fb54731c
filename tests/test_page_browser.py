"""The report's page in a real browser: it loads, answers, sorts, draws, fits, and can be used by everybody."""

from __future__ import annotations

import dataclasses
import json
import time

import pandas as pd
import pytest

from harness.analysis.stats import pareto_front
from harness.report.page import write_page
from tests.browser import chromium, resize
from tests.pages import data_of
from tests.record_factory import make_grid, make_record


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
def browser(page, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        found.get("about:blank")
        found.get_log("performance")  # what the browser asked itself when it started
        found.get(page.as_uri())
        deadline = time.monotonic() + 60
        while found.execute_script("return document.documentElement.dataset.ready") != "true":
            assert time.monotonic() < deadline, found.get_log("browser")
            time.sleep(0.1)
        yield found


def text(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


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


def test_every_figure_is_drawn(browser):
    for name in ("curves", "cost", "anytime"):
        layer = f"#{name}-figure .scatterlayer"
        found = f"document.querySelectorAll('{layer} .point, {layer} .js-line')"
        n_points = browser.execute_script(f"return {found}.length")
        assert n_points > 0, name


def test_sliders_change_the_answer_and_grey_out_what_does_not_fit(browser):
    before = text(browser, "#budget-answer")
    assert before.startswith("Best that fits: full with 2,048 labels")
    move = """
        const slider = document.getElementById('limit-n_train');
        slider.value = arguments[0];
        slider.dispatchEvent(new Event('input'));
    """
    browser.execute_script(move, 1)  # none, 32, 128, ...: at most 32
    after = text(browser, "#budget-answer")
    assert after.startswith("Best that fits: linear-probe with 32 labels")
    assert browser.execute_script("return document.querySelectorAll('#full-table tr.unfit').length") > 10
    browser.execute_script("document.getElementById('only-fitting').click()")
    assert browser.execute_script("return document.querySelectorAll('#full-table tr.unfit').length") == 0
    browser.execute_script("document.getElementById('only-fitting').click()")
    browser.execute_script(move, 99)
    assert text(browser, "#budget-answer") == before


def test_sorting_sorts_both_ways_and_filtering_filters(browser):
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
    choose = "const s = document.getElementById('panel'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
    titles = browser.execute_script("return [...document.getElementById('panel').options].map(o => o.textContent)")
    assert len(titles) == 2
    browser.execute_script(choose, "1")
    shown = "return [...document.querySelectorAll('[data-panel]')].filter(p => !p.hidden).map(p => p.textContent)"
    (answer,) = browser.execute_script(shown)
    assert "sst2" in answer
    browser.execute_script(choose, "0")


@pytest.mark.parametrize(("axis", "key"), list(enumerate(("train", "memory", "trainable", "stored", "predict"))))
def test_the_front_of_every_cost_is_the_one_that_is_computed_here(browser, page, axis, key):
    choose = "const s = document.getElementById('axis'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
    browser.execute_script(choose, str(axis))
    filled = """
        return document.getElementById('cost-figure').data.filter(t => t.mode === 'markers').flatMap(
            t => t.y.filter((_, i) => !t.marker.symbol[i].endsWith('-open')))
    """
    rows = data_of(page.read_text("utf-8"))["panels"][0]["rows"]
    front = pareto_front(pd.array(rows[key], dtype="Float64"), pd.array(rows["score"], dtype="Float64"))
    expected = [score for score, on_front in zip(rows["score"], front, strict=True) if on_front]
    assert sorted(browser.execute_script(filled)) == sorted(expected)


def test_names_are_names(browser):
    assert browser.execute_script("return document.querySelectorAll('img[src=x], #full-table b').length") == 0
    assert any(name.startswith("<b>lora</b><img") for name in column(browser, 0))


@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_overflows_and_everybody_can_use_it(browser, width):
    from axe_core_python.selenium import Axe

    resize(browser, width)
    time.sleep(0.5)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    found = Axe().run(browser)["violations"]
    bad = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert bad == []


def test_it_can_be_read_in_the_dark(page, tmp_path):
    from axe_core_python.selenium import Axe

    with chromium(tmp_path / "profile", dark=True) as found:
        found.get(page.as_uri())
        time.sleep(1.5)
        ground = found.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(20, 23, 27)"
        bad = [one["id"] for one in Axe().run(found)["violations"] if one["impact"] in ("serious", "critical")]
        assert bad == []
