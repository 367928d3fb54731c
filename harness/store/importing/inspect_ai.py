"""Import logs of Inspect (github.com/UKGovernmentBEIS/inspect_ai): `.eval` (a zip file of JSON) and `.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harness.records import Budget, Cell, Predictions, Record, Score, ServedFacts
from harness.store.importing.fields import ResultRow, imported
from harness.store.importing.inspect_logs import InspectLog, is_inspect, read_log
from harness.store.importing.outside import (
    attempt_at,
    bare_address,
    checked,
    data_text,
    highest_by_name,
    interval,
    is_number,
    listed_parts,
    part,
    plain_settings,
    points_down,
    row_scores,
    seconds_of,
    seed_of,
    short_hash,
)
from harness.support import UsageError

MEASURED_BY: Final = "inspect"
"""Name of the source in records."""

_ENDINGS: Final = (".eval", ".json")
_PROTOCOL: Final = (
    "Inspect: a model asked by the solvers of a task and scored by its scorer {scorer}; its log states the time of the "
    "whole run, which is not split into phases"
)
_ERRORS: Final = ("stderr", "bootstrap_stderr", "bootstrap_std")
_NO_SCORES: Final = frozenset({*_ERRORS, "std", "stddev", "var"})
"""Metrics that describe the spread of scores."""

_SHOTS: Final = ("fewshot", "num_fewshot", "n_fewshot", "few_shot", "n_shot", "n_shots", "num_shots", "shots")
"""Arguments of tasks that state the number of examples in a prompt."""

_VALUES: Final = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Numbers that Inspect takes for the texts of scores."""


@dataclass(frozen=True)
class _Metric:
    """One metric of one scorer, with its value and the spread that the scorer states."""

    scorer: str
    name: str
    value: float

    def label(self) -> str:
        """Return the name of the metric; with that of the scorer, unless it is the share of right answers."""
        return self.name if self.name == "accuracy" else f"{self.name} ({self.scorer})"


