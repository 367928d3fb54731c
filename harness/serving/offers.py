"""Contact an endpoint before a run: reachable, authorised, the right model, and what the server offers."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from harness.backbones import Api, Constraint, Endpoint, Offer, ServedModel, served_model
from harness.serving import bodies, reading
from harness.serving.answers import AnswerFile, StoredAnswer
from harness.serving.client import Client, Patience
from harness.serving.connection import Connection
from harness.serving.errors import RejectedError, ServedError, TooLongError, UnavailableError
from harness.serving.limits import Limits
from harness.serving.options import EndpointOptions
from harness.serving.prices import Prices, read_prices
from harness.serving.questions import Conversation
from harness.serving.tally import shown_url
from harness.support import MissingResourceError, UsageError

_PATIENCE: Final = Patience(n_tries=5, seconds=15.0)
_VERSION_SECONDS: Final = 2.0
_N_TAGS: Final = 3
_TAGS_PAUSE: Final = 0.5

_YES_OR_NO: Final = Conversation(
    instruction="Answer with one word, yes or no.", shown=(), question="Question: Is water wet?\nAnswer:"
)
_ANIMALS: Final = ("zebra", "quagga")
"""Words that a model does not write as an answer to yes or no, unless it can write nothing else."""

_COLOURS: Final = Conversation(instruction="", shown=(), question="red green blue red green blue red green")
_TOPS: Final[Mapping[Api, tuple[int, ...]]] = {"chat": (20, 5), "completions": (100, 20, 5)}
"""Numbers of likeliest tokens to ask for, until a server accepts one."""

_SAME_NATS: Final = 0.1
"""Largest difference of a token's log-probability, written or echoed, that rounding may cause."""

_CONSTRAINTS: Final[Mapping[Api, tuple[Constraint, ...]]] = {
    "chat": ("json_schema", "structured_outputs", "guided_choice", "json_object", "grammar"),
    "completions": ("structured_outputs", "guided_choice", "grammar"),
}
_VERSION: Final = r"[-:@](v?\d[\d.-]*|latest|default)"
"""Pattern of what a server adds to a model's name: a date, a number, or the name of its latest version."""

_HASH: Final = re.compile(r"(sha256:)?[0-9a-f]{32,128}")


def contact(options: EndpointOptions, answers: Path | None) -> list[ServedModel]:
    """Return the models of an endpoint, each with what its server offers.

    Args:
        options: the endpoint as the user states it.
        answers: file of stored answers; small requests of this function are stored there too.

    Raises:
        MissingResourceError: the endpoint cannot be reached.
        UsageError: it refuses the key, serves other models, or lacks what is asked for; or a price is missing.
    """
    prices = read_prices(options.prices)
    opened = AnswerFile(answers)
    try:
        return [_contact(options, name, prices, answers, opened) for name in options.model]
    finally:
        opened.close()


def _contact(
    options: EndpointOptions, name: str, prices: Prices | None, path: Path | None, answers: AnswerFile
) -> ServedModel:
    endpoint = Endpoint(
        url=options.url,
        model=name,
        revision=options.revision,
        key_variable=options.key,
        concurrency=options.concurrency,
        timeout=options.timeout,
        max_cost=options.max_cost,
        max_tokens=options.max_tokens,
        price=None if prices is None else prices.of(name),
        answers=path,
    )
    _check_price(endpoint, prices, answers)
    client = Client(endpoint, _PATIENCE)
    try:
        listed = client.models()
        about = _named(listed, endpoint)
        found = _Probe(endpoint, client, answers).offer(options)
        weights, version = _states(endpoint, about, answers)
        return served_model(endpoint, dataclasses.replace(found, weights_hash=weights, version=version))
    except UnavailableError as error:
        last = str(error).partition("the last one: ")[2].partition(". Answers so far")[0]
        raise MissingResourceError(
            f"The endpoint {shown_url(endpoint.url)} cannot be reached ({last}). Start the server, or correct "
            "--endpoint; most servers want the path /v1 at its end."
        ) from None
    except RejectedError as error:
        raise _refused(error, endpoint, has_key=client.has_key) from None
    except ServedError as error:
        raise UsageError(str(error)) from None
    finally:
        client.close()


def _check_price(endpoint: Endpoint, prices: Prices | None, answers: AnswerFile) -> None:
    if endpoint.max_cost is None:
        return
    if endpoint.price is None:
        given = "no file of prices was given" if prices is None else f"it names {', '.join(prices.models) or 'none'}"
        raise UsageError(
            f"--max-cost needs the price of '{endpoint.model}', and {given}. Name a file with --prices FILE or "
            "HARNESS_PRICES that states it, or limit the tokens with --max-tokens."
        )
    others = sorted({total.currency for total in answers.totals()} - {"", endpoint.price.currency})
    if others:
        raise UsageError(
            f"--max-cost is in {endpoint.price.currency}, and answers are stored with prices in {', '.join(others)}. "
            "Use prices in one currency, or another store."
        )


