"""Write records as files of Every Eval Ever (evaleval.org): one file for each record, checked against the schema.

The schema has no fields for costs and fine-tuning. They are told twice: as texts in its `additional_details`, for
people and other tools, and as the whole record in JSON, from which `read` restores it without loss.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from harness.records import Record, Score, dump, fields_of, payload_of
from harness.store.eee.instances import write_instances
from harness.store.eee.schemas import VERSION, check_schema
from harness.support import replacing

COLLECTION: Final = "adaptation-harness"
"""Name of the collection, which is the folder below `data`, and of the library in the files."""

RECORD: Final = "adaptation_harness_record"
"""Name of the detail that holds the whole record as JSON."""

_NOT_PORTABLE: Final = re.compile(r'[<>:"\\|?*\x00-\x1f\ud800-\udfff]')
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?|data", re.IGNORECASE)
_GENERATION: Final = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}


class Exported(NamedTuple):
    """Numbers of files that were written, of records without a score, and of records with answers to single rows."""

    n_files: int
    n_without_score: int
    n_with_instances: int


def export_eee(records: Iterable[Record], folder: Path, *, instances: bool = False) -> Exported:
    """Write a file for each scored record below a folder, as the collection's repository has them.

    Args:
        records: the records; with predictions where `instances` is set.
        folder: folder of the export. The files lie in `data/adaptation-harness/DEVELOPER/MODEL/`.
        instances: whether to write the answers to single rows too.

    Raises:
        StoreError: a file cannot be written, or does not match the schema; the message names the field.
    """
    n_files = n_without_score = n_with_instances = 0
    for record in records:
        if record.status != "ok" or record.score is None:
            n_without_score += 1
            continue
        path = folder / _path_of(record)
        value = evaluation_of(record)
        if instances:
            found = write_instances(record, value, path)
            if found is not None:
                value["detailed_evaluation_results"] = {**found, "file_path": _samples_path(record)}
                n_with_instances += 1
        check_schema(value, "eval", str(path))
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        n_files += 1
    return Exported(n_files, n_without_score, n_with_instances)


def evaluation_of(record: Record) -> dict[str, Any]:
    """Return a scored record as the JSON of Every Eval Ever, without the answers to single rows."""
    cell, facts, provenance = record.cell, record.facts, record.provenance
    model, score = _model_id(record), record.score
    assert score is not None
    seconds = _seconds(provenance.started_at)
    details = {
        RECORD: dump({**payload_of(record), "predictions": None}),
        "measured_by": facts.measured_by,
        "imported_from": facts.imported_from,
        "protocol": facts.protocol,
        "contaminated": _is_contaminated(record),
    }
    is_imported = facts.imported_from is not None
    library = facts.measured_by or "unknown" if is_imported else COLLECTION
    metrics = [_result(record, score.metric, score.value, score)]
    metrics += [_result(record, name, value, None) for name, value in score.others.items() if math.isfinite(value)]
    value: dict[str, Any] = {
        "schema_version": VERSION,
        "evaluation_id": f"{cell.task}/{model}/{file_id(record)}",
        "retrieved_timestamp": seconds or str(int(time.time())),
        "source_metadata": {
            "source_name": COLLECTION,
            "source_type": "documentation" if is_imported else "evaluation_run",
            "source_organization_name": facts.measured_by or "unknown",
            "evaluator_relationship": "third_party",
            "additional_details": _texts(details),
        },
        "eval_library": {
            "name": library,
            "version": provenance.harness if library == COLLECTION else _version(provenance.packages, library),
            "additional_details": _texts(
                {
                    "device": record.device,
                    "commit": provenance.commit,
                    "python": provenance.python,
                    "platform": provenance.platform,
                    "packages": provenance.packages or None,
                }
            ),
        },
        "model_info": _model_info(record, model),
        "evaluation_results": metrics,
    }
    if seconds is not None:
        value["evaluation_timestamp"] = seconds
    return value


def file_id(record: Record) -> str:
    """Return the identifier of a record's file: a UUID that is always the same for the same attempt of a cell."""
    key = f"{record.id}\0{record.device}\0{record.attempt}".encode("utf-8", "backslashreplace")
    return str(uuid.UUID(bytes=hashlib.sha256(key).digest()[:16], version=4))


