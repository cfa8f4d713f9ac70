"""The command line in an empty folder of a user without accounts."""

import pytest

from gpt2dist.cli.main import main


@pytest.fixture(autouse=True)
def _nobody_s_home(monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("SKY_RUNTIME_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ask(capsys):
    """Runs one command; its exit code and what it said."""

    def run(*words):
        code = main(list(words))
        return code, capsys.readouterr()

    return run


@pytest.fixture
def refused(ask, tmp_path):
    """Runs a command that must end with code 2 and one line, and must not touch a file."""

    def run(words):
        before = sorted(tmp_path.rglob("*"))
        code, said = ask(*words)
        assert code == 2
        assert said.err.startswith("gpt2dist: ")
        assert said.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return run
