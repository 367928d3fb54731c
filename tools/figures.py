"""`python -m tools.figures`: make the figures that rest on the reference again: docs, findings, `reports/reference`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT = ("report", "--store", "results/reference", "--out", "reports/reference", "--figures", "png")


def main() -> int:
    """Write the pages and the report; `git diff` shows what has changed. Return 1 if one of the two fails."""
    shutil.rmtree(ROOT / "reports" / "reference", ignore_errors=True)
    for module, arguments in (("tools.docs", ()), ("harness", REPORT)):
        if subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False).returncode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
