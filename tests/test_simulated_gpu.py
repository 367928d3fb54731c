"""All methods on a simulated GPU, in a process that has one (`tests/simulated`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated.build import build, environment, missing

ROOT = Path(__file__).resolve().parent.parent
INSIDE = ROOT / "tests" / "simulated"


@pytest.fixture(scope="session")
def library(pytestconfig: pytest.Config) -> Path:
    """The library of the simulated device, built once and kept in pytest's cache."""
    why = missing()
    if why is not None:
        pytest.skip(why)
    return build(pytestconfig.cache.mkdir("simulated"))


def run_inside(library: Path, *options: str, devices: int = 1) -> None:
    """Run tests of the folder in a process that has the device; fail with its output if one of them fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=0", *options],
        env=environment(library, devices=devices), cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    print(done.stdout.splitlines()[-1])


def test_the_simulation_is_faithful(library: Path) -> None:
    run_inside(library, str(INSIDE / "test_device.py"), devices=2)


@pytest.mark.timeout(900)
def test_cells_misplace_nothing_and_wait_for_nothing(library: Path) -> None:
    modules = sorted(path for path in INSIDE.glob("test_*.py") if path.name != "test_device.py")
    run_inside(library, *map(str, modules))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_method_on_every_kind(library: Path) -> None:
    run_inside(library, str(INSIDE), "-m", "slow")
