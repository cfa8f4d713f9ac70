"""How long each kind of work takes here, and so what may pass until the next step is saved."""

from __future__ import annotations

import math

from gpt2dist.config.schema import Config

MARGIN = 2.0
"A piece of work may be slower than every one before it: a budget must hold all the same."


class Pace:
    """The longest seconds of each kind of work in this process; 0 where there was none yet."""

    def __init__(self, config: Config) -> None:
        self._config = config
        minutes = config.checkpoint.every_minutes
        self.save_every_seconds = math.inf if minutes is None else 60 * minutes
        self._steps = 0
        self._step = self._evaluation = self._sample = 0.0
        self._save: float | None = None

    def stepped(self, seconds: float) -> None:
        self._steps += 1
        # The first step of a process warms caches and compilers up: it counts until the second.
        self._step = seconds if self._steps <= 2 else max(self._step, seconds)

    def saved(self, seconds: float) -> None:
        self._save = max(self._save or 0.0, seconds)

    def evaluated(self, seconds: float) -> None:
        self._evaluation = max(self._evaluation, seconds)

    def sampled(self, seconds: float) -> None:
        self._sample = max(self._sample, seconds)

    @property
    def must_learn_save(self) -> bool:
        """Whether a limit of dollars or hours needs a first save, to know what the last takes."""
        budget = self._config.budget
        return self._save is None and not (budget.usd is None and budget.hours is None)

    @property
    def save_again_seconds(self) -> float:
        """After a refused save: a tenth of the time for tries, and four while there is patience."""
        quarter = 60 * self._config.checkpoint.storage_patience_minutes / 4
        return max(1.0, min(10 * (self._save or 0.0), quarter))

    def until_saved(self, next_step: int) -> float:
        """Seconds that step may take with what is due after it and the save that follows."""
        config, last = self._config, next_step == self._config.total_steps
        seconds = self._step + (self._save or 0.0)
        if last or is_due(next_step, config.eval.every_steps):
            seconds += self._evaluation or self._unseen_evaluation
        if last or is_due(next_step, config.eval.sample_every_steps):
            seconds += self._sample or self._evaluation or self._unseen_evaluation
        return MARGIN * seconds

    @property
    def _unseen_evaluation(self) -> float:
        """As if its tokens were trained on, which takes longer than reading them."""
        return self._step * self._config.eval.tokens / self._config.train.batch_tokens


def is_due(step: int, every_steps: int | None) -> bool:
    return every_steps is not None and step % every_steps == 0
