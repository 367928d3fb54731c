"""Estimates of requests to served models: against the requests that a run sends, and a price by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness
from harness.backbones import Price
from harness.cost.estimate import Estimator
from harness.cost.requests import BYTES_PER_TOKEN, REQUEST_SECONDS, Requests, requests_of, together
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.tasks import Task
from tests.commands import run_cli
from tests.fault_server import serving
from tests.served_models import arguments, record_of, served
from tests.toys import plan_one, write_toy_table


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("zero-shot", {}),
        ("few-shot[k=4]", {}),
        ("few-shot[k=2,n_template_rows=0]", {"echoes": False}),
        ("calibrated-few-shot[k=2,n_template_rows=4]", {"echoes": False}),
        ("zero-shot", {"has_log_probabilities": False, "constraint": "json_schema"}),
    ],
)
def test_as_many_requests_and_bytes_as_a_run_sends(text: str, settings: dict[str, Any], toy: Task, cpu: Device) -> None:
    with serving(**settings) as (url, faults):
        model = served(url)
        (method,) = parse_methods([text])
        found = requests_of(plan_one(toy, model, method, size="12"), toy)
        n_before = len(faults.bodies)
        record = record_of(text, toy, url, cpu, n_train=12)
        prompts = [body.get("prompt") or "\n".join(m["content"] for m in body["messages"]) for body in faults.bodies]
    assert found is not None
    assert record.facts.served is not None
    assert found.n == pytest.approx(record.facts.served.n_requests, abs=8)
    sent = sum(len(one.encode()) for one in prompts[n_before:]) / BYTES_PER_TOKEN
    assert found.prompt_tokens == pytest.approx(sent, rel=0.25)
    assert found.price is None


def test_requests_before_the_first_prediction_are_training_seconds(toy: Task, cpu: Device) -> None:
    with serving(echoes=False) as (url, _):
        model = served(url)
    for text, n_before in (("zero-shot", 0), ("calibrated-few-shot[k=2,n_template_rows=0]", 3)):
        planned = plan_one(toy, model, parse_methods([text])[0], size="12")
        found = Estimator({toy.name: toy}, cpu).estimate(planned)
        assert found.train_seconds == pytest.approx(n_before * REQUEST_SECONDS / model.endpoint.concurrency)


def test_prices_and_sums_by_hand() -> None:
    one = Requests(10, 4000.0, 100.0, 0.5, "EUR", 2.0)
    assert together([one, None, one]) == Requests(20, 8000.0, 200.0, 1.0, "EUR", 4.0)
    assert together([None]) is None
    free = together([one, Requests(1, 1.0, 1.0, None, None, 1.0)])
    assert free is not None
    assert (free.n, free.price, free.currency) == (11, None, None)
    assert Price("EUR", 2.0, 10.0).of(4000, 0, 100) == pytest.approx(0.009)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_table(tmp_path / "toy.csv", n_rows=90)
    return tmp_path


def test_plan_says_requests_tokens_and_price_and_sends_nothing_else(folder: Path) -> None:
    prices = folder / "prices.yaml"
    prices.write_text("currency: EUR\nmodels:\n  toy: {prompt_per_million: 1000000, completion_per_million: 0}\n")
    with serving(echoes=False) as (url, faults):
        given = arguments(url, "--prices", "prices.yaml", methods="zero-shot,few-shot,majority")[1:]
        said = run_cli("plan", *given, cwd=folder)
        n_contact = len(faults.bodies)
        assert n_contact < 12
        found = harness.plan(
            data=folder / "toy.csv", methods="zero-shot", sizes="12", seeds="0", progress=False,
            endpoint={"url": url, "model": "toy", "prices": prices},
        )  # fmt: skip
    assert "Requests to served models" in said
    assert "EUR" in said
    assert "over 4" in said
    (row,) = found.rows
    assert row.requests is not None
    assert row.request_price == pytest.approx(row.prompt_tokens, abs=1)
