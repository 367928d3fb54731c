"""Parts that the stages share: the device, shapes, cells, and where figures go."""

from __future__ import annotations

import dataclasses
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.backbones import BACKBONE_SHAPES, BackboneFiles, load_backbone, locate_backbone, write_shape
from harness.cost import synthetic_task
from harness.data import parse_size
from harness.measure import Device, find_device
from harness.methods import methods
from harness.planning import plan_cells
from harness.records import Budget, Record
from harness.running import Job, Worker
from harness.tasks import Task

if TYPE_CHECKING:
    from harness.planning import PlannedCell

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 2}
TINY_LLAMA = {**TINY, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 512, "max_position_embeddings": 512}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536, "num_attention_heads": 12}


class Trial:
    """One run of the script.

    Args:
        folder: folder for models.
        out: folder of `figures.jsonl`.
        is_dry: whether shapes and counts are small.
        seconds: time for all stages.

    Attributes:
        device: the GPU; a CPU where there is none and the run is dry.
        on_gpu: whether it is a GPU.
        figures: all figures by what was measured.
    """

    def __init__(self, folder: Path, out: Path, *, is_dry: bool, seconds: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.folder, self.is_dry = folder, is_dry
        self._out = out / "figures.jsonl"
        self._began, self._seconds = time.perf_counter(), seconds
        self.device: Device = find_device("auto" if is_dry else "cuda")
        self.on_gpu = self.device.kind == "cuda"
        self.there = self.device.torch_device()
        self.figures: dict[str, dict[str, Any]] = {}
        BACKBONE_SHAPES["minilm-like"] = {**BACKBONE_SHAPES["bert-base-like"], **MINILM}
        BACKBONE_SHAPES["tiny-like"] = {**BACKBONE_SHAPES["bert-base-like"], **TINY}
        BACKBONE_SHAPES["tiny-llama-like"] = {**BACKBONE_SHAPES["llama-3.2-1b-like"], **TINY_LLAMA}

    @property
    def seconds_left(self) -> float:
        """Seconds until the time is up."""
        return self._seconds - (time.perf_counter() - self._began)

    def say(self, what: str, **figures: Any) -> None:
        """Print figures and keep them."""
        self.figures.setdefault(what, {}).update(figures)
        at = time.perf_counter() - self._began
        with self._out.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"what": what, "at": round(at, 1), **figures}, default=str) + "\n")
        print(f"[{at:5.0f} s] {what}: {_in_words(figures)}", flush=True)

    def print_table(self) -> None:
        """Print all figures, a line for each thing measured."""
        print("\nFIGURES")
        for what, figures in self.figures.items():
            print(f"{what:44} {_in_words(figures)[:400]}")

    def shape(self, name: str) -> BackboneFiles:
        """Return a backbone without weights; in a dry run a tiny one of the same architecture."""
        name = self._dry_name(name)
        folder = self.folder / name
        return locate_backbone(str(folder), weights=False) if folder.exists() else write_shape(name, folder)

    def checkpoint(self, name: str) -> BackboneFiles:
        """Return a backbone with random weights in a file of bfloat16, so that it is read as a published one is."""
        from safetensors.torch import save_file
        from transformers import AutoConfig, AutoModelForCausalLM

        folder = self.folder / f"{self._dry_name(name)}-bfloat16"
        if not folder.exists():
            write_shape(self._dry_name(name), folder)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
            tensors = {}
            for key, value in model.named_parameters():  # a tied head is listed once
                made = torch.empty(value.shape, device=self.there, dtype=torch.bfloat16)
                tensors[key] = (made.fill_(1.0) if value.dim() == 1 else made.normal_(std=0.02)).cpu()
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return locate_backbone(str(folder))

    def task(self, n_train: int, n_test: int, length: int) -> Task:
        """Return a task of texts that are all `length` tokens long, shorter in a dry run."""
        return synthetic_task(n_train, n_test, min(length, 16) if self.is_dry else length)

    def plan(
        self, task: Task, files: BackboneFiles | None, name: str, *, budget: Budget | None = None, size: str = "all",
        **settings: Any,
    ) -> PlannedCell:  # fmt: skip
        """Return the plan of a cell on the device."""
        method = methods.get(name)(**settings)
        [planned] = plan_cells(
            tasks=[task],
            backbones={} if files is None or not method.serves else {task.name: (files,)},
            methods=[method],
            sizes=[parse_size(size)],
            seeds=[0],
            budgets=[budget or Budget()],
            device=self.device.kind,
        )
        return dataclasses.replace(planned, unsupported=method.why_not(task, files, self.device.kind))

    def run(self, worker: Worker, task: Task, files: BackboneFiles | None, name: str, **how: Any) -> Record:
        """Run a cell; `how` as for `plan`."""
        return worker.run(self.job(self.plan(task, files, name, **how), files), task)

    def job(self, planned: PlannedCell, files: BackboneFiles | None) -> Job:
        """Return a planned cell as a worker takes it; in a dry run without the rate of matrix products."""
        used = files if planned.cell.backbone is not None else None
        return Job(planned, used, "first GPU", hurried=self.is_dry)

    def worker(self) -> Worker:
        """Return a worker that keeps nothing on disk."""
        return Worker(self.device, None)

    def forget_backbones(self) -> None:
        """Free the models of earlier stages, on the host and the device."""
        load_backbone.cache_clear()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def allocated(self) -> int:
        """Return the bytes that live tensors hold on the device; 0 on a CPU."""
        gc.collect()
        return int(torch.cuda.memory_allocated()) if self.on_gpu else 0

    def milliseconds(self, work: Callable[[], object], n: int = 30) -> float:
        """Return the median time of one call, with the device's work."""
        times = []
        for _ in range(3 if self.is_dry else n + 5):
            self.device.synchronise()
            started = time.perf_counter()
            work()
            self.device.synchronise()
            times.append(time.perf_counter() - started)
        return 1e3 * statistics.median(times[-n:])

    def _dry_name(self, name: str) -> str:
        if not self.is_dry:
            return name
        return "tiny-llama-like" if "llama" in name else "tiny-like"


def _in_words(figures: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in figures.items()
    )
