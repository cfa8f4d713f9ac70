"""Which points of the space a sweep tries: all, drawn ones, or proposed ones that learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from gpt2dist.errors import BadInput
from gpt2dist.sweep.spec.sweep import LARGER_IS_BETTER, Listed, Sweep, Values

PROPOSALS_FOR_A_NEW_POINT = 200
"In a space of few points a sampler repeats itself; what is known already is not paid for again."


Stopped = tuple[int, float] | None
"""Tokens and validation loss at which a point was stopped early."""


class Proposals:
    """The points of a grid or of a random search, one after the other."""

    def __init__(self, points: Sequence[Values]) -> None:
        self._points = iter(points)

    def next(self) -> Values | None:
        """The next point, None when there are no more."""
        return next(self._points, None)

    def tell(self, values: Values, results: Sequence[float] | None, stopped: Stopped) -> None:
        """What a point came to, one number per objective; None when it did not get that far."""


class OptunaProposals(Proposals):
    """Optuna's TPE sampler, for one objective or several."""

    def __init__(self, sweep: Sweep, known: Sequence[Values]) -> None:
        optuna = _optuna(sweep.file)
        count = len(sweep.points)
        self._space, self._left = sweep.space, count - len(known)
        self._asked: list[tuple[Values, Any]] = []
        ways = ["maximize" if n in LARGER_IS_BETTER else "minimize" for n in sweep.objective]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar is marked experimental
            sampler = optuna.samplers.TPESampler(
                seed=sweep.search.seed + len(known),  # a resumed sampler must not repeat its draws
                n_startup_trials=max(3, min(10, count // 3)),
                constant_liar=True,
            )
        self._study = optuna.create_study(directions=ways, sampler=sampler)
        self._optuna = optuna
        for values in known:
            self._study.enqueue_trial(self._parameters(values))
            self._asked.append((values, self._ask()[1]))

    def next(self) -> Values | None:
        if self._left <= 0:
            return None
        for _ in range(PROPOSALS_FOR_A_NEW_POINT):
            values, trial = self._ask()
            if all(values != known for known, _ in self._asked):
                self._left -= 1
                self._asked.append((values, trial))
                return values
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._left = 0
        return None

    def tell(self, values: Values, results: Sequence[float] | None, stopped: Stopped) -> None:
        state = self._optuna.trial.TrialState
        trial = next(trial for known, trial in self._asked if known == values)
        if results is not None:
            self._study.tell(trial, list(results))
        elif stopped is not None and len(self._study.directions) == 1:
            trial.report(stopped[1], step=stopped[0])
            self._study.tell(trial, state=state.PRUNED)
        else:
            self._study.tell(trial, state=state.FAIL)

    def _ask(self) -> tuple[Values, Any]:
        trial = self._study.ask()
        values: Values = {}
        for dimension in self._space:
            name = ", ".join(dimension.paths)
            if isinstance(dimension, Listed):
                # Options are proposed by number: Optuna takes no tuples.
                at = trial.suggest_categorical(name, list(range(len(dimension.options))))
                values |= dict(zip(dimension.paths, dimension.options[at]))
            elif dimension.kind == "int":
                values[name] = trial.suggest_int(name, int(dimension.low), int(dimension.high))
            else:
                log = dimension.kind == "loguniform"
                drawn = trial.suggest_float(name, dimension.low, dimension.high, log=log)
                values[name] = dimension.rounded(drawn)
        return values, trial

    def _parameters(self, values: Values) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for dimension in self._space:
            name = ", ".join(dimension.paths)
            if isinstance(dimension, Listed):
                option = tuple(values[path] for path in dimension.paths)
                found[name] = dimension.options.index(option)
            else:
                found[name] = values[name]
        return found


def proposals_of(sweep: Sweep, known: Sequence[Values]) -> Proposals:
    """The points of a sweep after the `known` ones, which are never proposed again."""
    if sweep.search.kind == "optuna":
        return OptunaProposals(sweep, known)
    return Proposals(sweep.points[len(known) :])


def _optuna(file: str) -> Any:
    try:
        import optuna
    except ImportError:
        raise BadInput(
            f"search.kind=optuna needs Optuna: pip install 'gpt2dist[tune]' (in {file})"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
