"""Import results of lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness): its files of results.

Versions 0.3 (`acc`) and 0.4 (`acc,none`) are read, and the files of lighteval, with which the first Open LLM
Leaderboard ran it (`harness|arc:challenge|25`). Files of samples beside the results give the scores of single rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.records import Budget, Cell, Cost, Record, Score
from harness.store.importing.fields import ResultRow, imported
from harness.store.importing.lm_eval_samples import LmEvalMetric, read_samples
from harness.store.importing.outside import (
    attempt_at,
    checked,
    data_text,
    highest_by_name,
    interval,
    is_number,
    iso_of,
    part,
    plain_settings,
    points_down,
    read_json,
    seconds_of,
    seed_of,
    short_hash,
)
from harness.support import UsageError

MEASURED_BY: Final = "lm-eval"
"""Name of the source in records."""

_WHAT: Final = "a file of results of lm-evaluation-harness"
_PROTOCOL: Final = (
    "{tool}: a pretrained model prompted with examples (n_train is their number in a prompt), scored "
    "with its own prompts and metrics; its file states no seconds or memory of single tasks"
)
_SIGNS: Final = ("configs", "versions", "config", "config_general", "n-shot", "lm_eval_version", "model_name")
"""Fields of which every version writes some, beside `results`."""

_NO_METRICS: Final = frozenset({"alias", "name", "sample_len", "sample_count", "samples", " ", ""})
_KINDS: Final = {"multiple_choice": "multiple-choice", "generate_until": "generation", "greedy_until": "generation"}
_MODEL: Final = ("pretrained", "model", "path", "engine")
_NOT_SETTINGS: Final = frozenset(
    {
        *(*_MODEL, "revision", "device", "batch_size", "max_batch_size", "parallelize", "tensor_parallel_size"),
        *("data_parallel_size", "gpu_memory_utilization", "num_concurrent", "base_url", "cache_dir", "max_retries"),
        *("timeout", "trust_remote_code", "tokenized_requests", "device_map_option", "max_memory_per_gpu", "token"),
        *("use_accelerate", "low_cpu_mem_usage", "offload_folder"),
    }
)
"""Arguments of a model that name it, or that only say how it was run."""

_LIGHTEVAL: Final = re.compile(r"^(?:(?P<suite>[a-z_]+)\|)?(?P<task>[^|]+)\|(?P<shots>\d+)(?:\|\d+)?$")
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T_ ](\d\d)[-:](\d\d)[-:](\d\d(?:\.\d+)?)")
_GPU: Final = re.compile(r"GPU \d+: ([^\n]+)")
_TORCH: Final = re.compile(r"PyTorch version: (\S+)")


@dataclass(frozen=True)
class _Run:
    """Statements of a file about all of its tasks.

    Attributes:
        path: the file.
        value: its content.
        config: configuration of the run.
        arguments: arguments of the model.
        model: name of the model.
        weights: its revision.
        date: seconds since 1970; None is unknown.
    """

    path: Path
    value: dict[str, Any]
    config: dict[str, Any]
    arguments: dict[str, Any]
    model: str
    weights: str
    date: float | None


def read_lm_eval(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the position and the record of each task of a file, or of the files of a folder at any depth.

    Groups, whose figures are means over tasks of the same file, are left out.

    Raises:
        UsageError: a file is damaged or of another format; the message names the field.
    """
    if not path.is_dir():
        yield from _of_file(path, read_json(path, _WHAT))
        return
    n_found = 0
    files = sorted(path.rglob("*.json"))
    for file in files:
        value = read_json(file, _WHAT)
        if is_lm_eval(value):
            n_found += 1
            yield from _of_file(file, value)
    if not n_found:
        raise UsageError(
            f"The folder {path} holds no results of lm-evaluation-harness ({len(files)} .json files were read). "
            "Expected files such as MODEL/results_2026-01-31T12-00-00.json."
        )


