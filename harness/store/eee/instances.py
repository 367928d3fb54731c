"""Write and read the answers to single rows in the format of Every Eval Ever: one JSON object a line."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.records import Predictions, Record
from harness.store.eee.schemas import VERSION, check_schema
from harness.store.importing.outside import is_number, part, read_lines, row_scores, short_hash
from harness.support import UsageError, replacing

_NOT_STORED: Final = "the harness stores no texts of test rows"


def write_instances(record: Record, evaluation: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Write the answers of a record beside its file; return the reference to them, or None where there are none.

    Args:
        record: a scored record with its predictions.
        evaluation: the JSON of its file.
        path: path of its file.

    Raises:
        StoreError: the file cannot be written, or does not match the schema.
    """
    if record.predictions is None or record.score is None or not len(_scores(record)[1]):
        return None
    target = path.with_name(f"{path.stem}_samples.jsonl")
    digest, n_rows = hashlib.sha256(), 0
    with replacing(target) as temporary, temporary.open("wb") as file:
        for row in _rows(record, evaluation):
            if n_rows == 0:  # all rows are made alike
                check_schema(row, "instance_level_eval", str(target))
            line = json.dumps(row, allow_nan=False).encode() + b"\n"
            digest.update(line)
            file.write(line)
            n_rows += 1
    return {"format": "jsonl", "hash_algorithm": "sha256", "checksum": digest.hexdigest(), "total_rows": n_rows}


def _scores(record: Record) -> tuple[str | None, Any]:
    """Return the score of each row and the metric whose mean it is: the main one, else None for right and wrong."""
    found, score = record.predictions, record.score
    assert found is not None
    assert score is not None
    own = found.row_scores(score.metric)
    if own is not None:
        return score.metric, own
    right = found.row_scores("accuracy") if found.predicted is not None else None
    return None, () if right is None else right


def _rows(record: Record, evaluation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    found, score = record.predictions, record.score
    assert found is not None
    assert score is not None
    names = record.provenance.dataset.get("class_names")
    labels = names if isinstance(names, list) else []
    metric, scores = _scores(record)
    best = 1.0 if score.higher_is_better or metric is None else 0.0
    result = {} if metric is None else {"evaluation_result_id": metric}
    for number, value in enumerate(scores):
        answer = reference = None
        notes = {"input": _NOT_STORED, "rows": found.rows}
        if found.predicted is not None and found.target is not None:
            predicted, target = int(found.predicted[number]), int(found.target[number])
            answer, reference = _label(labels, predicted), _label(labels, target)
            notes |= {"predicted": str(predicted), "target": str(target)}
        elif found.texts is not None:
            answer = found.texts[number]
        if found.confidence is not None:
            notes["confidence"] = repr(float(found.confidence[number]))
        yield {
            "schema_version": VERSION,
            "evaluation_id": evaluation["evaluation_id"],
            "model_id": evaluation["model_info"]["id"],
            "evaluation_name": record.cell.task,
            **result,
            "sample_id": f"{found.rows}:{number}",
            "sample_hash": None,
            "interaction_type": "single_turn",
            "input": {"raw": "", "reference": [] if reference is None else [reference]},
            "output": {"raw": [] if answer is None else [answer]},
            "messages": None,
            "answer_attribution": [
                {
                    **{"turn_idx": 0, "source": "output.raw", "extracted_value": answer or ""},
                    **{"extraction_method": "none", "is_terminal": True},
                }
            ],
            "evaluation": {"score": float(value), "is_correct": bool(value == best)},
            "metadata": notes,
        }


def _label(labels: list[Any], index: int) -> str:
    return str(labels[index]) if 0 <= index < len(labels) else str(index)


# ---- reading


def read_instances(value: Mapping[str, Any], metric: str, score: float, path: Path) -> Predictions | None:
    """Return the scores of single rows from the file beside an evaluation; None where it is not there.

    Args:
        value: the JSON of the evaluation.
        metric: name of the main metric here.
        score: its value.
        path: path of the evaluation.

    Raises:
        UsageError: the file is damaged, or has other rows than the evaluation states.
    """
    about = part(value, "detailed_evaluation_results", str(path))
    file = path.with_name(f"{path.stem}_samples.jsonl")
    if not about or not file.is_file():
        return None
    _check_hash(about, file)
    ids, scores, notes = [], [], []
    wanted = _result_ids(value)
    for number, row in read_lines(file):
        if row.get("evaluation_result_id") not in (None, wanted):
            continue
        found = part(row, "evaluation", f"{file}, line {number}").get("score")
        if not is_number(found) or not math.isfinite(found):
            raise UsageError(f"{file}, line {number}: evaluation.score is {found!r}; expected a number.")
        ids.append(str(row.get("sample_id")))
        scores.append(float(found))
        notes.append(part(row, "metadata", f"{file}, line {number}"))
    if not scores or len(set(ids)) != len(ids):
        return None
    indices = _indices(notes)
    rows = notes[0].get("rows")
    if indices is not None and isinstance(rows, str):
        return Predictions(rows=rows, predicted=indices[0], target=indices[1], confidence=_confidence(notes))
    if not math.isclose(sum(scores) / len(scores), score, abs_tol=1e-6):
        return None  # no metric that is a mean over rows
    return row_scores(metric, rows if isinstance(rows, str) else short_hash("eee", json.dumps(ids)), scores)


def _result_ids(value: Mapping[str, Any]) -> Any:
    results = value.get("evaluation_results")
    first = results[0] if isinstance(results, list) and results else {}
    return first.get("evaluation_result_id") if isinstance(first, dict) else None


def _check_hash(about: Mapping[str, Any], file: Path) -> None:
    if about.get("hash_algorithm") != "sha256" or not isinstance(about.get("checksum"), str):
        return
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != about["checksum"]:
        raise UsageError(f"{file} has another checksum than the evaluation beside it states. One of them was changed.")


def _indices(notes: list[dict[str, Any]]) -> tuple[Any, Any] | None:
    try:
        return tuple(np.array([int(note[name]) for note in notes], dtype=np.int64) for name in ("predicted", "target"))  # type: ignore[return-value]
    except (KeyError, TypeError, ValueError):
        return None


def _confidence(notes: list[dict[str, Any]]) -> Any:
    try:
        return np.array([float(note["confidence"]) for note in notes], dtype=np.float16)
    except (KeyError, TypeError, ValueError):
        return None
