"""What the command line accepts, says and refuses before a run begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2dist.cli.main import main, parser
from tests.cli.bad_lines import SWEEP, drawn, hint_of, leaves, takes_value

ROOT = Path(__file__).parents[2]

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


def test_an_unknown_option_is_one_line_too(refused):
    assert "--locla" in refused(["train", "debug", "--locla"])


def test_every_argument_has_a_type_with_bounds_or_choices():
    """Overrides have the types of the config's keys."""
    bare = [
        f"{' '.join(words)} {action.dest}"
        for words, verb in leaves(parser())
        for action in verb._actions
        if takes_value(action) and not (hint_of(action) or action.choices)
    ]
    assert [name for name in bare if not name.endswith(" overrides")] == []


def test_300_command_lines_that_nobody_can_mean(ask, tmp_path):
    """Each ends with code 2 and one line that names what is wrong; no file is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("the cat sat on the mat")
    (tmp_path / SWEEP).write_bytes((ROOT / "tune" / "debug.yaml").read_bytes())
    home = Path(os.environ["HOME"])
    wrong = []
    for line in drawn(300, seed=9):
        for name, content in line.files.items():
            (tmp_path / name).write_bytes(content)
        before = _files(tmp_path, home)
        try:
            code, said = ask(*line.words)
        except (Exception, SystemExit) as error:
            wrong.append(f"{line}: {type(error).__name__}: {error}")
            continue
        one_line = said.err.startswith("gpt2dist: ") and said.err.count("\n") == 1
        masked = "hunt" not in said.err + said.out
        quiet = not said.out and _files(tmp_path, home) == before
        if not (code == 2 and one_line and masked and quiet and line.named in said.err):
            wrong.append(f"{line}: {code}, {said}")
        for name in line.files:
            (tmp_path / name).unlink()
    assert wrong == []


def _files(*folders):
    """Every file and folder below, with its size and the time it was written."""
    return [
        (path, path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        for path in sorted(folder.rglob("*"))
    ]


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
