"""Ray Tune runs the trials: it asks the sweeper for them and reports what they evaluate."""

from __future__ import annotations

import logging
import os
import tempfile
from typing import Any

from gpt2dist.ray_session import InThread
from gpt2dist.sweep.search.early_stopping import EarlyStopping
from gpt2dist.sweep.search.sweeper import Sweeper

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the table is ours; the new output ignores verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the rows are ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may end before its first evaluation
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
ACTOR_RESTARTS = 3
"Of the small process that watches a trial; the trial's own restarts are cluster.max_restarts."


def start_trials(sweeper: Sweeper) -> InThread:
    """Ray Tune over the trials; it is done once none runs and none will."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return InThread(lambda: _fit(sweeper), "ray-tune")


def _fit(sweeper: Sweeper) -> None:
    import ray
    from ray import tune

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    trainable = _trainable(ray.get_runtime_context().gcs_address)
    # Nothing of Tune's storage outlives the sweep: the journal and the run folders say it all.
    with tempfile.TemporaryDirectory(
        prefix="gpt2dist-tune-", ignore_cleanup_errors=True
    ) as storage:
        tune.Tuner(
            tune.with_resources(trainable, _resources(sweeper)),
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                num_samples=-1,
                search_alg=_searcher(sweeper),
                scheduler=_scheduler(sweeper),
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=sweeper.sweep.name,
                storage_path=storage,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=ACTOR_RESTARTS),
            ),
        ).fit()


def _resources(sweeper: Sweeper) -> dict[str, float]:
    """Of Tune's actor. Under Ray Train the workers ask for the GPUs themselves."""
    asked = sweeper.sweep.resources
    if not sweeper.sweep.in_processes:
        return {"CPU": 0.1}
    return {"CPU": float(asked.cpus)} | ({"GPU": asked.gpus} if asked.gpus else {})


def _trainable(ray_address: str) -> Any:
    from ray import tune

    class Watcher(tune.Trainable):
        """Watches the process of a trial; its step is an evaluation."""

        def setup(self, config: dict[str, Any]) -> None:
            self.process = config["process"]
            self.process.start(ray_address)

        def step(self) -> dict[str, Any]:
            return self.process.next_report()

        def cleanup(self) -> None:
            self.process.stop()

    return Watcher


class _NotRestored:
    """Tune copies and pickles what it is given, to restore it one day; ours comes from files."""

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce__(self) -> Any:
        return object, ()


def _searcher(sweeper: Sweeper) -> Any:
    from ray.tune.search import Searcher

    class Asker(_NotRestored, Searcher):
        """Tune's question for the next trial, handed to the sweeper."""

        def __init__(self) -> None:
            super().__init__(metric="val_loss", mode="min")
            self._numbers: dict[str, int] = {}

        def suggest(self, trial_id: str) -> Any:
            found = sweeper.next()
            if isinstance(found, str):
                return Searcher.FINISHED if found == "over" else None
            self._numbers[trial_id] = found.number
            return {"process": found}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            number, last = self._numbers[trial_id], result or {}
            if error:
                sweeper.ended(number, "failed", "the process that watched it died again and again")
            else:
                state = last.get("state", "interrupted")
                sweeper.ended(number, state, last.get("reason", ""))

        def save(self, checkpoint_path: str) -> None:
            """The journal is the memory."""

        def restore(self, checkpoint_path: str) -> None:
            """The journal is the memory."""

    return Asker()


def _scheduler(sweeper: Sweeper) -> Any:
    """What Tune asks after every evaluation; the rule itself knows trials by their records."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    rule = EarlyStopping(sweeper.sweep.scheduler, sweeper.records)

    def record_of(trial: Any) -> Any:
        return sweeper.record(trial.config["process"].number)

    class Early(_NotRestored, FIFOScheduler):
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            rule.add(record_of(trial))

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
            why = rule.verdict(record_of(trial), result)
            if why is None:
                return TrialScheduler.CONTINUE
            sweeper.stop_early(record_of(trial), why)
            return TrialScheduler.STOP

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            if result.get("state") == "finished":
                rule.finish(record_of(trial), result)

    return Early()
