"""The command line; see the package."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path


def main() -> int:
    """Run the stages that are named, or all; return 1 if one of them raised."""
    import tools.first_gpu as package

    parser = argparse.ArgumentParser(
        prog="python -m tools.first_gpu", description=package.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stages", nargs="*", help="names of stages; all by default")
    parser.add_argument("--dry", action="store_true", help="run in small, to see that it runs")
    parser.add_argument("--seconds", type=float, default=450.0, help="time for all stages (450)")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder of figures.jsonl")
    asked = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HARNESS_CACHE", str(Path(folder) / "cache"))
        warnings.simplefilter("ignore")
        from tools.first_gpu.stages import STAGES
        from tools.first_gpu.trial import Trial

        trial = Trial(Path(folder), asked.out, is_dry=asked.dry, seconds=asked.seconds)
        has_failed = False
        for name, (stage, seconds) in STAGES.items():
            if asked.stages and name not in asked.stages:
                continue
            if trial.seconds_left < seconds * (0.0 if asked.dry else 0.7):
                trial.say(name, skipped=f"{trial.seconds_left:.0f} s left, {seconds} wanted")
                continue
            try:
                stage(trial)
            except Exception as error:  # noqa: BLE001 - the other stages are worth having
                has_failed = True
                trial.say(name, raised=f"{type(error).__name__}: {error}"[:300])
                traceback.print_exc(limit=-6)
            trial.forget_backbones()
        trial.print_table()
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
