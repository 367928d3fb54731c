"""MLflow: the server or the store that MLFLOW_TRACKING_URI names, or MLflow's own default in the current folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from harness.tracking.tracker import TrackedRun, Tracker, trackers

_T = TypeVar("_T")

_RECORD_TAG = "harness.record"

_MOST_METRICS = 500
"""Metrics of one request; MLflow allows 1,000 entities."""

_MOST_PARAMETERS = 100
"""Parameters and tags of one request that MLflow allows."""

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Defaults of MLflow's environment: nothing goes to anybody but the tracking server, and a dead server is noticed."""


class Mlflow(Tracker):
    """Runs of an MLflow experiment, which has the name of the suite."""

    name: ClassVar[str] = "mlflow"
    module: ClassVar[str] = "mlflow"
    install: ClassVar[str] = "pip install 'adaptation-harness[track-mlflow]'"

    def __init__(self) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient, get_tracking_uri

        self._client = MlflowClient()
        self._uri = str(get_tracking_uri())
        self._experiments: dict[str, str] = {}

    def where(self) -> str:
        """Return the tracking server or store."""
        return self._uri

    def send(self, run: TrackedRun) -> bool:
        """Keep a run. One that was interrupted while it was kept is completed, and not kept twice."""
        from mlflow.entities import Metric, Param, RunTag

        client, experiment = self._client, self._experiment(run.group)
        found = client.search_runs([experiment], f"tags.`{_RECORD_TAG}` = '{run.key}'", max_results=1)
        if found and found[0].info.status != "RUNNING":
            return False
        if found:
            run_id = found[0].info.run_id
        else:
            made = client.create_run(
                experiment, start_time=run.began_ms or None, run_name=run.name, tags={_RECORD_TAG: run.key}
            )
            run_id = made.info.run_id
        # Times are the record's own, so that figures that are sent again replace themselves.
        figures = [Metric(name, value, run.ended_ms, run.last_step) for name, value in run.metrics.items()]
        for point in run.curve:
            figures += [Metric(name, value, point.time_ms, point.step) for name, value in point.values.items()]
        for some in _chunks(figures, _MOST_METRICS):
            client.log_batch(run_id, metrics=some)
        for some in _chunks([Param(name, str(value)) for name, value in run.parameters.items()], _MOST_PARAMETERS):
            client.log_batch(run_id, params=some)
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in run.tags.items()])
        client.set_terminated(run_id, "FINISHED" if run.is_ok else "FAILED", run.ended_ms or None)
        return True

    def _experiment(self, name: str) -> str:
        """Return the id of the experiment that MLFLOW_EXPERIMENT_NAME or the suite names; make it if missing."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            self._experiments[name] = self._client.create_experiment(name) if found is None else found.experiment_id
        return self._experiments[name]


def _chunks(items: Sequence[_T], size: int) -> Iterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


trackers.add(Mlflow.name, Mlflow)
