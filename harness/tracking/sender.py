"""The process that feeds one tracker. It may hang or die: the run that started it goes on.

It reads runs as lines of JSON from its standard input, and answers each with a line on its standard output. Whatever
the tracker's library prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
from contextlib import suppress
from typing import Any, Final, TextIO

from harness.support import mask_text, reason_of
from harness.tracking.tracker import TrackedRun, Tracker

MOST_FAILURES: Final = 3
"""Number of runs in a row that a tracker refuses before nothing more is sent to it."""

_LINGER_SECONDS = 60.0
"""Seconds that a tracker may take for its last runs after the run of the grid has ended."""

_SECRET_WORDS = ("key", "token", "secret", "password", "passwd", "credential")
_SHORTEST_SECRET = 6


def main(reference: str) -> None:
    """Serve the tracker that `module:class` names until standard input ends."""
    answers = _own_output()
    runs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(runs,), daemon=True).start()
    try:
        module, _, name = reference.partition(":")
        tracker: Tracker = getattr(importlib.import_module(module), name)()
        _answer(answers, ready=masked(tracker.where()))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a library raises
        _answer(answers, broken=masked(reason_of(error)))
        return
    n_failures = 0
    while (line := runs.get()) is not None:
        run = TrackedRun.from_json(json.loads(line))
        try:
            _answer(answers, **{"sent" if tracker.send(run) else "known": run.key})
            n_failures = 0
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a library raises
            n_failures += 1
            why = masked(reason_of(error))
            _answer(answers, failed=run.key, why=why)
            if n_failures == MOST_FAILURES:
                _answer(answers, broken=f"it refused {MOST_FAILURES} runs in a row, the last with {why}")
                return


def masked(text: str) -> str:
    """Return a text without the passwords of URLs and without the values of secret environment variables."""
    secrets = (
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET and any(word in name.lower() for word in _SECRET_WORDS)
    )
    return mask_text(text, tuple(secrets))


def _own_output() -> TextIO:
    """Return the standard output for answers alone; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, **message: Any) -> None:
    with suppress(OSError):  # the run has ended: what is left is sent all the same
        answers.write(json.dumps(message) + "\n")
        answers.flush()


def _read(runs: queue.SimpleQueue[str | None]) -> None:
    """Pass on lines; end the process some time after the last one, even where the tracker hangs."""
    for line in sys.stdin:
        runs.put(line)
    runs.put(None)
    timer = threading.Timer(_LINGER_SECONDS, os._exit, args=(1,))
    timer.daemon = True
    timer.start()
