"""One training run as one MLflow run, whatever was interrupted: every MLflow call is in this file.

Only `MlflowClient` is used: the fluent API keeps global state and looks at git and the system.
Calls may raise anything MLflow, SQLAlchemy or the network can think of; the callers decide.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2dist.config.load import dump, flatten, identity, load_dumped, masked, to_tree
from gpt2dist.config.schema import Config
from gpt2dist.disk import write_atomically
from gpt2dist.human import without_credentials
from gpt2dist.run_files import CONFIG_FILE, CURVE_FILE, MLFLOW_FILE, SAMPLES_FILE, SUMMARY_FILE
from gpt2dist.track.ledger import OWN_MACHINE
from gpt2dist.track.mlflow_quiet import quiet_client
from gpt2dist.track.mlflow_uri import sqlite_folder
from gpt2dist.track.rows import Row
from gpt2dist.track.summary import PREDICTED
from gpt2dist.track.versions import versions

ARTIFACTS = (CONFIG_FILE, CURVE_FILE, SAMPLES_FILE, SUMMARY_FILE)
SUMMARY_METRICS = {
    "final_val_loss": "final_val_loss",
    "best_val_loss": "best_val_loss",
    "total_usd": "usd",
    "total_seconds": "seconds",
}
STATUS_OF_END = {
    "finished": "FINISHED",
    "budget": "FINISHED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
# mlflow.utils.validation: MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH (MLflow 3.17).
METRICS_PER_REQUEST = 1000
ENTRIES_PER_REQUEST = 100
PARAM_CHARACTERS = 500
"What MLflow servers of all ages accept; 3.17 itself takes 6,000."


class MlflowRun:
    """The MLflow run that belongs to a run folder; knows which steps MLflow has already."""

    def __init__(self, run_dir: Path, config: Config, uri: str) -> None:
        """Reopens the run named in `mlflow.json`, or creates one in `track.experiment`."""
        self._run_dir = run_dir
        self._uri = uri
        self._experiment = config.track.experiment
        self._client = quiet_client(uri)
        known = self._known_run()
        self.created = known is None
        run = known or self._create()
        self.run_id: str = run.info.run_id
        self.status: str = run.info.status
        self._params: dict[str, str] = run.data.params
        self._steps_by_key: dict[str, set[int]] = {
            key: {metric.step for metric in self._client.get_metric_history(self.run_id, key)}
            for key in run.data.metrics
        }
        self._remember()

    @property
    def last_step(self) -> int | None:
        """The last step MLflow knows."""
        return max((max(steps) for steps in self._steps_by_key.values() if steps), default=None)

    def describe(self, config: Config, tags: Mapping[str, str], attempt_id: str | None) -> None:
        """Logs the config as params and what computes the run as tags.

        MLflow never lets a param change. Where a resumed run differs (other GPUs, another budget)
        the params keep the first attempt's values and tag `placement.<attempt>` says the rest.
        """
        shown = flatten(masked(to_tree(config)))
        params = {key: str(value)[:PARAM_CHARACTERS] for key, value in shown.items()}
        fresh = {key: value for key, value in params.items() if key not in self._params}
        known = self._params | fresh
        changed = {key: value for key, value in params.items() if known[key] != value}
        about = {"identity": identity(config), "recipe": config.recipe}
        about |= {f"version.{name}": text for name, text in versions().items() if text}
        about |= tags
        if changed and attempt_id:
            about[f"placement.{attempt_id}"] = json.dumps(changed)
        self._log_params_and_tags(fresh, about)
        self._params = known

    def send_rows(self, rows: Sequence[Row]) -> int:
        """Sends what MLflow does not have yet and returns the number of rows it took.

        Steps that were rolled back and trained again keep their first record: their losses are
        the same, and MLflow cannot take a value back.
        """
        from mlflow.entities import Metric

        fresh = [(row, values) for row in rows if (values := self._new_values(row))]
        # A row is never split over requests, so that it arrives whole or not at all.
        widest = max((len(values) for _, values in fresh), default=1)
        for batch in _chunks(fresh, max(1, METRICS_PER_REQUEST // widest)):
            metrics = [
                Metric(key=key, value=value, timestamp=_milliseconds(row), step=row["step"])
                for row, values in batch
                for key, value in values.items()
            ]
            self._client.log_batch(self.run_id, metrics=metrics)
            for metric in metrics:
                self._steps_by_key.setdefault(metric.key, set()).add(metric.step)
        if fresh:
            self._remember()
        return len(fresh)

    def send_summary(self) -> str | None:
        """Logs what the run came to as metrics at its last step: loss, dollars, predictions.

        Returns how it ended, a key of STATUS_OF_END; None where there is no summary yet.
        """
        path = self._run_dir / SUMMARY_FILE
        if not path.is_file():
            return None
        summary = json.loads(path.read_text())
        values = {key: summary.get(field) for key, field in SUMMARY_METRICS.items()}
        if summary.get("price_source") == OWN_MACHINE:
            del values["total_usd"]
        predicted = summary.get("predicted") or {}
        values |= {f"predicted_{name}": predicted.get(name) for name in PREDICTED}
        self.send_rows([{"step": summary.get("steps", 0), **values}])
        return summary.get("ended")

    def send_artifacts(self) -> list[str]:
        """Uploads the files of the run that exist; the same names again replace the old ones."""
        names = [name for name in ARTIFACTS if (self._run_dir / name).is_file()]
        for name in names:
            if name == CONFIG_FILE:  # those of earlier versions may hold a password
                config = dump(load_dumped(self._run_dir / name))
                self._client.log_text(self.run_id, config, name)
            else:
                self.send_file(self._run_dir / name)
        return names

    def send_figures(self, values: Mapping[str, float]) -> None:
        """Logs single figures, without a step."""
        for key, value in values.items():
            self._client.log_metric(self.run_id, key, value)

    def tag(self, tags: Mapping[str, str]) -> None:
        self._log_params_and_tags({}, tags)

    def send_file(self, path: Path) -> None:
        self._client.log_artifact(self.run_id, str(path))

    def set_status(self, status: str) -> None:
        """RUNNING, or the end: FINISHED, FAILED or KILLED."""
        if status == self.status:
            return
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status=status)
        self.status = status

    def _known_run(self) -> Any:
        """The run of `mlflow.json` if this store has it and nobody deleted it there."""
        from mlflow.exceptions import MlflowException

        try:
            record = json.loads((self._run_dir / MLFLOW_FILE).read_text())
            run_id, place = record["run_id"], (record["uri"], record["experiment"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if place != (without_credentials(self._uri), self._experiment):
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _create(self) -> Any:
        tags = {"mlflow.source.name": "gpt2dist", "mlflow.source.type": "LOCAL"}
        return self._client.create_run(
            self._experiment_id(), run_name=self._run_dir.resolve().name, tags=tags
        )

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            # Without this MLflow puts artifacts under whatever directory the process runs in.
            folder = sqlite_folder(self._uri)
            location = (folder / "mlflow-artifacts").as_uri() if folder else None
            try:
                return self._client.create_experiment(self._experiment, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another trial of the same sweep was faster.
            experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None or experiment.lifecycle_stage != "active":
            raise ValueError(
                f"experiment {self._experiment!r} was deleted there; "
                "restore it or choose another track.experiment"
            )
        return experiment.experiment_id

    def _log_params_and_tags(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        for kind, entry, items in (("params", Param, params), ("tags", RunTag, tags)):
            for entries in _chunks([entry(*item) for item in items.items()], ENTRIES_PER_REQUEST):
                self._client.log_batch(self.run_id, **{kind: entries})

    def _new_values(self, row: Row) -> dict[str, float]:
        return {
            key: float(value)
            for key, value in row.items()
            if key not in ("step", "time")
            and isinstance(value, (int, float))
            and row["step"] not in self._steps_by_key.get(key, ())
        }

    def _remember(self) -> None:
        record = {
            "uri": without_credentials(self._uri),
            "experiment": self._experiment,
            "run_id": self.run_id,
            "synced_step": self.last_step,
        }
        text = json.dumps(record, indent=1) + "\n"
        write_atomically(self._run_dir / MLFLOW_FILE, text, make_folder=False)


def _chunks(entries: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


def _milliseconds(row: Row) -> int:
    return round((row.get("time") or time.time()) * 1000)
