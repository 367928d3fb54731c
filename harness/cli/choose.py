"""`harness choose`."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.api import choose
from harness.cli.as_json import print_json
from harness.cli.console import CommandDisplay
from harness.support import describe_duration, mask_store
from harness.support import text as wording

if TYPE_CHECKING:
    from harness.choose import Chosen, Tried


def choose_command(*, save: Path, text: str | None, store: str, as_json: bool = False, **asked: Any) -> int:
    """Choose, show the reasoning and the result; return the exit code. Arguments are those of `api.choose`."""
    began = time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())
    console = Console(highlight=False, stderr=as_json)
    chosen = choose(save=save, text=text, store=store, began=began, progress=CommandDisplay(console), **asked)
    if as_json:
        print_json({**chosen.to_dict(), "store": mask_store(store)})
    else:
        _show(console, chosen, save, text, mask_store(store))
    return 0


def _show(console: Console, chosen: Chosen, save: Path, text: str | None, store: str) -> None:
    from harness.choose import EVALUATION, validated
    from harness.metrics import metrics

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "validation", "fits", "labels used", "time"):
        table.add_column(name, justify="left" if name == "method" else "right")
    saved = {chosen.method, *(one.candidate.label for one in (chosen.ensemble.members if chosen.ensemble else ()))}
    by_label: dict[str, list[Tried]] = {}
    for tried in chosen.tried:
        by_label.setdefault(tried.candidate.label, []).append(tried)
    shown = {label: found[0] for label, fits in by_label.items() if (found := validated(fits)) is not None}
    sign = -1.0 if metrics.get(chosen.score.metric).higher_is_better else 1.0
    for label in sorted(by_label, key=lambda label: sign * shown.get(label, -sign * math.inf)):
        fits, score = by_label[label], shown.get(label)
        table.add_row(
            Text(label, style="bold green" if label in saved else ""),
            fits[-1].outcome if score is None else f"{score:.3f}",
            str(len(fits)),
            f"{max(tried.n_train for tried in fits):,.0f}",
            wording.seconds(sum(tried.seconds for tried in fits)),
        )
    if by_label:
        console.print(table)
    reached = chosen.score
    spread = "" if reached.low is None else f" (95 %: {reached.low:.3f} to {reached.high:.3f})"
    console.print(
        Text.assemble(
            (chosen.method, "bold green"),
            f": {reached.metric} {reached.value:.3f}{spread} on {wording.counted(reached.n_test, 'test row')} that no "
            "decision has seen.",
        ),
        soft_wrap=True,
    )
    if chosen.ensemble is not None:
        console.print(f"It is an {chosen.ensemble.in_words(reached.metric)}.", markup=False, soft_wrap=True)
    if chosen.refit:
        console.print("After the test, the saved model was fitted again, to all rows.", markup=False, soft_wrap=True)
    if chosen.why is not None:
        console.print(chosen.why, markup=False, soft_wrap=True)
    if chosen.in_use is not None:
        console.print(chosen.in_use.in_words(), markup=False, soft_wrap=True)
    if chosen.evaluation is not None:
        for line in (
            *chosen.evaluation.in_words(),
            f"{chosen.evaluation.contents[0].upper()}{chosen.evaluation.contents[1:]}: {save / EVALUATION}",
        ):
            console.print(line, markup=False, soft_wrap=True)
    columns = "" if text is None else f" --text {shlex.quote(text)}"
    console.print(
        f"Model: {save}\nRecords of all fits: {store}\nTook {describe_duration(chosen.seconds)}. Predict new texts:\n"
        f"harness predict --model {save} --data new.csv{columns} --out out.csv",
        markup=False,
        soft_wrap=True,
    )
