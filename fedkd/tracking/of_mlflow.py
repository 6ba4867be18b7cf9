"""MLflow: a run in the store of `MLFLOW_TRACKING_URI`, or in a database of the run folder."""

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedkd.files import make_folder
from fedkd.optional import load
from fedkd.tracking.base import Figures, TrackedRun

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that does not answer is given up in seconds, not in the minutes of MLflow's own.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
_LONGEST, _MOST = 6000, 100
"""Characters of a parameter, and parameters in one call, that MLflow takes."""


class MlflowRun:
    """A run of MLflow, open."""

    def __init__(self, client: Any, run: Any, *, local: bool, private: bool) -> None:
        self._client, self._id = client, run.info.run_id
        self._leaves = local or not private
        # What was told before is not told twice: a history has every value.
        self._known = {
            (key, each.step): each.value
            for key in run.data.metrics
            for each in client.get_metric_history(self._id, key)
        }

    def log(self, stage: str, step: int, figures: Figures) -> None:
        """See `Tracker`."""
        self._log({_key(stage, name): value for name, value in figures.items()}, step)

    def end(self, figures: Figures, files: Sequence[Path], /, *, failed: bool) -> None:
        """See `Tracker`."""
        self._log({_key("", name): value for name, value in figures.items()}, 0)
        for file in files if self._leaves else files[:1]:
            self._client.log_artifact(self._id, str(file))
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _log(self, figures: Figures, step: int) -> None:
        entities = load("mlflow.entities", extra="track")
        now = int(1000 * time.time())
        new = {k: v for k, v in figures.items() if self._known.get((k, step)) != v}
        metrics = [entities.Metric(key, value, now, step) for key, value in new.items()]
        self._client.log_batch(self._id, metrics=metrics)


def start(run: TrackedRun) -> MlflowRun:
    """Open a run, or go on in that of a run folder that is resumed."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with _quietly():
        store = run.store / "mlflow"
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if local := not uri:
            make_folder(store)
            uri = f"sqlite:///{store.resolve()}/mlflow.db"
        client = load("mlflow", extra="track").MlflowClient(uri)
        kept, place_of_runs = run.kept("mlflow"), without_secrets(uri)
        if kept.get("uri") == place_of_runs:
            client.update_run(kept["run"], status="RUNNING")
            opened = client.get_run(kept["run"])
        else:
            place = f"{store.resolve().as_uri()}/artifacts" if local else None
            opened = client.create_run(_experiment(client, run.name, place), run_name=run.title)
            run.keep("mlflow", {"uri": place_of_runs, "run": opened.info.run_id})
        _tell_parameters(client, opened, run)
        return MlflowRun(client, opened, local=local, private=run.private)


def without_secrets(uri: str) -> str:
    """A store's address without user, password and query: a run's folder may be given away."""
    return re.sub(r"(?<=://)[^/?#]*@", "", re.split("[?#]", uri)[0])


def _experiment(client: Any, name: str, place: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=place))


def _tell_parameters(client: Any, opened: Any, run: TrackedRun) -> None:
    """Those that are new; a parameter never changes, so a resume's own are tags."""
    entities = load("mlflow.entities", extra="track")
    known = opened.data.params
    said = {_key("", key): str(value)[:_LONGEST] for key, value in run.parameters.items()}
    new = [entities.Param(key, value) for key, value in said.items() if key not in known]
    for some in _in_parts(new):
        client.log_batch(opened.info.run_id, params=some)
    for key, value in said.items():
        if known.get(key, value) != value:
            client.set_tag(opened.info.run_id, f"resumed.{key}", value)


def _in_parts(each: Sequence[Any]) -> Iterator[list[Any]]:
    return (list(each[at : at + _MOST]) for at in range(0, len(each), _MOST))


def _key(stage: str, name: str) -> str:
    """A name as MLflow allows it."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", f"{stage}.{name}" if stage else name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what MLflow and Alembic say of their own tables."""
    logs = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
