"""`harness probe`: the cost of a step of each method on this device, without data."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.as_json import print_json
from harness.support import StoreError, UsageError, quiet_libraries
from harness.support import text as wording

if TYPE_CHECKING:
    from harness.backbones import BackboneFiles
    from harness.measure import Device
    from harness.schedule import Stepped

PROBE_LIMIT_SECONDS = 120.0
"""Longest time of one probe."""


def probe_command(
    backbone: str | None,
    methods: str,
    batch_size: int,
    seq_len: int,
    random_weights: bool,
    device: str,
    mirror: Path | None,
    as_json: bool,
) -> int:
    """Probe, print and store the findings; return 1 if nothing could be measured."""
    from harness.measure import check_device_name

    check_device_name(device)
    for name, value in (("--batch-size", batch_size), ("--seq-len", seq_len)):
        if value < 1:
            raise UsageError(f"{name} {value} was given; expected a whole number above 0.")
    quiet_libraries()
    from harness.measure import host_limit_bytes, memory_bytes_of
    from harness.methods import parse_methods, split_top_level
    from harness.schedule import Limits, LocalWorkers, measure_steps

    parsed = parse_methods(split_top_level(methods))
    host_bytes = host_limit_bytes()
    console = Console(highlight=False, stderr=as_json)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalWorkers(device, None, limits=Limits(PROBE_LIMIT_SECONDS, host_bytes)) as workers,
    ):
        workers.warm_up()
        files = None
        if any(method.serves for method in parsed):
            files = _backbone(backbone, Path(folder), mirror, random_weights=random_weights)
        found_device = workers.device
        memory = memory_bytes_of(found_device, host_bytes)
        with console.status("Probing") as shown:
            found, notes = measure_steps(
                parsed,
                files,
                workers,
                batch_size=batch_size,
                seq_len=seq_len,
                memory_bytes=memory,
                report=lambda name: shown.update(Text(f"Probing {name}")),
            )
    kept = _keep(found, files, found_device, seq_len)
    if as_json:
        print_json(
            {
                "device": found_device.name,
                "memory_bytes": memory,
                "seq_len": seq_len,
                "methods": [_plain(one) for one in found],
                "notes": list(notes),
                "kept_in": kept,
            }
        )
    else:
        _print(console, found, found_device.name, memory, batch_size, seq_len)
        for note in notes:
            console.print(f"Note: {note}", markup=False)
        if kept is not None:
            console.print(
                f"`harness advise` now uses this probe to predict seconds on this device ({kept}).", markup=False
            )
    return 0 if any(one.seconds is not None for one in found) else 1


def _backbone(backbone: str | None, folder: Path, mirror: Path | None, *, random_weights: bool) -> BackboneFiles:
    from harness.backbones import BACKBONE_SHAPES, DEFAULT_BACKBONE, locate_backbone, write_shape

    name = backbone or DEFAULT_BACKBONE
    if name in BACKBONE_SHAPES:
        return replace(write_shape(name, folder / name), name=name)
    files = locate_backbone(name, mirror, weights=False)
    if not random_weights or not files.has_weights:
        return files
    bare = folder / "bare"
    files.copy_without_weights(bare)
    return replace(files, folder=bare, fingerprint=f"{files.fingerprint}/random")


def _keep(found: list[Stepped], files: BackboneFiles | None, device: Device, seq_len: int) -> Path | None:
    from harness.cost import Probed, keep
    from harness.measure import now

    kept = [
        Probed(
            device=device.name,
            backbone=files.name if files is not None and one.method.serves else None,
            method=one.method.name,
            config=one.method.config(),
            batch_size=one.batch_size,
            seq_len=seq_len,
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
    except StoreError:  # what was found is shown all the same
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


def _print(console: Console, found: list[Stepped], device: str, memory: float, batch_size: int, seq_len: int) -> None:
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
    console.print(f"On {device}, batches of {batch_size} texts of {seq_len} tokens:", markup=False)
    console.print(table)
    said = "The column 'of the device': counted operations, as a share of the measured rate of matrix multiplication."
    console.print(said, markup=False)
    console.print(f"Largest batch: extrapolated linearly from two sizes, in {memory / 1e9:.1f} GB.", markup=False)
