"""Make tiny backbones, made-up tasks, benches and cells for contract tests."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.backbones import Architecture, BackboneFiles, load_backbone, locate_backbone
from harness.data import Columns, DataSource, Files, TaskSpec, parse_size
from harness.features import FeatureDisk, FeatureStore, TokenStore
from harness.measure import Device, MemoryMeter, PhaseClock, find_device
from harness.methods import Bench, Ledger, Method
from harness.planning import PlannedCell, plan_cells
from harness.records import Budget, Record
from harness.running import Job, Worker, measure_upwards
from harness.tasks import Kind, Rows, Task, Toys
from harness.testing.backbones import save_tiny_bert, save_tiny_llama, save_tiny_t5

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

_SAVE = {"encoder": save_tiny_bert, "causal": save_tiny_llama, "sequence-to-sequence": save_tiny_t5}

SHORT = {"max_new_tokens": 8}
"""Settings of generation for tasks with written answers, long enough for made-up answers."""


class Lab:
    """Tiny backbones, one of each architecture, made-up tasks, and a worker on the CPU. Each is made once.

    Args:
        folder: folder for all files.

    Attributes:
        folder: the same.
        device: the CPU.
        worker: runs cells, and keeps backbones, tokens and features warm between them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device: Device = find_device("cpu")
        self.worker = Worker(self.device, None)
        self._tasks: dict[str, Task] = {}
        self._backbones: dict[str, BackboneFiles] = {}
        self._weights: dict[str, dict[str, str]] = {}

    def backbone(self, architecture: Architecture) -> BackboneFiles:
        """Return a backbone with two layers and random weights, whose vocabulary holds the words of made-up texts."""
        if architecture not in self._backbones:
            saved = _SAVE[architecture](self.folder / f"tiny-{architecture}")
            self._backbones[architecture] = locate_backbone(str(saved))
        return self._backbones[architecture]

    def drop_changed_weights(self, architecture: Architecture) -> bool:
        """Drop a loaded backbone, and all features, if its weights have changed; return whether they had."""
        found = state_hash(load_backbone(self.backbone(architecture)).pristine)
        if found == self._weights.setdefault(architecture, found):
            return False
        load_backbone.cache_clear()
        self.worker = Worker(self.device, None)
        shutil.rmtree(self.cache, ignore_errors=True)
        return True

    @property
    def cache(self) -> Path:
        """Folder of the features that other processes keep."""
        return self.folder / "cache"

    def task(self, kind: Kind, n_train: int = 240, **settings: Any) -> Task:
        """Return a task of a kind: training rows and 48 test rows of its examples.

        Args:
            kind: its kind.
            n_train: number of training rows.
            settings: further keys of its spec, as in a suite (`max_length=24`).
        """
        key = json.dumps([kind.name, n_train, settings], sort_keys=True, default=str)
        if key not in self._tasks:
            folder = Path(tempfile.mkdtemp(prefix=f"{kind.name}-", dir=self.folder))
            spec = task_spec(kind, folder, made_up_rows(kind, n_train), made_up_rows(kind, 48, seed=1), **settings)
            self._tasks[key] = kind.prepare(spec, None)
        return self._tasks[key]

    def bench(self, task: Task, files: BackboneFiles | None, *, seed: int = 0, budget: Budget | None = None) -> Bench:
        """Return a new bench for one cell of a task."""
        return make_bench(task, files, self.device, seed=seed, budget=budget)

    def rows(self, task: Task, n_train: int, *, seed: int = 0) -> Rows:
        """Return the training rows that a cell of this size and seed draws."""
        return self.worker.training_rows(task, n_train, seed, "stratified")

    def plan(self, task: Task, files: BackboneFiles | None, method: Method, **how: Any) -> PlannedCell:
        """Plan one cell; `how` as for `plan_cell`."""
        return plan_cell(task, files, method, **how)

    def run(self, task: Task, files: BackboneFiles | None, method: Method, **how: Any) -> Record:
        """Run one cell; `how` as for `run_cell`."""
        return run_cell(task, files, method, self.worker, **how)