def _named(listed: Sequence[Mapping[str, Any]] | None, endpoint: Endpoint) -> Mapping[str, Any]:
    """Return what the server says about the model; refuse a model that it does not serve."""
    if not listed:  # `transformers serve` lists only what its cache holds
        return {}
    by_name = {str(one["id"]): one for one in listed}
    for name in (endpoint.model, f"{endpoint.model}:latest", f"models/{endpoint.model}"):
        if name in by_name:
            return by_name[name]
    names = ", ".join(sorted(by_name)[:20]) or "none"
    more = f" and {len(by_name) - 20} more" if len(by_name) > 20 else ""
    raise UsageError(
        f"The endpoint {shown_url(endpoint.url)} does not serve the model '{endpoint.model}'. It serves: {names}{more}."
    )


def _refused(error: RejectedError, endpoint: Endpoint, *, has_key: bool) -> UsageError:
    if error.status in (401, 403):
        key = (
            f"the key in {endpoint.key_variable}"
            if has_key
            else f"requests without a key, and {endpoint.key_variable} is not set"
        )
        return UsageError(
            f"The endpoint {shown_url(endpoint.url)} refuses {key} (status {error.status}). Put a valid key into "
            "this environment variable, or name another variable with --endpoint-key."
        )
    return UsageError(f"{error} Check --endpoint, --endpoint-model and --endpoint-api.")


