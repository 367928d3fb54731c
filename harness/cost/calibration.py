"""What probes have found of devices, kept between commands: advice carries seconds over to a device by it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.records import is_accelerator
from harness.support import cache_folder, write_whole

_FILE = "probes.json"


@dataclass(frozen=True)
class Probed:
    """One method on one device.

    Attributes:
        device: its name, as records carry it.
        backbone: its name; None for methods that use none.
        method, config: as cells carry them.
        batch_size: rows of a step; None where seconds are those of a text.
        seq_len: tokens of a row.
        seconds: of a step, or of a text.
        peak_bytes: of memory above the baseline.
        made_at: when, in UTC.
        is_accelerator: whether the device is one.
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
    """All that were kept, the latest last; none where the file is missing or cannot be read."""
    path = (folder or cache_folder()) / _FILE
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Version 0.1 did not say which device is an accelerator.
        return [Probed(**{"is_accelerator": is_accelerator(one["device"]), **one}) for one in kept]
    return []


def keep(found: Iterable[Probed], folder: Path | None = None) -> Path:
    """Add to what was kept; the same method on the same device and texts replaces what was found of it before.

    Raises:
        OSError: the file cannot be written.
    """
    folder = folder or cache_folder()

    def key(one: Probed) -> tuple[object, ...]:
        return one.device, one.backbone, one.method, json.dumps(one.config, sort_keys=True), one.seq_len

    merged = {key(one): one for one in probes(folder)}
    for one in found:
        merged.pop(key(one), None)
        merged[key(one)] = one
    write_whole(folder / _FILE, json.dumps([asdict(one) for one in merged.values()], indent=1))
    return folder / _FILE
