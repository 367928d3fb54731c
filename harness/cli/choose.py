"""`harness choose`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.records import Record
from harness.support import describe_duration, parse_duration, quiet_libraries
from harness.support import text as wording

if TYPE_CHECKING:
    from harness.choose import Chosen, Tried


@dataclass(frozen=True)
class ChooseOptions:
    """What `harness choose` was asked for, as the command line says it."""

    data: Path
    text: str
    label: str
    test: Path | None
    within: str
    save: Path
    peak_memory: str | None
    methods: str | None
    backbone: str | None
    device: str
    store: str
    mirror: Path | None
    reference: bool
    metric: str | None = None
    max_length: int | None = None
    strict: bool = False


def choose_command(options: ChooseOptions) -> int:
    """Choose, show the reasoning and the result; the exit code."""
    began = time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())
    from harness.choose import check_save_folder, check_time, choose
    from harness.measure import check_name
    from harness.records import parse_bytes

    within = parse_duration(options.within, "--within")
    check_time(within)
    check_save_folder(options.save)
    check_name(options.device)
    memory = options.peak_memory
    most = None if memory is None else parse_bytes(memory, "--peak-memory")
    quiet_libraries()
    from harness.backbones import DEFAULT_BACKBONE, locate_backbone
    from harness.cli.request import own_task
    from harness.cli.run import print_data
    from harness.measure import host_limit_bytes
    from harness.methods import parse_methods, split_top_level
    from harness.schedule import Limits, LocalWorkers
    from harness.store import Store, reference_records
    from harness.support import cache_folder
    from harness.tasks import kinds

    asked = None if options.methods is None else parse_methods(split_top_level(options.methods))
    console = Console(highlight=False)
    say = _teller(console, began)
    with LocalWorkers(options.device, cache_folder(), limits=Limits(None, host_limit_bytes())) as workers:
        workers.warm_up()  # it imports what it needs while the data are read
        spec = own_task(
            options.data,
            options.text,
            options.label,
            options.test,
            metric=options.metric,
            max_length=options.max_length,
            strict=options.strict,
        )
        files = None
        if asked is None or any(method.serves for method in asked):
            files = locate_backbone(options.backbone or DEFAULT_BACKBONE, options.mirror)
            files.require_tokenizer()
        task = kinds.get(spec.kind).prepare(spec, options.mirror)
        print_data(console, task, files)

        def prior() -> list[Record]:
            return list(reference_records()) if options.reference else []

        with Store.open(options.store) as store:
            chosen = choose(
                task,
                files,
                workers,
                store,
                options.save,
                within=within,
                began=began,
                methods=asked,
                most_bytes=most,
                prior=prior,
                say=say,
            )
            name = store.name
        _show(console, chosen, options, name)
    return 0


def _teller(console: Console, began: float) -> Callable[[str], None]:
    def say(line: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {line}", markup=False, soft_wrap=True)

    return say


def _show(console: Console, chosen: Chosen, options: ChooseOptions, store: str) -> None:
    from harness.choose import validated

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "validation", "fits", "labels used", "by the clock"):
        table.add_column(name, justify="left" if name == "method" else "right")
    by_label: dict[str, list[Tried]] = {}
    for tried in chosen.tried:
        by_label.setdefault(tried.candidate.label, []).append(tried)
    shown = {label: found[0] for label, fits in by_label.items() if (found := validated(fits)) is not None}
    for label in sorted(by_label, key=lambda label: -shown.get(label, -math.inf)):
        fits, score = by_label[label], shown.get(label)
        table.add_row(
            Text(label, style="bold green" if label == chosen.method else ""),
            fits[-1].record.status.replace("_", " ") if score is None else f"{score:.3f}",
            str(len(fits)),
            f"{max(tried.n_train for tried in fits):,.0f}",
            wording.seconds(sum(tried.seconds for tried in fits)),
        )
    console.print(table)
    reached = chosen.score
    spread = "" if reached.low is None else f" (95 %: {reached.low:.3f} to {reached.high:.3f})"
    console.print(
        Text.assemble(
            (chosen.method, "bold green"),
            f": {reached.metric} {reached.value:.3f}{spread} on {reached.n_test:,} test rows that no decision has "
            "seen.",
        ),
        soft_wrap=True,
    )
    if chosen.why is not None:
        console.print(chosen.why, markup=False, soft_wrap=True)
    console.print(
        f"Model: {options.save}  All that was tried: {store}  Took {describe_duration(chosen.seconds)}.\n"
        f"harness predict --model {options.save} --data new.csv --text {options.text} --out out.csv",
        markup=False,
        soft_wrap=True,
    )
