"""What other processes see of files and folders while they are written."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from gpt2dist.disk import (
    finish_folder,
    folder_atomically,
    locked,
    partial_of,
    remove_folder,
    remove_partials,
    sha256_of,
    write_atomically,
)
from gpt2dist.errors import RunFailure

KILLED_INSIDE = """
import os, signal, sys
from pathlib import Path
from gpt2dist.disk import folder_atomically
with folder_atomically(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


KILLED_BEFORE_CALL = """
import os, signal, sys
from pathlib import Path
from gpt2dist.disk import finish_folder
folder, left = Path(sys.argv[1]), int(sys.argv[2])
def count(event, arguments):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
finish_folder(folder / ".new", folder / "step")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunFailure, match=r"cannot write .*taken: .*; make room there or"):
        write_atomically(tmp_path / "taken", b"content")
    assert names(tmp_path) == ["taken"]


def test_a_file_is_replaced_and_not_written_over(tmp_path):
    """A reader that opened the old content keeps it to the end."""
    path = tmp_path / "new" / "file"
    write_atomically(path, "old")
    with path.open() as reader:
        write_atomically(path, memoryview(b"new content"))
        assert reader.read() == "old"
    assert path.read_text() == "new content"
    assert names(path.parent) == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "export"
    with folder_atomically(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(FileNotFoundError), folder_atomically(target) as folder:
        (folder / "nowhere" / "a").write_text("2")
    assert (target / "a").read_text() == "1"
    with folder_atomically(target) as folder:
        (folder / "b").write_text("3")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["export"]


def test_what_a_killed_writer_leaves_is_hidden_and_can_be_cleared_away(tmp_path):
    target = tmp_path / "export"
    ended = subprocess.run([sys.executable, "-c", KILLED_INSIDE, str(target)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (leftover,) = names(tmp_path)
    assert leftover.startswith(".export.")
    (tmp_path / "whole").mkdir()
    remove_partials(tmp_path)
    assert names(tmp_path) == ["whole"]


def test_a_writer_killed_at_any_point_leaves_the_old_folder_or_the_new(tmp_path):
    """Killed before each thing that it does to the file system, until it comes to its end."""
    ended, number, found = -signal.SIGKILL, 0, []
    while ended == -signal.SIGKILL:
        number += 1
        folder = tmp_path / str(number)
        for name, content in (("step", "old"), (".new", "new")):
            (folder / name).mkdir(parents=True)
            (folder / name / "a").write_text(content)
            (folder / name / "b").write_text(content)
        words = [sys.executable, "-c", KILLED_BEFORE_CALL, str(folder), str(number)]
        ended = subprocess.run(words, check=False).returncode
        remove_partials(folder)
        # What was being written is under another name here, so that it stays.
        assert set(names(folder)) in ({"step"}, {"step", ".new"})
        found.append({(folder / "step" / name).read_text() for name in ("a", "b")})
    assert ended == 0
    assert found == sorted(found, key=[{"old"}, {"new"}].index)
    assert found.count({"old"}) > 2
    assert found.count({"new"}) > 3


def test_two_writers_never_share_a_partial_name(tmp_path):
    assert len({partial_of(tmp_path / "file") for _ in range(1000)}) == 1000


def test_a_removed_folder_is_gone_under_every_name(tmp_path):
    partial = partial_of(tmp_path / "run")
    (partial / "deep").mkdir(parents=True)
    (partial / "deep" / "file").touch()
    finish_folder(partial, tmp_path / "run")
    assert (tmp_path / "run" / "deep" / "file").exists()
    remove_folder(tmp_path / "run")
    assert names(tmp_path) == []


def test_sha256_of_a_file_of_several_blocks(tmp_path):
    content = os.urandom(2**21 + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_lock_is_held_by_one_and_names_what_the_other_does(tmp_path):
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    with locked(path), pytest.raises(RunFailure, match=r"is training .*run; wait for it"):
        locked(path).__enter__()
    with locked(path, doing="preparing it"):
        pass
