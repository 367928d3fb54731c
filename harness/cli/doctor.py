"""`harness doctor`: what is installed, what a run would use, what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.support import HarnessError, mask_store, plain

_PACKAGES = ("torch", "transformers", "datasets", "peft", "evaluate", "scikit-learn", "pandas", "sqlalchemy", "seaborn")


def diagnose(suite: str | None, store: str, mirror: Path | None) -> int:
    """Print the findings; return 1 if something requested is missing, else 0."""
    import harness
    from harness.backbones import DEFAULT_BACKBONE, locate_backbone
    from harness.features import FeatureDisk
    from harness.measure import MemoryMeter, energy_counter, find_device, matrix_rate
    from harness.support import cache_folder, quiet_libraries

    quiet_libraries()
    console = Console()
    table = Table(title="harness doctor", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        table.add_row(Text(plain(name)), Text(plain(value)))

    row("harness", f"{harness.__version__}, Python {platform.python_version()}, {platform.system()}")
    row("packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    device = find_device()
    row("device", device.name)
    native = "native here" if device.native_bf16 else "not native here"
    row("precision", f"{device.precision('auto')} (bfloat16 is {native})")
    folder = cache_folder()
    rate = matrix_rate(device, device.precision("auto"), folder)
    said = "could not be measured now" if rate is None else f"{rate / 1e9:,.0f} GFLOP/s in {device.precision('auto')}"
    row("matrix products", f"{said}, the reference for utilisation")
    energy = energy_counter(device.kind)
    row("energy by", energy.source if energy.joules() is not None else "no readable counter")
    with MemoryMeter() as meter:
        pass
    row("peak memory by", meter.method or "nothing that works here")
    row("feature cache", f"{folder}: {FeatureDisk(folder).size_bytes() / 1e6:.1f} MB")
    row("store", f"{mask_store(store)}: {'there' if '://' in store or Path(store).exists() else 'not made yet'}")
    row("mirror", f"{mirror}: {'there' if mirror.is_dir() else 'no such folder'}" if mirror else "none named")
    missing = []
    try:
        files = locate_backbone(DEFAULT_BACKBONE, mirror)
        row("default backbone", f"{files.name}: {files.origin}, weights verified")
    except HarnessError as error:
        missing.append(str(error))
    if suite is not None:
        missing += _check_suite(suite, mirror, row)
    console.print(table)
    for line in missing:
        console.print(f"Missing: {line}", style="red", markup=False, highlight=False)
    return 1 if missing else 0


def _check_suite(suite: str, mirror: Path | None, row: Callable[[str, str], None]) -> list[str]:
    from harness.backbones import locate_backbone
    from harness.planning import load_suite
    from harness.tasks import kinds

    loaded = load_suite(suite)
    missing = []
    for name, spec in loaded.tasks.items():
        try:
            task = kinds.get(spec.kind).prepare(spec, mirror)
            row(f"task {name}", f"{task.provenance.get('from')}: {len(task.train)} + {task.n_test_available} rows")
        except HarnessError as error:
            missing.append(str(error))
    for backbone in dict.fromkeys(loaded.backbone_of(name) for name in loaded.tasks):
        tasks = ", ".join(name for name in loaded.tasks if loaded.backbone_of(name) == backbone)
        try:
            files = locate_backbone(backbone, mirror)
            files.require_tokenizer()
            row(f"backbone of {tasks}", f"{files.name}: {files.origin}")
        except HarnessError as error:
            missing.append(f"{error} (Of {tasks}.)")
    return missing


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
