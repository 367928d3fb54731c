"""Live progress of a run: cells done and left, what runs now, its loss or score, time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from harness.planning import PlannedCell
from harness.records import Record
from harness.schedule import Prepared
from harness.support import describe_duration, first_line, shortened

_ERROR_CHARACTERS = 500
"""Longest error that a line of progress shows; the record has more of it."""


class RunDisplay:
    """Listens to a run. On a terminal it redraws in place; elsewhere it prints a line a cell."""

    def __init__(self, console: Console, prepared: Prepared) -> None:
        self._console = console
        self._device = prepared.device
        self._several_budgets = len({planned.cell.budget for planned in prepared.cells}) > 1
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._bar = self._progress.add_task("", total=None, left="")
        self._current = ""
        self._started = 0.0
        self._n_cells = 0
        self._n_done = 0

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, n_cells: int, n_done: int) -> None:
        """The grid is known."""
        self._n_cells, self._n_done = n_cells, n_done
        self._progress.update(self._bar, total=n_cells, completed=n_done)
        already = f", {n_done} done already" if n_done else ""
        self._print(f"{n_cells} cells{already}; on {self._device.name}.")

    def cell_begins(self, planned: PlannedCell) -> None:
        """A cell starts."""
        self._current = planned.label(with_budget=self._several_budgets)
        self._started = time.perf_counter()
        self._progress.update(self._bar, description=escape(self._current))

    def cell_goes_on(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """What the running cell does."""
        share = f" {fraction:.0%}" if fraction is not None else ""
        of_loss = f" · loss {loss:.3f}" if loss is not None else ""
        self._progress.update(self._bar, description=escape(f"{self._current} · {doing}{share}{of_loss}"))

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        """A cell has been recorded."""
        self._n_done += 1
        score = record.score
        result = f"{score.metric} {score.value:.3f}" if score is not None else record.status
        took = time.perf_counter() - self._started
        left = f" · about {describe_duration(seconds_left)} left" if seconds_left else ""
        line = f"[{self._n_done}/{self._n_cells}] {self._current} · {result} · {took:.1f} s"
        if self._live:
            self._progress.update(
                self._bar, advance=1, left=f"about {describe_duration(seconds_left)} left" if left else ""
            )
            self._print(line, style="red" if record.status == "failed" else None)
        else:
            self._print(line + left)
        if record.error and record.status != "ok":
            first = shortened(first_line(record.error), _ERROR_CHARACTERS)
            self._print(f"    {first}", style="red" if record.status == "failed" else "yellow")

    def cell_is_added(self) -> None:
        """The grid has one cell more."""
        self._n_cells += 1
        self._progress.update(self._bar, total=self._n_cells)

    def remark(self, text: str) -> None:
        """Something that the user should know of."""
        self._print(text, style="yellow")

    def _print(self, text: str, style: str | None = None) -> None:
        self._progress.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
