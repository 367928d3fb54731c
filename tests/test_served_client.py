"""Requests to served models: retries, limits, stored answers, and what is read from answers."""

from __future__ import annotations

import itertools
import math
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.backbones.served import Endpoint, Offer, Price, ServedModel, served_model
from harness.serving.answers import AnswerFile, StoredAnswer, answers_beside
from harness.serving.client import Client, Patience, _retry_after
from harness.serving.connection import Connection
from harness.serving.errors import LimitReachedError, ServedError, TooLongError, UnavailableError
from harness.serving.limits import Limits
from harness.serving.offers import _get, contact
from harness.serving.options import EndpointOptions, read_endpoint
from harness.serving.prices import read_prices
from harness.serving.questions import Conversation, Question
from harness.serving.reading import answer_likelihood, chosen_of, first_token_scores, text_of
from harness.support.errors import MissingResourceError, UnsupportedError, UsageError
from tests.fault_server import likelihood, serving

PATIENT = Patience(n_tries=6, seconds=10.0, first_pause=0.01)
WORDS = ("red", "green", "blue")


def options(url: str, **settings: Any) -> EndpointOptions:
    found = read_endpoint({"url": url, "model": "toy", **settings})
    assert found is not None
    return found


def connected(url: str, answers: Path | None = None, **settings: Any) -> Connection:
    (model,) = contact(options(url, **settings), answers)
    return Connection(model, Client(model.endpoint, PATIENT))


def questions(n: int, answers: tuple[str, ...] = WORDS) -> list[Question]:
    told = f"Answer with one of: {', '.join(answers)}."
    return [Question(Conversation(told, (), f"Row {row}:"), answers=answers) for row in range(n)]


def plain(row: int) -> str:
    return questions(row + 1)[row].conversation.plain()


def test_echoed_likelihoods_are_those_of_the_answer() -> None:
    with serving() as (url, _):
        answered, _seconds = connected(url).ask(questions(5))
    for row, one in enumerate(answered):
        assert one.log_likelihoods == pytest.approx([likelihood(plain(row), word) for word in WORDS])


def test_first_tokens_and_constrained_answers_choose_the_same() -> None:
    for settings in (
        {"echoes": False},
        {"has_log_probabilities": False, "constraint": "json_schema"},
        {"has_log_probabilities": False, "constraint": "guided_choice"},
        {"has_log_probabilities": False, "constraint": "structured_outputs"},
        {"has_log_probabilities": False, "constraint": "grammar"},
        {"has_log_probabilities": False},
    ):
        with serving(**settings) as (url, _):
            found = connected(url)
            answered, _seconds = found.ask(questions(8))
        written = plain if found.model.offer.api == "completions" else chat
        likely = [[likelihood(written(row), word) for word in WORDS] for row in range(8)]
        expected = [row.index(max(row)) for row in likely]
        assert (written is plain) == ("echoes" in settings)
        assert [one.chosen for one in answered] == expected, (settings, found.model.offer)
        assert found.model.offer.constraint == settings.get("constraint")


def chat(row: int) -> str:
    return "\n".join(message.content for message in questions(row + 1)[row].conversation.messages())


def test_echoed_likelihoods_of_other_tokens_are_not_used() -> None:
    with serving(shifts=True) as (url, _):
        offer = connected(url).model.offer
    assert not offer.echoes
    assert offer.scoring == "log-probabilities"
    assert (offer.api, offer.top) == ("completions", 100)


def test_completions_alone_serve_too() -> None:
    with serving(apis=("completions",), has_log_probabilities=False, constraint="grammar") as (url, _):
        found = connected(url)
        assert found.model.offer.api == "completions"
        assert found.model.offer.scoring == "constrained"
        assert all(one.chosen is not None for one in found.ask(questions(3))[0])


