"""Requests to served models: throughput at a latency of 200 ms, and the price of a server that fails."""

from __future__ import annotations

import time
from pathlib import Path

from harness.serving.connection import Connection
from harness.serving.offers import contact
from harness.serving.options import read_endpoint
from harness.serving.questions import Answered, Conversation, Question
from tests.fault_server import serving

QUESTIONS = [Question(Conversation("", (), f"Row {row}:"), answers=("yes", "no")) for row in range(2000)]


def asked(url: str, n: int, concurrency: int, path: Path | None = None) -> tuple[float, list[Answered], Connection]:
    options = read_endpoint({"url": url, "model": "toy", "concurrency": concurrency, "api": "chat"})
    assert options is not None
    (model,) = contact(options, path)
    found = Connection(model)
    began = time.perf_counter()
    answered, _seconds = found.ask(QUESTIONS[:n])
    return time.perf_counter() - began, answered, found


def test_sixteen_at_a_time_are_fourteen_times_as_fast() -> None:
    with serving(latency=0.2) as (url, _):
        alone, _answered, _found = asked(url, 16, 1)
        with_others, _answered, _found = asked(url, 256, 16)
    speedup = (256 / with_others) / (16 / alone)
    print(f"\n16 requests at a time: {speedup:.1f} times the rate of one at a time")
    assert speedup >= 14.0


def test_a_server_that_fails_one_call_in_ten_takes_at_most_half_as_long_again(tmp_path: Path) -> None:
    with serving(latency=0.05) as (url, _):
        calm, expected, _found = asked(url, 2000, 16)
    path = tmp_path / "answers.sqlite"
    with serving(latency=0.05, fails=0.1) as (url, faults):
        seconds, answered, found = asked(url, 2000, 16, path)
        n_answered, n_failed = faults.n_answered, faults.n_failed
        _again, again, second = asked(url, 2000, 16, path)
        assert faults.n_answered - n_answered <= 12  # small requests about what the server offers
        assert max(n for body, n in faults.answered.items() if "Row" in body) == 1
    print(f"\n2,000 calls, {n_failed} failures: {seconds:.1f} s against {calm:.1f} s ({seconds / calm:.2f})")
    assert [one.chosen for one in answered] == [one.chosen for one in expected] == [one.chosen for one in again]
    facts = second.facts(scores=True)
    assert facts.n_reused == facts.n_requests == 2000
    assert found.facts(scores=True).n_retries == sum(n - 1 for body, n in faults.seen.items() if "Row" in body)
    assert seconds < 1.5 * calm
