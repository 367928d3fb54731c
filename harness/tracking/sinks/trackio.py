"""trackio: a project in the folder that TRACKIO_DIR names, or in trackio's default folder. No server is started."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

from harness.tracking.tracker import TrackedRun, Tracker, trackers

_RECORD = "harness.record"


class Trackio(Tracker):
    """Runs of a trackio project, which has the name of the suite."""

    name: ClassVar[str] = "trackio"
    module: ClassVar[str] = "trackio"
    install: ClassVar[str] = "pip install 'adaptation-harness[track-trackio]'"

    def __init__(self) -> None:
        if not any(os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")):
            os.environ["HF_HUB_OFFLINE"] = "1"  # the runs stay on this machine
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import trackio
        from trackio.utils import TRACKIO_DIR

        self._trackio: Any = trackio
        self._folder = str(TRACKIO_DIR)
        self._known: dict[str, set[str]] = {}

    def where(self) -> str:
        """Return the Space, the server or the folder."""
        return os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL") or self._folder

    def send(self, run: TrackedRun) -> bool:
        """Keep a run."""
        project = re.sub(r"[^\w.-]", "-", run.group, flags=re.ASCII)
        known = self._keys(project)
        if run.key in known:
            return False
        # trackio warns where it cannot keep figures, and goes on; so what it kept is read back.
        made = self._trackio.init(
            project=project,
            name=run.name,
            config={**run.parameters, **run.tags, _RECORD: run.key},
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        for point in run.curve:
            made.log(dict(point.values), step=point.step)
        made.log(dict(run.metrics), step=run.last_step)
        self._trackio.finish()
        if self._is_local() and run.key not in self._read(project):
            raise OSError(f"trackio kept nothing of the run in {self._folder}")
        known.add(run.key)
        return True

    def _keys(self, project: str) -> set[str]:
        """Return the keys of the runs of a project on this machine."""
        if project not in self._known:
            self._known[project] = self._read(project)
        return self._known[project]

    def _read(self, project: str) -> set[str]:
        try:
            runs = list(self._trackio.Api().runs(project))
        except ValueError:  # there is no such project yet
            return set()
        return {str(config[_RECORD]) for run in runs if (config := run.config) and _RECORD in config}

    @staticmethod
    def _is_local() -> bool:
        return not any(os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"))


trackers.add(Trackio.name, Trackio)