@pytest.mark.parametrize("fault", ["fails", "truncates", "drops", "limits"])
def test_every_question_is_answered_in_spite_of_faults(fault: str) -> None:
    with serving() as (calm, _):
        expected, _seconds = connected(calm).ask(questions(30))
    with serving(**{fault: 0.3}) as (url, faults):
        found = connected(url)
        n_before = faults.n_failed
        answered, _seconds = found.ask(questions(30))
        facts = found.facts(scores=True)
        assert faults.n_failed > 5
        assert max(faults.answered.values()) == 1  # nothing that was answered is sent again
    assert [one.log_likelihoods for one in answered] == [one.log_likelihoods for one in expected]
    assert facts.n_requests == 90
    assert facts.n_retries == faults.n_failed - n_before


def test_a_stall_is_given_up_and_sent_again() -> None:
    with serving(stalls=0.2, stall_seconds=1.5) as (url, faults):
        found = connected(url, timeout=0.3)
        answered, _seconds = found.ask(questions(6))
        assert len(answered) == 6
        assert faults.n_failed > 0


def test_a_pause_asked_for_stops_all_threads() -> None:
    with serving(limits=0.2, retry_after=0.4) as (url, faults):
        connected(url, concurrency=4).ask(questions(10))
        sent = sorted(faults.sent_at)
        assert max(later - earlier for earlier, later in itertools.pairwise(sent)) > 0.3


def test_retries_end() -> None:
    with serving() as (url, faults):
        found = connected(url)
        faults.is_broken = True
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"6 tries.*status 500: out of order"):
            found.ask(questions(1))
        faults.is_broken = False
        faults.limits, faults.retry_after = 1.0, 3600.0
        with pytest.raises(UnavailableError, match="next try would be in 3600 s"):
            found.ask(questions(1))
        assert time.monotonic() - began < 5.0


def test_no_thread_stays_and_concurrency_is_a_limit() -> None:
    before = set(threading.enumerate())
    with serving(latency=0.02) as (url, faults):
        connected(url, concurrency=5).ask(questions(20))
        assert 3 <= faults.n_most <= 5
    left = [one for one in threading.enumerate() if one not in before and "served model" in one.name]
    assert not left


def test_answers_are_stored_and_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.sqlite"
    with serving(latency=0.01) as (url, faults):
        first = connected(url, path)
        answered, _seconds = first.ask(questions(6))
        second = connected(url, path, concurrency=2)
        n_answered = faults.n_answered
        again, seconds = second.ask(questions(8))
        assert faults.n_answered == n_answered + 2 * len(WORDS)
    assert again[:6] == answered
    facts = second.facts(scores=True)
    assert facts.n_reused == 18
    assert facts.n_requests == 24
    latencies = facts.latency_p50_seconds
    assert latencies is not None
    assert latencies >= 0.01
    assert seconds >= 18 * 0.01 / 6  # stored answers are charged at their seconds, six at a time
    assert facts.completion_tokens == 24


def test_equal_questions_on_their_way_are_sent_once() -> None:
    with serving(latency=0.05, echoes=False) as (url, faults):
        found = connected(url)
        n_before = faults.n_answered
        answered, _seconds = found.ask(questions(1) * 8)
        assert faults.n_answered == n_before + 1
    assert len({one.chosen for one in answered}) == 1


def test_identity_depends_on_neither_url_nor_key(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[ServedModel] = []
    for settings in ({}, {}, {"revision": "v2"}):
        monkeypatch.setenv("OPENAI_API_KEY", f"key {len(found)}")
        with serving() as (url, _):
            found += contact(options(url, **settings), None)
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].endpoint.url != found[1].endpoint.url
    assert found[0].fingerprint != found[2].fingerprint
    assert found[0] == found[1]