def is_lm_eval(value: Any) -> bool:
    """Return whether a JSON value is a file of results of lm-evaluation-harness."""
    if not isinstance(value, dict) or not isinstance(value.get("results"), dict) or "eval" in value:
        return False
    return any(name in value for name in _SIGNS)


def _of_file(path: Path, value: Any) -> Iterator[tuple[str, Record]]:
    if not is_lm_eval(value):
        raise UsageError(
            f"{path} is no result of lm-evaluation-harness; expected an object with `results` (metrics by task) and "
            f"some of {', '.join(_SIGNS[:4])}."
        )
    run = _run(path, value)
    results = part(value, "results", str(path))
    groups = _groups(value, results, str(path))
    n_found = 0
    for task in results:
        where = f"{path}: results.{task}"
        figures = part(results, task, f"{path}: results")
        metrics = _metrics(figures, where)
        if task == "all" or "_average|" in task or task in groups or not metrics:
            continue
        n_found += 1
        yield where, checked(_record(run, task, figures, metrics, where), where)
    if not n_found:
        raise UsageError(f"{path}: results has no task with a metric; it has {', '.join(results) or 'no task'}.")


def _run(path: Path, value: dict[str, Any]) -> _Run:
    where = str(path)
    config, general = part(value, "config", where), part(value, "config_general", where)
    arguments = _arguments(config.get("model_args"), where)
    names = [*(arguments.get(name) for name in _MODEL), value.get("model_name"), general.get("model_name")]
    model = next((str(name).strip() for name in (*names, config.get("model_name"), config.get("model")) if name), "")
    if not model:
        raise UsageError(f"{path}: config.model_args names no model; expected pretrained=NAME, or a model_name.")
    revisions = (config.get("model_sha"), general.get("model_sha"), arguments.get("revision"))
    revision = next((str(one).strip() for one in (*revisions, config.get("model_revision")) if one), "unknown")
    date = value.get("date") if is_number(value.get("date")) else general.get("start_time")
    if not is_number(date) or not math.isfinite(float(str(date))) or float(str(date)) < 1e8:
        named = _DATE.search(path.stem)
        date = None if named is None else seconds_of(f"{named[1]}T{named[2]}:{named[3]}:{named[4][:2]}")
    known = None if date is None else float(str(date))
    return _Run(path, value, {**general, **config}, arguments, model, f"revision {revision}", known)


def _arguments(given: Any, where: str) -> dict[str, Any]:
    """Return the arguments of a model, written as an object or as `pretrained=NAME,dtype=float16`."""
    if given is None or isinstance(given, dict):
        return dict(given or {})
    if not isinstance(given, str):
        raise UsageError(f"{where}: config.model_args is {type(given).__name__}; expected a text or an object.")
    found: dict[str, Any] = {}
    name = ""
    for piece in given.split(","):
        key, equals, text = piece.partition("=")
        if equals:
            name = key.strip()
            found[name] = text.strip()
        elif name and piece.strip():
            found[name] += f",{piece}"  # a comma within a value
    return found


def _groups(value: Mapping[str, Any], results: Mapping[str, Any], where: str) -> set[str]:
    """Return the groups of which members are in the file too; their figures are means over these."""
    members = {name: found for name, found in part(value, "group_subtasks", where).items() if isinstance(found, list)}
    named = {name for name, found in members.items() if any(one in results for one in found)}
    alone = {name for name in part(value, "groups", where) if not members.get(name)}
    return named | (alone if results.keys() - alone - named - {"all"} else set())


def _metrics(figures: Mapping[str, Any], where: str) -> list[LmEvalMetric]:
    """Return the metrics of a task, in the file's order, without those that have no number."""
    found = []
    for key, value in figures.items():
        name, _, chosen = key.partition(",")
        if key in _NO_METRICS or name.endswith("_stderr") or not is_number(value):
            continue
        error_key = f"{name}_stderr,{chosen}" if "," in key else f"{name}_stderr"
        error = figures.get(error_key)
        known = float(error) if is_number(error) and math.isfinite(error) else None
        if known is not None and known < 0:
            raise UsageError(f"{where}.{error_key} is {known:g}; expected a standard error of 0 or more.")
        found.append(LmEvalMetric(name, chosen.strip(), float(value), known))
    return found


