"""Rank methods over tasks; over at least five tasks, with the critical difference between mean ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.analysis import MIN_TESTED_TASKS, Ranking, rank
from harness.metrics import IN_UNITS
from harness.report.contrasts import rivals_by_size
from harness.report.observations import RecordSource, observe
from harness.report.panels import panels
from harness.support import text


@dataclass(frozen=True)
class TaskRanking:
    """Methods ranked over the tasks that all of them ran on, at one size, on one device and budget.

    Attributes:
        title: `64 labels · all-MiniLM-L6-v2 · AMD EPYC, 2 threads`, with the budget where it is not the default; no
            backbone where the names of methods hold it.
        tasks: tasks that the ranking covers.
        methods: ranked methods, in order of their mean rank.
        ranking: their ranks in the same order, and the critical difference where it is tested.
        means: mean score over `tasks` of each method; None where the tasks' metrics or scales differ, and for errors in
            the unit of a task's target.
        n_tasks: number of tasks that each method ran on, including methods that are not ranked.
        n_tasks_in_all: number of tasks with any score at this size.
        fewer_seeds: (method, task) of ranked scores that are means over fewer seeds than others.
    """

    title: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    ranking: Ranking
    means: tuple[float, ...] | None
    n_tasks: dict[str, int]
    n_tasks_in_all: int
    fewer_seeds: tuple[tuple[str, str], ...] = ()

    @property
    def left_out(self) -> list[str]:
        """Methods that are not ranked because some of `tasks` lack them."""
        return [name for name in self.n_tasks if name not in self.methods]

    @property
    def said(self) -> str:
        """Tasks of the ranking, methods that it leaves out, and scores that lack seeds, as plain text."""
        said = f"Ranked on {len(self.tasks)} of {self.n_tasks_in_all} tasks: {', '.join(self.tasks)}."
        if self.ranking.p_value is None:
            said += f" Differences are not tested: that needs at least {MIN_TESTED_TASKS} tasks."
        if self.left_out:
            missing = [f"{name} (ran on {self.n_tasks[name]})" for name in self.left_out]
            said += f" Not ranked, because they did not run on all of these: {', '.join(missing)}."
        if self.fewer_seeds:
            fewer = ", ".join(f"{method} on {task}" for method, task in self.fewer_seeds)
            said += f" Means over fewer seeds than others: {fewer}."
        return text.plain(said)


def across_tasks(source: RecordSource) -> list[TaskRanking]:
    """Return one ranking over tasks for each size, device, budget and, where names do not hold it, backbone.

    A ranking needs at least two tasks and two methods.

    A method that is missing on a task is left out of the ranking, or the task is, whichever keeps more scores. The
    ranking names what was left out. Only equal sizes are compared.

    Raises:
        UsageError: there is no record.
    """
    table: dict[tuple[Any, ...], dict[str, dict[str, float]]] = {}
    directions: dict[tuple[Any, ...], dict[str, tuple[bool, str | None]]] = {}
    fewer: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for panel in panels(observe(source)):
        for n_train, draw, rivals in rivals_by_size(panel):
            key = (n_train, draw, panel.device, panel.budget, "" if panel.backbones else panel.backbone or "")
            by_task = table.setdefault(key, {})
            # Two states of one task's data are two tasks.
            task = panel.task if panel.task not in by_task else panel.title
            by_task[task] = {str(row.variant): float(row.score) for row in rivals}
            directions.setdefault(key, {})[task] = (panel.higher_is_better, panel.metric)
            fewer.setdefault(key, {})[task] = [str(row.variant) for row in rivals if text.present(row.note)]
    made = (_standing(key, table[key], directions[key], fewer[key]) for key in sorted(table))
    return [standing for found in made for standing in found]


def _standing(
    key: tuple[Any, ...],
    by_task: dict[str, dict[str, float]],
    directions: dict[str, tuple[bool, str | None]],
    fewer: dict[str, list[str]],
) -> Iterator[TaskRanking]:
    n_tasks: dict[str, int] = {}
    for scores in by_task.values():
        for method in scores:
            n_tasks[method] = n_tasks.get(method, 0) + 1
    chosen = _largest_block(by_task, n_tasks)
    if chosen is None:
        return
    tasks, methods = chosen
    rows = [[by_task[task][method] for method in methods] for task in tasks]
    found = rank(rows, [directions[task][0] for task in tasks])
    order = sorted(range(len(methods)), key=lambda i: (found.mean_ranks[i], methods[i]))
    # Fractions and percents, two metrics, or errors in the units of two targets have no common mean.
    one_scale = len({(directions[task], max(map(abs, row)) > 1) for task, row in zip(tasks, rows, strict=True)}) == 1
    one_scale = one_scale and not any(directions[task][1] in IN_UNITS for task in tasks)
    n_train, draw, device, budget, backbone = key
    parts = [f"{text.size(n_train, draw)} labels", backbone.rsplit("/", 1)[-1], device]
    parts += [f"budget {budget}"] if budget != "default" else []
    yield TaskRanking(
        title=text.plain(" · ".join(part for part in parts if part)),
        tasks=tuple(tasks),
        methods=tuple(methods[i] for i in order),
        ranking=Ranking(
            tuple(found.mean_ranks[i] for i in order),
            *(found.statistic, found.p_value, found.critical_difference, found.n_tasks, found.level),
        ),
        means=tuple(sum(row[i] for row in rows) / len(rows) for i in order) if one_scale else None,
        n_tasks=dict(sorted(n_tasks.items(), key=lambda item: (-item[1], item[0]))),
        n_tasks_in_all=len(by_task),
        fewer_seeds=tuple((methods[i], task) for i in order for task in tasks if methods[i] in fewer[task]),
    )


def _largest_block(by_task: dict[str, dict[str, float]], n_tasks: dict[str, int]) -> tuple[list[str], list[str]] | None:
    """Return the tasks and methods without gaps that hold the most scores; among equals, those with most methods."""
    best: tuple[int, list[str], list[str]] | None = None
    ordered = sorted(n_tasks, key=lambda method: (-n_tasks[method], method))
    for n in range(2, len(ordered) + 1):
        methods = ordered[:n]
        tasks = sorted(task for task, scores in by_task.items() if all(method in scores for method in methods))
        if len(tasks) >= 2 and (best is None or n * len(tasks) >= best[0]):
            best = (n * len(tasks), tasks, methods)
    return None if best is None else (best[1], best[2])
