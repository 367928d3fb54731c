"""Make the measurements that `harness rank-backbones` forecasts from, and judge the forecast on tasks left out.

    python -m tools.ranking measure STORE [STORE ...]   add the records of `full` to harness/ranking/measured.csv
    python -m tools.ranking judge [--without-backbone]  leave each task out in turn; print r and regret

`measure` needs the data and the backbones (HARNESS_MIRROR). It encodes the first 256 rows of seed 0 of each task with
each backbone that a record names; features that were measured before are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from harness.analysis import learned_nothing
from harness.api.requests import find_mirror
from harness.backbones import load_backbone, locate_backbone
from harness.measure import find_device
from harness.methods import parse_methods
from harness.planning import load_suite
from harness.ranking.costs import block_parameters
from harness.ranking.forecasting import METRIC, Point, forecast, read_points, write_points
from harness.ranking.measuring import Signals, measure, rows_to_encode
from harness.records import Record
from harness.store import reference_records, stream_source
from harness.tasks import Task, kinds

MEASURED = Path(__file__).parents[1] / "harness" / "ranking" / "measured.csv"
SMALLEST = 64
"""Fewest labels of a record that is used."""


def wanted(records: Iterable[Record], tasks: set[str]) -> dict[tuple[str, str, int], list[Record]]:
    """Return the records of full fine-tuning with default settings, by task, backbone and number of labels."""
    defaults = parse_methods(["full"])[0].config()
    found: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        cell = record.cell
        scored = record.status == "ok" and accuracy(record) is not None and not learned_nothing(record)
        default = cell.method == "full" and dict(cell.config) == defaults and cell.budget.label() == "default"
        if scored and default and cell.task in tasks and cell.backbone is not None and cell.n_train >= SMALLEST:
            found[cell.task, cell.backbone, cell.n_train].append(record)
    return found


def accuracy(record: Record) -> float | None:
    """Return the accuracy of a record; None where it has none."""
    if record.score is None:
        return None
    return record.score.value if record.score.metric == METRIC else record.score.others.get(METRIC)


def add(stores: Sequence[str]) -> None:
    """Add the records of stores, and the reference results, to the measurements."""
    suite = load_suite("everything")
    classes = {name for name, spec in suite.tasks.items() if spec.kind == "classification"}
    records = [*reference_records(), *(record for store in stores for record in stream_source(store))]
    found = wanted(records, classes)
    backbones = {backbone for _, backbone, _ in found}
    known = read_points(MEASURED.read_text(encoding="utf-8"))
    signals = {
        (point.task, point.backbone): (point.signals, point.block_parameters, point.is_causal) for point in known
    }
    device, mirror = find_device("auto"), find_mirror(None)
    for name in sorted(backbones):
        files = locate_backbone(name, mirror)
        for one in sorted({task for task, backbone, _ in found if backbone == name}):
            if (one, name) in signals:
                continue
            spec = suite.task(one)
            task: Task = kinds.get(spec.kind).prepare(spec, mirror)
            print(f"encoding {one} with {name}", flush=True)
            made = measure(load_backbone(files), task, rows_to_encode(task, 256), device)
            signals[one, name] = (made.signals, block_parameters(files) or 0.0, files.architecture == "causal")
    points = [_point(key, members, *signals[key[0], key[1]]) for key, members in found.items()]
    kept = {(point.task, point.backbone, point.n_train): point for point in [*known, *points]}
    MEASURED.write_text(write_points([kept[key] for key in sorted(kept)]), encoding="utf-8")
    print(f"{len(kept)} points in {MEASURED}")


def _point(
    key: tuple[str, str, int], members: Sequence[Record], signals: Signals, parameters: float, is_causal: bool
) -> Point:
    """Return the mean over the seeds of one cell; the latest record of a seed counts."""
    by_seed = {record.cell.seed: accuracy(record) or 0.0 for record in members}
    return Point(
        task=key[0],
        backbone=key[1],
        signals=signals,
        block_parameters=parameters,
        is_causal=is_causal,
        n_train=key[2],
        score=statistics.fmean(by_seed.values()),
        n_test=min(record.score.n_test or 0 for record in members if record.score is not None),
        n_seeds=len(by_seed),
    )


@dataclasses.dataclass(frozen=True)
class Judged:
    """How a way to rank did on one task and one number of labels.

    Attributes:
        r: Pearson correlation over the backbones.
        regret: points that the backbone ranked first lies below the best.
    """

    r: float
    regret: float


def judged(scores: Sequence[float], measured: Sequence[float]) -> Judged:
    """Compare the scores that a ranking gives with what was measured."""
    r = float(np.corrcoef(scores, measured)[0, 1]) if len(set(scores)) > 1 and len(set(measured)) > 1 else 0.0
    return Judged(r, 100.0 * (max(measured) - measured[int(np.argmax(scores))]))


def judge(*, without_backbone: bool = False) -> None:
    """Leave each task out, forecast it from the others, and print how the ranking did beside simple rules.

    Args:
        without_backbone: whether the measurements of the backbone that is forecast are left out too.
    """
    points = read_points(MEASURED.read_text(encoding="utf-8"))
    groups: dict[tuple[int, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.n_train, point.task].append(point)
    results: dict[int, dict[str, list[Judged]]] = defaultdict(lambda: defaultdict(list))
    errors: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for (n_train, task), members in sorted(groups.items()):
        if len(members) < 3:
            continue
        if without_backbone:
            expected = [
                forecast([one], [other for other in points if other.backbone != one.backbone])[0] for one in members
            ]
        else:
            expected = forecast(members, points)
        measured = [float(one.score or 0.0) for one in members]
        ways = {
            "forecast": [one.score for one in expected],
            "best probe": [max(one.signals.probe, one.signals.mean_probe) for one in members],
            "LogME": [one.signals.log_me for one in members],
            "H-score": [one.signals.h_score for one in members],
            "always the largest": [one.block_parameters for one in members],
        }
        for way, scores in ways.items():
            results[n_train][way].append(judged(scores, measured))
        errors[n_train] += [
            (100 * abs(one.score - score), one.low <= score <= one.high)
            for one, score in zip(expected, measured, strict=True)
        ]
        said = ", ".join(
            f"{one.backbone.rsplit('/', 1)[-1][:12]} {score:.3f} ({ahead.score:.3f})"
            for one, score, ahead in zip(members, measured, expected, strict=True)
        )
        print(f"{task} {n_train}: r {results[n_train]['forecast'][-1].r:.2f}; measured (forecast): {said}")
    for n_train, by_way in results.items():
        print(f"\n{n_train} labels, {len(next(iter(by_way.values())))} tasks")
        for way, each in by_way.items():
            regrets = [one.regret for one in each]
            print(
                f"  {way:20} mean r {statistics.fmean(one.r for one in each):5.2f}   mean regret "
                f"{statistics.fmean(regrets):5.2f}, worst {max(regrets):5.2f} points"
            )
        off = errors[n_train]
        inside = 100 * statistics.fmean(held for _, held in off)
        print(
            f"  mean absolute error {statistics.fmean(error for error, _ in off):.1f} points; 80 % intervals hold "
            f"{inside:.0f} %"
        )


def main() -> None:
    """Measure or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "judge"))
    parser.add_argument("stores", nargs="*", help="stores or .jsonl files with records of full")
    parser.add_argument("--without-backbone", action="store_true", help="judge: also leave the backbone out")
    given = parser.parse_args()
    if given.what == "measure":
        add(given.stores)
    else:
        judge(without_backbone=given.without_backbone)


if __name__ == "__main__":
    main()
