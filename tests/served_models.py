"""Helpers of tests about served models: contact, one cell, arguments of a run, everything in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.backbones.served import ServedModel
from harness.measure.device import Device
from harness.methods.configure import parse_methods
from harness.records import Record
from harness.serving.offers import contact
from harness.serving.options import read_endpoint
from harness.tasks import Task
from tests.toys import run_one

KEY = "sk-S3CRET0123456789abcdefXYZ"


def served(url: str, **settings: Any) -> ServedModel:
    options = read_endpoint({"url": url, "model": "toy", **settings})
    assert options is not None
    (model,) = contact(options, None)
    return model


def record_of(text: str, task: Task, url: str, device: Device, n_train: int = 8, **settings: Any) -> Record:
    return run_one(task, served(url, **settings), parse_methods([text])[0], device, size=str(n_train))


def arguments(url: str, *more: str, methods: str = "zero-shot") -> list[str]:
    return [
        *("run", "--data", "toy.csv", "--methods", methods, "--sizes", "12", "--seeds", "0"),
        *("--endpoint", url, "--endpoint-model", "toy", *more),
    ]


def everything_in(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())