def _record(run: _Run, given: str, figures: Mapping[str, Any], metrics: list[LmEvalMetric], where: str) -> Record:
    named = _LIGHTEVAL.match(given) if "config_general" in run.value else None
    task = named["task"] if named else given
    tool = "lighteval" if named and named["suite"] != "harness" else MEASURED_BY
    task_config = _task_config(run, given, named)
    main = _main(metrics, task_config)
    shots = int(named["shots"]) if named else _shots(run, given, task_config)
    n_test, n_available = _n_test(run, given, figures, task_config.get("n_test"), where)
    rows = read_samples(run.path, given, main, n_test, task_config)
    n_test = len(rows.statistics[main.label]) if rows is not None and not n_test else n_test
    ok = math.isfinite(main.value)
    missing = {"costs": "the file has one time for all tasks, with loading"}
    if shots is None:
        missing["n_train"] = "the number of examples in a prompt is not stated"
    if not n_test:
        missing["n_test"] = "not stated"
    about = ResultRow(task_config, where)
    hardware = run.value.get("pretty_env_info")
    gpu = _GPU.search(hardware) if isinstance(hardware, str) else None
    return imported(
        cell=Cell(
            task=task,
            data=_data(run, given, task, task_config),
            backbone=run.model,
            weights=run.weights,
            method=tool,
            version=1,
            config=_settings(run),
            n_train=shots or 0,
            budget=Budget(),
            seed=seed_of(run.config.get("fewshot_seed" if shots else "random_seed")),
        ),
        device=tool if gpu is None else f"{tool}, {gpu[1].strip()}",
        kind=_KINDS.get(str(task_config.get("output_type")), "unknown"),
        family="in context",
        status="ok" if ok else "failed",
        source=run.path.name,
        protocol=_PROTOCOL.format(tool="lm-evaluation-harness" if tool == MEASURED_BY else tool),
        score=_score(run, given, main, metrics, n_test, n_available, where) if ok else None,
        cost=Cost(n_parameters=_n_parameters(run)),
        error=None if ok else f"{main.label} is {main.value} in {run.path.name}",
        started_at=iso_of(run.date),
        packages=_packages(run, hardware),
        commit=_text(run.value.get("git_hash")),
        precision=str(run.config.get("model_dtype") or run.arguments.get("dtype") or "unknown").removeprefix("torch."),
        dataset={
            name: found
            for name, found in (("hub", about.text("dataset_path")), ("config", about.text("dataset_name")))
            if found is not None
        },
        missing=missing,
        measured_by=tool,
        is_evidence=shots is not None,
        attempt=attempt_at(run.date),
        predictions=rows if ok else None,
    )


def _task_config(run: _Run, given: str, named: re.Match[str] | None) -> dict[str, Any]:
    """Return the configuration of a task; that of lighteval with the names of lm-evaluation-harness."""
    where = str(run.path)
    if named is None:
        return part(part(run.value, "configs", where), given, f"{where}: configs")
    tasks = part(run.value, "config_tasks", where)
    found = next((one for name, one in tasks.items() if name == given and isinstance(one, dict)), {})
    return {
        "dataset_path": found.get("hf_repo"),
        "dataset_name": found.get("hf_subset"),
        "metadata": {"version": found.get("version")},
        "n_test": found.get("effective_num_docs"),
    }


def _main(metrics: list[LmEvalMetric], task_config: Mapping[str, Any]) -> LmEvalMetric:
    """Return the task's first metric, by its configuration where that is stated."""
    stated = task_config.get("metric_list")
    for one in stated if isinstance(stated, list) else ():
        name = one.get("metric") if isinstance(one, dict) else None
        for metric in metrics:
            if metric.name == name:
                return metric
    return metrics[0]


