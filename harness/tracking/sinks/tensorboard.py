"""TensorBoard: one folder of event files per record, under `runs` in the current folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar

from harness.support import text
from harness.tracking.tracker import TrackedRun, Tracker, trackers

_PARTIAL = ".partial-"
"""Beginning of the names of folders that are being written; a leftover one is written again."""


class Tensorboard(Tracker):
    """Runs as folders `runs/SUITE/NAME-KEY`, with scalars, parameters and tags."""

    name: ClassVar[str] = "tensorboard"
    module: ClassVar[str] = "tensorboardX"
    install: ClassVar[str] = "pip install 'adaptation-harness[track-tensorboard]'"

    def __init__(self) -> None:
        self._folder = Path("runs").resolve()
        self._folder.mkdir(exist_ok=True)

    def where(self) -> str:
        """Return the folder that `tensorboard --logdir` takes."""
        return str(self._folder)

    def send(self, run: TrackedRun) -> bool:
        """Keep a run: its folder appears whole or not at all."""
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        folder = self._folder / text.slug(run.group)
        if next(folder.glob(f"*{run.key}"), None) is not None:
            return False
        partial = folder / f"{_PARTIAL}{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        writer = SummaryWriter(str(partial))
        try:
            for summary in hparams(run.parameters, dict.fromkeys(run.metrics, 0.0)):
                writer.file_writer.add_summary(summary, walltime=run.began_ms / 1000)
            for name, words in run.tags.items():
                writer.add_text(name, words, walltime=run.began_ms / 1000)
            for point in run.curve:
                for name, value in point.values.items():
                    writer.add_scalar(name, value, point.step, walltime=point.time_ms / 1000)
            for name, value in run.metrics.items():
                writer.add_scalar(name, value, run.last_step, walltime=run.ended_ms / 1000)
        finally:
            writer.close()
        partial.rename(folder / f"{text.slug(run.name)}-{run.key}")
        return True


trackers.add(Tensorboard.name, Tensorboard)
