"""Weights & Biases: offline runs in the folder `wandb`, unless WANDB_MODE says online."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from harness.tracking.tracker import TrackedRun, Tracker, trackers

_SETTINGS = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
"""Defaults of the environment: without a word from the user, nothing leaves this machine."""


class WeightsAndBiases(Tracker):
    """Runs of a project, which has the name of the suite; WANDB_PROJECT replaces it."""

    name: ClassVar[str] = "wandb"
    module: ClassVar[str] = "wandb"
    install: ClassVar[str] = "pip install 'adaptation-harness[track-wandb]'"

    def __init__(self) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import wandb

        self._wandb: Any = wandb
        self._folder = Path(os.environ.get("WANDB_DIR") or ".").resolve()

    def where(self) -> str:
        """Return the folder of offline runs, or the word online."""
        return str(self._folder / "wandb") if self._is_offline() else "wandb online"

    def send(self, run: TrackedRun) -> bool:
        """Keep a run under its key. A server refuses a second run with one key."""
        if next(self._folder.glob(f"wandb/*run-*-{run.key}"), None) is not None:
            return False
        if not self._is_offline() and self._is_online(run):
            return False
        made = self._wandb.init(
            project=self._project(run),
            id=run.key,
            name=run.name,
            dir=str(self._folder),
            config={**run.parameters, **run.tags},
            tags=[run.tags["status"]],
            resume="never",
            settings=self._wandb.Settings(
                console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, save_code=False
            ),
        )
        for point in run.curve:
            made.log({**point.values, "curve/step": point.step}, step=point.step)
        made.summary.update(run.metrics)
        made.finish(exit_code=0 if run.is_ok else 1)
        return True

    def _is_online(self, run: TrackedRun) -> bool:
        api = self._wandb.Api()
        try:
            api.run(f"{os.environ.get('WANDB_ENTITY') or api.default_entity}/{self._project(run)}/{run.key}")
        except (ValueError, self._wandb.errors.CommError):
            return False
        return True

    @staticmethod
    def _project(run: TrackedRun) -> str:
        return os.environ.get("WANDB_PROJECT") or run.group

    @staticmethod
    def _is_offline() -> bool:
        return os.environ.get("WANDB_MODE", "offline") != "online"


trackers.add(WeightsAndBiases.name, WeightsAndBiases)