class _Probe:
    """Small requests that find out what a server offers. Answers that show an ability are stored and not asked again.

    Args:
        endpoint: the endpoint.
        client: connection to it.
        answers: stored answers.
    """

    def __init__(self, endpoint: Endpoint, client: Client, answers: AnswerFile) -> None:
        self._endpoint = endpoint
        self._client = client
        self._answers = answers
        self._base = Offer("completions", "parsing", sampling=(("temperature", 0),))
        self._stated: str | None = None
        self._names: set[str | None] = set()
        self._served_now: list[str | None] = []
        self._reads_stored = False
        self._counts_tokens = True
        self._refusal: RejectedError | None = None

    def offer(self, options: EndpointOptions) -> Offer:
        """Return what the server offers of what is asked for.

        Stored answers may be those of another version of the model. Where some were read, a new request asks which
        version is served now, and those of another one are not used.

        Raises:
            UsageError: it does not offer the asked API or scoring.
        """
        found = self._offer(options)
        if not self._reads_stored:
            return found
        body = bodies.written(found, self._endpoint.model, _YES_OR_NO, 4)
        if self._send(found, body, _shows_all, is_new=True) is None or len(self._names) == 1:
            return found
        self._served_now = [self._stated]
        return self._offer(options)

    def _offer(self, options: EndpointOptions) -> Offer:
        apis: tuple[Api, ...] = ("completions", "chat") if options.api == "auto" else (options.api,)
        wanted = options.scoring
        offer: Offer | None = None
        if wanted in ("auto", "log-probabilities"):
            offer = self._with_echo(apis) or self._with_first_tokens(apis)
            if offer is None and wanted == "log-probabilities":
                raise self._lacks("log-probabilities", "constrained or parsing")
        if offer is None:
            plain = self._plain(tuple(reversed(apis)))
            constraint = self._constraint(plain) if wanted in ("auto", "constrained") else None
            if wanted == "constrained" and constraint is None:
                raise self._lacks("constrained answers", "log-probabilities or parsing")
            scoring = "parsing" if constraint is None else "constrained"
            offer = dataclasses.replace(plain, scoring=scoring, constraint=constraint)  # type: ignore[arg-type]
        elif offer.api == "chat":  # kinds that write JSON need it
            offer = dataclasses.replace(offer, constraint=self._constraint(offer))
        elif options.api == "auto":  # as in process: classes are scored after plain text, and answers written in a chat
            offer = dataclasses.replace(offer, chat=self._chat())
        limit = "--max-cost" if self._endpoint.max_cost is not None else "--max-tokens"
        if not self._counts_tokens and (options.max_cost is not None or options.max_tokens is not None):
            raise UsageError(
                f"{limit} needs a server that counts its tokens, and answers of {shown_url(self._endpoint.url)} state "
                "no `usage`. Leave the limit out."
            )
        return dataclasses.replace(offer, stated_model=self._stated)

    def _with_echo(self, apis: Sequence[Api]) -> Offer | None:
        """Return the offer of a server whose echoed log-probabilities are right.

        llama-cpp-python gives each token of a prompt the probabilities of the token after it. So the model writes a
        token, whose log-probability must be the same where the token is a part of the prompt.
        """
        if "completions" not in apis:
            return None
        offer, name = dataclasses.replace(self._base, api="completions"), self._endpoint.model
        body = bodies.written(offer, name, _COLOURS, 1) | {"logprobs": 1}
        content = self._send(offer, body, lambda found: reading.written_token(found) is not None)
        written = None if content is None else reading.written_token(content)
        if written is None:
            return None
        word, value = written

        def is_same(found: Mapping[str, Any]) -> bool:
            echoed = reading.answer_likelihood(found, word)
            return echoed is not None and echoed[1] == 1 and abs(echoed[0] - value) < _SAME_NATS

        if self._send(offer, bodies.echoed(offer, name, _COLOURS, word), is_same) is None:
            return None
        return dataclasses.replace(offer, scoring="log-probabilities", echoes=True)

    def _with_first_tokens(self, apis: Sequence[Api]) -> Offer | None:
        for api in apis:
            for top in _TOPS[api]:
                offer = dataclasses.replace(self._base, api=api, top=top)
                body = bodies.first_token(offer, self._endpoint.model, _YES_OR_NO)
                content = self._send(offer, body, reading.is_consistent)
                if content is not None:
                    return dataclasses.replace(offer, scoring="log-probabilities", **self._learned)
        return None

    def _plain(self, apis: Sequence[Api]) -> Offer:
        for api in apis:
            offer = dataclasses.replace(self._base, api=api)
            body = bodies.written(offer, self._endpoint.model, _YES_OR_NO, 4)
            if self._send(offer, body, _shows_all) is not None:
                return dataclasses.replace(offer, **self._learned)
        assert self._refusal is not None
        raise self._refusal

    def _chat(self) -> Offer | None:
        """Return the offer of the chat API; None without one."""
        try:
            plain = self._plain(("chat",))
        except RejectedError:
            return None
        return dataclasses.replace(plain, constraint=self._constraint(plain))

    def _constraint(self, offer: Offer) -> Constraint | None:
        """Return the first form of constraint that a model obeys."""
        for constraint in _CONSTRAINTS[offer.api]:
            tried = dataclasses.replace(offer, constraint=constraint)
            body = bodies.constrained(tried, self._endpoint.model, _YES_OR_NO, _ANIMALS, 24)
            if self._send(tried, body, _obeys) is not None:
                return constraint
        return None

    @property
    def _learned(self) -> dict[str, Any]:
        return {"limit_name": self._base.limit_name, "sampling": self._base.sampling}

    def _send(
        self, offer: Offer, body: Mapping[str, Any], shows: Any, *, is_new: bool = False
    ) -> Mapping[str, Any] | None:
        """Return a server's answer that shows an ability; None where it refuses the request, or does not show it.

        Args:
            offer: form of the request.
            body: the request.
            shows: returns whether an answer shows the ability.
            is_new: whether to send the request though its answer is stored.

        Raises:
            RejectedError: the key is refused, or the model is unknown.
        """
        asked = dict(body)
        also = [*self._served_now, *([uuid.uuid4().hex] if is_new else [])]
        connection = _Recorder(served_model(self._endpoint, offer), self._client, self._answers, shows, also)
        found: Mapping[str, Any]
        for _ in range(3):
            try:
                found = connection.fetch(asked, dict)
                break
            except TooLongError:
                return None
            except _NotShownError as error:
                found = error.content
                self._note(found)
                return None
            except RejectedError as error:
                if error.status in (401, 403):
                    raise
                self._refusal = error
                changed = self._without_refused(asked, str(error))
                if changed is None:
                    return None
                asked = changed
            except UnavailableError as error:  # a server that answers, and fails on this request
                if "status 5" not in str(error):
                    raise
                self._refusal = RejectedError(str(error), 500)
                return None
        else:
            return None
        self._reads_stored |= not connection.is_sent
        self._note(found)
        return found

    def _without_refused(self, body: Mapping[str, Any], why: str) -> dict[str, Any] | None:
        """Return the request in another form that a server is known to want; None for none."""
        if "max_completion_tokens" in why and "max_tokens" in body:
            self._base = dataclasses.replace(self._base, limit_name="max_completion_tokens")
            return {"max_completion_tokens" if name == "max_tokens" else name: body[name] for name in body}
        if "temperature" in why and "temperature" in body:
            self._base = dataclasses.replace(self._base, sampling=())
            return {name: value for name, value in body.items() if name != "temperature"}
        return None

    def _note(self, content: Mapping[str, Any]) -> None:
        """Take in the name of the model that answers; refuse another one than was asked for."""
        prompt, _, written = reading.usage_of(content)
        self._counts_tokens &= prompt is not None and written is not None
        stated, asked = content.get("model"), self._endpoint.model
        if not isinstance(stated, str) or not stated:
            return
        stated = None if stated == asked else stated
        self._names.add(stated)
        self._stated = stated
        if stated is None:
            return
        is_version = re.fullmatch(re.escape(asked) + _VERSION, stated) is not None
        same_end = Path(stated).name == Path(asked).name or stated == f"models/{asked}"
        if not is_version and not same_end:
            raise UsageError(
                f"The endpoint {shown_url(self._endpoint.url)} was asked for the model '{asked}' and answers with "
                f"'{stated}'. Name the model that it serves with --endpoint-model."
            )

    def _lacks(self, what: str, instead: str) -> UsageError:
        why = "" if self._refusal is None else f" (It says: {self._refusal})"
        return UsageError(
            f"The endpoint {shown_url(self._endpoint.url)} offers no {what} for '{self._endpoint.model}'.{why} Take "
            f"--endpoint-scoring {instead}, or another --endpoint-api."
        )


