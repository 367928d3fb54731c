"""`harness speed`."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from harness.api import InferenceCost, measure_inference
from harness.cli.as_json import print_json
from harness.cli.console import make_console
from harness.records import Inference
from harness.support import text as wording


def speed_command(model: Path, data: Path, text: str | None, device: str, *, as_json: bool = False) -> int:
    """Measure the use of a saved model and print the findings; return the exit code.

    Arguments are those of `api.measure_inference`.
    """
    found = measure_inference(model, data, text, device=device)
    if as_json:
        print_json(found)
        return 0
    console = make_console()
    tokens = found.as_fitted.tokens_per_text
    length = "" if tokens is None else f", {tokens:.0f} tokens each on average"
    title = f"{found.method} on {found.device}: {wording.counted(found.n_texts, 'text')}{length}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("as fitted", justify="right")
    if found.merged is not None:
        table.add_column("merged", justify="right")
    forms = [found.as_fitted, *([found.merged] if found.merged is not None else [])]
    for name, values in _rows(forms):
        table.add_row(name, *map(Text, values))
    console.print(table)
    for line in _notes(found):
        console.print(line, markup=False, highlight=False)
    return 0


def _rows(forms: list[Inference]) -> list[tuple[str, list[str]]]:
    rows = [
        (f"one text, {name}", [wording.milliseconds(getattr(one, f"latency_p{percent}_seconds")) for one in forms])
        for percent, name in ((50, "median"), (95, "95th percentile"), (99, "99th percentile"))
    ]
    rows.append(("texts a second", [_rate(one) for one in forms]))
    rows.append(("memory in use", [wording.memory(one.memory_bytes) for one in forms]))
    first = forms[0]
    for name, value in (
        ("on disk: the whole folder", wording.memory(first.saved_bytes)),
        ("on disk: the backbone", wording.memory(first.backbone_bytes)),
        ("on disk: what the fit trained", wording.memory(first.adapted_bytes)),
        ("to load", wording.seconds(first.load_seconds)),
    ):
        rows.append((name, [value, *[""] * (len(forms) - 1)]))
    return rows


def _rate(one: Inference) -> str:
    if one.texts_per_second is None:
        return wording.ABSENT
    return f"{one.texts_per_second:,.3g} (in batches of {one.batch_texts:,})"


def _notes(found: InferenceCost) -> list[str]:
    notes = []
    if found.why_not_merged is not None:
        notes.append(f"Not merged: {found.why_not_merged}")
    if found.as_fitted.latency_p99_seconds is None:
        n_texts = wording.counted(found.as_fitted.n_latencies or 0, "text")
        notes.append(f"{n_texts} fitted into the time: too few for every percentile.")
    disturbed = {one.unsteady for one in (found.as_fitted, found.merged) if one is not None and one.unsteady}
    notes += [f"Unsteady: {why}. Measure again on a quiet machine." for why in sorted(disturbed)]
    return notes
