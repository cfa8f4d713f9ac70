"""Who is stopped early, and that a restart changes nothing about it."""

from __future__ import annotations

import pytest

from gpt2dist.sweep.search.early_stopping import EarlyStopping
from gpt2dist.sweep.spec.sweep import Scheduler
from gpt2dist.sweep.trial.trial import Trial, TrialRecord
from tests.sweep.sweeping import sweep_of


def trials_of(folder, **about):
    """Seven of them; `about`: a field of each record by its number."""
    sweep = sweep_of(folder)
    return [
        TrialRecord(
            Trial(sweep, number, number, {}, 0),
            folder,
            starts=1,
            **{name: values[number] for name, values in about.items()},
        )
        for number in range(7)
    ]


def race(rule, trials, rows, out):
    """Feeds the rows of those who are still in; returns what each reported, and who is out."""
    reported = {number: [] for number in range(len(trials))}
    out = set(out)
    for number, row in rows:
        if number not in out:
            reported[number].append(row)
            if rule.verdict(trials[number], row) is not None:
                out.add(number)
    return reported, out


def test_asha_stops_who_is_not_in_the_better_half_of_its_rung(tmp_path):
    trials = trials_of(tmp_path)
    rule = EarlyStopping(Scheduler("asha", "tokens", first=100, factor=2), trials)
    losses = [5.0, 4.0, 4.4, 4.6, 3.9, 4.5, 4.3]
    rows = [(n, {"tokens": 100, "val_loss": loss}) for n, loss in enumerate(losses)]
    _, out = race(rule, trials, rows, set())
    # By hand: a trial goes on if it is not above the median of those who came there before it.
    wanted = {n for n in range(1, 7) if losses[n] > sorted(losses[:n])[n // 2] and n % 2} | {
        n
        for n in range(2, 7, 2)
        if losses[n] > sum(sorted(losses[:n])[n // 2 - 1 : n // 2 + 1]) / 2
    }
    assert out == wanted == {3, 5}


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_resumed_scheduler_decides_as_if_it_had_never_been_interrupted(kind, tmp_path):
    settings = Scheduler(kind, "tokens", first=100, factor=2, peers=2)
    # Who starts badly falls fastest: the decisions come late and differ from rung to rung.
    rows = [
        (n, {"step": t, "tokens": t, "val_loss": 5 + 0.1 * n - t * (1 + n) / 4000, "time": t - n})
        for t in range(100, 1700, 100)
        for n in reversed(range(7))
    ]
    for cut in (20, 33, 50):
        trials = trials_of(tmp_path)
        whole = EarlyStopping(settings, trials)
        reported, out = race(whole, trials, rows[:cut], set())
        _, wanted = race(whole, trials, rows[cut:], out)
        states = ["stopped" if n in out else "running" for n in range(7)]
        again = trials_of(tmp_path, evaluations=reported, state=states)
        resumed = EarlyStopping(settings, again)
        assert race(resumed, again, rows[cut:], out)[1] == wanted
        assert out != wanted  # something was left to decide