class _NotShownError(Exception):
    """An answer does not show the ability that a small request looks for; it is not stored."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__()
        self.content = content


class _Recorder(Connection):
    """A connection for small requests: it stores only answers that show an ability, and accepts any model's name."""

    def __init__(
        self, model: ServedModel, client: Client, answers: AnswerFile, shows: Any, also: Sequence[str | None] = ()
    ) -> None:
        super().__init__(model, client, answers)
        unlimited = dataclasses.replace(model.endpoint, max_cost=None, max_tokens=None)
        self._limits = Limits(unlimited, answers)  # small requests count, and no limit stops them
        self._identity += [model.endpoint.url, *also]  # another server may offer something else
        self._shows = shows
        self.is_sent = False

    def _check_model(self, stated: Any) -> None:
        self.is_sent = True

    def fetch(self, body: Mapping[str, Any], reduce: Any, api: Api | None = None) -> dict[str, Any]:
        """Return the whole answer, which is stored if it shows the ability."""

        def kept(content: Mapping[str, Any]) -> dict[str, Any]:
            if not self._shows(content):
                raise _NotShownError(content)
            return dict(reduce(content))

        return super().fetch(body, kept, api)


def _shows_all(_: Mapping[str, Any]) -> bool:
    return True


def _obeys(content: Mapping[str, Any]) -> bool:
    return reading.chosen_of(reading.text_of(content), _ANIMALS) is not None


def _states(endpoint: Endpoint, about: Mapping[str, Any], answers: AnswerFile) -> tuple[str | None, str | None]:
    """Return the hash of the weights that a server states, and its version; None for what it does not state."""
    parts = urlsplit(endpoint.url)
    root = f"{parts.scheme}://{parts.netloc}"
    found = next((about[name] for name in ("digest", "sha256", "weights_sha256") if _is_hash(about.get(name))), None)
    version = None
    tags = _tags(root, answers)
    for one in tags.get("models") or []:
        if isinstance(one, dict) and one.get("name") in (endpoint.model, f"{endpoint.model}:latest"):
            found = one["digest"] if _is_hash(one.get("digest")) else found
    if tags:
        version = _get(f"{root}/api/version").get("version")
        version = f"Ollama {version}" if version else None
    if version is None and (vllm := _get(f"{root}/version").get("version")):
        version = f"vLLM {vllm}"
    if version is None and (build := _get(f"{root}/props").get("build_info")):
        version = f"llama.cpp {build}"
    return found, version


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _get(url: str) -> dict[str, Any]:
    """Return the JSON object of an address; empty where there is none. No key is sent."""
    return _asked_for(url) or {}


def _asked_for(url: str) -> dict[str, Any] | None:
    """Return the JSON object of an address, empty where there is none; None where a server does not say in time."""
    try:
        with urllib.request.urlopen(url, timeout=_VERSION_SECONDS) as answer:
            found = json.loads(answer.read(1 << 22))
            return found if isinstance(found, dict) else {}
    except urllib.error.HTTPError as error:
        return None if error.code == 429 or error.code >= 500 else {}
    except (OSError, http.client.HTTPException):
        return None
    except ValueError:
        return {}


def _tags(root: str, answers: AnswerFile) -> dict[str, Any]:
    """Return Ollama's list of models, empty for other servers. It holds hashes, which are a part of identities.

    Raises:
        MissingResourceError: the server has had such a list, and does not return it now.
    """
    key = f"list of models at {root}"
    for n_failed in range(_N_TAGS):
        time.sleep(_TAGS_PAUSE * n_failed)
        found = _asked_for(f"{root}/api/tags")
        if found is not None:
            if found.get("models") and answers.get(key) is None:
                answers.add(key, "", StoredAnswer({}, 0.0))
            return found
    if answers.get(key) is not None:
        raise MissingResourceError(
            f"The server at {shown_url(root)} did not return its list of models (/api/tags) in {_N_TAGS} tries, and "
            "has done so before. Without the hash of the weights in it, no stored answer would be found. Try again "
            "when the server has less to do."
        )
    return {}
