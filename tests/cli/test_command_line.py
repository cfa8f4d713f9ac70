"""What the command line accepts, says and refuses before a run begins."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpt2dist.cli.main import main

VERBS = [["config"], ["plan"], ["launch"], ["data"], ["data", "prepare"], ["data", "show"],
         ["train"], ["tune"], ["compare"], ["fit"], ["eval"], ["sample"], ["export"], ["track"],
         ["track", "sync"], ["ui"]]  # fmt: skip
HEAVY = ("torch", "ray", "deepspeed", "mlflow", "numpy", "matplotlib")


@pytest.mark.parametrize("verb", [[], *VERBS], ids=lambda verb: " ".join(verb) or "gpt2dist")
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as ending:
        main([*verb, "--help"])
    assert ending.value.code == 0
    assert capsys.readouterr().out.startswith("usage: gpt2dist")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["config", "debug"]])
def test_what_needs_no_device_imports_nothing_heavy(words):
    program = (
        "import sys, gpt2dist.cli.main as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.exit(' '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_printed_config_is_a_file_that_can_be_trained(tmp_path, capsys):
    assert main(["config", "debug", "optim.peak_lr=1e-3"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# identity ")
    (tmp_path / "mine.yaml").write_text(printed)
    assert main(["config", str(tmp_path / "mine.yaml")]) == 0
    assert capsys.readouterr().out == printed


def test_overrides_may_follow_options(capsys, tmp_path, monkeypatch):
    """argparse alone would not know a word after `--local`."""
    monkeypatch.chdir(tmp_path)
    words = ["train", "debug", "train.seed=1", "--local", "optim.peak_lr=-1", "--name", "x"]
    assert main(words) == 2
    assert "optim.peak_lr=-1" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["train", "debug", "--locla"])
    assert ending.value.code == 2
    assert "--locla" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "debug", "optim.peek_lr=1"], "optim.peek_lr; did you mean optim.peak_lr?"),
        (["train", "debug", "train.seed=many"], "train.seed"),
        (["train", "debug", "model.heads=3"], "model.width=128 is not a multiple of model.heads=3"),
        (["train", "debug", "train.seed"], "train.seed"),
        (["train", "gpt2-125m"], "gpt2-124m"),
        (["config", "gpt2-125m"], "gpt2-124m"),
        (["config", "nowhere.yaml"], "nowhere.yaml"),
        (["config", "folder.yaml"], "folder.yaml"),
        (["config", "broken.yaml"], "broken.yaml"),
        (["config", "binary.yaml"], "binary.yaml"),
        (["config", "list.yaml"], "list.yaml"),
        (["eval", "nobody"], "no run at 'nobody'"),
        (["sample", "nobody"], "no run at 'nobody'"),
        (["track", "sync", "nobody"], "no run at 'nobody'"),
        (["data", "show", "nowhere"], "nowhere is not a dataset folder"),
        (["data", "prepare", "nowhere.txt", "--out", "x", "--local"], "nowhere.txt"),
        (["data", "prepare", "stdlib", "--out", "x", "--val-fraction", "1"], "--val-fraction 1"),
        (["ui"], "no MLflow store"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_code_2(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "broken.yaml").write_text("model: {layers: [}\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "list.yaml").write_text("- model\n")
    before = sorted(tmp_path.rglob("*"))
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("gpt2dist: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
