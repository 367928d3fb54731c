"""An OpenAI-compatible server with faults: deterministic answers, and failures on demand."""

from __future__ import annotations

import collections
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = re.compile(r"\w+|[^\w\s]+")
LOG_VOCABULARY = math.log(1000.0)


@dataclass
class Faults:
    """Behaviour of a test server, and the requests that it received.

    Attributes:
        model: name of the model that it serves and states.
        key: key that it wants; None wants none.
        latency: seconds before each answer.
        fails: share of requests that fail first with status 500; each is answered when it is sent again.
        truncates, drops, stalls, limits, drips: the same with JSON cut short, a closed connection, no answer for a
            while, status 429, and an answer that comes byte by byte.
        tags: list of models of an Ollama server; None has no such page.
        hides_tags: whether that page fails.
        retry_after: seconds that an answer with status 429 asks to wait.
        stall_seconds: seconds of a stall.
        has_log_probabilities, echoes: whether it returns log-probabilities, and those of a prompt's tokens.
        shifts: whether the log-probabilities of a prompt's tokens are those of the tokens after them, as in
            llama-cpp-python.
        constraint: form of constraint that it obeys; None for none.
        apis: parts of the API that it has.
        context: maximum words of a prompt; None for no limit.
        states: name of the model in its answers; None is `model`.
        repeats_key: whether errors and texts repeat the header that holds the key.
        has_usage: whether it counts tokens.
        favourite: word that it writes; None chooses one of the words that the prompt lists, by a hash.
        cached: tokens of each prompt that it says to have cached.
    """

    model: str = "toy"
    key: str | None = None
    latency: float = 0.0
    fails: float = 0.0
    truncates: float = 0.0
    drops: float = 0.0
    stalls: float = 0.0
    limits: float = 0.0
    drips: float = 0.0
    tags: list[dict[str, Any]] | None = None
    hides_tags: bool = False
    retry_after: float = 0.2
    stall_seconds: float = 2.0
    has_log_probabilities: bool = True
    echoes: bool = True
    shifts: bool = False
    constraint: str | None = None
    apis: tuple[str, ...] = ("chat", "completions")
    context: int | None = None
    states: str | None = None
    repeats_key: bool = False
    has_usage: bool = True
    favourite: str | None = None
    cached: int = 0
    is_broken: bool = False
    answered: collections.Counter[str] = field(default_factory=collections.Counter)
    seen: collections.Counter[str] = field(default_factory=collections.Counter)
    n_failed: int = 0
    n_now: int = 0
    n_most: int = 0
    sent_at: list[float] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def n_answered(self) -> int:
        """Number of answers."""
        return sum(self.answered.values())

    def fault_of(self, body: str) -> str | None:
        """Return the fault of a request when it comes for the first time; None for none, and later."""
        with self.lock:
            self.seen[body] += 1
            if self.seen[body] > 1:
                return None
        at, share = unit(body), 0.0
        for name in ("fails", "truncates", "drops", "stalls", "limits", "drips"):
            share += getattr(self, name)
            if at < share:
                return name
        return None


