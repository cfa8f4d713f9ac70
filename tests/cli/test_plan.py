"""Questions on the command line get priced answers or one line that says what to do."""

import json

import pytest

from gpt2dist.cli.main import main


def test_one_plan_says_memory_speed_money_loss_and_the_command(ask):
    code, said = ask("plan", "gpt2-124m", "on=A100-80GB:8", "--provider", "lambda")
    assert code == 0
    starts = [line.split()[0] for line in said.out.splitlines() if not line.startswith(" ")]
    parts = ["memory", "batch", "speed", "time", "money", "sample", "loss", "train"]
    assert starts == ["gpt2-124m:", *parts]
    assert "1 x lambda" in said.out


@pytest.mark.parametrize(("words", "named"), [
    (["on=A100-80GB:8", "--provider", "lambda"], False),  # its machines come with their disk
    (["on=RTX4090", "--provider", "runpod"], True),
    (["on=RTX4090", "cluster.usd_per_hour=0.1"], False),
])  # fmt: skip
def test_disks_are_in_the_price_or_named_as_not(ask, words, named):
    _, said = ask("plan", "gpt2-124m", *words)
    line = "without disks (256 GiB a machine: about $0.035/h more) and traffic"  # 25.6 / 730
    assert (line in said.out) == named


def test_a_plan_s_last_line_is_a_command_that_resolves(ask):
    _, said = ask("plan", "gpt2-355m", "on=RTX3090:4")
    command = said.out.splitlines()[-1].split()
    assert command[:3] == ["train", "gpt2dist", "train"]
    assert main(["config", *command[3:]]) == 0


def test_json_of_one_and_of_many(ask):
    _, said = ask("plan", "gpt2-124m", "on=H100:8", "--json", "--usd", "20")
    plan = json.loads(said.out)
    assert plan["usd"] <= 20 < plan["usd"] * 1.01
    _, said = ask("plan", "all", "on=RTX4090", "--json", "--hours", "168")
    plans = json.loads(said.out)
    assert {p["recipe"] for p in plans} == {"gpt2-124m", "gpt2-355m", "gpt2-774m"}
    assert [p["val_loss"] for p in plans] == sorted(p["val_loss"] for p in plans)
    assert all(167 < p["hours"] <= 168 for p in plans)


def test_every_offer_in_a_table_that_is_cut_where_asked(ask):
    code, said = ask("plan", "gpt2-124m", "on=all", "--rows", "3")
    lines = said.out.splitlines()
    assert code == 0
    assert lines[0].startswith("recipe")
    assert "more; --rows shows them" in said.out
    assert lines[-1] == "* the fewest hours"
    assert len(lines) <= 1 + 3 + 1 + 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gpt2-124m", "on=A100", "on=H100"], "give one, or on=all"),
        (["gpt2-124m", "on=RTX9090"], "unknown GPU 'RTX9090'"),
        (["gpt2-124m", "on=A100", "--provider", "lamda"], "did you mean lambda?"),
        (["gpt2-124m", "on=A100", "--rows", "0"], "--rows=0 must be at least 1"),
        (["gpt2-124m", "on=A100", "--usd", "0.1"], "cannot buy one step and one evaluation"),
        (["gpt2-124m", "on=A100", "optim.peek_lr=1"], "did you mean optim.peak_lr?"),
        (["all", "--probe"], "--probe measures one recipe"),
        (["gpt2-1558m", "on=T4", "--loss", "1.0"], "no number of tokens"),
    ],
)
def test_questions_without_an_answer_exit_2_with_one_line(ask, words, says):
    code, said = ask("plan", *words)
    assert (code, said.out) == (2, "")
    assert says in said.err
    assert said.err.count("\n") == 1


def test_a_table_of_nothing_says_why(ask):
    code, said = ask("plan", "all", "on=T4", "--loss", "1.0")
    assert code == 2
    assert "not possible: gpt2-124m on T4" in said.out