def read_inspect(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the path and the record of a log, or of each log of a folder at any depth.

    Raises:
        UsageError: a log is damaged, has not ended, or is of another format; the message names the field.
    """
    if not path.is_dir():
        log = read_log(path)
        if log is not None:
            yield str(path), _record(log)
        return
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _ENDINGS and file.is_file())
    n_found = 0
    for file in files:
        log = read_log(file, may_be_other=True)
        if log is not None:
            n_found += 1
            yield str(file), _record(log)
    if not n_found:
        raise UsageError(f"The folder {path} holds no log of Inspect ({len(files)} files were read).")


def _record(log: InspectLog) -> Record:
    header, where = log.header, str(log.path)
    if not is_inspect(header):
        raise UsageError(f"{log.path} is no log of Inspect; expected an object with status, eval, plan and results.")
    spec, status = part(header, "eval", where), header.get("status")
    if status not in ("success", "error", "cancelled"):
        raise UsageError(f"{where}: status is {status!r}: the run has not ended. Import it when it has.")
    about = ResultRow({name: spec.get(name) for name in ("task", "model", "task_version", "created")}, f"{where}: eval")
    task, model = about.text("task"), about.text("model")
    if task is None or model is None:
        raise UsageError(f"{where}: eval.{'task' if task is None else 'model'} is missing; expected a name.")
    stats, plan = part(header, "stats", where), part(header, "plan", where)
    started, ended = (seconds_of(_said(stats.get(name))) for name in ("started_at", "completed_at"))
    metrics, scored = _metrics(part(header, "results", where), where)
    error = _error(header, status, metrics, where)
    main = _main(metrics, part(header, "results", where)) if metrics else None
    shots = _shots(spec, where)
    n_test, n_available = _n_test(spec, header, scored, where)
    missing = {"costs": "the log states the time of the whole run alone"}
    if shots is None:
        missing["n_train"] = "the number of examples in a prompt is not stated"
    if not n_test:
        missing["n_test"] = "not stated"
    packages = {str(name): str(version) for name, version in part(spec, "packages", where).items()}
    revision = part(spec, "revision", where)
    dataset = part(spec, "dataset", where)
    record = imported(
        cell=Cell(
            task=task,
            data=_data(about, dataset),
            backbone=model,
            weights="not stated",
            method=MEASURED_BY,
            version=1,
            config=_settings(spec, plan, where),
            n_train=shots or 0,
            budget=Budget(),
            seed=seed_of(_generate(spec, plan, where).get("seed")),
        ),
        device=MEASURED_BY,
        kind="unknown",
        family="in context",
        status="ok" if error is None else "failed",
        source=log.path.name,
        protocol=_PROTOCOL.format(scorer=main.scorer if main else "(none)"),
        score=None if error or main is None else _score(main, metrics, n_test, n_available, where),
        error=error,
        started_at=_said(stats.get("started_at")) or about.text("created") or "",
        packages=packages,
        commit=_said(revision.get("commit")),
        dataset={"name": found} if (found := _said(dataset.get("name"))) else {},
        missing=missing,
        measured_by=MEASURED_BY,
        is_evidence=shots is not None and not header.get("invalidated"),
        attempt=attempt_at(started or seconds_of(about.text("created"))),
        predictions=None if error or main is None else _rows(log, main, task, n_test),
        wall_seconds=ended - started if started and ended and ended >= started else None,
        remarks={"inspect": "samples of this log were invalidated"} if header.get("invalidated") else None,
    )
    return checked(_with_tokens(record, spec, part(stats, "model_usage", where), model), where)


def _error(header: Mapping[str, Any], status: str, metrics: list[_Metric], where: str) -> str | None:
    """Return why a log has no score; None if it has one."""
    if status != "success":
        said = part(header, "error", where).get("message")
        return f"status '{status}': {said}" if said else f"status '{status}'"
    if not metrics:
        raise UsageError(f"{where}: results.scores has no metric with a number; expected at least one score.")
    main = _main(metrics, part(header, "results", where))
    return None if math.isfinite(main.value) else f"{main.label()} is {main.value}"


def _metrics(results: Mapping[str, Any], where: str) -> tuple[list[_Metric], dict[str, int]]:
    """Return the metrics of all scorers in the log's order, and the number of scored rows by scorer."""
    scores = listed_parts(results, "scores", f"{where}: results")
    if not scores and isinstance(results.get("scorer"), dict):  # version 1 of the format: one scorer
        scores = [{**part(results, "scorer", where), "metrics": results.get("metrics")}]
    found: list[_Metric] = []
    scored: dict[str, int] = {}
    for number, score in enumerate(scores):
        place = f"{where}: results.scores[{number}]"
        row = ResultRow(score, place)
        scorer = row.text("name") or row.text("scorer") or "scorer"
        if reducer := row.text("reducer"):
            scorer = scorer if reducer == "mean" else f"{scorer}, {reducer}"
        if score.get("scored_samples") is not None:
            scored[scorer] = row.whole("scored_samples") or 0
        for name, metric in part(score, "metrics", place).items():
            if not isinstance(metric, dict):
                raise UsageError(f"{place}.metrics.{name} is no object; expected one with a value.")
            value = metric.get("value")
            if isinstance(value, str) and value.lower().lstrip("-") in ("nan", "infinity", "inf"):
                value = float(value)
            if not is_number(value):
                raise UsageError(f"{place}.metrics.{name}.value is {value!r}; expected a number.")
            found.append(_Metric(scorer, str(name), float(value)))
    if found and all(metric.name in _NO_SCORES for metric in found):
        return [], scored
    return found, scored


def _main(metrics: list[_Metric], results: Mapping[str, Any]) -> _Metric:
    """Return the metric that the log calls its headline, else the first one."""
    headline = results.get("headline")
    if isinstance(headline, dict):
        for metric in metrics:
            if metric.name == headline.get("metric") and headline.get("score") in (None, metric.scorer):
                return metric
    return next(metric for metric in metrics if metric.name not in _NO_SCORES)


def _score(main: _Metric, metrics: list[_Metric], n_test: int, n_available: int | None, where: str) -> Score:
    own = {metric.name: metric.value for metric in metrics if metric.scorer == main.scorer}
    error = next((own[name] for name in _ERRORS if name in own and math.isfinite(own[name])), None)
    highest = highest_by_name(main.name, main.value) if main.name == "accuracy" else None
    low, high = interval(main.name, main.value, error if error is None or error >= 0 else None, highest)
    several = len({metric.scorer for metric in metrics}) > 1
    others = {
        f"{metric.name} ({metric.scorer})" if several or metric.name not in own else metric.name: metric.value
        for metric in metrics
        if metric is not main and math.isfinite(metric.value)
    }
    is_up = not points_down(main.name, ResultRow({}, where))
    return Score(main.label(), main.value, low, high, is_up, n_test, n_available, others, highest)


def _n_test(
    spec: Mapping[str, Any], header: Mapping[str, Any], scored: Mapping[str, int], where: str
) -> tuple[int, int | None]:
    """Return the scored rows, counted once over epochs, and the rows there are; 0 and None where not stated."""
    results, dataset, config = part(header, "results", where), part(spec, "dataset", where), part(spec, "config", where)
    row = ResultRow({**results, "samples": dataset.get("samples"), "epochs": config.get("epochs")}, f"{where}: results")
    available, epochs = row.whole("samples"), row.whole("epochs") or 1
    n_test = next(iter(scored.values()), 0) or (row.whole("completed_samples") or row.whole("total_samples") or 0)
    if not scored:
        n_test //= epochs
    if not n_test and available and config.get("limit") is None and config.get("sample_id") is None:
        n_test = available
    return n_test, available if available and available >= n_test > 0 else None


def _shots(spec: Mapping[str, Any], where: str) -> int | None:
    arguments = part(spec, "task_args", where)
    for name in _SHOTS:
        found = arguments.get(name)
        if isinstance(found, bool):
            return 0 if not found else None
        if isinstance(found, int) and found >= 0:
            return found
    return None


def _data(about: ResultRow, dataset: Mapping[str, Any]) -> str:
    """Return a description of the test rows: the data set, the task's version, and a hash of the chosen rows."""
    ids = dataset.get("sample_ids")
    chosen = f", rows {short_hash(json.dumps(ids))}" if isinstance(ids, list) and ids else ""
    name = dataset.get("name") or dataset.get("location") or about.text("task")
    text = f"inspect {name} version {about.text('task_version') or '0'}{chosen}"
    return data_text(text)


def _generate(spec: Mapping[str, Any], plan: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {**part(spec, "model_generate_config", where), **part(plan, "config", where)}


def _settings(spec: Mapping[str, Any], plan: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings of a run that change its answers."""
    solvers = [str(step.get("solver")) for step in listed_parts(plan, "steps", f"{where}: plan")]
    generate = {name: value for name, value in _generate(spec, plan, where).items() if _is_setting(name, value)}
    told: dict[str, Any] = {"solvers": " > ".join(solvers) or spec.get("solver")}
    told["task_args"] = part(spec, "task_args", where) or None
    told["solver_args"] = spec.get("solver_args") or None
    told["model_args"] = plain_settings(part(spec, "model_args", where)) or None
    told["generate"] = generate or None
    epochs = part(spec, "config", where).get("epochs")
    told["trials"] = epochs if epochs not in (None, 1) else None
    return plain_settings(told)


def _is_setting(name: str, value: Any) -> bool:
    served = {"max_connections", "max_retries", "timeout", "seed", "cache", "attempt_timeout", "adaptive_connections"}
    return value is not None and name not in served


def _with_tokens(record: Record, spec: Mapping[str, Any], usage: Mapping[str, Any], model: str) -> Record:
    """Return a record with the tokens that the model read and wrote."""
    found = usage.get(model)
    if not isinstance(found, dict):
        return record
    row = ResultRow(found, f"{record.facts.imported_from}: stats.model_usage.{model}")
    cached = row.whole("input_tokens_cache_read")
    parts = (row.whole("input_tokens"), cached, row.whole("input_tokens_cache_write"))
    price = row.number("total_cost", least=0.0)
    served = ServedFacts(
        server=bare_address(_said(spec.get("model_base_url"))),
        prompt_tokens=None if parts[0] is None else sum(one or 0 for one in parts),
        cached_prompt_tokens=cached,
        completion_tokens=row.whole("output_tokens"),
        price=price,
        currency=None if price is None else "USD",
    )
    return replace(record, facts=replace(record.facts, served=served))


# ---- rows


def _rows(log: InspectLog, main: _Metric, task: str, n_test: int) -> Predictions | None:
    """Return the scores of single rows; None if the log lacks them, or if their mean is not the metric."""
    values = _reduced(log, main.scorer) or _single(log, main.scorer)
    if not values or len(values) != n_test or main.name not in ("accuracy", "mean"):
        return None
    if not math.isclose(sum(values.values()) / len(values), main.value, abs_tol=1e-6):
        return None
    ordered = sorted(values, key=lambda row: (len(row), row))
    return row_scores(main.label(), short_hash("inspect", task, json.dumps(ordered)), [values[row] for row in ordered])


def _reduced(log: InspectLog, scorer: str) -> dict[str, float]:
    results = log.header.get("results")
    older = results.get("sample_reductions") if isinstance(results, dict) else None
    for reduction in log.reductions or (older if isinstance(older, list) else ()):
        if not isinstance(reduction, dict) or reduction.get("scorer") != scorer.partition(",")[0]:
            continue
        found: dict[str, float] = {}
        for sample in reduction.get("samples") or ():
            value, row = _number(sample.get("value")), sample.get("sample_id")
            if value is None or row is None:
                return {}
            found[str(row)] = value
        return found
    return {}


def _single(log: InspectLog, scorer: str) -> dict[str, float]:
    """Return the scores of rows that were asked once."""
    found: dict[str, float] = {}
    for row in log.rows:
        scores = row.get("scores") if isinstance(row.get("scores"), dict) else {scorer: row.get("score")}
        one = scores.get(scorer) if isinstance(scores, dict) else None
        value = _number(one.get("value")) if isinstance(one, dict) else None
        if value is None or row.get("id") is None or str(row["id"]) in found:
            return {}
        found[str(row["id"])] = value
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return _VALUES.get(value, _VALUES.get(value.lower()))
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _said(value: Any) -> str | None:
    return value.strip()[:500] or None if isinstance(value, str) else None