def unit(text: str) -> float:
    """Return a number from 0 to 1 that depends on a text only."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def likelihood(before: str, word: str) -> float:
    """Return the log-likelihood of a word after a text, as this server has it."""
    return -0.1 - 5.0 * unit(f"{before}|{word}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        faults: Faults = self.server.faults
        if not self._is_allowed():
            return
        if self.path.endswith("/models"):
            self._reply(200, {"object": "list", "data": [{"id": faults.model, "object": "model"}]})
        elif self.path == "/api/tags" and faults.hides_tags:
            self._reply(503, {"error": "busy"})
        elif self.path == "/api/tags" and faults.tags is not None:
            self._reply(200, {"models": faults.tags})
        else:
            self._reply(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        faults: Faults = self.server.faults
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        body = json.loads(text)
        with faults.lock:
            faults.n_now += 1
            faults.n_most = max(faults.n_most, faults.n_now)
            faults.sent_at.append(time.monotonic())
            faults.bodies.append(body)
        try:
            self._post(faults, text, body)
        finally:
            with faults.lock:
                faults.n_now -= 1

    def _post(self, faults: Faults, text: str, body: dict[str, Any]) -> None:
        if not self._is_allowed():
            return
        api = "chat" if self.path.endswith("/chat/completions") else "completions"
        if api not in faults.apis:
            self._reply(404, {"error": {"message": "no such page"}})
            return
        if faults.is_broken:
            self._reply(500, {"error": {"message": f"out of order {self._repeated()}"}})
            return
        if body["model"] != faults.model:
            self._reply(404, {"error": {"message": f"no model {body['model']} {self._repeated()}"}})
            return
        fault = faults.fault_of(text)
        time.sleep(faults.latency)
        if fault is not None:
            faults.n_failed += 1
        if fault == "fails":
            self._reply(500, {"error": {"message": f"a fault {self._repeated()}"}})
            return
        if fault == "limits":
            self._reply(429, {"error": {"message": "slow down"}}, {"Retry-After": f"{faults.retry_after:g}"})
            return
        if fault == "drops":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "stalls":
            time.sleep(faults.stall_seconds)
        prompt = _prompt(body)
        if faults.context is not None and len(WORDS.findall(prompt)) > faults.context:
            said = f"This model's maximum context length is {faults.context} tokens."
            self._reply(400, {"error": {"message": said, "code": "context_length_exceeded"}})
            return
        if ("logprobs" in body or "echo" in body) and not faults.has_log_probabilities:
            self._reply(400, {"error": {"message": "logprobs are not supported"}})
            return
        answer = json.dumps(self._answer(faults, api, body, prompt)).encode()
        if fault == "truncates":
            answer = answer[: len(answer) // 2]
        elif fault not in ("stalls", "drips"):
            with faults.lock:
                faults.answered[text] += 1
        self._send(200, answer, drips=fault == "drips")

    def _answer(self, faults: Faults, api: str, body: dict[str, Any], prompt: str) -> dict[str, Any]:
        allowed = _allowed(body, faults.constraint)
        names = allowed or _named(prompt)
        word = faults.favourite or max(names, key=lambda name: likelihood(prompt, name))
        if allowed and word not in allowed:
            word = allowed[0]
        written = json.dumps({"answer": word}) if allowed and "response_format" in body else word
        if faults.repeats_key:
            written += f" {self._repeated()}"
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        top = {name: likelihood(prompt, name) for name in _named(prompt)}
        if api == "chat":
            choice["message"] = {"role": "assistant", "content": written}
            if body.get("logprobs"):
                listed = [{"token": name, "logprob": value} for name, value in top.items()]
                choice["logprobs"] = {
                    "content": [{"token": word, "logprob": top.get(word, -1.0), "top_logprobs": listed}]
                }
        else:
            choice["text"] = written
            if body.get("echo") and faults.echoes:
                choice["text"] = prompt + written
                choice["logprobs"] = _echo(prompt, shifts=faults.shifts)
            elif body.get("logprobs"):
                value = likelihood(prompt, word)
                choice["logprobs"] = {"tokens": [word], "token_logprobs": [value], "top_logprobs": [top]}
        usage = {"prompt_tokens": len(WORDS.findall(prompt)), "completion_tokens": 1}
        usage["prompt_tokens_details"] = {"cached_tokens": faults.cached}  # type: ignore[assignment]
        return {
            "id": "1",
            "model": faults.states or faults.model,
            "choices": [choice],
            **({"usage": usage} if faults.has_usage else {}),
        }

    def _repeated(self) -> str:
        return str(self.headers.get("Authorization")) if self.server.faults.repeats_key else ""

    def _is_allowed(self) -> bool:
        key = self.server.faults.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._reply(401, {"error": {"message": f"wrong key {self._repeated()}", "code": "invalid_api_key"}})
        return False

    def _reply(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None, *, drips: bool = False) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(len(content) if drips else 0):
                self.wfile.write(content[at : at + 1])
                time.sleep(0.05)
            self.wfile.write(b"" if drips else content)
        except (BrokenPipeError, ConnectionResetError):
            pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Print nothing: clients that are killed close their connections."""


def _prompt(body: dict[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    return "\n".join(message["content"] for message in body["messages"])


def _named(prompt: str) -> list[str]:
    """Return the words that a prompt lists as answers; `yes` and `no` without any."""
    found = re.search(r"Answer with one of: ([^.\n]+)\.", prompt)
    return [word.strip() for word in found[1].split(",")] if found else ["yes", "no"]


def _allowed(body: dict[str, Any], constraint: str | None) -> list[str]:
    if constraint == "json_schema" and body.get("response_format", {}).get("type") == "json_schema":
        return list(body["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"])
    if constraint == "guided_choice" and "guided_choice" in body:
        return list(body["guided_choice"])
    if constraint == "structured_outputs" and "structured_outputs" in body:
        return list(body["structured_outputs"]["choice"])
    if constraint == "grammar" and "grammar" in body:
        return [json.loads(part) for part in body["grammar"].removeprefix("root ::= ").split(" | ")]
    return []


def _echo(prompt: str, *, shifts: bool) -> dict[str, Any]:
    """Return log-probabilities of a prompt's tokens, which are words with the space before them, and one more."""
    tokens = re.findall(r"\s*\S+", prompt)
    values = [None, *(likelihood("".join(tokens[:i]), tokens[i].strip()) for i in range(1, len(tokens)))]
    values = [*values, -1.0]
    if shifts:
        values = [None, *(value - 3.0 for value in values[1:] if value is not None)]
    return {"tokens": [*tokens, " next"], "token_logprobs": values, "top_logprobs": None}


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[str, Faults]]:
    """Run a server with faults; yield its URL and what it does."""
    faults = Faults(**settings)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.faults = faults  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
