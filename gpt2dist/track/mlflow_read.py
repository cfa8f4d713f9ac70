"""Runs read back from an MLflow store or server: params, tags, last metrics and their history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import without_credentials
from gpt2dist.track.mlflow_quiet import one_line, quiet_client, quiet_mlflow
from gpt2dist.track.rows import ROW_COUNTS, ROW_METRICS, Row

RUNS_PER_REQUEST = 1000
RUNS_AT_ONCE = 8
"A history takes one request per run and metric, most of which is waiting for the server."


@dataclass(frozen=True)
class StoredRun:
    """One MLflow run as it is stored, of whatever program."""

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    "Last value of each."
    rows: tuple[Row, ...]
    "History of the metrics that were asked for, one row per step."


def stored_runs(uri: str, experiment: str, metrics: Sequence[str], tag: str) -> list[StoredRun]:
    """The runs of an experiment that carry `tag`, with the history of `metrics`.

    Raises BadInput naming the experiments there are, RunFailure when nobody answers.
    """
    quiet_mlflow()
    place = without_credentials(uri)
    try:
        client = quiet_client(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = sorted(other.name for other in client.search_experiments())
            raise BadInput(
                f"no experiment {experiment!r} at {place}; there are: {', '.join(names)}"
            )
        runs = [run for run in _all_runs(client, found.experiment_id) if tag in run.data.tags]
        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            return list(pool.map(lambda run: _stored(client, run, metrics), runs))
    except BadInput:
        raise
    except Exception as error:  # MLflow, SQLAlchemy, urllib3 and requests share no base class
        raise RunFailure(f"cannot read MLflow at {place}: {one_line(error)}") from None


def stored_rows(uri: str, run_id: str) -> list[Row]:
    """The rows of one run as MLflow holds them: without nulls, their time in whole milliseconds.

    Raises RunFailure when nobody answers.
    """
    quiet_mlflow()
    by_step: dict[int, Row] = {}
    try:
        client = quiet_client(uri)
        for key in client.get_run(run_id).data.metrics.keys() & set(ROW_METRICS):
            for metric in client.get_metric_history(run_id, key):
                row = by_step.setdefault(metric.step, {"step": metric.step})
                row[key] = int(metric.value) if key in ROW_COUNTS else metric.value
                row["time"] = metric.timestamp / 1000
    except Exception as error:  # MLflow, SQLAlchemy, urllib3 and requests share no base class
        place = without_credentials(uri)
        raise RunFailure(f"cannot read MLflow at {place}: {one_line(error)}") from None
    return [by_step[step] for step in sorted(by_step) if "tokens" in by_step[step]]


def _all_runs(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            max_results=RUNS_PER_REQUEST,
            page_token=token,
            order_by=["attributes.start_time ASC"],
        )
        yield from page
        token = page.token
        if not token:
            return


def _stored(client: Any, run: Any, metrics: Sequence[str]) -> StoredRun:
    by_step: dict[int, dict[str, Any]] = {}
    for key in metrics:
        if key in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, key):
                by_step.setdefault(metric.step, {"step": metric.step})[key] = metric.value
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
        rows=tuple(by_step[step] for step in sorted(by_step)),
    )