def _shots(run: _Run, task: str, task_config: Mapping[str, Any]) -> int | None:
    by_task = part(run.value, "n-shot", str(run.path))
    for found in (by_task.get(task), task_config.get("num_fewshot"), run.config.get("num_fewshot")):
        if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
            return found
    return None


def _n_test(run: _Run, task: str, figures: Mapping[str, Any], stated: Any, where: str) -> tuple[int, int | None]:
    """Return the scored rows and the rows there are; 0 and None where they are not stated."""
    counts = part(part(run.value, "n-samples", str(run.path)), task, f"{run.path}: n-samples")
    length = figures.get("sample_len", figures.get("samples", stated))
    row = ResultRow({**counts, "length": length if is_number(length) and length > 0 else None}, where)
    scored, original = row.whole("effective") or row.whole("length") or 0, row.whole("original")
    return scored, original if original is not None and original >= scored > 0 else None


def _data(run: _Run, given: str, task: str, task_config: Mapping[str, Any]) -> str:
    """Return a description of the test rows: the task's version and the limit of rows."""
    version = part(run.value, "versions", str(run.path)).get(given)
    if version is None and isinstance(metadata := task_config.get("metadata"), dict):
        version = metadata.get("version")
    limit = run.config.get("limit", run.config.get("max_samples"))
    rows = "" if limit in (None, -1, "") else f", limit {limit}"
    data = f"lm-eval {task} version {version if version not in (None, '') else 'unknown'}{rows}"
    return data_text(data)


def _settings(run: _Run) -> dict[str, Any]:
    """Return the settings of a run that change its answers."""
    told = {name: value for name, value in run.arguments.items() if name not in _NOT_SETTINGS}
    if given := run.config.get("gen_kwargs"):
        told["gen_kwargs"] = given
    if run.value.get("fewshot_as_multiturn"):
        told["fewshot_as_multiturn"] = True
    for name in ("chat_template", "system_instruction"):
        if value := run.value.get(name):
            told[name] = str(run.value.get(f"{name}_sha") or short_hash(str(value)))[:16]
    if (backend := run.config.get("model")) and backend != run.model:
        told["backend"] = backend
    return plain_settings(told)


def _score(
    run: _Run,
    task: str,
    main: LmEvalMetric,
    metrics: list[LmEvalMetric],
    n_test: int,
    n_available: int | None,
    where: str,
) -> Score:
    directions = part(part(run.value, "higher_is_better", str(run.path)), task, f"{run.path}: higher_is_better")
    stated = directions.get(main.name)
    is_up = stated if isinstance(stated, bool) else not points_down(main.name, ResultRow({}, where))
    highest = highest_by_name(main.name, main.value)
    low, high = interval(main.name, main.value, main.error, highest)
    others = {}
    for metric in metrics:
        if metric is not main and math.isfinite(metric.value):
            others[metric.label] = metric.value
            if metric.error is not None:
                others[f"{metric.label} standard error"] = metric.error
    if main.error is not None:
        others[f"{main.label} standard error"] = main.error
    return Score(main.label, main.value, low, high, is_up, n_test, n_available, others, highest)


def _n_parameters(run: _Run) -> int | None:
    found = run.config.get("model_num_parameters")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _packages(run: _Run, hardware: Any) -> dict[str, str]:
    found = {"lm_eval": _text(run.value.get("lm_eval_version"))}
    found["transformers"] = _text(run.value.get("transformers_version"))
    torch = _TORCH.search(hardware) if isinstance(hardware, str) else None
    found["torch"] = None if torch is None else torch[1]
    return {name: version for name, version in found.items() if version}


def _text(value: Any) -> str | None:
    return value.strip()[:200] or None if isinstance(value, str) else None
