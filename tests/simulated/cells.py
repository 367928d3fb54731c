"""Run cells on the simulated GPU and say, in a line of JSON for each, what they did there.

    python -m tests.simulated.cells 'classification/encoder/lora' 'generation/*/*'

A case is kind/architecture/method; `*` stands for all. Use an environment of `build.environment`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import gc
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import harness.features.shape as shape
import harness.running.worker as running
import harness.training.loop as loop
from harness.backbones.locate import BackboneFiles, locate_backbone
from harness.measure import meters
from harness.measure.device import find_device
from harness.methods import methods
from harness.records.record import Record
from harness.running.attempt import Job
from harness.running.forgetting import ForgettingMeter
from harness.running.worker import Worker
from harness.tasks import Task, kinds
from harness.testing.method_checks import BRIEF, configured
from tests.simulated.state import STATE
from tests.tiny_backbones import save_tiny_llama, save_tiny_t5
from tests.toy_kinds import TOYS, architectures_of, toy_task
from tests.toys import plan_one, save_tiny_bert, write_toy_table

ARCHITECTURES = {"encoder": save_tiny_bert, "causal": save_tiny_llama, "sequence-to-sequence": save_tiny_t5}
MODELS = {"encoder": "AutoModel", "causal": "AutoModelForCausalLM", "sequence-to-sequence": "AutoModelForSeq2SeqLM"}

SHORT = {**BRIEF, "min_steps": 4, "max_steps": 4}
"""Settings of a fit of few steps, of which all but the first are counted."""

SHARE_NOTHING = {
    *("full", "discriminative", "gradual-unfreezing", "setfit"),
    *("from-scratch", "majority", "tfidf", "qlora"),
}
"""Methods that train every weight, use none, or pack them, and so leave nothing that another cell could use."""


def all_cases() -> list[str]:
    """Return every kind, architecture and method together, as kind/architecture/method."""
    pairs = [("classification", architecture) for architecture in ARCHITECTURES]
    pairs += [(name, architecture) for name in TOYS for architecture in architectures_of(name)]
    return [f"{kind}/{architecture}/{method}" for kind, architecture in pairs for method in methods.names()]


@dataclasses.dataclass
class Watcher:
    """Counts what happens on the device during a cell.

    Attributes:
        steps: launches of each optimiser step between two points of the curve.
        waits: waits in all these steps, by kind and place.
        highest: most bytes in use from when the meters of the cell start.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    waits: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    highest: int = 0
    _since: tuple[int, int, Counter[tuple[str, str]]] | None = None

    def step(self, optimiser: Any, *_: object) -> None:
        """Count an optimiser step."""
        now = (id(optimiser), STATE.launches, STATE.waits.copy())
        if self._since is not None and self._since[0] == now[0]:
            self.steps.append(now[1] - self._since[1])
            self.waits += now[2] - self._since[2]
        self._since = now

    def report(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Take no account of this step: a point of the curve waits for its loss."""
        self._since = None


def tiny_backbones(folder: Path) -> dict[str, BackboneFiles]:
    """Return a tiny backbone of each architecture."""
    return {name: locate_backbone(str(save(folder / name))) for name, save in ARCHITECTURES.items()}


def tasks(folder: Path) -> Iterator[tuple[str, Task]]:
    """Yield a toy task of each kind."""
    yield "classification", kinds.get("classification").prepare(write_toy_table(folder / "toy.csv"), None)
    for name in TOYS:
        yield name, toy_task(name, folder)


@functools.cache
def most_left(files: BackboneFiles, name: str) -> int:
    """Return the most bytes that a method may leave: those of one backbone that computes in bfloat16, if it shares it.

    A number of a matrix of products takes 2 bytes, any other 4; some methods round none, so all take 4 there. A
    language model counts with its head and decoder, since some methods need them.
    """
    if name in SHARE_NOTHING:
        return 0
    import transformers

    build = getattr(transformers, MODELS[files.architecture])
    model = build.from_config(transformers.AutoConfig.from_pretrained(files.folder))
    matrices = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    matrices -= {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    short = 4 if getattr(methods.get(name), "rounds_nothing", False) else 2
    weights = sum(value.numel() * (short if id(value) in matrices else 4) for value in model.parameters())
    return weights + sum(value.nbytes for value in model.buffers())


def prepare() -> None:
    """Make cells brief: the simulation shows no times."""
    shape.ENCODE_ROWS["cuda"] = 16
    running.matrix_rate = lambda *_: None  # type: ignore[attr-defined]
    loop._CURVE_POINTS = 1


def serves(task: Task, files: BackboneFiles, name: str) -> bool:
    """Return whether a method serves a task on a backbone."""
    return configured(methods.get(name), **SHORT).why_not(task, files, "cuda") is None


def run_cell(worker: Worker, task: Task, files: BackboneFiles, name: str) -> tuple[Record, Watcher] | None:
    """Run one cell and count what it does; None if the method does not serve the task."""
    if not serves(task, files, name):
        return None
    method = configured(methods.get(name), **SHORT)
    used = files if method.serves else None
    planned = dataclasses.replace(plan_one(task, used, method), unsupported=None)
    watcher = Watcher()
    enter = meters.Meters.__enter__

    def enter_and_look(self: meters.Meters) -> meters.Meters:
        enter(self)
        STATE.highest = STATE.allocated[0]
        return self

    measure = ForgettingMeter.measure

    def look_and_measure(self: ForgettingMeter, *arguments: Any) -> Any:
        watcher.highest = STATE.highest  # forgetting is measured behind the cell's peak
        return measure(self, *arguments)

    meters.Meters.__enter__ = enter_and_look  # type: ignore[method-assign]
    ForgettingMeter.measure = look_and_measure  # type: ignore[method-assign]
    hook = register_optimizer_step_post_hook(watcher.step)
    STATE.reset()
    try:
        record = worker.run(Job(planned, used, "simulated"), task, watcher.report)
    finally:
        hook.remove()
        meters.Meters.__enter__ = enter  # type: ignore[method-assign]
        ForgettingMeter.measure = measure  # type: ignore[method-assign]
    return record, watcher


def run(patterns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run the cases that a pattern matches, and yield what each did."""
    wanted = [case for case in all_cases() if any(fnmatch.fnmatch(case, pattern) for pattern in patterns)]
    prepare()
    with tempfile.TemporaryDirectory() as name:
        backbones = tiny_backbones(Path(name))
        for kind, task in tasks(Path(name)):
            for architecture, files in backbones.items():
                worker = Worker(find_device("cuda"), None)
                for case in wanted:
                    if case.startswith(f"{kind}/{architecture}/"):
                        began = time.perf_counter()
                        method = case.rpartition("/")[2]
                        found = run_cell(worker, task, files, method)
                        if found is not None:
                            seen = summary(*found, most_left(files, method))
                            yield {"case": case, "seconds": time.perf_counter() - began, **seen}


def library_bytes() -> int:
    """Return the bytes of tables that bitsandbytes makes once and keeps."""
    functional = sys.modules.get("bitsandbytes.functional")
    tables = getattr(functional, "name2qmap", {}).values()
    return sum(table.nbytes for table in tables if table.is_cuda)


_HAS_NO_FORGETTING = re.compile("tokenizer does not know|starts from random weights")
"""Reasons for which tiny backbones have no figure of forgetting."""


def summary(record: Record, watcher: Watcher, most_left: int) -> dict[str, Any]:
    """Return what a test asks of a cell.

    Hidden bytes are those of the true peak that the record does not state, wherever they come from. Left bytes are
    those that nothing may use after the cell.
    """
    cost = record.cost
    shared = getattr(cost, "shared_weights_bytes", None) or 0
    gc.collect()
    return {
        "status": record.status,
        "error": (record.error or "")[-1500:],
        "missing": {figure: why for figure, why in record.facts.missing.items() if not _HAS_NO_FORGETTING.search(why)},
        "n_steps": len(watcher.steps),
        "waits": [[*place, n] for place, n in watcher.waits.most_common()],
        "waits_outside": [[*place, n] for place, n in (STATE.waits - watcher.waits).most_common(12)],
        "launches": max(watcher.steps, default=0),
        "hidden_bytes": max(0, watcher.highest - library_bytes() - (cost.memory_bytes or 0)),
        "left_bytes": max(0, STATE.allocated[0] - library_bytes() - most_left),
        "resident_bytes": STATE.allocated[0] - library_bytes(),
        "peak_bytes": cost.peak_device_bytes,
        "shared_weights_bytes": shared,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in run(sys.argv[1:] or ["*"]):
        print(json.dumps(line), flush=True)