def state_hash(module: nn.Module) -> dict[str, str]:
    """Return a fingerprint of each tensor of a module, by name."""
    import torch

    def digest(value: torch.Tensor) -> str:
        return hashlib.sha256(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()

    return {name: digest(value) for name, value in module.state_dict().items()}


@functools.cache
def lab() -> Lab:
    """Return the laboratory of this process; its folder is removed when the process ends."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="harness-testing-"))
    return Lab(Path(_FOLDERS[-1].name))


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
"""Folders of laboratories; the references here keep them from being removed."""


def made_up_rows(kind: Kind, n_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return examples of a kind, by role."""
    toys = Toys(random.Random(seed))
    return [kind.example(toys) for _ in range(n_rows)]


def task_spec(
    kind: Kind,
    folder: Path,
    train: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    **settings: Any,
) -> TaskSpec:
    """Write rows as JSON lines and return the spec of their task.

    Args:
        kind: kind of the task.
        folder: folder to write the files to.
        train: training rows, by role.
        test: test rows, by role.
        settings: further keys of the spec.
    """
    paths = {}
    for part, rows in (("train", train), ("test", test)):
        path = paths[part] = folder / f"{kind.name}-{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    roles = {role: role for role in train[0]}
    return TaskSpec.model_validate(
        {
            "name": f"toy-{kind.name}",
            "kind": kind.name,
            "data": DataSource(files=Files(train=str(paths["train"]), test=str(paths["test"]))),
            "columns": Columns.model_validate(roles),
            **({"decoding": SHORT} if kind.form in ("text", "spans", "tags") else {}),
            **settings,
        }
    )


def make_bench(
    task: Task,
    files: BackboneFiles | None,
    device: Device,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    cache: Path | None = None,
    like: Worker | None = None,
) -> Bench:
    """Return a bench for one cell of a task.

    Args:
        task: the task.
        files: its backbone; None for methods that use none.
        device: device to run on.
        seed: the seed of the cell.
        budget: limits of the fit.
        cache: folder of the feature cache; None keeps features in memory only.
        like: a worker whose tokens and features are shared; None shares only the backbone.
    """
    backbone = load_backbone(files) if files is not None else None
    return Bench(
        kind=task.kind,
        n_outputs=task.n_outputs,
        n_strata=task.n_strata,
        max_length=min(task.spec.max_length, backbone.max_length) if backbone else task.spec.max_length,
        label_words=task.label_words,
        prompt=task.prompt,
        ending=task.test.ending,
        reply=task.reply,
        measure=functools.partial(measure_upwards, task),
        backbone=backbone,
        tokens=like._tokens if like else TokenStore(),
        features=like._features if like else FeatureStore(device, FeatureDisk(cache) if cache else None),
        flops_models=like._flops_models if like else {},
        clock=PhaseClock(),
        memory=MemoryMeter(),
        ledger=Ledger(),
        budget=budget or Budget(),
        seed=seed,
        device=device,
        report=lambda *_: None,
    )


def plan_cell(
    task: Task,
    files: BackboneFiles | None,
    method: Method,
    *,
    size: str = "24",
    seed: int = 0,
    budget: Budget | None = None,
) -> PlannedCell:
    """Return the plan of one cell on the CPU."""
    [planned] = plan_cells(
        tasks=[task],
        backbones={} if files is None else {task.name: (files,)},
        methods=[method],
        sizes=[parse_size(size)],
        seeds=[seed],
        budgets=[budget or Budget()],
        device="cpu",
    )
    return planned


def run_cell(task: Task, files: BackboneFiles | None, method: Method, worker: Worker, **how: Any) -> Record:
    """Return the record of one cell; `how` is its size, seed and budget, as for `plan_cell`."""
    return worker.run(Job(plan_cell(task, files, method, **how), files, "tests"), task)
