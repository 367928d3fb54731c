"""Import result files of the PEFT library's method comparison (github.com/huggingface/peft, method_comparison)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records import Budget, Cell, Cost, CurvePoint, Forgetting, Record, Score, highest_of
from harness.store.importing.fields import imported
from harness.store.importing.outside import attempt_at, seconds_of
from harness.support import UsageError

_SECONDS = (
    "memory is the accelerator's highest, what was there before included; fit_seconds is the sum of the own seconds "
    "of the training steps, since its train_time also holds evaluation"
)


_SHIFTED_SINCE = "2026-07-14"
"""Day from which PEFT's published forgetting compares each logit with the next token.

Before (pull request 3419), it compared logits with the tokens that they had read, and its base loss was that of the
model with untrained adapters, not that of the pretrained one.
"""

_OUTSIDE = "PEFT's sample of finewiki"
_OLD_FORGETTING = (
    f"PEFT measured it before {_SHIFTED_SINCE}, without the shift by one token and against a base loss with untrained "
    "adapters; the file's number is among the scores"
)


@dataclass(frozen=True)
class _Benchmark:
    """One of PEFT's comparisons.

    Attributes:
        task: name of the task.
        kind: kind of the task.
        metric: name of the main metric.
        key: the file's name of the metric, after `test ` and `valid `.
        others: further metrics that the last entry may contain.
        n_test: number of test rows; None if the file states it.
        protocol: explanation of figures that have a different meaning here.
    """

    task: str
    kind: str
    metric: str
    key: str
    others: tuple[str, ...]
    n_test: int | None
    protocol: str


_MATHS = _Benchmark(
    task="metamathqa-gsm8k",
    kind="generation",
    metric="exact_number",
    key="accuracy",
    others=("forgetting",),
    n_test=1319,
    protocol=(
        "PEFT's method comparison: trained on MetaMathQA, scored on the 1,319 test questions of GSM8K by the final "
        f"number; {_SECONDS}; forgetting as that comparison defines it"
    ),
)
_IMAGES = _Benchmark(
    task="dreambooth-image-gen",
    kind="image-generation",
    metric="dino_similarity",
    key="dino_similarity",
    others=("drift",),
    n_test=None,
    protocol=(
        "PEFT's method comparison: a diffusion model fine-tuned on images of one subject, scored by the cosine "
        f"similarity of DINOv2 embeddings to the test images; {_SECONDS}, and lacks the steps after the last one that "
        "was timed; drift as that comparison defines it"
    ),
)


def read_peft_result(path: Path) -> Record:
    """Return the record of one run.

    Raises:
        UsageError: the file is no such result, or of an unknown comparison; the message says what is missing.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from None
    parts = ("run_info", "train_info", "meta_info")
    if not isinstance(value, dict) or not all(isinstance(value.get(part), dict) for part in parts):
        raise UsageError(
            f"{path} is no result of PEFT's method comparison; expected an object with {', '.join(parts)} as "
            "github.com/huggingface/peft writes them."
        )
    try:
        return _record(value, _benchmark(value, path), path.name)
    except KeyError as error:
        raise UsageError(
            f"{path} is no result of PEFT's method comparison that can be read: it lacks {error}."
        ) from None
    except (TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise UsageError(f"{path} is no result of PEFT's method comparison that can be read: {error}.") from None


def _benchmark(value: dict[str, Any], path: Path) -> _Benchmark:
    """Return the comparison of a file, recognised by its data and metrics."""
    data = value["meta_info"].get("dataset_info")
    names = {name for step in value["train_info"].get("metrics") or [] for name in step}
    if isinstance(data, dict) and {"metamath", "gsm8k"} <= data.keys():
        return _MATHS
    if any(name.endswith(f" {_IMAGES.key}") for name in names) or "dino_model_id" in value["run_info"]["train_config"]:
        return _IMAGES
    raise UsageError(
        f"{path} is of an unknown comparison: its metrics are {', '.join(sorted(names)) or 'none'}. "
        "Known are MetaMathQA (test accuracy) and image-gen (test dino_similarity)."
    )


def _record(value: dict[str, Any], of: _Benchmark, source: str) -> Record:
    run, train, meta = value["run_info"], value["train_info"], value["meta_info"]
    config, peft_config = run["train_config"], run["peft_config"]
    method = "full" if peft_config is None else str(peft_config["peft_type"]).lower().replace("_", "-")
    experiment = str(run["experiment_name"]).rpartition("/")[2]
    base = str(config["model_id"]).rpartition("/")[2].lower()
    name = experiment.lower().removeprefix(base).strip("-") or "default"
    steps = train["metrics"]
    score = _score(steps, of, config) if train["status"] == "success" else None
    ok = score is not None
    cell = Cell(
        task=of.task,
        data=_data(meta, config, of),
        backbone=str(config["model_id"]),
        weights=f"revision {meta['model_info']['sha']}",
        method=method,
        version=1,
        config={"experiment": name},
        n_train=_n_train(config, of),
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
        device=str(_either(system, "accelerator", "gpu")),
        kind=of.kind,
        family="full fine-tuning" if method == "full" else "auxiliary parameters",
        status="ok" if ok else "failed",
        source=source,
        protocol=of.protocol,
        score=score,
        cost=_cost(train) if ok else None,
        curve=_curve(steps, of),
        error=None if ok else str(run.get("error_msg") or f"status '{train['status']}' without a test score"),
        started_at=str(run["created_at"]),
        packages=packages,
        commit=meta["package_info"].get("peft-commit-hash"),
        precision=str(config["dtype"]),
        platform=f"{system['system']} {system['machine']}",
        dataset=_dataset(meta, config, of),
        method_here=_method_here(method, peft_config or {}, config),
        attempt=attempt_at(seconds_of(str(run["created_at"]))),
        **_forgetting(score, str(run["created_at"])),
    )


def _forgetting(score: Score | None, created_at: str) -> dict[str, Any]:
    """Return the rise of the loss on PEFT's outside text, or the reason why the file's number is none."""
    rise = None if score is None else score.others.get("forgetting")
    if rise is None:
        return {}
    if created_at[:10] < _SHIFTED_SINCE:
        return {"missing": {"forgetting": _OLD_FORGETTING}}
    return {"forgetting": Forgetting(rise_of_loss_nats=rise, outside_text=_OUTSIDE)}


_NAMES_HERE: Mapping[str, str] = {"ln-tuning": "layer-norm"}
"""Methods of the harness whose names differ from peft's type."""


def _method_here(method: str, peft_config: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Return the harness's method of a run; None for a variant that is another method, such as an initialisation.

    Args:
        method: peft's type, in lower case with hyphens; `full` without an adapter.
        peft_config: configuration of the adapter.
        config: configuration of the training.
    """
    starts = (peft_config.get("init_lora_weights"), peft_config.get("init_weights"))
    has_own_start = method in ("lora", "miss") and any(isinstance(start, str) for start in starts)
    if has_own_start or peft_config.get("use_bdlora") or config.get("optimizer_type", "AdamW") != "AdamW":
        return None
    variants = [name for name, key in (("dora", "use_dora"), ("rslora", "use_rslora")) if peft_config.get(key)]
    if len(variants) > 1:
        return None
    return variants[0] if variants else _NAMES_HERE.get(method, method)


def _n_train(config: Mapping[str, Any], of: _Benchmark) -> int:
    n_seen = int(config["max_steps"]) * int(config["batch_size"])
    if of is _MATHS:
        return n_seen
    # The few images are seen many times; those for validation and the test come from the same set.
    return min(n_seen, len(config["instance_prompts"]) - int(config["valid_size"]) - int(config["test_size"]))


def _data(meta: Mapping[str, Any], config: Mapping[str, Any], of: _Benchmark) -> str:
    if of is _MATHS:
        return f"gsm8k {meta['dataset_info']['gsm8k']['sha']}"
    return f"{config['dataset_id']} {meta['dataset_info']['sha']}"


def _dataset(meta: Mapping[str, Any], config: Mapping[str, Any], of: _Benchmark) -> dict[str, Any]:
    if of is _MATHS:
        return {"name": "MetaMathQA, GSM8K", "revision": meta["dataset_info"]["metamath"]["sha"]}
    return {"name": str(config["dataset_id"]), "revision": meta["dataset_info"]["sha"]}


def _score(steps: list[dict[str, Any]], of: _Benchmark, config: Mapping[str, Any]) -> Score | None:
    """Return the score on the test rows, with an interval if the metric is a share; None without a score."""
    last = next((step for step in reversed(steps) if f"test {of.key}" in step), None)
    if last is None or not math.isfinite(value := float(last[f"test {of.key}"])):
        return None
    # A NaN (divergence) counts as unknown.
    others = {name: float(last[name]) for name in of.others if math.isfinite(float(last.get(name, math.nan)))}
    n_test = int(config["test_size"]) if of.n_test is None else of.n_test
    low = high = None
    if of is _MATHS:
        # Half the width of a normal 95 % interval; the file lacks single answers.
        half = 1.959964 * (value * (1 - value) / n_test) ** 0.5
        low, high = max(0.0, value - half), min(1.0, value + half)
    return Score(of.metric, value, low, high, True, n_test, n_test, others, highest_of(of.metric))


def _either(value: Mapping[str, Any], name: str, old: str) -> Any:
    """Return a field by its present name, or by the one that it has in older files."""
    return value[name if name in value or old not in value else old]


def _cost(train: Mapping[str, Any]) -> Cost:
    seconds = [float(step["train time"]) for step in train["metrics"] if "train time" in step]
    return Cost(
        fit_seconds=sum(seconds) if seconds else None,
        train_tokens=next(
            (step["train total tokens"] for step in train["metrics"] if "train total tokens" in step), None
        ),
        peak_device_bytes=int(_either(train, "accelerator_memory_max", "cuda_memory_max")),
        n_parameters=_whole(train.get("num_total_params")),
        n_trainable=_whole(train.get("num_trainable_params")),
        artifact_bytes=int(train["file_size"]),
        stopped_by="steps",
    )


def _whole(value: Any) -> int | None:
    """Return a count; None where an older file does not state it."""
    return None if value is None else int(value)


def _curve(steps: list[dict[str, Any]], of: _Benchmark) -> tuple[CurvePoint, ...]:
    points, seconds = [], 0.0
    for step in steps:
        if "train time" in step:
            seconds += float(step["train time"])
            points.append(
                CurvePoint(int(step["step"]), seconds, None, step.get("train loss"), step.get(f"valid {of.key}"))
            )
    return tuple(points)
