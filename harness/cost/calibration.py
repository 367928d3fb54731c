"""Keep the findings of probes between commands; advice uses them to predict seconds on a device."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.records import is_accelerator
from harness.support import cache_folder, replacing

_FILE = "probes.json"


@dataclass(frozen=True)
class Probed:
    """Measured cost of one method on one device.

    Attributes:
        device: name of the device, as in records.
        backbone: name of the backbone; None for methods that use none.
        method, config: the configured method, as in cells.
        batch_size: rows of a step; None if `seconds` are per text.
        seq_len: tokens of a row.
        seconds: seconds of a step, or of a text.
        peak_bytes: peak memory above the baseline.
        made_at: time of the probe, in UTC.
        is_accelerator: whether the device is an accelerator.
    """

    device: str
    backbone: str | None
    method: str
    config: dict[str, Any]
    batch_size: int | None
    seq_len: int
    seconds: float
    peak_bytes: float
    made_at: str
    is_accelerator: bool = False


def probes(folder: Path | None = None) -> list[Probed]:
    """Return all stored findings, the latest last; none if the file is missing or cannot be read."""
    path = (folder or cache_folder()) / _FILE
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Version 0.1 did not store which device is an accelerator.
        return [Probed(**{"is_accelerator": is_accelerator(one["device"]), **one}) for one in kept]
    return []


def keep(found: Iterable[Probed], folder: Path | None = None) -> Path:
    """Store findings; they replace earlier findings of the same method on the same device and texts.

    Raises:
        StoreError: the file cannot be written.
    """
    folder = folder or cache_folder()

    def key(one: Probed) -> tuple[object, ...]:
        return one.device, one.backbone, one.method, json.dumps(one.config, sort_keys=True), one.seq_len

    merged = {key(one): one for one in probes(folder)}
    for one in found:
        merged.pop(key(one), None)
        merged[key(one)] = one
    with replacing(folder / _FILE) as temporary:
        temporary.write_text(json.dumps([asdict(one) for one in merged.values()], indent=1), "utf-8")
    return folder / _FILE
