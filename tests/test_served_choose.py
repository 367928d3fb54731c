"""`choose` with a served model: it wins, it loses on the same rows, its money ends, and it is saved."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

import harness
from tests import fault_server
from tests.commands import run_cli
from tests.fault_server import serving
from tests.toys import write_toy_table

PRICES = (
    "currency: EUR\nmachines: {default: 3.6}\nmodels:\n  toy: {prompt_per_million: 10, completion_per_million: 10}\n"
)


pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_table(tmp_path / "toy.csv", n_rows=240)
    (tmp_path / "prices.yaml").write_text(PRICES)
    return tmp_path


def choose(folder: Path, url: str, **given: Any) -> Any:
    endpoint = {"url": url, "model": "toy", "concurrency": 16, **given.pop("endpoint", {})}
    return harness.choose(
        data=folder / "toy.csv", within=300, save=folder / "model", store=folder / "own.sqlite", progress=True,
        endpoint=endpoint, methods="zero-shot,few-shot,majority", prices=folder / "prices.yaml", refit=False, **given,
    )  # fmt: skip


def knowing(folder: Path) -> Any:
    """A function that finds the right word for a prompt by the user's own table."""
    with (folder / "toy.csv").open(encoding="utf-8", newline="") as handle:
        labels = {row["text"]: row["label"] for row in csv.DictReader(handle)}
    texts = sorted(labels, key=len, reverse=True)

    def likelihood(before: str, word: str) -> float:
        at = {text: before.rfind(text) for text in texts if text in before}
        last = max(at, key=lambda text: (at[text], len(text)), default="")
        return -0.1 if labels.get(last) == word else -3.0

    return likelihood


def test_a_served_model_that_knows_the_answers_wins_and_is_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_server, "likelihood", knowing(folder))
    with serving() as (url, _):
        found = choose(folder, url)
        assert found.method.startswith(("zero-shot", "few-shot"))
        assert found.score.value == 1.0
        assert not found.refit
        costs = found.in_use
        assert costs is not None
        assert costs.is_prompted
        served = found.record.facts.served
        assert served is not None
        # By hand: 1 prompt token per word of a prompt and 1 written, each 10 a million.
        price = 10 * (served.prompt_tokens + served.completion_tokens) / 1e6
        assert costs.price_per_1000 == pytest.approx(1000 * price / found.score.n_test)
        assert costs.beside == "majority"
        assert costs.unit == "money"
        assert costs.break_even is not None
        assert found.evaluation is not None
        saved = harness.load_model(folder / "model")
        with (folder / "toy.csv").open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))[:20]
        assert saved.predict([row["text"] for row in rows]) == [row["label"] for row in rows]
    tried = [one for one in found.tried if one.candidate.is_served]
    assert {one.candidate.method.name for one in tried} == {"zero-shot", "few-shot"}
    assert all(one.record.score is not None and one.record.score.n_test <= 200 for one in tried)


def test_a_served_model_that_guesses_loses(folder: Path) -> None:
    with serving() as (url, _):
        found = harness.choose(
            data=folder / "toy.csv", within=300, save=folder / "model", store=folder / "own.sqlite", progress=False,
            endpoint={"url": url, "model": "toy", "concurrency": 16}, methods="zero-shot,tfidf",
        )  # fmt: skip
    assert found.method == "tfidf"
    assert found.in_use is not None
    assert found.in_use.beside is not None
    assert "prices of both" in found.in_use.in_words()


def test_choose_goes_on_where_the_money_ends(folder: Path) -> None:
    arguments = (
        *("choose", "--data", "toy.csv", "--within", "300s", "--save", "model", "--methods", "zero-shot,tfidf"),
        *("--endpoint-model", "toy", "--prices", "prices.yaml", "--max-cost", "0.0001", "--store", "own.sqlite"),
    )
    with serving() as (url, faults):
        said = " ".join(run_cli(*arguments, "--endpoint", url, cwd=folder, own_process=True).split())
        n_answered = faults.n_answered
    assert n_answered < 12
    assert re.search(r"skipped, [\d,]+ requests for validation and test rows would cost about .* EUR", said)
    assert "tfidf: accuracy" in said
