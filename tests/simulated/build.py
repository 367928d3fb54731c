"""Build the library of the simulated device, once for each version of it and of torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "guard.cpp"


def missing() -> str | None:
    """Return why the library cannot be built on this machine; None if it can."""
    if shutil.which("g++") is None:
        return "the simulated GPU needs a C++ compiler: g++ is not installed"
    return None


def build(folder: Path) -> Path:
    """Return the library, built in `folder` unless it lies there."""
    key = hashlib.sha256(SOURCE.read_bytes() + importlib.metadata.version("torch").encode()).hexdigest()[:16]
    library = folder / f"simulated-{key}.so"
    if not library.is_file():
        unfinished = library.with_suffix(f".{os.getpid()}")
        subprocess.run([*_command(), "-o", str(unfinished)], check=True, capture_output=True, text=True)
        unfinished.replace(library)  # two processes may build at a time
    return library


def environment(library: Path, *, devices: int = 1, capacity: int | None = None) -> dict[str, str]:
    """Return the variables of a process that has the simulated device.

    Args:
        library: result of `build`.
        devices: number of devices.
        capacity: bytes of each device above which it runs out of memory; None is 24 GiB.
    """
    found = {**os.environ, "SIMULATED_LIBRARY": str(library), "SIMULATED_DEVICES": str(devices)}
    if capacity is not None:
        found["SIMULATED_CAPACITY"] = str(capacity)
    paths = [str(HERE / "start"), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    return {**found, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _command() -> list[str]:
    """Return the compiler's command line without its output; torch's headers want C++20."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    torch = Path(spec.origin).parent
    folders = [torch / "include", torch / "include" / "torch" / "csrc" / "api" / "include"]
    flags = ["-shared", "-fPIC", "-O0", "-std=c++20", "-w", *(f"-I{folder}" for folder in folders)]
    return ["g++", *flags, str(SOURCE), f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