# ---- places


def _model_id(record: Record) -> str:
    """Return the model's name as `ORGANISATION/MODEL`: that of the backbone, else that of the method."""
    backbone = record.cell.backbone
    if backbone is None:
        return f"{COLLECTION}/{_portable(record.cell.method)}"
    names = [_portable(name) for name in backbone.split("/") if name]
    is_hub_name = len(names) == 2 and not backbone.startswith(("/", ".", "~"))
    return "/".join(names) if is_hub_name else f"local/{names[-1] if names else 'unnamed'}"


def _portable(name: str) -> str:
    """Return a name that every file system accepts, and that the collection's own check accepts."""
    found = _NOT_PORTABLE.sub("_", name).rstrip(". ") or "unnamed"
    return f"_{found}" if _RESERVED.fullmatch(found) else found


def _path_of(record: Record) -> PurePosixPath:
    return PurePosixPath("data", COLLECTION, *_model_id(record).split("/"), f"{file_id(record)}.json")


def _samples_path(record: Record) -> str:
    path = _path_of(record)
    return str(path.with_name(f"{path.stem}_samples.jsonl"))


# ---- parts


def _model_info(record: Record, model: str) -> dict[str, Any]:
    cell, facts, cost, provenance = record.cell, record.facts, record.cost, record.provenance
    how = f"{cell.method}, {cell.n_train} labels, seed {cell.seed}"
    details = {
        "deployment_type": "self_deployed" if facts.served is None else "externally_managed",
        "model_availability": "unknown",
        "base_model": cell.backbone,
        "base_model_weights": cell.weights,
        "adaptation_method": cell.method,
        "adaptation_method_version": cell.version,
        "adaptation_family": record.family,
        "adaptation_role": facts.role,
        "adaptation_config": cell.config,
        "budget": cell.budget.to_json() or None,
        "n_train": cell.n_train,
        "draw": cell.draw,
        "seed": cell.seed,
        "n_parameters": cost.n_parameters,
        "n_trainable": cost.n_trainable,
        "precision": provenance.precision,
    }
    if facts.imported_from is not None:
        details["deployment_type"] = "unknown"
    info: dict[str, Any] = {
        "name": f"{cell.backbone} ({how})" if cell.backbone else how,
        "id": model,
        "developer": model.partition("/")[0],
        "additional_details": _texts(details),
    }
    version = provenance.packages.get("transformers")
    if cell.backbone is not None and facts.served is None and version:
        info["inference_engine"] = {"name": "transformers", "version": version}
    return info


def _result(record: Record, metric: str, value: float, main: Score | None) -> dict[str, Any]:
    """Return one metric of a record; `main` is the score where it is the main one, which has uncertainty and costs."""
    bounds = _bounds(metric, value, record)
    details: dict[str, Any] = {"is_main_metric": main is not None}
    scored: dict[str, Any] = {"score": value}
    if main is not None:
        cost = {f"cost.{name}": number for name, number in fields_of(record.cost).items() if number not in (None, ())}
        details |= {**cost, "train_score": record.train_score, "kind": record.kind}
        uncertainty: dict[str, Any] = {"num_samples": main.n_test} if main.n_test else {}
        if main.low is not None and main.high is not None:
            uncertainty["confidence_interval"] = {
                **{"lower": main.low, "upper": main.high, "confidence_level": 0.95},
                "method": "over test rows",
            }
        if uncertainty:
            scored["uncertainty"] = uncertainty
    scored["details"] = _texts(details)
    result: dict[str, Any] = {
        "evaluation_result_id": metric,
        "evaluation_name": record.cell.task,
        "source_data": _source_data(record),
        "metric_config": {
            "evaluation_description": f"{metric} of {record.cell.task}",
            "metric_id": metric if bounds.is_known else f"adaptation_harness.{metric}",
            "metric_name": metric,
            "lower_is_better": not (bounds.higher_is_better if main is None else main.higher_is_better),
            "score_type": "continuous",
            "min_score": _bound(bounds.low),
            "max_score": _bound(bounds.high),
        },
        "score_details": scored,
    }
    if generation := _generation(record):
        result["generation_config"] = generation
    return result


