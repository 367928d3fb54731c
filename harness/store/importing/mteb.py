"""Import results of MTEB (github.com/embeddings-benchmark/results): its JSON files, and tables made of them.

Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", EACL 2023.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harness.records import (
    Budget,
    Cell,
    EncoderFacts,
    PublishedEncoder,
    PublishedResult,
    Record,
    Score,
    finite_tokens,
    pretraining_of,
)
from harness.store.importing.fields import ResultRow, imported, listed
from harness.store.importing.mteb_old import IS_OLD, OLD_SD, described_data, modernised, named_by_folders
from harness.support import UsageError

MEASURED_BY: Final = "MTEB"
"""Name of the source in records."""

META: Final = "model_meta.json"
"""Name of the file beside the results that describes the encoder."""

_PROTOCOL: Final = (
    "MTEB: the encoder frozen, a logistic regression on a few texts of each class, mean accuracy over {draws} draws of "
    "these texts; neither seconds nor memory are comparable, so none are taken"
)
_NEEDED: Final = ("model", "task", "accuracy")
_COLUMNS: Final = (
    *_NEEDED,
    *("revision", "dataset_revision", "mteb_version", "f1", "n_experiments", "sd", "n_parameters", "embed_dim"),
    *("max_tokens", "memory_mb", "released", "licence", "open_weights", "instructions", "trained_on"),
)
_SPLITS: Final = ("test", "validation", "dev", "train")
"""Splits on which MTEB scores tasks; the first that a file has is taken."""

_YES_NO: Final = {"yes": True, "true": True, "no": False, "false": False}
_LARGEST_SD: Final = 0.5
"""Largest standard deviation of numbers from 0 to 1 (of the whole population)."""


@dataclass(frozen=True)
class _Task:
    """Texts of a task, from MTEB's own task files.

    Attributes:
        n_classes: number of classes.
        per_class: labelled texts of each class in a draw.
        n_test: number of test texts.
    """

    n_classes: int
    per_class: int
    n_test: int


_TASKS: Final = {
    "AmazonPolarityClassification": _Task(2, 8, 400_000),
    "AmazonReviewsClassification": _Task(5, 8, 5_000),
    "Banking77Classification": _Task(77, 8, 3_080),
    "EmotionClassification": _Task(6, 16, 2_000),
    "ImdbClassification": _Task(2, 8, 25_000),
    "MTOPDomainClassification": _Task(11, 8, 4_386),
    "MassiveIntentClassification": _Task(60, 8, 2_974),
    "MassiveScenarioClassification": _Task(18, 8, 2_974),
    "ToxicConversationsClassification": _Task(2, 16, 2_048),
    "TweetSentimentExtractionClassification": _Task(3, 32, 3_534),
}
"""Tasks of which the sizes are known here. Other tasks are imported without them."""


def read_mteb(path: Path, ignore: Sequence[str] = ()) -> Iterator[tuple[str, Record]]:
    """Yield the position and the record of each result of a JSON file, a table, or a folder of results.

    Args:
        path: a result file of one task with `model_meta.json` beside it; a folder with such files, at any depth; or a
            .csv table with one row for each encoder and task.
        ignore: columns of a table to leave out on purpose.

    Raises:
        UsageError: a file or row is invalid, or two are of the same encoder, revision, task and data.
    """
    seen: dict[str, str] = {}
    for where, encoder, result in _results(path, ignore):
        record = _record(encoder, result, where.partition(", row")[0].rpartition("/")[2])
        if (first := seen.setdefault(record.cell.id, where)) is not where:
            raise UsageError(
                f"{where}: {encoder.name} on {result.task} is there already ({first}). Remove one of them."
            )
        yield where, record


def read_mteb_table(path: Path, ignore: Sequence[str] = ()) -> list[PublishedEncoder]:
    """Return the encoders of a table, each with all of its results.

    Raises:
        UsageError: the table is invalid, or an encoder has two results on a task; the message names the row.
    """
    found: dict[str, PublishedEncoder] = {}
    for where, encoder, result in _rows(path, ignore):
        known = found.setdefault(encoder.name, encoder)
        if any(result.task == other.task for other in known.results):
            raise UsageError(f"{where}: {encoder.name} on {result.task} is there twice. Remove one of the rows.")
        found[encoder.name] = replace(known, results=(*known.results, result))
    return list(found.values())


def _results(path: Path, ignore: Sequence[str]) -> Iterator[tuple[str, PublishedEncoder, PublishedResult]]:
    if path.suffix.lower() == ".csv":
        yield from _rows(path, ignore)
        return
    if ignore:
        raise UsageError(f"--ignore was given, but {path} is no .csv table: only a table has columns to ignore.")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.json") if file.name != META)
        n_found = 0
        for file in files:
            value = modernised(_json(file))
            if _is_classification(value):
                n_found += 1
                yield from _of_file(file, value)
        if not n_found:
            raise UsageError(
                f"The folder {path} holds no result of MTEB's classification tasks ({len(files)} .json files were "
                f"read). Expected files such as MODEL/REVISION/Banking77Classification.json."
            )
        return
    if path.name == META:
        raise UsageError(f"{path} describes an encoder and holds no result. Name the files beside it, or the folder.")
    value = modernised(_json(path))
    if not _is_classification(value):
        raise UsageError(
            f"{path} is no result of an MTEB classification task; expected task_name, and scores by split with "
            "accuracy and scores_per_experiment."
        )
    yield from _of_file(path, value)


# ---- result files


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object; expected a result file of MTEB.")
    return value


def _is_classification(value: Mapping[str, Any]) -> bool:
    """Return whether a file holds accuracies of single labels; files of retrieval and other tasks do not."""
    scores = value.get("scores")
    splits = scores.values() if isinstance(scores, dict) else ()
    entries = [entry for split in splits if isinstance(split, list) for entry in split]
    return "task_name" in value and any(
        isinstance(entry, dict)
        and "accuracy" in entry
        and "lrap" not in entry  # of several labels a text
        and ("scores_per_experiment" in entry or OLD_SD in entry)
        for entry in entries
    )


def _of_file(path: Path, value: Mapping[str, Any]) -> Iterator[tuple[str, PublishedEncoder, PublishedResult]]:
    """Yield the results of a file: the English texts, or all languages where there is no English."""
    splits = value["scores"]
    split = next((name for name in _SPLITS if splits.get(name)), None)
    entries = splits.get(split) if split else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path}: there are no scores of the splits {', '.join(_SPLITS)}; it has {', '.join(splits)}.")
    english = [entry for entry in entries if entry.get("hf_subset") in ("default", "en")]
    meta_file = path.with_name(META)
    named = named_by_folders(path, is_old=IS_OLD in value)
    meta = _json(meta_file) if meta_file.is_file() else named
    if meta is not None and meta.get("name") is None and named is not None:
        meta = {**meta, **named}
    if meta is None:
        raise UsageError(f"{path}: there is no {META} beside it, which names the encoder. Add it from the same source.")
    encoder = _encoder(ResultRow(_meta_fields(meta, meta_file), str(meta_file)))
    task = str(value["task_name"])
    trained_on = meta.get("training_datasets")
    for entry in english or entries:
        subset = entry.get("hf_subset")
        draws = entry.get("scores_per_experiment", [])
        if not isinstance(draws, list) or not all(isinstance(draw, dict) for draw in draws):
            raise UsageError(f"{path}: scores_per_experiment is no list of draws.")
        each = [_share(ResultRow(draw, f"{path}, draw {i}"), "accuracy") for i, draw in enumerate(draws, 1)]
        row = ResultRow(
            {
                "task": task if english else f"{task} ({subset})",
                "accuracy": entry.get("accuracy"),
                "f1": entry.get("f1"),
                "sd": statistics.pstdev(each) if len(each) > 1 else entry.get(OLD_SD),
                "n_experiments": len(each) or None,
                "dataset_revision": described_data(value.get("dataset_revision"), split),
                "mteb_version": entry.get("mteb_version") or value.get("mteb_version"),
                "revision": meta.get("revision"),
                "trained_on": None if not trained_on else "yes" if task in trained_on else "no",
            },
            str(path),
        )
        result = _result(row)
        if each and not math.isclose(statistics.fmean(each), result.accuracy, abs_tol=1e-3):
            raise UsageError(
                f"{path}: accuracy is {result.accuracy:g}, but the mean of its {len(each)} draws is "
                f"{statistics.fmean(each):g}. The file is damaged."
            )
        yield str(path), encoder, result


def _meta_fields(meta: Mapping[str, Any], path: Path) -> dict[str, Any]:
    name = meta.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f"{path}: name is missing; expected the name of the encoder.")
    return {
        "model": name.replace("__", "/", 1),
        "n_parameters": meta.get("n_parameters"),
        "embed_dim": meta.get("embed_dim"),
        "max_tokens": meta.get("max_tokens"),
        "released": meta.get("release_date"),
        "licence": meta.get("license"),
        "open_weights": _said(meta.get("open_weights")),
        "instructions": _said(meta.get("use_instructions")),
    }


def _said(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


# ---- tables


def _rows(path: Path, ignore: Sequence[str]) -> Iterator[tuple[str, PublishedEncoder, PublishedResult]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    header = [name.strip() for name in lines[0]] if lines else []
    if missing := [name for name in _NEEDED if name not in header]:
        raise UsageError(
            f"{path} lacks the column {', '.join(missing)}; expected {', '.join(_NEEDED)} and, where known, "
            f"{', '.join(_COLUMNS[len(_NEEDED) :])}."
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UsageError(f"{path} has several columns named '{twice[0]}'. Rename or remove all but one.")
    unknown = [name for name in header if name not in _COLUMNS and name not in ignore]
    if unknown:
        raise UsageError(f"{path}: the column '{unknown[0]}' is not known. Leave it out with --ignore {unknown[0]}.")
    if absent := [name for name in ignore if name not in header]:
        raise UsageError(f"{path} has no column '{absent[0]}', which --ignore names.")
    if len(lines) < 2:
        raise UsageError(f"{path} holds no rows.")
    if short := [number for number, line in enumerate(lines[1:], 1) if line and len(line) != len(header)]:
        raise UsageError(f"{path}: rows {listed(short)} do not have {len(header)} values, as the header has.")
    facts: dict[str, tuple[str, EncoderFacts]] = {}
    for number, line in enumerate(lines[1:], 1):
        if not line:
            continue
        values = {name: text for name, text in zip(header, line, strict=True) if name not in ignore}
        row = ResultRow(values, f"{path}, row {number}")
        encoder = _encoder(row)
        first, known = facts.setdefault(encoder.name, (row.where, encoder.facts))
        if known != encoder.facts:
            raise UsageError(f"{row.where}: {encoder.name} has other metadata than in {first}. Correct one of them.")
        yield row.where, encoder, _result(row)


def _encoder(row: ResultRow) -> PublishedEncoder:
    name = row.text("model")
    if name is None:
        raise UsageError(f"{row.where}: model is missing; expected the name of the encoder.")
    tokens = _positive(row, "max_tokens", endless=True)
    instructions = _yes_no(row, "instructions")
    parameters, width = _positive(row, "n_parameters"), _positive(row, "embed_dim")
    facts = EncoderFacts(
        n_parameters=None if parameters is None else round(parameters),
        width=None if width is None else round(width),
        max_tokens=finite_tokens(tokens),
        pretraining=pretraining_of(takes_instructions=instructions, max_tokens=tokens),
        released=row.text("released"),
        licence=row.text("licence"),
        has_open_weights=_yes_no(row, "open_weights"),
    )
    return PublishedEncoder(name, facts)


def _positive(row: ResultRow, name: str, *, endless: bool = False) -> float | None:
    """Return a number above 0; None where it is empty or 0, as MTEB writes what it does not know."""
    if endless and str(row.values.get(name)).strip().lower() in ("inf", "infinity"):
        return math.inf
    return row.number(name, least=0.0) or None


def _yes_no(row: ResultRow, name: str) -> bool | None:
    said = row.text(name)
    if said is None:
        return None
    if said.lower() not in _YES_NO:
        raise UsageError(f"{row.where}: {name} is '{said}'; expected yes, no, true, false, or nothing.")
    return _YES_NO[said.lower()]


def _share(row: ResultRow, name: str) -> float:
    value = row.number(name, least=0.0)
    if value is None:
        raise UsageError(f"{row.where}: {name} is missing; expected a number from 0 to 1.")
    if value > 1:
        raise UsageError(f"{row.where}: {name} is {value:g}; expected a fraction from 0 to 1, not a percentage.")
    return value


def _result(row: ResultRow) -> PublishedResult:
    task = row.text("task")
    if task is None:
        raise UsageError(f"{row.where}: task is missing; expected the name of the task.")
    sd = row.number("sd", least=0.0)
    if sd is not None and sd > _LARGEST_SD:
        raise UsageError(f"{row.where}: sd is {sd:g}; expected at most {_LARGEST_SD:g}, the most that shares can vary.")
    n_draws = row.whole("n_experiments")
    if n_draws == 0:
        raise UsageError(f"{row.where}: n_experiments is 0; expected 1 or more, or nothing.")
    return PublishedResult(
        task=task,
        accuracy=_share(row, "accuracy"),
        sd=sd,
        n_draws=n_draws,
        has_seen_task=_yes_no(row, "trained_on"),
        revision=row.text("revision") or "unknown",
        data_revision=row.text("dataset_revision") or "unknown",
        f1=None if row.number("f1") is None else _share(row, "f1"),
        version=row.text("mteb_version"),
    )


# ---- records


def _record(encoder: PublishedEncoder, result: PublishedResult, source: str) -> Record:
    """Return the record of one result. One that the encoder was trained on is no evidence."""
    task = _TASKS.get(result.task)
    others = {name: value for name, value in (("f1", result.f1), ("sd_over_draws", result.sd)) if value is not None}
    n_test = 0 if task is None else task.n_test
    draws = "an unknown number of" if result.n_draws is None else str(result.n_draws)
    record = imported(
        cell=Cell(
            task=result.task,
            data=f"MTEB {result.data_revision}",
            backbone=encoder.name,
            weights=f"revision {result.revision}",
            method="mteb-probe",
            version=1,
            config={},
            n_train=0 if task is None else task.n_classes * task.per_class,
            budget=Budget(),
            seed=0,
            draw="balanced",
        ),
        device=MEASURED_BY,
        kind="classification",
        family="frozen features",
        status="ok",
        source=source,
        protocol=_PROTOCOL.format(draws=draws),
        score=Score("accuracy", result.accuracy, None, None, True, n_test, others=others),
        packages={} if result.version is None else {"mteb": result.version},
        dataset={
            "revision": result.data_revision,
            **({} if task is None else {"n_classes": task.n_classes}),
            **({"seen_by": [encoder.name]} if result.has_seen_task else {}),
        },
    )
    missing = {} if task is not None else {"n_train": "its classes are not known here", "n_test": "not stated"}
    facts = replace(
        record.facts,
        is_evidence=not result.has_seen_task,
        measured_by=MEASURED_BY,
        encoder=encoder.facts,
        has_seen_task=result.has_seen_task,
        n_draws=result.n_draws,
        missing=missing,
    )
    return replace(record, facts=facts)
