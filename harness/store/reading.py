"""Read records from a store, a file, a folder of files, or the shipped reference results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.resources.abc import Traversable
from pathlib import Path

from harness.records import KnownTexts, Record, is_earlier_evidence, of_earlier, read_jsonl
from harness.support import UsageError, shipped, unknown_name


def read_source(source: str, *, with_predictions: bool = True) -> list[Record]:
    """Return the latest records of a store, of a .jsonl file of records, or of all such files in a folder.

    For records with predictions, `stream_source` needs far less memory.

    Raises:
        StoreError: there is no such store, file or folder, or it contains something else.
        UsageError: the folder contains no such files.
    """
    return list(stream_source(source, with_predictions=with_predictions))


def stream_source(source: str, *, with_predictions: bool = True, known: KnownTexts | None = None) -> Iterator[Record]:
    """Yield the records of `read_source` one by one, since predictions of many records do not fit in memory.

    Args:
        source: a store, a file or a folder.
        with_predictions: whether to read the predictions.
        known: records that were read before; new ones are added.
    """
    path = Path(source)
    if "://" not in source and path.is_dir():
        found = sorted(path.rglob("*.jsonl"))
        if not found:
            raise UsageError(f"The folder {path} holds no .jsonl file of records. Name a store, such a file or folder.")
        for file in found:
            yield from read_jsonl(file, with_predictions=with_predictions, known=known)
    elif "://" not in source and path.suffix == ".jsonl":
        yield from read_jsonl(path, with_predictions=with_predictions, known=known)
    else:
        from harness.store.store import Store  # imports SQLAlchemy

        with Store.open(source, read_only=True) as opened:
            yield from opened.records(with_predictions=with_predictions, known=known)


def of_suite(records: Iterable[Record], suite: str | None) -> Iterator[Record]:
    """Yield the records with the label of a suite; None yields all.

    Raises:
        UsageError: no record has the label.
    """
    labels: set[str] = set()
    for record in records:
        labels.add(record.suite)
        if suite in (None, record.suite):
            yield record
    if suite is not None and suite not in labels:
        raise unknown_name("suite", suite, labels, "in these records")


def reference_records() -> Iterator[Record]:
    """Yield the reference results that are evidence of methods, without predictions.

    Earlier results follow for what the reference lacks: a method on a backbone, for a task. They count as results of
    the reference's task, which has the same rows and scores fewer of them.
    """
    present: set[tuple[str, str | None, str]] = set()
    data: dict[str, str] = {}
    for _, file in _files(shipped("results/reference")):
        for record in read_jsonl(file, with_predictions=False, checked=False):
            present.add((record.cell.task, record.cell.backbone, record.cell.method))
            data[record.cell.task] = record.cell.data
            yield record
    for folder, file in _files(shipped("results/earlier")):
        if not is_earlier_evidence(file.name):
            continue
        for record in read_jsonl(file, with_predictions=False, checked=False):
            if (record.cell.task, record.cell.backbone, record.cell.method) not in present:
                cell = replace(record.cell, data=data.get(record.cell.task, record.cell.data))
                yield of_earlier(record, folder).replaced(cell=cell)


def reference_grids() -> Iterator[Record]:
    """Yield all shipped results with their predictions, also those that chose settings and are no evidence."""
    for where in ("results/reference", "results/earlier"):
        for _, file in _files(shipped(where)):
            yield from read_jsonl(file, checked=False)


def _files(folder: Traversable) -> Iterator[tuple[str, Traversable]]:
    """Yield each file of records in a folder and those below, with the name of its own folder."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry)
        elif entry.name.endswith(".jsonl"):
            yield folder.name, entry
