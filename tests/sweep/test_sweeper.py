"""Who may start with how much, who is stopped, what is proposed: without any process."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput
from gpt2dist.plan.placement import Machine
from gpt2dist.plan.planner import plan_on
from gpt2dist.sweep.cost.amounts import Amounts, grant, limits
from gpt2dist.sweep.cost.estimate import plan_sweep, planned_trials, require_affordable
from gpt2dist.sweep.cost.trial_cost import (
    Price,
    Rent,
    expected_seconds,
    price_on,
    rent_here,
    rent_on,
)
from gpt2dist.sweep.journal import Journal, read_journal
from gpt2dist.sweep.machines import Machines
from gpt2dist.sweep.report.results import PointResult, pareto
from gpt2dist.sweep.search.early_stopping import judge_of, replay
from gpt2dist.sweep.search.points import points_of
from gpt2dist.sweep.spec.schema import Scheduler, SweepBudget
from gpt2dist.sweep.trial.run_folder import TrialFolder
from tests.sweep.sweeping import sweep_of


def test_grants_never_pass_the_budget_whatever_trials_spend_of_them():
    draw = random.Random(0)
    for _ in range(300):
        limit = limits(SweepBudget(usd=draw.uniform(1, 9), tokens=draw.randint(10, 90)))
        slots, running, spent = draw.randint(1, 4), [], Amounts()
        for _ in range(40):
            used = spent
            for granted in running:
                used += granted
            if len(running) < slots:
                need = Amounts(draw.uniform(0, 3), draw.uniform(0, 3), draw.uniform(0, 30))
                given = grant(limit.without(used), need, slots - len(running))
                if given is not None:
                    assert given.covers(need)
                    running.append(given)
            if running and draw.random() < 0.5:
                # At worst a trial spends all it was granted.
                spent += running.pop().times(draw.choice([draw.random(), 1.0]))
        for granted in running:
            spent += granted
        assert spent.usd <= limit.usd + 1e-9
        assert spent.tokens <= limit.tokens + 1e-9
        assert limit.hours == math.inf


def test_the_first_wave_shares_what_there_is():
    free = Amounts(usd=12, hours=math.inf, tokens=math.inf)
    first = grant(free, Amounts(1, 1, 1), slots=3)
    assert first is not None
    assert first.usd == 4
    assert grant(free, Amounts(usd=13), slots=1) is None


def test_a_trial_costs_what_its_siblings_took_per_flop(tmp_path):
    small, large = (
        planned_trials(sweep_of(tmp_path, set={"model.layers": layers}))[0] for layers in (2, 4)
    )
    folder = TrialFolder(tmp_path / "run")
    folder.path.mkdir()
    rows = [{"step": step, "tokens": step * 8192, "seconds": 10.0 + step} for step in (1, 11)]
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.refresh()
    seen = [(small, folder)]
    # One second a step after eleven for the start; twice the layers cost more, not twice: the head.
    whole = expected_seconds(small, small.tokens, seen, Price(small.tokens))
    assert whole == pytest.approx(11 + 64)
    assert expected_seconds(small, small.tokens / 2, seen, Price(1)) == pytest.approx(11 + 32)
    assert 11 + 64 < expected_seconds(large, large.tokens, seen, Price(1)) < 11 + 128
    assert expected_seconds(small, small.tokens, [], Price(small.tokens, hours=0.5)) == 1800
    assert expected_seconds(small, small.tokens, [], Price(small.tokens)) is None


def test_trials_that_share_a_machine_share_its_price(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2DIST_USD_PER_HOUR", "8")
    two = rent_here(sweep_of(tmp_path, at_once=2), 0)
    assert (two.usd_per_hour, two.share, two.machines) == (4.0, 0.5, 1)
    eight = rent_here(sweep_of(tmp_path, at_once=8, resources={"gpus": 1}), 8)
    assert eight.usd_per_hour == 1.0
    alone = rent_here(sweep_of(tmp_path, at_once=1, resources={"gpus": 2}), 8)
    assert alone.usd_per_hour == 8.0  # the other six GPUs are paid for all the same
    nodes = rent_here(sweep_of(tmp_path, at_once=2, resources={"gpus": 16}), 8)
    assert (nodes.share, nodes.machines) == (1.0, 2)
    # An hour of both trials at once is an hour of the machine.
    assert two.cost(3600, 0).times(2) == Amounts(8.0, 1.0, 0.0)


def test_a_whole_gpu_trial_is_priced_like_the_run_that_it_is(tmp_path):
    sweep = sweep_of(tmp_path, base="gpt2-124m", resources={"gpus": 1})
    trial = planned_trials(sweep)[0]
    alone = plan_on(trial.config, "A100-80GB:1")
    found = price_on(sweep, trial, *rent_on(sweep, "A100-80GB:1"))
    assert found.hours + found.once_hours == pytest.approx(alone.hours)
    assert found.usd == pytest.approx(found.hours * alone.usd_per_hour)
    # Four at once on a machine of four cost what they would cost alone, each a quarter of it.
    four = replace(sweep, at_once=4)
    rent, hardware, offer = rent_on(four, "RTX3090:4")
    assert rent.usd_per_hour == pytest.approx(offer.usd_per_hour / 4)
    together = price_on(four, trial, rent, hardware, offer)
    one = price_on(sweep, trial, *rent_on(sweep, "RTX3090:1"))
    assert together.hours == pytest.approx(one.hours, rel=0.1)
    with pytest.raises(BadInput, match=r"resources\.gpus=2 is more than the 1 GPUs of A100-80GB:1"):
        rent_on(sweep_of(tmp_path, resources={"gpus": 2}), "A100-80GB:1")


PRICED = Rent(1.0, 1, 2.0, "config")


def affordable(sweep, usd_per_trial, rent=PRICED):
    trials = planned_trials(sweep)
    hours = usd_per_trial / 2.0 if usd_per_trial else None
    plan = plan_sweep(sweep, trials, lambda t: Price(t.tokens, hours, usd_per_trial), rent)
    return require_affordable(sweep, plan)


def test_what_cannot_fit_is_refused_before_it_starts(tmp_path):
    with pytest.raises(BadInput, match=r"the sweep needs \$8\.00 for 4 trials of up to \$2\.00"):
        affordable(sweep_of(tmp_path, budget={"usd": 7}), 2.0)
    with pytest.raises(BadInput, match=r"budget\.usd=\$1\.00 is below one trial, which needs \$2"):
        affordable(sweep_of(tmp_path, budget={"usd": 1}), 2.0)
    with pytest.raises(BadInput, match=r"budget\.tokens=600k is below one|needs 2\.10M"):
        affordable(sweep_of(tmp_path, budget={"tokens": 600_000}), 2.0)
    with pytest.raises(BadInput, match=r"budget\.hours=3\.00 h"):
        affordable(sweep_of(tmp_path, budget={"hours": 3}), 2.0)
    assert affordable(sweep_of(tmp_path, budget={"usd": 8}), 2.0) == []


def test_early_stopping_counts_only_what_it_cannot_save(tmp_path):
    # ASHA with factor 2 from 1/4 on: all to 1/4, half to 1/2, a quarter to the end: half of all.
    asha = {"kind": "asha", "first": 131_072, "factor": 2}
    notes = affordable(sweep_of(tmp_path, budget={"usd": 4}, scheduler=asha), 2.0)
    assert notes == [
        "without early stopping the sweep would need $8.00; it ends at budget.usd=$4.00"
    ]
    with pytest.raises(BadInput, match=r"needs \$4\.00 at least, even with early stopping"):
        affordable(sweep_of(tmp_path, budget={"usd": 3.9}, scheduler=asha), 2.0)


def test_unknown_dollars_are_said_and_a_dollar_budget_needs_a_price(tmp_path):
    free = Rent(1.0, 1, 0.0, "own machine")
    assert affordable(sweep_of(tmp_path), None, free) == [
        "dollars are unknown: no price of this machine (own machine)"
    ]
    with pytest.raises(BadInput, match=r"budget\.usd=5 cannot be kept: this machine has no price"):
        affordable(sweep_of(tmp_path, budget={"usd": 5}), None, free)
    (note,) = affordable(sweep_of(tmp_path, budget={"usd": 5}), None)
    assert note.startswith("planned dollars are unknown: no probe of this model")


CPU = Machine(0, "", None, False, 2, False)
GPUS = replace(CPU, gpus=4, gpu_name="A", gpu_gib=80.0, gpu_has_bf16=True)


@pytest.mark.parametrize(
    ("tree", "machine", "line"),
    [
        ({"resources": {"gpus": 1}}, CPU, "a trial needs more than the 0 GPUs here and would wait"),
        (
            {"resources": {"gpus": 8}},
            GPUS,
            "a trial needs more than the 4 GPUs here and would wait",
        ),
        ({"resources": {"gpus": 2}, "at_once": 3}, GPUS, "use sweep.at_once=2"),
        ({"at_once": 3}, CPU, "need more than the 2 cores here; use sweep.at_once=2"),
        ({"resources": {"cpus": 4}}, CPU, "resources.cpus=2 at most"),
        ({}, GPUS, "resources.gpus is 0, but there are 4 GPUs here"),
    ],
)
def test_resources_that_can_never_be_met_are_refused_at_once(tree, machine, line, tmp_path):
    here = Machines(machine, machine.gpus, machine.gpus, machine.cpu_cores)
    with pytest.raises(BadInput, match=line):
        here.require_room(sweep_of(tmp_path, **tree))


class Runner:
    """What a scheduler wants of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"{number:03d}"


