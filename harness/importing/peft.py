"""Result files of the PEFT library's method comparison (github.com/huggingface/peft, method_comparison/MetaMathQA)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.importing.made import imported
from harness.records import Budget, Cell, Cost, CurvePoint, Record, Score

N_TEST = 1319
"""Questions of GSM8K's test split, on which that comparison reports accuracy."""

PROTOCOL = (
    "PEFT's method comparison: trained on MetaMathQA, scored on GSM8K by the final number; fit_seconds is the sum of "
    "the training steps' own seconds, since its train_time also holds tokenisation, evaluation and generation; memory "
    "is the accelerator's highest, what was there before included"
)


def read(path: Path) -> Record:
    """One run.

    Raises:
        UsageError: the file is no such result; it says which part is missing.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return _record(value, path.name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"{path} is no result of PEFT's method comparison: {type(error).__name__} {error}. Expected run_info, "
            "train_info and meta_info as github.com/huggingface/peft writes them."
        ) from None


def _record(value: dict[str, Any], source: str) -> Record:
    run, train, meta = value["run_info"], value["train_info"], value["meta_info"]
    config, peft_config = run["train_config"], run["peft_config"]
    method = "full" if peft_config is None else str(peft_config["peft_type"]).lower().replace("_", "-")
    experiment = str(run["experiment_name"]).rpartition("/")[2]
    base = str(config["model_id"]).rpartition("/")[2].lower()
    name = experiment.lower().removeprefix(base).strip("-") or "default"
    steps = train["metrics"]
    accuracy = next((step["test accuracy"] for step in reversed(steps) if "test accuracy" in step), None)
    score = _score(float(accuracy)) if train["status"] == "success" and accuracy is not None else None
    ok = score is not None
    cell = Cell(
        task="metamathqa-gsm8k",
        data=f"gsm8k {meta['dataset_info']['gsm8k']['sha']}",
        backbone=str(config["model_id"]),
        weights=f"revision {meta['model_info']['sha']}",
        method=method,
        version=1,
        config={"experiment": name},
        n_train=int(config["max_steps"]) * int(config["batch_size"]),
        budget=Budget(steps=int(config["max_steps"])),
        seed=int(config["seed"]),
    )
    packages = {
        name.removesuffix("-version"): str(version)
        for name, version in meta["package_info"].items()
        if name.endswith("-version") and version
    }
    system = meta["system_info"]
    return imported(
        cell=cell,
        device=str(system["accelerator"]),
        kind="generation",
        family="full fine-tuning" if method == "full" else "auxiliary parameters",
        status="ok" if ok else "failed",
        source=source,
        protocol=PROTOCOL,
        score=score,
        cost=_cost(train) if ok else None,
        curve=_curve(steps),
        error=None if ok else str(run.get("error_msg") or train["status"]),
        started_at=str(run["created_at"]),
        packages=packages,
        commit=meta["package_info"].get("peft-commit-hash"),
        precision=str(config["dtype"]),
        platform=f"{system['system']} {system['machine']}",
        dataset={"name": "MetaMathQA, GSM8K", "revision": meta["dataset_info"]["metamath"]["sha"]},
    )


def _score(accuracy: float) -> Score:
    # Half the width of a normal 95 % interval: the questions' own answers are not in the file.
    half = 1.959964 * (accuracy * (1 - accuracy) / N_TEST) ** 0.5
    low, high = max(0.0, accuracy - half), min(1.0, accuracy + half)
    return Score("exact_number", accuracy, low, high, True, N_TEST, N_TEST)


def _cost(train: dict[str, Any]) -> Cost:
    return Cost(
        fit_seconds=sum(float(step["train time"]) for step in train["metrics"] if "train time" in step),
        train_tokens=next(
            (step["train total tokens"] for step in train["metrics"] if "train total tokens" in step), None
        ),
        peak_device_bytes=int(train["accelerator_memory_max"]),
        n_parameters=int(train["num_total_params"]),
        n_trainable=int(train["num_trainable_params"]),
        artifact_bytes=int(train["file_size"]),
        stopped_by="steps",
    )


def _curve(steps: list[dict[str, Any]]) -> tuple[CurvePoint, ...]:
    points, seconds = [], 0.0
    for step in steps:
        if "train time" in step:
            seconds += float(step["train time"])
            points.append(
                CurvePoint(int(step["step"]), seconds, None, step.get("train loss"), step.get("valid accuracy"))
            )
    return tuple(points)
