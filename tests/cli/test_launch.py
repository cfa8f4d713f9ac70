"""What `gpt2dist launch` refuses and shows before anything is rented."""

import pytest


def test_launch_without_a_terminal_or_yes_rents_nothing(ask, monkeypatch, tmp_path):
    """Not even when SkyPilot is there: the stand-in would leave a file."""
    called = tmp_path / "called"
    sky = tmp_path / "bin" / "sky"
    sky.parent.mkdir()
    sky.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "skypilot, version 0.14.1" && exit\n: >{called}\n'
    )
    sky.chmod(0o755)
    monkeypatch.setenv("PATH", str(sky.parent), prepend=":")
    code, said = ask("launch", "gpt2-124m", "on=RTX4090", "--usd", "20")
    assert code == 2
    assert "money" in said.out
    assert not called.exists()


def test_launch_refuses_what_the_dollars_do_not_buy(ask):
    code, said = ask("launch", "gpt2-124m", "on=RTX4090", "--usd", "2", "--yes")
    assert code == 2
    assert "--usd 2" in said.err
    assert "would fit" in said.err


def test_launch_dry_run_shows_the_task_and_writes_nothing(ask, tmp_path):
    code, said = ask("launch", "gpt2-124m", "on=A100", "--dry-run")
    assert code == 0
    assert "accelerators: A100:1" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [(["logs"], "needs the name"), (["status", "x"], "takes no name"), (["stop", "x"], "x")],
)
def test_looking_after_launches_that_are_not_there(ask, words, says):
    code, said = ask("launch", *words)
    assert code == 2
    assert says in said.err
