"""What the command line accepts, says and refuses before a run begins."""

from __future__ import annotations

import os
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


def test_overrides_may_follow_options(refused):
    """argparse alone would not know a word after `--local`."""
    words = ["train", "debug", "train.seed=1", "--local", "optim.peak_lr=-1", "--name", "x"]
    assert "optim.peak_lr=-1" in refused(words)


def test_an_unknown_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ending:
        main(["train", "debug", "--locla"])
    assert ending.value.code == 2
    assert "--locla" in capsys.readouterr().err


FIELD = """
class Field:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt
class Model:
    field = Field()
"""
WORD = """
def gettext(message):
    raise KeyboardInterrupt
ngettext = gettext
"""


@pytest.mark.parametrize(("module", "text"), [("torch", FIELD), ("gettext", WORD)])
def test_a_ctrl_c_amid_an_import_or_while_the_words_are_read_is_one_line(tmp_path, module, text):
    (tmp_path / f"{module}.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "gpt2dist", "train", "debug", "--local"],
        env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "gpt2dist: interrupted\n")
