"""Worker processes for tests: forked from one process that has imported everything, instead of started anew.

A worker of the harness is a fresh interpreter, which imports torch and transformers for 3 to 6 s. Tests start more than
a hundred of them. Here a fork server imports them once and forks each worker within milliseconds; the worker then runs
the same code. Tests marked `cold_workers`, and all commands in processes of their own, start workers as users do.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parent.parent
IMPORTED = [
    "torch._dynamo",
    "peft",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.feature_extraction.text",
    "scipy.stats",
    "datasets",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
    "transformers.tokenization_utils_fast",
    "tests.planted",
]


class WarmContext:
    """Stand-in for multiprocessing's context: pipes as ever, and processes forked from the fork server."""

    def __init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.Pipe = self._context.Pipe

    def Process(self, *, target: Callable[..., None], args: tuple[Any, ...], **options: Any) -> BaseProcess:  # noqa: N802
        _start_server(self._context)
        return self._context.Process(target=_run, args=(dict(os.environ), target, args), **options)


class WarmMultiprocessing:
    """Stand-in for the module `multiprocessing`, as `harness.schedule.local_process` uses it."""

    process = multiprocessing.process

    def get_context(self, method: str) -> WarmContext:
        assert method == "spawn"
        return WarmContext()


def use_warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `LocalWorkers` fork its workers."""
    monkeypatch.setattr("harness.schedule.local_process.multiprocessing", WarmMultiprocessing())


def worker_processes() -> list[psutil.Process]:
    """Return the worker processes of this process that the operating system knows, forked or started anew."""
    server = forkserver._forkserver._forkserver_pid
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.ppid() == server or "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


def _start_server(context: ForkServerContext) -> None:
    """Start the fork server; it finds this package whatever the test has made its folder."""
    context.set_forkserver_preload(["tests.warm_server"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        forkserver.ensure_running()


def import_all() -> None:
    """Import what workers need, and what the methods in tests need."""
    for name in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(name)
    for name in ("harness.running.worker", "harness.methods", "harness.tasks", "harness.saved"):
        importlib.import_module(name)


def _run(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Run a worker's function as a child of the fork server, with the environment of the test."""
    os.environ.clear()
    os.environ.update(environment)
    connection, _, *rest = args
    target(connection, os.getppid(), *rest)