def test_limits_of_tokens_and_money_stop_before_they_are_exceeded(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("currency: EUR\nmodels:\n  toy: {prompt_per_million: 1000, completion_per_million: 2000}\n")
    for limit in ({"max_tokens": 400}, {"max_cost": 0.4, "prices": prices}):
        path = tmp_path / f"{next(iter(limit))}.sqlite"
        with serving(echoes=False) as (url, faults):
            found = connected(url, path, **limit)
            with pytest.raises(LimitReachedError, match="retry-failed"):
                found.ask(questions(200))
            n_answered = faults.n_answered
            with pytest.raises(LimitReachedError):
                connected(url, path, **limit).ask(questions(200))
            assert faults.n_answered <= n_answered + 12  # small requests about what the server offers
            totals = AnswerFile(path).totals()
            spent = sum(one.prompt_tokens + one.completion_tokens for one in totals)
            assert 200 < spent <= 400 + 60
            raised = connected(url, path, **{name: value if name == "prices" else 1e6 for name, value in limit.items()})
            answered, _seconds = raised.ask(questions(200))
            assert len(answered) == 200
            assert raised.facts(scores=True).n_reused


def test_stored_answers_are_charged_at_the_concurrency_that_sent_them(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.sqlite"
    with serving(echoes=False, latency=0.1) as (url, _):
        _, first = connected(url, path, concurrency=4).ask(questions(8))
        _, again = connected(url, path, concurrency=1).ask(questions(8))
        _, once_more = connected(url, path, concurrency=8).ask(questions(8))
    assert first > 0.2
    assert again == pytest.approx(first, rel=0.5)
    assert once_more == pytest.approx(again, rel=0.3)


def test_a_file_of_answers_from_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.sqlite"
    AnswerFile(path).add("a", "toy", StoredAnswer({"text": "x"}, 1.0))
    with sqlite3.connect(path) as file:
        file.execute("ALTER TABLE answers DROP COLUMN n_beside")
    opened = AnswerFile(path)
    opened.add("b", "toy", StoredAnswer({"text": "y"}, 1.0, n_beside=3))
    assert [found.n_beside for found in (opened.get("a"), opened.get("b")) if found is not None] == [None, 3]


def test_a_stored_answer_is_not_also_on_its_way() -> None:
    answers = AnswerFile(None)
    endpoint = Endpoint(url="http://127.0.0.1:1/v1", model="toy", max_tokens=200)
    limits = Limits(endpoint, answers)
    with limits.reserved(270, 10) as stored_by:  # 90 tokens and 10
        stored_by(lambda: answers.add("a", "toy", StoredAnswer({}, 1.0, 1, 90, 0, 10)))
        with limits.reserved(270, 10):  # 100 are stored, 100 are free
            pass
        with pytest.raises(LimitReachedError), limits.reserved(273, 10):
            pass
    with limits.reserved(270, 10):
        pass


def test_prices_count_cached_tokens(tmp_path: Path) -> None:
    assert Price("EUR", 10.0, 30.0, 1.0).of(1000, 400, 100) == pytest.approx((600 * 10 + 400 * 1 + 100 * 30) / 1e6)
    assert Price("EUR", 10.0, 30.0).of(1000, 400, 100) == pytest.approx((1000 * 10 + 100 * 30) / 1e6)
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "currency: EUR\nmodels:\n  toy:\n    prompt_per_million: 10\n    cached_prompt_per_million: 1\n"
        "    completion_per_million: 30\n"
    )
    with serving(echoes=False, cached=2) as (url, _):
        found = connected(url, prices=prices)
        found.ask(questions(4))
        facts = found.facts(scores=True)
    assert facts.cached_prompt_tokens == 8
    assert facts.prompt_tokens is not None
    assert facts.price == pytest.approx(((facts.prompt_tokens - 8) * 10 + 8 + 4 * 30) / 1e6)
    assert facts.currency == "EUR"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {}\n", "currency: field required"),
        ("currency: EUR\nmodels: {toy: {prompt_per_million: -1}}\n", "models.toy.prompt_per_million"),
        ("currency: EUR\nmodels: {toy: {price: 1}}\n", "models.toy.price"),
        ("- 1\n", "holds no mapping"),
        ("currency: [\n", "is not YAML"),
    ],
)
def test_wrong_prices_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_prices(path)


