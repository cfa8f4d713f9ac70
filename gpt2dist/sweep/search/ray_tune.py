"""Ray Tune runs the trials: it asks the sweeper for them and reports what they evaluate."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from gpt2dist.ray_session import InThread
from gpt2dist.sweep.search.early_stopping import Known, is_comparable, judge_of, replay, stop_line
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.sweeper import Sweeper
from gpt2dist.sweep.trial.process import Order
from gpt2dist.sweep.trial.record import Start

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the screen is ours; the new output ignores verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the rows are ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial may end before its first evaluation
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
ACTOR_RESTARTS = 3
"Of the small process that watches a trial; the trial's own restarts are cluster.max_restarts."


def start_trials(sweeper: Sweeper, order_of: Callable[[Start], Order]) -> InThread:
    """Ray Tune over the trials; it is done once none runs and none will."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return InThread(lambda: _fit(sweeper, order_of), "ray-tune")


def _fit(sweeper: Sweeper, order_of: Callable[[Start], Order]) -> None:
    import ray
    from ray import tune

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    address = ray.get_runtime_context().gcs_address
    trainable = _trainable(None if sweeper.sweep.in_processes else address)
    # Nothing of Tune's storage outlives the sweep: the journal and the run folders say it all.
    with tempfile.TemporaryDirectory(
        prefix="gpt2dist-tune-", ignore_cleanup_errors=True
    ) as storage:
        tune.Tuner(
            tune.with_resources(trainable, _resources(sweeper.sweep)),
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                num_samples=-1,
                search_alg=_searcher(sweeper, order_of),
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


def _resources(sweep: Sweep) -> dict[str, float]:
    """Of Tune's actor. Under Ray Train the workers ask for the GPUs themselves."""
    if not sweep.in_processes:
        return {"CPU": 0.1}
    asked: dict[str, float] = {"CPU": float(sweep.resources.cpus)}
    return asked | ({"GPU": sweep.resources.gpus} if sweep.resources.gpus else {})


def _trainable(ray_address: str | None) -> Any:
    from ray import tune

    class Trial(tune.Trainable):
        """Watches one trial; its step is an evaluation."""

        def setup(self, config: dict[str, Any]) -> None:
            from gpt2dist.sweep.trial.follow import TrialProcess

            self.process = TrialProcess(Order(**config["order"]), ray_address)

        def step(self) -> dict[str, Any]:
            return self.process.next_report()

        def cleanup(self) -> None:
            self.process.stop()

    return Trial


class _NotRestored:
    """Tune copies and pickles what it is given, to restore it one day; ours comes from files."""

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce__(self) -> Any:
        return object, ()


def _searcher(sweeper: Sweeper, order_of: Callable[[Start], Order]) -> Any:
    from ray.tune.search import Searcher

    class Asker(_NotRestored, Searcher):
        """Tune's question for the next trial, handed to the sweeper."""

        def __init__(self) -> None:
            super().__init__(metric="val_loss", mode="min")
            self._numbers: dict[str, int] = {}

        def suggest(self, trial_id: str) -> Any:
            found = sweeper.next()
            if found == "over":
                return Searcher.FINISHED
            if found == "wait":
                return None
            assert isinstance(found, Start)
            self._numbers[trial_id] = found.record.trial.number
            return {"order": asdict(order_of(found))}

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
    """Tune's own scheduler behind ids that outlive the driver, told again what it saw before."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    judge = judge_of(sweeper.sweep.scheduler)
    settings = sweeper.sweep.scheduler
    known: dict[int, Known] = {}

    class Early(_NotRestored, FIFOScheduler):
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            number = trial.config["order"]["number"]
            if judge is not None and number not in known:
                known[number] = Known(number)
                judge.on_trial_add(tune_controller, known[number])

        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
            number = trial.config["order"]["number"]
            if judge is None or not is_comparable(result, settings):
                return TrialScheduler.CONTINUE
            decision = judge.on_trial_result(tune_controller, known[number], result)
            if decision != TrialScheduler.STOP:
                return TrialScheduler.CONTINUE
            sweeper.stop_early(number, stop_line(settings, result))
            return TrialScheduler.STOP

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
            number = trial.config["order"]["number"]
            finished = judge is not None and result.get("state") == "finished"
            if finished and is_comparable(result, settings):
                judge.on_trial_complete(tune_controller, known[number], result)

    if judge is not None:
        replay(judge, settings, sweeper.records, known)
    return Early()