class _Bounds(NamedTuple):
    low: float
    high: float
    higher_is_better: bool
    is_known: bool


def _bounds(metric: str, value: float, record: Record) -> _Bounds:
    """Return range and direction of a metric: as the harness defines it, else as the record states or its name says."""
    from harness.metrics import metrics
    from harness.store.importing.fields import ResultRow
    from harness.store.importing.outside import points_down

    if metric in metrics.names():
        spec = metrics.get(metric)
        high = math.inf if spec.high is None else spec.high
        if spec.low <= value <= high:
            return _Bounds(spec.low, high, spec.higher_is_better, is_known=True)
    score = record.score
    own = score is not None and score.metric == metric
    stated = score.highest if own and score is not None else None
    high = stated if stated is not None and value <= stated else math.inf
    is_up = score.higher_is_better if own and score is not None else not points_down(metric, ResultRow({}, metric))
    return _Bounds(-math.inf, high, is_up, is_known=False)


def _bound(value: float) -> float | str:
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _source_data(record: Record) -> dict[str, Any]:
    dataset, score = record.provenance.dataset, record.score
    hub, n_test = dataset.get("hub"), 0 if score is None else score.n_test
    details = _texts(
        {"fingerprint": record.cell.data, "revision": dataset.get("revision"), "config": dataset.get("config")}
    )
    if not isinstance(hub, str) or not hub:
        return {"dataset_name": record.cell.task, "source_type": "other", "additional_details": details}
    found = {"dataset_name": record.cell.task, "source_type": "hf_dataset", "hf_repo": hub, "hf_split": "test"}
    return {**found, **({"samples_number": n_test} if n_test else {}), "additional_details": details}


def _generation(record: Record) -> dict[str, Any] | None:
    """Return the settings of generation of a method that prompts a model; None for others."""
    if record.facts.role != "prompting":
        return None
    sampling = record.facts.served.sampling if record.facts.served is not None else None
    settings = {**record.cell.config, **(sampling or {})}
    arguments = {
        theirs: settings[ours]
        for ours, theirs in _GENERATION.items()
        if isinstance(settings.get(ours), (int, float)) and not isinstance(settings[ours], bool)
    }
    if not isinstance(arguments.get("max_tokens", 1), int) or arguments.get("max_tokens", 1) < 1:
        del arguments["max_tokens"]
    found: dict[str, Any] = {"additional_details": _texts({**settings, "n_examples": record.cell.n_train})}
    return {**found, "generation_args": arguments} if arguments else found


def _is_contaminated(record: Record) -> bool | None:
    """Return whether the backbone is known to have seen the task's data; None is unknown."""
    seen = record.provenance.dataset.get("seen_by")
    if record.facts.has_seen_task or (isinstance(seen, list) and record.cell.backbone in seen):
        return True
    return record.facts.has_seen_task


def _version(packages: Mapping[str, str], library: str) -> str:
    name = {"lm-eval": "lm_eval", "inspect": "inspect_ai"}.get(library, library.lower())
    return packages.get(name, "unknown")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as texts, as the schema asks; None is left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=list)
        for name, value in values.items()
        if value is not None
    }


def _seconds(started_at: str) -> str | None:
    """Return a time as the text of its seconds since 1970; None if it is unknown."""
    from harness.store.importing.outside import seconds_of

    found = seconds_of(started_at)
    return None if found is None else f"{found:.15g}"