@pytest.mark.parametrize(
    ("served", "asked", "error", "said"),
    [
        ({"model": "other"}, {}, UsageError, "does not serve the model 'toy'. It serves: other"),
        ({"states": "other"}, {}, UsageError, "asked for the model 'toy' and answers with 'other'"),
        ({"key": "right"}, {}, UsageError, "OPENAI_API_KEY is not set"),
        ({"has_log_probabilities": False}, {"scoring": "log-probabilities"}, UsageError, "offers no log-probabilities"),
        ({}, {"scoring": "constrained"}, UsageError, "offers no constrained answers"),
        ({"apis": ("chat",)}, {"api": "completions"}, UsageError, "404"),
        ({}, {"max_cost": 1.0}, UsageError, "--max-cost needs the price of 'toy'"),
        ({"has_usage": False}, {"max_tokens": 10}, UsageError, "needs a server that counts its tokens"),
        ({"is_broken": True}, {}, UsageError, "status 500"),
    ],
)
def test_what_cannot_run_is_refused_before_a_run(
    served: dict[str, Any], asked: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("HARNESS_PRICES", raising=False)
    with serving(**served) as (url, _), pytest.raises(error, match=said):
        contact(options(url, **asked), None)


def test_an_unreachable_endpoint_is_named() -> None:
    with serving() as (url, _):
        pass
    with pytest.raises(MissingResourceError, match=rf"{url} cannot be reached"):
        contact(options(url), None)


def test_a_model_that_changes_during_a_run_is_refused() -> None:
    with serving() as (url, faults):
        found = connected(url)
        faults.states = "other"
        with pytest.raises(ServedError, match="comes from the model 'other'"):
            found.ask(questions(3))


def test_a_dated_name_is_part_of_the_identity() -> None:
    with serving(states="toy-2025-01-01") as (url, _):
        (dated,) = contact(options(url), None)
        connected(url).ask(questions(2))
    assert dated.offer.stated_model == "toy-2025-01-01"


def test_stored_answers_of_another_version_do_not_tell_what_is_served_now(tmp_path: Path) -> None:
    path = tmp_path / "x.answers.sqlite"
    with serving(states="toy-2025-01-01") as (url, faults):
        assert connected(url, path).model.offer.stated_model == "toy-2025-01-01"
        for states, found in (("toy-2025-06-01", "toy-2025-06-01"), (None, None), ("toy-2025-01-01", "toy-2025-01-01")):
            faults.states = states
            later = connected(url, path)
            assert later.model.offer.stated_model == found
            assert later.model.offer.echoes
            assert len(later.ask(questions(2))[0]) == 2
        n_answered = faults.n_answered
        connected(url, path).ask(questions(2))
        assert faults.n_answered <= n_answered + 12  # the model's name is asked again, and abilities that it lacks


@pytest.mark.parametrize(
    ("asked", "states", "is_same"),
    [
        ("gpt-4", "gpt-4-0613", True),
        ("gpt-4", "gpt-4-turbo", False),
        ("llama3", "llama3-70b", False),
        ("llama3", "llama3:70b", False),
        ("llama3", "llama3:latest", True),
        ("claude", "claude@20240229", True),
        ("toy", "vendor/toy", True),
    ],
)
def test_another_model_of_the_same_family_is_refused(asked: str, states: str, is_same: bool) -> None:
    with serving(model=asked, states=states, apis=("chat",), has_log_probabilities=False) as (url, _):
        if is_same:
            assert contact(options(url, model=asked), None)[0].offer.stated_model == states
        else:
            with pytest.raises(UsageError, match=f"answers with '{states}'"):
                contact(options(url, model=asked), None)


def test_a_hash_that_a_server_has_stated_is_not_left_out(tmp_path: Path) -> None:
    tags = [{"name": "toy:latest", "digest": "ab" * 32}]
    path = tmp_path / "x.answers.sqlite"
    with serving(tags=tags) as (url, faults):
        (first,) = contact(options(url), path)
        assert first.offer.weights_hash == "ab" * 32
        faults.hides_tags = True
        with pytest.raises(MissingResourceError, match="did not return its list of models"):
            contact(options(url), path)
        (other,) = contact(options(url), tmp_path / "new.sqlite")  # never seen: another server may fail like this
        assert other.offer.weights_hash is None
        timer = threading.Timer(0.3, lambda: setattr(faults, "hides_tags", False))
        timer.start()
        (again,) = contact(options(url), path)
        timer.join()
    assert again.fingerprint == first.fingerprint


def test_an_answer_that_drips_ends_at_its_deadline() -> None:
    with serving() as (url, faults):
        found = connected(url, timeout=1.0)
        faults.drips = 1.0
        began = time.monotonic()
        (answered,), _seconds = found.ask(questions(1))
        assert time.monotonic() - began < 8.0  # byte by byte, an answer takes 20 s
        assert faults.n_failed == len(WORDS)
    assert answered.log_likelihoods == pytest.approx([likelihood(plain(0), word) for word in WORDS])


def test_a_key_that_no_request_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("sk-schlüssel", "sk-one\ntwo"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with serving() as (url, _), pytest.raises(UsageError, match="The key in OPENAI_API_KEY has") as caught:
            contact(options(url), None)
        assert key not in str(caught.value)


def test_prompts_that_are_too_long_are_shortened() -> None:
    steps = []
    with serving(context=20, echoes=False) as (url, _):
        (model,) = contact(options(url, scoring="log-probabilities", api="chat"), None)
        found = Connection(model, Client(model.endpoint, PATIENT))
        shown = tuple((f"question {i}", "red") for i in range(8))
        question = Question(Conversation("", shown, "Row:"), answers=("yes", "no"))

        def shorten(row: int, n: int) -> Question | None:
            steps.append(n)
            kept = question.conversation.without_first(8 - (8 >> n))
            return Question(kept, answers=("yes", "no")) if n < 5 else None

        (answered,), _seconds = found.ask([question], shorten)
        assert steps == [1]
        assert answered.n_dropped == 4
        with pytest.raises(UnsupportedError, match="does not fit into the context"):
            found.ask([question])


def test_an_answer_is_found_at_the_end_of_an_echo() -> None:
    def echo(tokens: list[str], values: list[float | None]) -> dict[str, Any]:
        return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": values}}]}

    tokens = ["<s>", "A", " ca", "fé", ":", " pos", "itive", " and"]
    assert answer_likelihood(echo(tokens, [None, -9, -9, -9, -9, -1.5, -0.5, -7]), "positive") == (-2.0, 2)
    assert answer_likelihood(echo(tokens[:-1], [None, -9, -9, -9, -9, -1.5, -0.5]), "positive") == (-2.0, 2)
    assert answer_likelihood(echo([*tokens[:-2], "other"], [0.0] * 7), "positive") is None
    assert answer_likelihood({"choices": [{"logprobs": None}]}, "positive") is None


def test_a_space_counts_with_the_answer_whether_or_not_it_is_a_token_of_its_own() -> None:
    def echo(tokens: list[str]) -> dict[str, Any]:
        return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": [-1.0 * i for i in range(len(tokens))]}}]}

    assert answer_likelihood(echo(["<s>", "▁Age", ":", "▁five", "▁and"]), "five", " ") == (-3.0, 1)
    assert answer_likelihood(echo(["<s>", "▁Age", ":", "▁", "5", "▁and"]), "5", " ") == (-7.0, 2)
    assert answer_likelihood(echo(["<s>", "▁Age", ":", "\n", "5", "▁and"]), "5", "") == (-4.0, 1)
    assert answer_likelihood(echo(["<s>", "▁Age", ":", "5", "▁and"]), "5", " ") == (-3.0, 1)


def test_first_tokens_count_for_the_one_answer_that_they_begin() -> None:
    top = {" pos": math.log(0.5), "positive": math.log(0.25), " neg": math.log(0.125), " the": math.log(0.01)}
    scores, n_missing = first_token_scores(top, ("positive", "negative", "other"))
    assert scores is not None
    assert scores[:2] == pytest.approx([math.log(0.25), math.log(0.125)])
    assert scores[2] < math.log(0.01)
    assert n_missing == 1
    scores, _missing = first_token_scores({**top, " positive": math.log(0.2)}, ("positive", "negative"), " ")
    assert scores is not None
    assert scores[0] == pytest.approx(math.log(0.2 + 0.25))  # both forms of the word
    with pytest.raises(ServedError, match="begin with the same token 'ne'"):
        first_token_scores({" ne": -0.1, " positive": -3.0}, ("negative", "neutral", "positive"))


def test_first_tokens_count_in_any_letters_where_these_tell_nothing_apart() -> None:
    words = ("positive", "negative")
    top = {"Positive": math.log(0.5), " positive": math.log(0.2), "Negative": math.log(0.1)}
    scores, n_missing = first_token_scores(top, words, is_turn=True)
    assert scores == pytest.approx([math.log(0.7), math.log(0.1)])
    assert n_missing == 0
    scores, _missing = first_token_scores({"us": -1.0, "US": -2.0}, ("US", "us"))
    assert scores == pytest.approx([-2.0, -1.0])
    assert first_token_scores({"a": -0.1, "A": -3.0}, ("A", "B"), is_turn=True)[0] is None  # an article
    scores, _missing = first_token_scores({"A": -0.1, "a": -0.2}, ("A", "B"), is_turn=True)
    assert scores is not None
    assert scores[0] == -0.1


@pytest.mark.parametrize("token", ["<think>", '"', "\n", "The"])
def test_a_chat_that_begins_no_answer_is_unreadable(token: str) -> None:
    words = ("positive", "negative")
    top = {token: -0.01, "positive": -8.0, "negative": -9.0}
    assert first_token_scores(top, words, is_turn=True) == (None, 0)
    assert first_token_scores(top, words, " ") == ([-8.0, -9.0], 0)  # a plain text's answers are compared
    assert first_token_scores({token: -0.01}, words, " ") == (None, 2)


def test_unreadable_first_tokens_are_counted() -> None:
    with serving(echoes=False) as (url, _):
        found = connected(url, api="chat", scoring="log-probabilities")
        told = Conversation("Say anything.", (), "Row:")
        answered, _seconds = found.ask([Question(told, answers=WORDS)])
        assert answered[0].chosen is None
        assert answered[0].log_likelihoods is None
        assert found.facts(scores=True).n_unreadable == 1


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("spam", 1),
        (" Not Spam.\n", 0),
        ("**SPAM**", 1),
        ('{"answer": "not spam"}', 0),
        ("I think that this is not spam.", 0),
        ("It is spam, surely", 1),
        ("spam or not spam", None),
        ("spammer", None),
        ("", None),
    ],
)
def test_texts_name_one_answer_or_none(text: str, chosen: int | None) -> None:
    assert chosen_of(text, ("not spam", "spam")) == chosen


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "http://me:pass@host/v1", "model": "m"}, "holds a user or a password"),
        ({"url": "http://host/v1?key=abc", "model": "m"}, "holds parameters"),
        ({"url": "host:80", "model": "m"}, "expected a URL"),
        ({"url": "http://host/v1"}, "--endpoint-model"),
        ({"model": "m"}, "without --endpoint URL"),
        ({"url": "http://host/v1", "model": "m", "key": "sk-abcdefghijklmnop123456"}, "looks like a key"),
        ({"url": "http://host/v1", "model": "m", "key": "abcdefghijklmnopqrstuvwxyz0123456789"}, "looks like a key"),
        ({"url": "http://host/v1", "model": "m", "concurrency": 0}, "--concurrency"),
        ({"url": "http://host/v1", "model": "m", "api_key": "sk-abcdefghijklmnop"}, "endpoint.api_key"),
        ({"url": "http://host/v1", "model": "m", "max_cost": float("nan")}, "--max-cost"),
    ],
)
def test_wrong_options_are_refused_without_secrets(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_endpoint(given)
    for secret in ("pass@", "abcdefghijkl", "key=abc"):
        assert secret not in str(caught.value)


def test_answers_lie_beside_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert answers_beside("results/harness.sqlite") == Path("results/harness.answers.sqlite").absolute()
    assert answers_beside("postgresql://me@host/db").parent == tmp_path


def test_a_stored_answer_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    file = AnswerFile(path)
    file.add("k", "m", StoredAnswer({"text": "one"}, 1.0, 1, 10, 2, 3, 0.5, "EUR"))
    file.add("k", "m", StoredAnswer({"text": "two"}, 2.0))
    other = AnswerFile(path)
    found = other.get("k")
    assert found == StoredAnswer({"text": "one"}, 1.0, 1, 10, 2, 3, 0.5, "EUR")
    (total,) = other.totals()
    assert (total.price, total.prompt_tokens, total.n_answers) == (0.5, 10, 1)


def test_a_request_that_is_too_long_is_told_apart() -> None:
    with serving(context=3) as (url, _):
        client = Client(_endpoint(url), PATIENT)
        with pytest.raises(TooLongError):
            client.send("completions", {"model": "toy", "prompt": "one two three four"})


def _endpoint(url: str) -> Any:
    from harness.backbones.served import Endpoint

    return Endpoint(url, "toy")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("B", 1), ("b.", 1), ("(C)", 2), ("Answer: D. a house", 3), ("The answer is B.", 1), ("**C**", 2)]
    + [(text, None) for text in ("The answer is a dog.", "A cat", "a cat, I think", "A. or B.")],
)
def test_letters_are_no_articles(text: str, chosen: int | None) -> None:
    assert chosen_of(text, ("A", "B", "C", "D")) == chosen


