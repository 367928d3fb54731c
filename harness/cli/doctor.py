"""`harness doctor`: what is installed, what a run would use, what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.as_json import print_json
from harness.support import HarnessError, mask_store, plain

if TYPE_CHECKING:
    from harness.measure import Device

_PACKAGES = ("torch", "transformers", "datasets", "peft", "evaluate", "scikit-learn", "pandas", "sqlalchemy", "seaborn")

_OPTIONAL = {"bitsandbytes": "qlora and optimiser=adamw-8bit"}
"""Packages that are no requirement, and what needs them."""


def diagnose(suite: str | None, store: str, mirror: Path | None, *, as_json: bool = False) -> int:
    """Print the findings; return 1 if something requested is missing, else 0."""
    found = _findings(suite, store, mirror)
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 1 if found["missing"] else 0


def _findings(suite: str | None, store: str, mirror: Path | None) -> dict[str, Any]:
    import harness
    from harness.backbones import DEFAULT_BACKBONE, locate_backbone
    from harness.features import FeatureDisk
    from harness.measure import MemoryMeter, energy_counter, find_device, matrix_rate
    from harness.support import cache_folder, quiet_libraries

    quiet_libraries()
    device = find_device()
    precision = device.precision("auto")
    folder = cache_folder()
    energy = energy_counter(device.kind)
    with MemoryMeter() as meter:
        pass
    missing: list[str] = []
    default = None
    try:
        files = locate_backbone(DEFAULT_BACKBONE, mirror)
        default = {"backbone": files.name, "origin": files.origin}
    except HarnessError as error:
        missing.append(str(error))
    tasks, backbones = ([], []) if suite is None else _check_suite(suite, mirror, missing)
    return {
        "harness": harness.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "optional_packages": {name: _version(name) for name in _OPTIONAL},
        "device": device.name,
        "gpus": _gpus(device),
        "precision": precision,
        "has_native_bf16": device.native_bf16,
        "matrix_flops_per_second": matrix_rate(device, precision, folder),
        "energy_source": energy.source if energy.joules() is not None else None,
        "memory_method": meter.method or None,
        "feature_cache": {"folder": folder, "bytes": FeatureDisk(folder).size_bytes()},
        "store": {"store": mask_store(store), "exists": "://" in store or Path(store).exists()},
        "mirror": None if mirror is None else {"folder": mirror, "exists": mirror.is_dir()},
        "default_backbone": default,
        "tasks": tasks,
        "backbones": backbones,
        "missing": missing,
    }


def _gpus(device: Device) -> dict[str, Any] | None:
    """Return the driver, the GPUs that it lists, and those that a run would use; None without an NVIDIA driver."""
    from harness.measure import current_gpu, gpu_masks, nvidia_driver

    driver = nvidia_driver()
    if driver is None:
        return None
    gpu = current_gpu() if device.kind == "cuda" else None
    return {
        "driver": driver.version,
        "listed": [
            {"name": one.name, "memory_bytes": one.memory_bytes, "is_split": one.is_split} for one in driver.gpus
        ],
        "used": gpu_masks() if device.kind == "cuda" else [],
        "has_counters": gpu is not None,
    }


def _show(found: dict[str, Any]) -> None:
    table = Table(title="harness doctor", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        table.add_row(Text(plain(name)), Text(plain(value)))

    row("harness", f"{found['harness']}, Python {found['python']}, {found['system']}")
    row("packages", ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items()))
    for name, version in found["optional_packages"].items():
        row(name, version or f"not installed; only {_OPTIONAL[name]} need it")
    row("device", found["device"])
    if found["gpus"] is not None:
        _show_gpus(found["gpus"], row)
    native = "native here" if found["has_native_bf16"] else "not native here"
    row("precision", f"{found['precision']} (bfloat16 is {native})")
    rate = found["matrix_flops_per_second"]
    measured = "could not be measured" if rate is None else f"{rate / 1e9:,.0f} GFLOP/s in {found['precision']}"
    row("matrix products", f"{measured}, the reference for utilisation")
    row("energy by", found["energy_source"] or "no readable counter")
    row("peak memory by", found["memory_method"] or "nothing that works here")
    cache, store, mirror = found["feature_cache"], found["store"], found["mirror"]
    row("feature cache", f"{cache['folder']}: {cache['bytes'] / 1e6:.1f} MB")
    row("store", f"{store['store']}: {'exists' if store['exists'] else 'not made yet'}")
    row(
        "mirror",
        f"{mirror['folder']}: {'exists' if mirror['exists'] else 'no such folder'}" if mirror else "none named",
    )
    if found["default_backbone"] is not None:
        row("default backbone", "{backbone}: {origin}, weights verified".format(**found["default_backbone"]))
    for one in found["tasks"]:
        rows = f"{one['n_train']:,} training rows, {one['n_test']:,} test rows"
        row(f"task {one['task']}", f"{one['from']}: {rows}")
    for one in found["backbones"]:
        row(f"backbone of {', '.join(one['tasks'])}", f"{one['backbone']}: {one['origin']}")
    console = Console()
    console.print(table)
    for line in found["missing"]:
        console.print(f"Missing: {line}", style="red", markup=False, highlight=False)


def _show_gpus(gpus: dict[str, Any], row: Callable[[str, str], None]) -> None:
    for number, one in enumerate(gpus["listed"]):
        split = ", split into instances (MIG): name them in CUDA_VISIBLE_DEVICES" if one["is_split"] else ""
        row(f"GPU {number}", f"{one['name']}, {one['memory_bytes'] / 1e9:.0f} GB{split}")
    read = "read" if gpus["has_counters"] else "not read: pip install 'adaptation-harness[gpu]', or the driver refuses"
    row("driver", f"{gpus['driver']}; its counters of memory, energy and heat are {read}")
    used = ", ".join(f"cuda:{number} (CUDA_VISIBLE_DEVICES={mask})" for number, mask in enumerate(gpus["used"]))
    row("a run uses", used or "no GPU: torch finds none that it can use")


def _check_suite(
    suite: str, mirror: Path | None, missing: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tasks and backbones of a suite that are available; add to `missing` what is not."""
    from harness.backbones import locate_backbone
    from harness.planning import load_suite
    from harness.tasks import kinds

    loaded = load_suite(suite)
    tasks, backbones = [], []
    for name, spec in loaded.tasks.items():
        try:
            task = kinds.get(spec.kind).prepare(spec, mirror)
        except HarnessError as error:
            missing.append(str(error))
            continue
        origin = task.provenance.get("from")
        tasks.append({"task": name, "from": origin, "n_train": len(task.train), "n_test": task.n_test_available})
    for backbone in dict.fromkeys(one for name in loaded.tasks for one in loaded.backbones_of(name)):
        users = [name for name in loaded.tasks if backbone in loaded.backbones_of(name)]
        try:
            files = locate_backbone(backbone, mirror)
            files.require_tokenizer()
        except HarnessError as error:
            missing.append(f"{error} (Needed by {', '.join(users)}.)")
            continue
        backbones.append({"backbone": files.name, "origin": files.origin, "tasks": users})
    return tasks, backbones


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
