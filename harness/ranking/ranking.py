"""Rank backbones for a task: encode a few labelled rows with each, and forecast full fine-tuning."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.backbones import BACKBONE_SHAPES, Backbone, BackboneFiles, load_backbone, locate_backbone, write_shape
from harness.measure import Device, host_limit_bytes, memory_bytes_of, set_numerics
from harness.ranking.cards import read_card, why_seen
from harness.ranking.costs import Planned, all_parameters, block_parameters, plan_full, usual_flops_per_second
from harness.ranking.forecasting import Point, forecast
from harness.ranking.measuring import Measured, measure, rows_to_encode
from harness.ranking.ranked import RankedBackbone, Ranking
from harness.support import DataError, HarnessError, UsageError, first_line
from harness.tasks import Ints, Kind, Task

DEFAULT_ROWS = 256
"""Rows to encode: more cost more and change few rankings (docs/explanation/ranking.md)."""

MOST_ROWS = 1000
LEAST_ROWS = 16


@dataclass
class _Candidate:
    """A backbone that was found, and what is known of it."""

    files: BackboneFiles
    planned: Planned
    entry: RankedBackbone
    measured: Measured | None = None


def check_kind(kind: Kind) -> None:
    """Refuse a task whose labels are not classes.

    Raises:
        UsageError: a kind without classes.
    """
    if kind.form != "classes" or kind.answer_form() is not None:
        raise UsageError(
            f"A {kind.name} task was given; backbones are ranked by how well their features separate classes. Expected "
            "a classification or text-pair task."
        )


def rank(
    task: Task,
    names: Sequence[str],
    device: Device,
    scratch: Path,
    *,
    mirror: Path | None = None,
    n_train: int | None = None,
    n_rows: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Ranking:
    """Return the backbones, the best forecast first. A backbone that cannot be used does not stop the others.

    Args:
        task: a task whose labels are classes.
        names: hub ids, local folders or shapes.
        device: where encoding runs.
        scratch: an empty folder, for the files of shapes.
        mirror: folder that is searched first for hub ids.
        n_train: labels of the fine-tuning to forecast; None is all rows of the pool.
        n_rows: rows to encode; None is `DEFAULT_ROWS`, or all where there are fewer.
        say: called with the name of each backbone before it is encoded.

    Raises:
        UsageError: no backbone was named, a number out of range, or a task without classes.
        DataError: the rows hold no two rows of a class, or a single class.
    """
    import torch

    began = time.perf_counter()
    check_kind(task.kind)
    rows = _rows(task, n_rows)
    n_train = len(task.train_labels) if n_train is None else n_train
    if n_train < task.n_strata:
        raise UsageError(f"--n-train {n_train} was given; expected at least {task.n_strata}, one label of each class.")
    torch.set_num_threads(device.threads)
    set_numerics()
    found, failed = _find(names, task, device, scratch, mirror, n_train, len(rows))
    for candidate in found:
        say(candidate.files.name)
        _measure(candidate, task, rows, device)
    _add_seconds(found, device)
    _add_forecasts(found, task, n_train)
    order = {"ranked": 0, "costs only": 1, "failed": 2}
    entries = [*(candidate.entry for candidate in found), *failed]
    entries.sort(key=lambda entry: (order[entry.status], -entry.forecast.score if entry.forecast else 0.0))
    return Ranking(task.name, device.name, n_train, len(rows), tuple(entries), time.perf_counter() - began)


def _rows(task: Task, n_rows: int | None) -> Ints:
    """Return the rows to encode."""
    if n_rows is not None and not LEAST_ROWS <= n_rows <= MOST_ROWS:
        raise UsageError(f"--rows {n_rows} was given; expected {LEAST_ROWS} to {MOST_ROWS} labelled rows to encode.")
    rows = rows_to_encode(task, n_rows or DEFAULT_ROWS)
    labels = task.train_labels[rows].tolist()
    if len(set(labels)) < 2 or len(set(labels)) == len(labels):
        raise DataError(
            f"Task '{task.name}': {len(labels)} labelled rows of {len(set(labels))} classes were found; expected at "
            "least two classes, and two rows of one of them. Give more rows."
        )
    return rows


def _find(
    names: Sequence[str],
    task: Task,
    device: Device,
    scratch: Path,
    mirror: Path | None,
    n_train: int,
    n_rows: int,
) -> tuple[list[_Candidate], list[RankedBackbone]]:
    """Return the backbones that were found, with their costs, and entries of those that cannot be used."""
    if not names:
        raise UsageError("No backbone was named; expected --backbones with hub ids, folders or shapes.")
    found: list[_Candidate] = []
    failed: list[RankedBackbone] = []
    for name in dict.fromkeys(names):
        try:
            if name in BACKBONE_SHAPES:
                files = dataclasses.replace(write_shape(name, scratch / name), name=name)
            else:
                files = locate_backbone(name, mirror, weights=False)
                files.require_tokenizer()
            _check_new(files, [candidate.files for candidate in found])
            planned = plan_full(task, files, device, n_train, n_rows)
            card = read_card(files)
        except HarnessError as error:
            failed.append(RankedBackbone(name, name, "failed", why=str(error)))
            continue
        entry = RankedBackbone(
            backbone=files.name,
            asked=name,
            status="costs only",
            architecture=files.architecture,
            n_parameters=all_parameters(files),
            licence=card.licence,
            seen=why_seen(files, card, task.spec),
            full_peak_bytes=planned.peak_bytes,
            encode_flops=planned.encode_flops,
            full_flops=planned.flops,
        )
        if planned.unsupported is not None:
            failed.append(dataclasses.replace(entry, status="failed", why=planned.unsupported))
        else:
            found.append(_Candidate(files, planned, entry))
    return found, failed


def _check_new(files: BackboneFiles, others: Sequence[BackboneFiles]) -> None:
    """Refuse a backbone that cannot be told from another one of the list."""
    for other in others:
        if files.fingerprint == other.fingerprint and files.has_weights:
            raise UsageError(f"It holds the same files as '{other.name}', which was named before it.")
        if files.name == other.name:
            raise UsageError(
                f"Two backbones are called '{files.name}': the folders '{other.folder}' and '{files.folder}'. Rename "
                "one of the folders."
            )


def _measure(candidate: _Candidate, task: Task, rows: Ints, device: Device) -> None:
    """Encode the rows, and enter what was found or why nothing was."""
    files = candidate.files

    def costs_only(why: str) -> None:
        candidate.entry = dataclasses.replace(candidate.entry, why=why)

    if not files.has_weights:
        return costs_only("it has no weights")
    weights = sum(path.stat().st_size for path in files.folder.glob("*.safetensors"))
    memory = memory_bytes_of(device, host_limit_bytes())
    if weights > memory:
        return costs_only(f"its weights take {weights / 1e9:.1f} GB, and there are {memory / 1e9:.1f} GB")
    try:
        backbone = _load(files)
        candidate.measured = measured = measure(backbone, task, rows, device)
    except HarnessError as error:
        candidate.entry = dataclasses.replace(candidate.entry, status="failed", why=first_line(str(error)))
        return None
    except MemoryError:
        return costs_only("the host had no more memory")
    finally:
        load_backbone.cache_clear()  # one backbone at a time
    candidate.entry = dataclasses.replace(
        candidate.entry,
        status="ranked",
        n_parameters=float(sum(parameter.numel() for parameter in backbone.pristine.parameters())),
        signals=measured.signals,
        encode_seconds=measured.encode_seconds,
        score_seconds=measured.score_seconds,
        encode_peak_bytes=float(measured.peak_bytes),
    )
    return None


def _load(files: BackboneFiles) -> Backbone:
    return load_backbone(files)


def _add_seconds(found: Sequence[_Candidate], device: Device) -> None:
    """Plan the seconds of fine-tuning from the measured speed of encoding; without one, from that of the others."""
    speeds = {
        candidate.files.name: candidate.planned.encode_flops / candidate.measured.encode_seconds
        for candidate in found
        if candidate.measured is not None and candidate.measured.encode_seconds > 0
    }
    usual = max(speeds.values(), default=usual_flops_per_second(device))
    for candidate in found:
        speed = speeds.get(candidate.files.name) or usual
        if speed > 0 and candidate.planned.flops > 0:
            candidate.entry = dataclasses.replace(candidate.entry, full_seconds=candidate.planned.flops / speed)


def _add_forecasts(found: Sequence[_Candidate], task: Task, n_train: int) -> None:
    """Enter the forecast of each measured backbone."""
    measured = [candidate for candidate in found if candidate.measured is not None]
    expected = forecast(
        [
            Point(
                task=task.name,
                backbone=candidate.files.name,
                signals=candidate.measured.signals,
                block_parameters=block_parameters(candidate.files) or candidate.entry.n_parameters or 1e8,
                is_causal=candidate.files.architecture == "causal",
                n_train=n_train,
            )
            for candidate in measured
            if candidate.measured is not None
        ]
    )
    for candidate, one in zip(measured, expected, strict=True):
        candidate.entry = dataclasses.replace(candidate.entry, forecast=one)
