"""Read files of Every Eval Ever, of versions 0.0 to 0.3, as records."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.records import Budget, Cell, Record, Score, check_record, highest_of
from harness.store.eee.instances import read_instances
from harness.store.eee.write import RECORD
from harness.store.importing.fields import ResultRow, imported, marked
from harness.store.importing.outside import (
    attempt_at,
    checked,
    data_text,
    interval,
    is_number,
    iso_of,
    listed_parts,
    part,
    plain_settings,
    read_json,
    read_lines,
    seconds_of,
)
from harness.support import StoreError, UsageError

_WHAT: Final = "an evaluation of Every Eval Ever"
_PROTOCOL: Final = "that of {library}, by a file of Every Eval Ever; costs are not stated"
_METHODS: Final = {"lm_eval": "lm-eval", "lm-evaluation-harness": "lm-eval", "inspect_ai": "inspect"}
_SHOTS: Final = ("num_fewshot", "n_shot", "n_shots", "fewshot", "n_examples")
_FALSE: Final = frozenset({"", "0", "false", "no", "none", "null", "unknown"})
_IN_FRACTIONS: Final = frozenset({"accuracy", "exact_match", "f1", "macro_f1", "micro_f1"})
_LONGEST_NAME: Final = 60


def read_eee(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the position and the record of each result of a file, or of the files of a folder at any depth.

    A file is one evaluation (`.json`), or has one evaluation a line (`.jsonl`). Metrics of one evaluation on the same
    data make one record: the first is the score.

    Raises:
        UsageError: a file is damaged or of another format; the message names the field.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.json"))
        n_found = 0
        for file in files:
            value = read_json(file, _WHAT)
            if is_eee(value):
                n_found += 1
                yield from _of_evaluation(value, file, str(file))
        if not n_found:
            raise UsageError(f"The folder {path} holds no evaluation of Every Eval Ever ({len(files)} .json files).")
    elif path.suffix.lower() == ".jsonl":
        for number, value in read_lines(path):
            yield from _of_evaluation(value, path, f"{path}, line {number}")
    else:
        yield from _of_evaluation(read_json(path, _WHAT), path, str(path))


def is_eee(value: Any) -> bool:
    """Return whether a JSON value is an evaluation of Every Eval Ever."""
    return isinstance(value, dict) and "evaluation_results" in value and "model_info" in value


def _of_evaluation(value: Any, path: Path, where: str) -> Iterator[tuple[str, Record]]:
    if not is_eee(value):
        said = ": this is a file of answers to single rows; name the evaluation beside it" * bool(_is_instance(value))
        raise UsageError(f"{where} is no {_WHAT[3:]}{said}; expected an object with model_info and evaluation_results.")
    results = listed_parts(value, "evaluation_results", where)
    if not results:
        raise UsageError(f"{where}: evaluation_results is empty; expected at least one result.")
    source = part(value, "source_metadata", where)
    if text := part(source, "additional_details", f"{where}: source_metadata").get(RECORD):
        yield where, _own(str(text), value, results, path, where)
        return
    groups: defaultdict[tuple[str, str, str], list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for number, result in enumerate(results):
        place = f"{where}: evaluation_results[{number}]"
        name = ResultRow(result, place).text("evaluation_name")
        if name is None:
            raise UsageError(f"{place}.evaluation_name is missing; expected the name of the evaluation.")
        data = json.dumps(result.get("source_data"), sort_keys=True)
        groups[name, data, json.dumps(result.get("generation_config"), sort_keys=True)].append((number, result))
    for (name, _, _), found in groups.items():
        place = f"{where}: evaluation_results[{found[0][0]}]"
        yield place, checked(_foreign(value, name, found, path, where), place)


def _is_instance(value: Any) -> bool:
    return isinstance(value, dict) and "sample_id" in value and "evaluation" in value


# ---- own exports


def _own(text: str, value: Mapping[str, Any], results: list[dict[str, Any]], path: Path, where: str) -> Record:
    """Return the record that an export of the harness holds, marked as imported."""
    place = f"{where}: source_metadata.additional_details.{RECORD}"
    try:
        inner = json.loads(text)
        check_record(inner)
        record = Record.from_json(inner)
    except (StoreError, UsageError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{place} is no record: {error}.") from None
    score = record.score
    if score is None:
        raise UsageError(f"{place} has no score.")
    told = {score.metric: score.value, **score.others}
    for number, result in enumerate(results):
        name = part(result, "metric_config", where).get("metric_name")
        found = part(result, "score_details", where).get("score")
        stated = told.get(str(name))
        if stated != found:
            raise UsageError(
                f"{where}: evaluation_results[{number}]: {name} is {found!r}, but the record in the file states "
                f"{stated!r}. The file was edited: export it again."
            )
    facts = replace(
        record.facts,
        imported_from=record.facts.imported_from or path.name,
        protocol=record.facts.protocol or "that of the harness, measured elsewhere",
    )
    predictions = read_instances(value, score.metric, score.value, path)
    return replace(record, suite="imported", device=marked(record.device), facts=facts, predictions=predictions)


# ---- files of others


def _foreign(
    value: Mapping[str, Any], name: str, found: list[tuple[int, dict[str, Any]]], path: Path, where: str
) -> Record:
    first = found[0][1]
    place = f"{where}: evaluation_results[{found[0][0]}]"
    info = part(value, "model_info", where)
    model = ResultRow(info, f"{where}: model_info").text("id") or ResultRow(info, where).text("name")
    if model is None:
        raise UsageError(f"{where}: model_info.id is missing; expected the name of the model.")
    source, library = part(value, "source_metadata", where), part(value, "eval_library", where)
    about = ResultRow({**source, **{f"library_{k}": v for k, v in library.items()}}, f"{where}: source_metadata")
    measured_by = about.text("source_organization_name") or "unknown"
    if measured_by.lower() == "unknown":
        measured_by = about.text("source_name") or "Every Eval Ever"
    by = about.text("library_name") or "unknown"
    if by == "unknown" and about.text("source_name") in _METHODS:  # version 0.2 has no library
        by = about.text("source_name") or by
    data = part(first, "source_data", place)
    if not data and isinstance(older := value.get("evaluation_source"), dict):  # version 0.0
        data = {"dataset_name": older.get("evaluation_source_name")}
    scores = [_metric(result, f"{where}: evaluation_results[{number}]") for number, result in found]
    main, others = scores[0], _others(scores, where)
    if not main.n_test and isinstance(ids := data.get("sample_ids"), list):
        main = replace(main, n_test=len(ids))
    details = part(info, "additional_details", where)
    generation = part(first, "generation_config", place)
    shots = _shots(generation, details)
    stated = first.get("evaluation_timestamp") or value.get("evaluation_timestamp")
    when = _time(stated)
    contaminated = _is_contaminated(value, first, place)
    missing = {"costs": "not stated"}
    if shots is None:
        missing["n_train"] = "the number of examples or labels is not stated"
    is_unknown = _is_unknown(first, main.value)
    ok = math.isfinite(main.value) and not is_unknown
    rows = read_instances(value, main.metric, main.value, path) if ok and found[0][0] == 0 else None
    n_rows = 0 if rows is None else max(rows.lengths().values())
    if n_rows and not main.n_test:
        main = replace(main, n_test=n_rows)
    if not main.n_test:
        missing["n_test"] = "not stated"
    score = replace(main, others=others)
    return imported(
        cell=Cell(
            task=_task(name, data),
            data=_data(data, name),
            backbone=model,
            weights=_weights(details),
            method=_METHODS.get(by, by) if by != "unknown" else "evaluated",
            version=1,
            config=_settings(value, generation, details),
            n_train=shots or 0,
            budget=Budget(),
            seed=0,
        ),
        device=measured_by,
        kind="unknown",
        family="in context",
        status="ok" if ok else "failed",
        source=path.name,
        protocol=_PROTOCOL.format(library=by),
        score=score if ok else None,
        error=None if ok else f"{main.metric} is {'unknown' if is_unknown else main.value} in {path.name}",
        started_at=iso_of(when),
        packages={by: version} if (version := about.text("library_version")) and by != "unknown" else {},
        dataset=_dataset(data),
        missing=missing,
        measured_by=measured_by,
        is_evidence=shots is not None and not contaminated,
        has_seen_task=contaminated,
        attempt=attempt_at(when or _time(value.get("retrieved_timestamp"))),
        predictions=rows if n_rows == main.n_test else None,
    )


def _metric(result: Mapping[str, Any], where: str) -> Score:
    """Return one result as a score, with its interval and range.

    Raises:
        UsageError: score or direction is missing, or the score is outside the stated range.
    """
    config, details = part(result, "metric_config", where), part(result, "score_details", where)
    value = details.get("score")
    if not is_number(value):
        raise UsageError(f"{where}.score_details.score is {value!r}; expected a number.")
    is_down = config.get("lower_is_better")
    if not isinstance(is_down, bool):
        raise UsageError(f"{where}.metric_config.lower_is_better is {is_down!r}; expected true or false.")
    low, high = (_end(config.get(end), f"{where}.metric_config.{end}") for end in ("min_score", "max_score"))
    has_unknown = config.get("has_unknown_level") is True and value == -1
    if not has_unknown and ((low is not None and value < low) or (high is not None and value > high)):
        raise UsageError(
            f"{where}.score_details.score is {value:g}, outside min_score to max_score ({low} to {high}). Is it on "
            "another scale than its range?"
        )
    highest = high if high is not None and math.isfinite(high) and high > 0 else None
    metric = _metric_name(config, high, result.get("evaluation_name"))
    error, ends, n_test = _uncertainty(details, where)
    if ends == (None, None):
        ends = interval(metric, float(value), error, highest)
    return Score(metric, float(value), *ends, not is_down, n_test, highest=highest)


def _metric_name(config: Mapping[str, Any], high: float | None, evaluation: Any) -> str:
    """Return the name of a metric; percentages get names of their own, so that they never join fractions."""
    row = ResultRow(dict(config), "metric_config")
    name = row.text("metric_id")
    if name is None or set(name) & set("./:"):
        name = row.text("metric_name") or name
    said = row.text("evaluation_description")
    if name is None:
        name = said if said is not None and len(said) <= _LONGEST_NAME else None
    name = (name or row.text("metric_kind") or "score")[:200]
    name = name.removesuffix(f" on {evaluation}").removesuffix(f" for task {evaluation}")
    plain = name.lower().replace(" ", "_")
    if plain in _IN_FRACTIONS:
        name = plain
    if high is not None and high != highest_of(name) and high > 1 and name in _IN_FRACTIONS:
        return f"{name} (of {high:g})"
    return name


def _others(scores: list[Score], where: str) -> dict[str, float]:
    """Return the further metrics of an evaluation by name."""
    found: dict[str, float] = {}
    for score in scores[1:]:
        if score.metric == scores[0].metric or score.metric in found:
            same = [one.value for one in scores if one.metric == score.metric]
            if len(set(same)) == 1:
                continue
            raise UsageError(
                f"{where}: evaluation_results has several different scores of {score.metric} for one evaluation and "
                "data set. Give them a metric_name or evaluation_name that tells them apart."
            )
        if math.isfinite(score.value):
            found[score.metric] = score.value
    return found


def _end(value: Any, where: str) -> float | None:
    """Return an end of a range; None where it is not stated."""
    if value is None:
        return None
    if value in ("Infinity", "-Infinity"):
        return math.inf if value == "Infinity" else -math.inf
    if not is_number(value) or math.isnan(value):
        raise UsageError(f"{where} is {value!r}; expected a number, 'Infinity', '-Infinity' or null.")
    return float(value)


def _uncertainty(details: Mapping[str, Any], where: str) -> tuple[float | None, tuple[float | None, float | None], int]:
    """Return standard error, 95 % interval and number of rows; version 0.1 has the interval one level higher."""
    found = part(details, "uncertainty", f"{where}.score_details")
    error = found.get("standard_error")
    if isinstance(error, dict):
        error = error.get("value")
    ends = found.get("confidence_interval") or details.get("confidence_interval") or {}
    if not isinstance(ends, dict):
        raise UsageError(f"{where}.score_details: confidence_interval is no object; expected lower and upper.")
    row = ResultRow({**ends, "error": error, "n": found.get("num_samples")}, f"{where}.score_details.uncertainty")
    low, high, level = row.number("lower"), row.number("upper"), row.number("confidence_level", least=0.0)
    if low is not None and high is not None and low > high:
        raise UsageError(f"{where}.score_details: lower is {low:g} and upper is {high:g}; expected lower first.")
    if level is not None and not math.isclose(level, 0.95, abs_tol=1e-9):
        low = high = None
    return row.number("error", least=0.0), (low, high), row.whole("n") or 0


def _is_unknown(result: Mapping[str, Any], value: float) -> bool:
    return part(result, "metric_config", "").get("has_unknown_level") is True and value == -1


def _task(name: str, data: Mapping[str, Any]) -> str:
    """Return the name of a task: that of the evaluation, with that of the data set where it lacks it."""
    dataset = data.get("dataset_name")
    if not isinstance(dataset, str) or not dataset.strip():
        return name
    one, other = name.lower(), dataset.lower()
    return name if other in one or one in other else f"{dataset.strip()}: {name}"


def _data(data: Mapping[str, Any], name: str) -> str:
    said = {key: data[key] for key in ("dataset_name", "hf_repo", "hf_split", "url", "samples_number") if data.get(key)}
    text = f"Every Eval Ever {json.dumps(said, sort_keys=True) if said else name}"
    return data_text(text)


def _dataset(data: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": data.get("dataset_name"), "hub": data.get("hf_repo")}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _weights(details: Mapping[str, Any]) -> str:
    for name in ("sha", "revision", "model_sha", "model_revision"):
        if isinstance(found := details.get(name), str) and found.strip().isprintable() and found.strip():
            return f"revision {found.strip()}"[:200]
    return "not stated"


def _settings(value: Mapping[str, Any], generation: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells runs of a model apart: the run's identifier without its time, and the settings it states."""
    run = str(value.get("evaluation_id") or "")
    head, _, last = run.rpartition("/")
    told: dict[str, Any] = {"run": head if _time(last) is not None else run}
    told["generation"] = part(generation, "generation_args", "") or None
    told["generation_details"] = part(generation, "additional_details", "") or None
    told["model_args"] = details.get("model_args")
    return plain_settings({name: found for name, found in told.items() if found})


def _shots(*sources: Mapping[str, Any]) -> int | None:
    for source in sources:
        for values in (source, source.get("additional_details")):
            for name in _SHOTS:
                found = values.get(name) if isinstance(values, dict) else None
                if found is not None and str(found).strip().isdigit():
                    return int(str(found).strip())
    return None


def _is_contaminated(value: Mapping[str, Any], result: Mapping[str, Any], where: str) -> bool | None:
    """Return what a file says of contamination of the model by the data; None where it says nothing."""
    places = (
        *(part(value, name, where) for name in ("source_metadata", "eval_library", "model_info")),
        *(part(result, name, where) for name in ("source_data", "metric_config", "score_details") if result.get(name)),
    )
    for place in places:
        for details in (place, place.get("additional_details"), place.get("details")):
            for name, said in details.items() if isinstance(details, dict) else ():
                if "contaminat" in str(name).lower() and not isinstance(said, (dict, list)):
                    return str(said).strip().lower() not in _FALSE
    return None


def _time(value: Any) -> float | None:
    """Return seconds since 1970 of a time, written as such a number or in ISO format; None if it is neither."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return seconds_of(value if isinstance(value, str) else None)
    return found if 1e8 < found < 1e11 else None
