"""`harness probe`: what a step of each method takes on this device, without data."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.support import UsageError, quiet_libraries
from harness.support import text as wording

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles
    from harness.measure import Device
    from harness.schedule import Stepped

PROBE_LIMIT_SECONDS = 120.0
"""Longest that one probe may take."""


@dataclass(frozen=True)
class ProbeOptions:
    """What `harness probe` was asked for."""

    backbone: str | None
    methods: str
    batch_size: int
    seq_len: int
    random_weights: bool
    device: str
    mirror: Path | None
    as_json: bool


def probe_command(options: ProbeOptions) -> int:
    """Probe, print, keep; 1 where nothing could be measured."""
    from harness.measure import check_name

    check_name(options.device)
    for name, value in (("--batch-size", options.batch_size), ("--seq-len", options.seq_len)):
        if value < 1:
            raise UsageError(f"{name} {value} was given; expected a whole number above 0.")
    quiet_libraries()
    from harness.cli.plan import memory_bytes_of
    from harness.measure import host_limit_bytes
    from harness.methods import parse_methods, split_top_level
    from harness.schedule import Limits, LocalWorkers, measure_steps

    methods = parse_methods(split_top_level(options.methods))
    host_bytes = host_limit_bytes()
    console = Console(highlight=False, stderr=options.as_json)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalWorkers(options.device, None, limits=Limits(PROBE_LIMIT_SECONDS, host_bytes)) as workers,
    ):
        workers.warm_up()
        files = _backbone(options, Path(folder)) if any(method.serves for method in methods) else None
        device = workers.device
        memory = memory_bytes_of(device, host_bytes)
        with console.status("Probing") as shown:
            found, notes = measure_steps(
                methods,
                files,
                workers,
                batch_size=options.batch_size,
                seq_len=options.seq_len,
                memory_bytes=memory,
                report=lambda name: shown.update(Text(f"Probing {name}")),
            )
    kept = _keep(found, files, device, options)
    if options.as_json:
        said = {"device": device.name, "memory_bytes": memory, "methods": [_plain(one) for one in found]}
        typer.echo(json.dumps(said, indent=1))
    else:
        _print(console, found, device.name, memory, options)
        for note in notes:
            console.print(f"Note: {note}", markup=False)
        if kept is not None:
            console.print(f"`harness advise` counts this device's seconds by it from now on ({kept}).", markup=False)
    return 0 if any(one.seconds is not None for one in found) else 1


def _backbone(options: ProbeOptions, folder: Path) -> BackboneFiles:
    from harness.backbones import DEFAULT_BACKBONE, SHAPES, copy_without_weights, locate_backbone, write_shape

    name = options.backbone or DEFAULT_BACKBONE
    if name in SHAPES:
        return replace(write_shape(name, folder / name), name=name)
    files = locate_backbone(name, options.mirror, weights=False)
    if not options.random_weights or not files.has_weights:
        return files
    bare = folder / "bare"
    copy_without_weights(files, bare)
    return replace(files, folder=bare, fingerprint=f"{files.fingerprint}/random")


def _keep(found: list[Stepped], files: BackboneFiles | None, device: Device, options: ProbeOptions) -> Path | None:
    from harness.cost import Probed, keep
    from harness.measure import now

    kept = [
        Probed(
            device=device.name,
            backbone=files.name if files is not None and one.method.serves else None,
            method=one.method.name,
            config=one.method.config(),
            batch_size=one.batch_size,
            seq_len=options.seq_len,
            seconds=one.seconds,
            peak_bytes=one.peak_bytes or 0.0,
            made_at=now(),
            is_accelerator=device.kind != "cpu",
        )
        for one in found
        if one.seconds is not None and one.seconds > 0
    ]
    try:
        return keep(kept) if kept else None
    except OSError:  # what was found is shown all the same
        return None


def _plain(one: Stepped) -> dict[str, object]:
    return {
        "method": one.method.name,
        "config": one.method.config(),
        "batch_size": one.batch_size,
        "seconds": one.seconds,
        "tokens_per_second": one.tokens_per_second,
        "utilisation": one.utilisation,
        "peak_bytes": one.peak_bytes,
        "largest_batch": one.largest_batch,
        "why_not": one.why_not,
    }


def _print(console: Console, found: list[Stepped], device: str, memory: float, options: ProbeOptions) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method")
    for name in ("seconds", "tokens/s", "of the device", "peak memory", "largest batch"):
        table.add_column(name, justify="right")
    for one in found:
        if one.why_not is not None:
            table.add_row(Text(one.method.name), Text(one.why_not.splitlines()[0], style="red"), "", "", "", "")
            continue
        each = "a step" if one.batch_size is not None else "a text"
        table.add_row(
            Text(one.method.name),
            f"{wording.seconds(one.seconds)} {each}",
            wording.number(one.tokens_per_second),
            wording.percent(one.utilisation),
            wording.memory(one.peak_bytes),
            "" if one.largest_batch is None else f"about {one.largest_batch:,}",
        )
    console.print(f"On {device}, batches of {options.batch_size} texts of {options.seq_len} tokens:", markup=False)
    console.print(table)
    said = "Of the device: operations counted, over the rate at which it was measured to multiply matrices."
    console.print(said, markup=False)
    console.print(f"Largest batch: by the straight line through two sizes, in {memory / 1e9:.1f} GB.", markup=False)
