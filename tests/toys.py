"""Small things to test with: a tiny backbone, a toy task, a bench, a worker."""

from __future__ import annotations

import csv
import dataclasses
import functools
import random
from pathlib import Path

import numpy as np

from harness.backbones.locate import BackboneFiles
from harness.backbones.model import load_backbone
from harness.data.sampling import parse_size
from harness.data.spec import TaskSpec
from harness.data.table import table_task
from harness.features.disk import FeatureDisk
from harness.features.encode import FeatureStore
from harness.features.tokens import TokenStore
from harness.measure.clock import PhaseClock
from harness.measure.device import Device
from harness.measure.memory import MemoryMeter
from harness.methods.base import Bench, Ledger, Method
from harness.methods.configure import parse_methods
from harness.planning.plan import PlannedCell, plan_cells
from harness.records.record import Budget, Record
from harness.running.worker import Worker, measure_upwards
from harness.tasks import Rows, Task

CLASS_WORDS = {
    "billing": ["invoice", "refund", "charge", "payment", "price"],
    "shipping": ["parcel", "courier", "delivery", "tracking", "address"],
    "technical": ["crash", "error", "install", "screen", "update"],
}
FILLER = ["the", "a", "my", "is", "was", "please", "help", "with", "about", "and", "it", "not", "again", "now", "when"]


def save_tiny_bert(folder: Path, *, layers: int = 2, width: int = 32) -> Path:
    """A BERT with random weights and a fast tokenizer, saved as transformers saves them."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLER, *(w for ws in CLASS_WORDS.values() for w in ws)]
    vocabulary = {word: position for position, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
        BertModel(config).save_pretrained(folder)
    return folder


def write_toy_table(path: Path, n_rows: int = 400) -> TaskSpec:
    """Rows of 4 to 12 words, two of which tell the class."""
    generator = random.Random(0)
    names = list(CLASS_WORDS)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for row in range(n_rows):
            label = names[row % len(names)]
            words = generator.choices(FILLER, k=generator.randint(2, 10)) + generator.choices(CLASS_WORDS[label], k=2)
            generator.shuffle(words)
            writer.writerow([" ".join(words), label])
    return table_task(path, "text", "label", name="toy")


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
    """A bench of its own, with nothing warm but the backbone; or with what a worker keeps warm."""
    backbone = load_backbone(files) if files is not None else None
    return Bench(
        kind=task.kind,
        n_outputs=task.n_outputs,
        n_strata=task.n_strata,
        max_length=min(task.spec.max_length, backbone.max_length) if backbone else task.spec.max_length,
        label_words=task.label_words,
        prompt=task.prompt,
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


def shorten(task: Task, *, n_test: int = 20, n_pool: int = 1500, max_length: int = 48, max_new_tokens: int = 4) -> Task:
    """A task with its first test rows, the first rows of its training pool, and short texts and answers."""

    reply = task.reply
    return dataclasses.replace(
        task,
        spec=task.spec.model_copy(update={"max_length": min(max_length, task.spec.max_length)}),
        data=f"{task.data}-short",
        train=task.train.first(n_pool),
        train_labels=task.train_labels[:n_pool],
        train_strata=task.train_strata[:n_pool],
        train_digests=task.train_digests[:n_pool],
        test=task.test.first(n_test),
        test_labels=task.test_labels[:n_test],
        test_rows=f"{task.test_rows}-{n_test}",
        reply=reply and dataclasses.replace(reply, max_new_tokens=min(max_new_tokens, reply.max_new_tokens)),
    )


def test_rows(task: Task) -> Rows:
    """All test rows, without labels."""
    return Rows(task.test, np.arange(len(task.test), dtype=np.int64))


test_rows.__test__ = False  # type: ignore[attr-defined]


def plan_one(
    task: Task,
    files: BackboneFiles | None,
    method: Method,
    *,
    size: str = "24",
    seed: int = 0,
    budget: Budget | None = None,
) -> PlannedCell:
    """A plan of one cell."""
    [planned] = plan_cells(
        tasks=[task],
        backbones={} if files is None else {task.name: files},
        methods=[method],
        sizes=[parse_size(size)],
        seeds=[seed],
        budgets=[budget or Budget()],
        device="cpu",
    )
    return planned


def run_one(
    task: Task,
    files: BackboneFiles | None,
    method: Method,
    device: Device,
    *,
    worker: Worker | None = None,
    size: str = "24",
    seed: int = 0,
    budget: Budget | None = None,
) -> Record:
    """The record of one cell."""
    planned = plan_one(task, files, method, size=size, seed=seed, budget=budget)
    return (worker or Worker(device, None)).run(planned, task, files, "tests", lambda *_: None)


def save_one(text: str, task: Task, files: BackboneFiles, device: Device, folder: Path, steps: int = 4) -> Record:
    """Fit a method, given as on the command line, to a few rows and save it; return its record."""
    planned = plan_one(task, files, parse_methods([text])[0], size="12", seed=3, budget=Budget(steps=steps))
    record = Worker(device, None).run(planned, task, files, "tests", lambda *_: None, save_to=folder, hurried=True)
    assert record.status == "ok", record.error
    return record


class FakeTime:
    """Stand-in for the module `time`: its clock moves when it sleeps, and not otherwise."""

    def __init__(self) -> None:
        self._now = 1000.0

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
