"""Stores and disks that go wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OLD_STORE = Path(__file__).parent / "fixtures" / "store-schema-1.sqlite"


def on_a_small_disk(script: str, folder: Path, then: str = "true") -> str:
    """Run Python with `folder` a disk of its own of 400 kB, which is gone with the process; returns what it printed.

    `then` is run in a shell before it, with the folder as `$0`. Skips where this user may mount nothing, not even in a
    namespace of its own.
    """
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("no Linux with unshare: nothing to mount a small disk with")
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    mount = 'mount -t tmpfs -o size=400k tmpfs "$0"'
    if subprocess.run([*unshare, "sh", "-c", mount, str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    shell = [*unshare, "sh", "-c", f'{mount} && {then} && exec "$@"', str(folder)]
    done = subprocess.run(
        [*shell, sys.executable, "-c", script, str(folder)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