def race(judge, trials, rows, out):
    """Feeds the rows of those who are still in; returns what each reported, and who is out."""
    reported = {number: [] for number in trials}
    out = set(out)
    for number, row in rows:
        if number not in out:
            reported[number].append(row)
            if judge.on_trial_result(None, trials[number], row) == "STOP":
                out.add(number)
    return reported, out


def entered(judge):
    trials = {number: Runner(number) for number in range(7)}
    for trial in trials.values():
        judge.on_trial_add(None, trial)
    return trials


def test_asha_stops_who_is_not_in_the_better_half_of_its_rung():
    judge = judge_of(Scheduler("asha", "tokens", first=100, factor=2))
    losses = [5.0, 4.0, 4.4, 4.6, 3.9, 4.5, 4.3]
    rows = [(n, {"tokens": 100, "val_loss": loss}) for n, loss in enumerate(losses)]
    _, out = race(judge, entered(judge), rows, set())
    # By hand: a trial goes on if it is not above the median of those who came there before it.
    wanted = {n for n in range(1, 7) if losses[n] > sorted(losses[:n])[n // 2] and n % 2} | {
        n
        for n in range(2, 7, 2)
        if losses[n] > sum(sorted(losses[:n])[n // 2 - 1 : n // 2 + 1]) / 2
    }
    assert out == wanted == {3, 5}


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_resumed_scheduler_decides_as_if_it_had_never_been_interrupted(kind):
    settings = Scheduler(kind, "tokens", first=100, factor=2, peers=2)
    # Who starts badly falls fastest: the decisions come late and differ from rung to rung.
    rows = [
        (n, {"step": t, "tokens": t, "val_loss": 5 + 0.1 * n - t * (1 + n) / 4000, "time": t - n})
        for t in range(100, 1700, 100)
        for n in reversed(range(7))
    ]
    for cut in (20, 33, 50):
        whole = judge_of(settings)
        trials = entered(whole)
        reported, out = race(whole, trials, rows[:cut], set())
        _, wanted = race(whole, trials, rows[cut:], out)
        records = [
            SimpleNamespace(
                trial=SimpleNamespace(number=n),
                folder=SimpleNamespace(evaluations=reported[n]),
                state="stopped" if n in out else "running",
                starts=1,
            )
            for n in range(7)
        ]
        known, resumed = {}, judge_of(settings)
        replay(resumed, settings, records, known)
        assert race(resumed, known, rows[cut:], out)[1] == wanted
        assert out != wanted  # something was left to decide


def optuna_sweep(folder, **tree):
    pytest.importorskip("optuna")
    space = {"optim.peak_lr": {"loguniform": [1e-5, 1e-1]}, "model.layers": {"choice": [1, 2, 4]}}
    more = {"search": {"kind": "optuna", "seed": 1}, "budget": {"trials": 40}}
    return sweep_of(folder, space=space, **more, **tree)


def bowl(values) -> float:
    """Lowest, 2, at a rate of 1e-3 with four layers."""
    return 2 + (math.log10(values["optim.peak_lr"]) + 3) ** 2 + (4 - values["model.layers"]) / 4


def test_tpe_comes_closer_than_its_own_first_draws(tmp_path):
    points = points_of(optuna_sweep(tmp_path), [])
    found = []
    while (values := points.next()) is not None:
        points.tell(values, [bowl(values)], None)
        found.append(bowl(values))
    assert len(found) == 40
    assert min(found) < 2.1
    assert sorted(found[20:])[10] < sorted(found[:10])[5]


def test_a_resumed_search_knows_what_was_found_and_repeats_nothing(tmp_path):
    sweep = optuna_sweep(tmp_path)
    first = points_of(sweep, [])
    known = [first.next() for _ in range(12)]
    second = points_of(sweep, known)
    for values in known[:-1]:
        second.tell(values, [bowl(values)], None)
    second.tell(known[-1], None, (1000, 9.9))
    more = []
    while (values := second.next()) is not None:
        second.tell(values, [bowl(values)], None)
        more.append(values)
    assert len(more) == 40 - 12
    assert not any(values in known for values in more)
    assert min(map(bowl, more)) < min(map(bowl, known))


def test_two_objectives_are_searched_together(tmp_path):
    points = points_of(optuna_sweep(tmp_path, objective=["val_loss", "usd"]), [])
    seen = []
    while (values := points.next()) is not None:
        points.tell(values, [bowl(values), float(values["model.layers"])], None)
        seen.append(values["model.layers"])
    assert {1, 4} <= set(seen)  # both ends of the front


def test_the_pareto_front_is_what_brute_force_finds():
    draw = random.Random(5)
    points = [
        PointResult(
            n, {}, (), {"val_loss": draw.randint(0, 9), "tokens_per_s": draw.randint(0, 9)}, {}
        )
        for n in range(60)
    ]
    front = {p.point for p in pareto(points, ("val_loss", "tokens_per_s"))}
    for own in points:
        better = [
            q
            for q in points
            if q.means["val_loss"] <= own.means["val_loss"]
            and q.means["tokens_per_s"] >= own.means["tokens_per_s"]
            and q.means != own.means
        ]
        assert (own.point in front) == (not better)


def test_a_journal_survives_a_cut_line_and_names_a_damaged_one(tmp_path):
    journal = Journal(tmp_path)
    journal.begin({"base": {"recipe": "debug"}})
    journal.trial(0, 0, {"optim.peak_lr": 1e-3}, 7)
    journal.state(0, "running")
    journal.state(0, "finished", "64 steps done", usd=1.5)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    for length in range(len(whole) - 60, len(whole)):
        path.write_bytes(whole[:length])
        story = read_journal(tmp_path)
        assert story is not None
        assert story.entries[0].state in ("running", "finished")
        Journal(tmp_path).trial(1, 1, {"optim.peak_lr": 2e-3}, 7)
        again = read_journal(tmp_path)
        assert again is not None
        assert [entry.number for entry in again.entries] == [0, 1]
    path.write_bytes(whole.replace(b'"trial": 0, "point"', b'"trial": x, "point"'))
    with pytest.raises(BadInput, match=r"journal\.jsonl:2 is damaged"):
        read_journal(tmp_path)
    assert read_journal(tmp_path / "elsewhere") is None


def test_identity_of_a_trial_ignores_where_it_runs(tmp_path):
    from gpt2dist.config.load import identity

    here = planned_trials(sweep_of(tmp_path))[0].config
    there = planned_trials(sweep_of(tmp_path, set={"cluster.micro_batch": 1}))[0].config
    assert identity(here) == identity(there)
    assert identity(here) == identity(resolve("debug", ["optim.peak_lr=1e-3"]))
