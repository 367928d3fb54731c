"""Ask a served model many questions at a time; every answer is stored as it comes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from harness.backbones import Api, ServedModel
from harness.measure import show_progress
from harness.records import ServedFacts
from harness.serving import bodies, reading
from harness.serving.answers import AnswerFile, StoredAnswer
from harness.serving.client import Client
from harness.serving.errors import ServedError, TooLongError
from harness.serving.limits import Limits
from harness.serving.questions import Answered, Question
from harness.serving.tally import Tally
from harness.support import UnsupportedError

Shorten = Callable[[int, int], Question | None]
"""Function that shortens a question that does not fit into the context.

It takes the position of the question and the number of the try, from 1. It returns None where nothing is left to cut.
"""

_LOOK_SECONDS = 0.5
_MOST_SHORTENED = 24
"""Maximum number of times that one question is shortened."""


class Connection:
    """A served model that can be asked.

    Args:
        model: the model, with what its server offers.
        client: connection to its endpoint; None makes one.
        answers: stored answers; None opens the endpoint's file.
    """

    def __init__(self, model: ServedModel, client: Client | None = None, answers: AnswerFile | None = None) -> None:
        self.model = model
        self._endpoint = model.endpoint
        self._client = client or Client(model.endpoint)
        self._answers = answers or AnswerFile(model.endpoint.answers)
        self._limits = Limits(model.endpoint, self._answers)
        self._identity: list[str | None] = [model.endpoint.model, model.endpoint.revision, model.offer.weights_hash]
        self._identity += [model.offer.stated_model]  # a service may move a name to another version of the model
        self._lock = threading.Lock()
        self._on_way: dict[str, Future[None]] = {}
        self._n_beside = 1
        self.tally = Tally()

    def close(self) -> None:
        """Close the connection and the file of answers."""
        self._client.close()
        self._answers.close()

    def begin(self) -> None:
        """Begin a cell: its sums start at zero."""
        self.tally = Tally()

    def ask(
        self,
        questions: Sequence[Question],
        shorten: Shorten | None = None,
        report: Callable[[float], None] | None = None,
    ) -> tuple[list[Answered], float]:
        """Return the answers to questions, and their seconds.

        Answers that are stored already are read, and charged at the seconds that they took, divided by the number of
        requests that were sent at a time then. The first failure ends all others.

        Args:
            questions: the questions.
            shorten: returns a shorter form of a question that does not fit into the context; None shortens none.
            report: called with the answered share; None reports nothing.

        Raises:
            ServedError: a question could not be answered.
        """
        self._client.stopped.clear()
        self._n_beside = max(1, min(self._endpoint.concurrency, len(questions)))
        before, began = self.tally.reused_seconds, time.perf_counter()
        found: list[Answered | None] = [None] * len(questions)
        n_done = 0
        with ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="asks a served model") as pool:
            rows = {pool.submit(self._answer, row, one, shorten): row for row, one in enumerate(questions)}
            done: SimpleQueue[Future[Answered]] = SimpleQueue()  # `wait` would look at every future after each answer
            for future in rows:
                future.add_done_callback(done.put)
            try:
                while n_done < len(questions):
                    show_progress()
                    try:
                        future = done.get(timeout=_LOOK_SECONDS)
                    except Empty:
                        continue
                    found[rows[future]] = future.result()
                    n_done += 1
                    if report is not None:
                        report(n_done / len(questions))
            except BaseException:
                self._client.stopped.set()  # requests on their way end; those that wait are not sent
                for future in rows:
                    future.cancel()
                raise
        seconds = time.perf_counter() - began
        return [one for one in found if one is not None], seconds + self.tally.reused_seconds - before

    def end_fit(self) -> None:
        """Note that all requests so far belong to the fit."""
        self.tally.end_fit()

    def facts(self, *, scores: bool) -> ServedFacts:
        """Return the facts about the requests since `begin`."""
        return self.tally.facts(self.model, scores=scores)

    def fetch(
        self,
        body: Mapping[str, Any],
        reduce: Callable[[Mapping[str, Any]], dict[str, Any]],
        api: Api | None = None,
    ) -> dict[str, Any]:
        """Return the reduced answer to a request, from the file of answers or from the server.

        Equal requests that are on their way at the same time are sent once.

        Args:
            body: the request.
            reduce: returns the parts of the server's answer that are used; they are what is stored.
            api: part of the API; None is that of the model's offer.
        """
        api = api or self.model.offer.api
        text = json.dumps([self._identity, api, body], sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(text.encode()).hexdigest()
        while True:
            stored = self._answers.get(key)
            if stored is not None:
                self.tally.add(stored, self._price(stored), reused=True, n_beside=stored.n_beside or self._n_beside)
                return dict(stored.content)
            with self._lock:
                other = self._on_way.get(key)
                mine = Future[None]() if other is None else None
                if mine is not None:
                    self._on_way[key] = mine
            if mine is None:
                assert other is not None
                other.result()  # raises if the other request failed
                continue
            try:
                stored = self._send(key, body, reduce, api)
                mine.set_result(None)
            except BaseException as error:
                mine.set_exception(error)
                raise
            finally:
                with self._lock:
                    del self._on_way[key]
            self.tally.add(stored, stored.price, reused=False)
            return dict(stored.content)

    def _send(
        self, key: str, body: Mapping[str, Any], reduce: Callable[[Mapping[str, Any]], dict[str, Any]], api: Api
    ) -> StoredAnswer:
        stored = self._answers.get(key)  # the thread before may have stored it meanwhile
        if stored is not None:
            return stored
        size = bodies.n_bytes(body)
        with self._limits.reserved(size, bodies.most_written(body)) as stored_by:
            sent = self._client.send(api, body)
            self._check_model(sent.content.get("model"))
            prompt, cached, written = reading.usage_of(sent.content)
            price = self._endpoint.price
            is_priced = price is not None and prompt is not None and written is not None
            stored = StoredAnswer(
                reduce(sent.content),
                sent.seconds,
                sent.n_tries,
                prompt,
                cached,
                written,
                price.of(prompt, cached or 0, written) if is_priced else None,  # type: ignore[union-attr, arg-type]
                price.currency if is_priced else None,  # type: ignore[union-attr]
                self._n_beside,
            )
            answer = stored
            stored_by(lambda: self._answers.add(key, self._endpoint.model, answer))
        self._limits.learn(size, prompt)
        return stored

    def _price(self, stored: StoredAnswer) -> float | None:
        price = self._endpoint.price
        if stored.price is not None and (price is None or price.currency == stored.currency):
            return stored.price
        if price is None or stored.prompt_tokens is None or stored.completion_tokens is None:
            return None
        return price.of(stored.prompt_tokens, stored.cached_prompt_tokens or 0, stored.completion_tokens)

    def _check_model(self, stated: Any) -> None:
        """Refuse an answer of another model than the one that was found at the start."""
        expected = self.model.offer.stated_model or self._endpoint.model
        if isinstance(stated, str) and stated and stated != expected:
            raise ServedError(
                f"An answer of {self._endpoint.url} comes from the model '{stated}'; '{expected}' was expected. Its "
                "answers would be mixed with those of another model. Start the server with one model, or name this "
                "one as --endpoint-model."
            )

    def _answer(self, row: int, question: Question, shorten: Shorten | None) -> Answered:
        n_shown = len(question.conversation.shown)
        for n in range(_MOST_SHORTENED + 1):
            try:
                answered = self._ask_once(question)
                return dataclasses.replace(answered, n_dropped=n_shown - len(question.conversation.shown))
            except TooLongError as error:
                shorter = None if shorten is None else shorten(row, n + 1)
                if shorter is None:
                    raise UnsupportedError(
                        f"A prompt does not fit into the context of '{self._endpoint.model}', and nothing of it is "
                        f"left to cut: {error}"
                    ) from None
                question = shorter
        raise UnsupportedError(f"A prompt does not fit into the context of '{self._endpoint.model}' in any length.")

    def _ask_once(self, question: Question) -> Answered:
        offer, model, conversation = self.model.offer, self._endpoint.model, question.conversation
        if not question.answers:
            offer, limit, stop = offer.for_writing, question.max_new_tokens, question.stop
            body = bodies.written(offer, model, conversation, limit, stop)
            if question.schema is not None:
                body |= bodies.schema_of(question.schema, offer.constraint)
            content = self.fetch(body, _reduced_text, offer.api)
            return Answered(text=content["text"], is_cut=content["is_cut"])
        if offer.scoring == "log-probabilities" and offer.echoes:
            return self._likelihoods(question)
        if offer.scoring == "log-probabilities":
            top = self.fetch(bodies.first_token(offer, model, conversation), _reduced_top)["top"]
            is_turn = offer.api == "chat"
            joint = "" if is_turn else conversation.joint
            scores, n_missing = reading.first_token_scores(top, question.answers, joint, is_turn=is_turn)
            if scores is None:
                self.tally.note(unreadable=1)
                return Answered()
            self.tally.note(missing=n_missing)
            return Answered(log_likelihoods=scores, chosen=max(range(len(scores)), key=scores.__getitem__))
        limit = 24 + 2 * max(len(answer.encode()) for answer in question.answers)
        if offer.scoring == "constrained":
            body = bodies.constrained(offer, model, conversation, question.answers, limit)
        else:
            body = bodies.written(offer, model, conversation, limit, question.stop)
        text = self.fetch(body, _reduced_text)["text"]
        chosen = reading.chosen_of(text, question.answers)
        self.tally.note(unreadable=int(chosen is None))
        return Answered(text=text, chosen=chosen)

    def _likelihoods(self, question: Question) -> Answered:
        values, counts, joint = [], [], question.conversation.joint
        for answer in question.answers:
            body = bodies.echoed(self.model.offer, self._endpoint.model, question.conversation, answer)
            found = self.fetch(body, lambda content, answer=answer: _reduced_likelihood(content, answer, joint))  # type: ignore[misc]
            values.append(found["log_likelihood"])
            counts.append(found["n_tokens"])
        chosen = max(range(len(values)), key=values.__getitem__)
        return Answered(log_likelihoods=values, chosen=chosen, n_tokens=counts)


def _reduced_text(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": reading.text_of(content), "is_cut": reading.is_cut(content)}


def _reduced_top(content: Mapping[str, Any]) -> dict[str, Any]:
    top = reading.top_of(content)
    if top is None:
        raise ServedError("An answer came without log-probabilities. Take --endpoint-scoring constrained or parsing.")
    return {"top": top}


def _reduced_likelihood(content: Mapping[str, Any], answer: str, joint: str) -> dict[str, Any]:
    found = reading.answer_likelihood(content, answer, joint)
    if found is None:
        raise ServedError(
            f"The log-probabilities of the words '{answer}' cannot be found in an answer of the server. Take "
            "--endpoint-scoring constrained or parsing."
        )
    return {"log_likelihood": found[0], "n_tokens": found[1]}