@pytest.mark.parametrize("key", ["none", "1", "yes"])
def test_a_word_as_key_changes_no_answer(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving(favourite="yes 1 none bearer bonds", has_log_probabilities=False) as (url, _):
        client = Client(Endpoint(url, "toy"))
        sent = client.send("chat", {"model": "toy", "messages": [{"role": "user", "content": "a"}]})
        client.close()
    assert text_of(sent.content) == "yes 1 none bearer bonds"


def test_answers_of_another_version_of_a_model_are_not_read(tmp_path: Path) -> None:
    """A service that moves the name to another version states it in its answers."""
    question = Question(Conversation("", (), "a"), answers=("yes", "no"))
    facts = []
    for states in ("toy-2024-05", "toy-2024-08"):
        with serving(states=states, has_log_probabilities=False) as (url, _):
            offer = Offer("chat", "parsing", stated_model=states)
            connection = Connection(served_model(Endpoint(url, "toy", answers=tmp_path / "answers"), offer))
            connection.ask([question])
            facts.append(connection.facts(scores=True).n_reused)
    assert facts == [0, 0]


def test_a_page_without_http_states_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.sendall(b"garbage\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert _get(f"http://127.0.0.1:{listening.getsockname()[1]}/version") == {}
        thread.join()


@pytest.mark.parametrize("said", ["0", "-3", "nan", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_pause_of_no_length_is_not_asked_for(said: str) -> None:
    """All tries would otherwise follow each other at once."""
    assert _retry_after({"retry-after": said}) is None
