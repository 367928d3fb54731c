"""The script for a first GPU runs in small, every stage of it (`tools/first_gpu`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tools.first_gpu.stages import STAGES

ROOT = Path(__file__).resolve().parent.parent


def test_all_stages_run_in_small(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.first_gpu", "--dry", "--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text("utf-8").splitlines()]
    assert not [one for one in figures if "raised" in one or one.get("status", "ok") != "ok" or one.get("failed")]
    assert len({one["what"] for one in figures}) >= len(STAGES)
    assert "FIGURES" in done.stdout
