"""Show progress to a caller: on a terminal, in a notebook, or not at all."""

from __future__ import annotations

import html
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.text import Text

from harness.support import DataWarning, as_caller_spells, describe_duration, first_line, plain, shortened, text

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles
    from harness.planning import PlannedCell
    from harness.records import Record
    from harness.schedule import Prepared
    from harness.tasks import Task

_ERROR_CHARACTERS = 500
"""Maximum length of an error in a line of progress; the record holds the full text."""

_REDRAW_SECONDS = 0.2
"""Minimum time between two drawings of a notebook's progress."""


class Display:
    """A display that shows nothing; subclasses override its methods. It is also a `harness.schedule.Listener`."""

    def say(self, line: str, style: str | None = None) -> None:
        """Show a line that stays."""

    def warn(self, text: str) -> None:
        """Warn about a user's data."""
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == "harness":
            level, frame = level + 1, frame.f_back
        warnings.warn(as_caller_spells(text), DataWarning, stacklevel=level)  # at the caller's line

    @contextmanager
    def working(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Show that work is in progress; call the yielded function to change the words."""
        del doing
        yield lambda _: None

    @contextmanager
    def running(self, prepared: Prepared) -> Iterator[None]:
        """Show the progress of a grid."""
        del prepared
        yield

    def data(self, task: Task, files: BackboneFiles | None) -> None:
        """Show one line on a task's data, and warn about suspicious texts and labels.

        Args:
            task: prepared.
            files: the backbone that reads the texts; None where no method uses one.
        """
        from harness.tasks import summarise_data

        with self.working("Reading the texts"):
            summary = summarise_data(task, files)
        because = task.provenance.get("kind_because")
        if because:
            said = f"Kind: {task.kind.name}, since {plain(str(because))}; --kind names another."
            self.say(as_caller_spells(said))
        self.say(plain(summary.line()))
        for warning in summary.warnings:
            self.warn(plain(warning))

    def notes(self, prepared: Prepared) -> None:
        """Show each task's data, and the parts of the request that were changed."""
        for task in prepared.tasks.values():
            self.data(task, next(iter(prepared.backbones.get(task.name, ())), None))
        for note in prepared.notes:
            self.say(f"Note: {note}")
        for why in prepared.left_out:
            self.remark(f"Left out: {why}")
        for task in prepared.tasks.values():
            if task.provenance.get("content_as_pinned") is False:
                self.say(
                    f"Note: {task.name}: this copy of the data differs from the one that the suite was checked on."
                )

    def begin(self, n_cells: int, n_done: int) -> None:
        """Show the size of the grid."""

    def cell_begins(self, planned: PlannedCell) -> None:
        """Show which cell starts."""

    def cell_goes_on(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Show the running cell's step, share of its budget and loss."""

    def cell_is_added(self) -> None:
        """Count one cell more."""

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        """Show the result of a cell."""

    def time_left(self, seconds: float | None) -> None:
        """Show the expected seconds until the last cell ends; None if unknown."""

    def remark(self, text: str) -> None:
        """Show something unusual."""


class TerminalDisplay(Display):
    """Progress on a terminal, redrawn in place; where there is no terminal, one line per cell.

    Args:
        console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._update: Callable[..., None] = lambda **_: None
        self._device = ""
        self._several_budgets = False
        self._current = ""
        self._started = 0.0
        self._n_cells = 0
        self._n_done = 0
        self._began: float | None = None
        self._ends: float | None = None

    def say(self, line: str, style: str | None = None) -> None:
        """Show a line that stays."""
        self._console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def working(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Show a spinner; call the yielded function to change the words."""
        with self._console.status(doing) as status:
            yield lambda words: status.update(Text(words))

    @contextmanager
    def running(self, prepared: Prepared) -> Iterator[None]:
        """Show the progress of a grid."""
        self._device = prepared.device.name
        self._several_budgets = len({planned.cell.budget for planned in prepared.cells}) > 1
        with self._bar():
            yield

    @contextmanager
    def _bar(self) -> Iterator[None]:
        progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            _Clock(self._clock),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        bar = progress.add_task("", total=None)
        self._update = lambda **changes: progress.update(bar, **changes)
        with progress:
            yield

    def begin(self, n_cells: int, n_done: int) -> None:
        """Show the size of the grid, and whether this run resumes another."""
        self._n_cells, self._n_done = n_cells, n_done
        self._began, self._ends = time.monotonic(), None
        self._update(total=n_cells, completed=n_done)
        cells = text.counted(n_cells, "cell")
        if n_done == n_cells and n_cells:
            self.say(f"All {cells} are done already." if n_cells > 1 else "The cell is done already.")
        elif n_done:
            are = "is" if n_done == 1 else "are"
            self.say(f"{n_done:,} of {cells} {are} done already; {n_cells - n_done:,} to run on {self._device}.")
        else:
            self.say(f"{cells} to run on {self._device}.")

    def time_left(self, seconds: float | None) -> None:
        """Show the expected seconds until the last cell ends; None if unknown."""
        self._ends = None if seconds is None else time.monotonic() + seconds

    def _clock(self) -> str:
        """Return the time since the first cell began, and the time left if it is known."""
        if self._began is None:
            return ""
        now = time.monotonic()
        elapsed = describe_duration(now - self._began)
        return elapsed if self._ends is None else f"{elapsed}, {_about(max(0.0, self._ends - now))}"

    def cell_begins(self, planned: PlannedCell) -> None:
        """Show which cell starts."""
        self._current = planned.label(with_budget=self._several_budgets)
        self._started = time.perf_counter()
        self._doing(self._current)

    def cell_goes_on(self, doing: str, fraction: float | None, loss: float | None) -> None:
        """Show the running cell's step, share of its budget and loss."""
        share = f" {fraction:.0%}" if fraction is not None else ""
        of_loss = f" · loss {loss:.3f}" if loss is not None else ""
        self._doing(f"{self._current} · {doing}{share}{of_loss}")

    def cell_is_added(self) -> None:
        """Count one cell more."""
        self._n_cells += 1
        self._update(total=self._n_cells)

    def cell_ends(self, record: Record, seconds_left: float | None) -> None:
        """Show the result of a cell."""
        self._n_done += 1
        score = record.score
        result = f"{score.metric} {score.value:.3f}" if score is not None else record.status
        took = time.perf_counter() - self._started
        left = _about(seconds_left) if seconds_left else ""
        line = f"[{self._n_done}/{self._n_cells}] {self._current} · {result} · {took:.1f} s"
        if self._live:
            self._update(advance=1)
            self.say(line, style="red" if record.status == "failed" else None)
        else:
            self.say(f"{line} · {left}" if left else line)
        if record.error and record.status != "ok":
            first = shortened(first_line(record.error), _ERROR_CHARACTERS)
            self.say(f"    {first}", style="red" if record.status == "failed" else "yellow")

    def remark(self, text: str) -> None:
        """Show something unusual."""
        self.say(text, style="yellow")

    def _doing(self, words: str) -> None:
        self._update(description=escape(words))


class NotebookDisplay(TerminalDisplay):
    """Progress in one area of a notebook's output: a line per cell, and below them a bar and the running cell."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._lines: list[str] = []
        self._below = ""
        self._has_bar = False
        self._handle: Any = None
        self._drawn_at = 0.0

    def say(self, line: str, style: str | None = None) -> None:
        """Show a line that stays."""
        del style
        self._lines.append(line)
        self._draw()

    @contextmanager
    def working(self, doing: str) -> Iterator[Callable[[str], None]]:
        """Show the words below the lines; call the yielded function to change them."""

        def show(words: str) -> None:
            self._below = words
            self._draw()

        show(doing)
        try:
            yield show
        finally:
            show("")

    @contextmanager
    def _bar(self) -> Iterator[None]:
        with self.working(""):
            try:
                yield
            finally:
                self._has_bar = False

    def begin(self, n_cells: int, n_done: int) -> None:
        """Show the size of the grid, and whether this run resumes another."""
        self._has_bar = n_done < n_cells
        super().begin(n_cells, n_done)

    def _doing(self, words: str) -> None:
        self._below = words
        if time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML, display

        self._drawn_at = time.monotonic()
        shown = HTML(_notebook_html(self._lines, self._bar_html() if self._has_bar else "", self._below))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def _bar_html(self) -> str:
        """Return a bar, with the same facts as text: beside it, and for screen readers."""
        said = html.escape(f"{self._n_done:,} of {text.counted(self._n_cells, 'cell')} done; {self._clock()}")
        return (
            f'<div style="display:flex;align-items:center;gap:0.75em;flex-wrap:wrap">'
            f'<progress value="{self._n_done}" max="{max(1, self._n_cells)}" aria-label="Cells done" '
            f'aria-valuetext="{said}" style="width:16em;height:1em">{said}</progress>'
            f'<span aria-hidden="true">{said}</span></div>'
        )


def _notebook_html(lines: Sequence[str], bar: str, below: str) -> str:
    """Return the area: lines that stay, the bar, and the words on what runs now."""
    now = f"<div><i>{html.escape(below)}</i></div>" if below else ""
    log = html.escape("\n".join(lines))
    return f'<pre style="white-space:pre-wrap;margin:0 0 0.5em">{log}</pre>{bar}{now}'


class _Clock(ProgressColumn):
    """Column with the time spent and left, read at each drawing.

    Args:
        read: returns the words.
    """

    max_refresh = 0.5

    def __init__(self, read: Callable[[], str]) -> None:
        super().__init__()
        self._read = read

    def render(self, task: object) -> Text:
        """Return the words."""
        del task
        return Text(self._read())


def _about(seconds: float) -> str:
    """Return a time left, rounded to what can be known: `about 2 min left`."""
    step = 1 if seconds < 20 else 5 if seconds < 120 else 30 if seconds < 600 else 60
    rounded = max(1, step * round(seconds / step))
    return f"about {describe_duration(rounded)} left".replace(" min 00 s", " min")


def make_display(progress: bool | Display) -> Display:
    """Return the display for a caller: none, that of this terminal or notebook, or the caller's own."""
    if isinstance(progress, Display):
        return progress
    if not progress:
        return Display()
    console = Console(stderr=True)
    return NotebookDisplay(console) if console.is_jupyter else TerminalDisplay(console)
