"""The cost of a step of each method on a device: seconds, memory, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.backbones import BackboneFiles
from harness.cost import Estimator, first_that_fits, synthetic_task
from harness.data import Size
from harness.methods import Method
from harness.planning import PlannedCell, plan_cells
from harness.records import Budget
from harness.schedule.messages import Executor
from harness.schedule.prepare import Prepared
from harness.schedule.probing import run_probes
from harness.tasks import Task

_STEPS = (10, 20)
_TEST_ROWS = 32
_LEAST_ROWS = 64


@dataclass(frozen=True)
class Stepped:
    """The cost of a step of one method.

    Attributes:
        method: the configured method, with the batch size.
        batch_size: rows of a step; None for methods without steps, whose figures are those of a text.
        seconds: seconds of a step, or of a text.
        tokens_per_second: tokens per second of a step.
        utilisation: share of the device's measured matrix rate that steps reach.
        peak_bytes: peak memory above the baseline.
        largest_batch: approximate largest batch that fits into memory, on the straight line through two batch sizes.
        why_not: reason why it was not measured; None where it was.
    """

    method: Method
    batch_size: int | None
    seconds: float | None = None
    tokens_per_second: float | None = None
    utilisation: float | None = None
    peak_bytes: float | None = None
    largest_batch: int | None = None
    why_not: str | None = None


def measure_steps(
    methods: Sequence[Method],
    files: BackboneFiles | None,
    workers: Executor,
    *,
    batch_size: int,
    seq_len: int,
    memory_bytes: float,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[list[Stepped], list[str]]:
    """Probe each method on texts of `seq_len` tokens; a few steps each, nothing is stored.

    Args:
        methods: configured methods, whose batch sizes are replaced.
        files: the backbone, with or without weights; None for methods that use none.
        workers: where probes run.
        batch_size: rows of a step.
        seq_len: tokens of a row.
        memory_bytes: memory of the device.
        report: called with the name of the method that is probed.

    Returns:
        The cost of a step of each method, in their order, and notes.
    """
    task = synthetic_task(max(_LEAST_ROWS, 4 * batch_size), _TEST_ROWS, seq_len)
    found: list[Stepped] = []
    notes: list[str] = []
    for method in methods:
        takes_steps = "batch_size" in type(method).model_fields and method.workload(64, Budget(), 1).texts_per_step > 0
        halves = (batch_size, max(1, batch_size // 2)) if takes_steps else (batch_size,)
        seen: list[tuple[int, _Steps]] = []
        why = None
        for size in dict.fromkeys(halves):
            one = method.model_copy(update={"batch_size": size}) if takes_steps else method
            steps, why = _probe(one, task, files, workers, memory_bytes, notes, report)
            if steps is None:
                break
            seen.append((size, steps))
        if not seen:
            found.append(Stepped(method, batch_size if takes_steps else None, why_not=why))
            continue
        size, steps = seen[0]
        seconds = steps.seconds
        largest = _largest(seen, memory_bytes) if len(seen) > 1 else None
        rows = size if takes_steps else 1
        found.append(
            Stepped(
                method,
                size if takes_steps else None,
                seconds,
                rows * seq_len / seconds if seconds > 0 else None,
                steps.utilisation,
                steps.peak_bytes,
                largest,
            )
        )
    return found, list(dict.fromkeys(notes))


@dataclass(frozen=True)
class _Steps:
    """Seconds of a step or of a text, peak bytes, and share of the matrix rate."""

    seconds: float
    peak_bytes: float
    utilisation: float | None


def _probe(
    method: Method,
    task: Task,
    files: BackboneFiles | None,
    workers: Executor,
    memory_bytes: float,
    notes: list[str],
    report: Callable[[str], None],
) -> tuple[_Steps | None, str | None]:
    """Return the cost of a method's steps, or why it is not known."""
    backbones: dict[str, tuple[BackboneFiles, ...]] = {}
    if files is not None and method.serves:
        backbones[task.name] = (files,)
    if method.serves and files is None:
        return None, "it needs a backbone"

    def cell(budget: Budget) -> PlannedCell:
        (planned,) = plan_cells(
            tasks=[task], backbones=backbones, methods=[method], sizes=[Size(None)], seeds=[0], budgets=[budget],
            device=workers.device.kind,
        )  # fmt: skip
        return planned

    less, more = (cell(Budget(steps=steps)) for steps in _STEPS)
    if less.unsupported is not None:
        return None, less.unsupported
    estimator = Estimator({task.name: task}, workers.device)
    prepared = Prepared("probe", (less,), {task.name: task}, backbones, workers.device)
    said = run_probes([less], prepared, estimator, workers, memory_bytes=memory_bytes, report=report)
    failed = [note for note in said if "no probe of it" in note]
    fits = first_that_fits(less, estimator, memory_bytes)
    if fits is not None:
        notes.append(
            f"{less.method_label} is not expected to fit; `{fits.planned.method_in_full}`, the same steps, is: "
            f"about {fits.peak_bytes / 1e9:.1f} GB."
        )
    if failed:
        return None, failed[0].partition("by arithmetic: ")[2]
    notes += said
    first = estimator.estimate(less)
    if method.workload(64, Budget(), 1).texts_per_step > 0:
        seconds = (estimator.estimate(more).train_seconds - first.train_seconds) / (_STEPS[1] - _STEPS[0])
    else:
        seconds = first.train_seconds / len(task.train_labels)
    known = [figure.utilisation for figure in estimator.figures(less) if figure.utilisation is not None]
    return _Steps(seconds, first.peak_bytes, known[-1] if known else None), None


def _largest(seen: Sequence[tuple[int, _Steps]], memory_bytes: float) -> int | None:
    (large, at_large), (small, at_small) = seen
    each = (at_large.peak_bytes - at_small.peak_bytes) / (large - small)
    if each <= 0:
        return None  # the difference is too small to measure
    return max(0, int(large + (memory_bytes - at_large.peak_bytes) / each))
