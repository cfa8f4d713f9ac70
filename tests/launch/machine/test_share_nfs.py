"""What is lent over NFS, by the real script; the programs that only a server has are stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "gpt2dist" / "launch" / "machine" / "share_nfs.sh"
STANDS_IN = {
    "sudo": 'exec "$@"',
    "apt-get": "exit 0",
    "exportfs": 'echo exportfs "$@" >>"$CALLS"',
    "mountpoint": 'grep -qx "$2" "$CALLS.mounted"',
    "mount": 'echo "${@: -1}" >>"$CALLS.mounted"',
    "umount": 'left=$(grep -vx "${@: -1}" "$CALLS.mounted"); echo "$left" >"$CALLS.mounted"',
    "id": 'echo "${USER_ID:-1000}"',
}


class Node:
    def __init__(self, folder: Path) -> None:
        self.folder, self.exports = folder, folder / "exports.d" / "gpt2dist.exports"
        programs = folder / "bin"
        programs.mkdir()
        for name, does in STANDS_IN.items():
            (programs / name).write_text(f"#!/bin/bash\n{does}\n")
            (programs / name).chmod(0o755)
        (folder / "calls.mounted").touch()
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SHARE_NFS_EXPORTS": str(self.exports),
            "CALLS": str(folder / "calls"),
        }

    def share(self, *words: str, rank: int = 0, others: str = "10.0.0.2", user: int = 1000) -> None:
        told = {
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": f"10.0.0.1\n{others}",
            "USER_ID": str(user),
        }
        environment = {**self._environment, **told}
        subprocess.run(["bash", SCRIPT, *words], cwd=self.folder, env=environment, check=True)

    @property
    def mounted(self) -> list[str]:
        return (self.folder / "calls.mounted").read_text().split()


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_a_call_replaces_what_the_one_before_lent(node):
    """Also its addresses: those of a cluster that is gone belong to others now."""
    node.share("runs", "data", others="10.0.0.8\n10.0.0.9")
    node.share("runs", "data")
    options = "rw,sync,no_subtree_check,root_squash"
    assert node.exports.read_text().splitlines() == [
        f"{node.folder}/runs 10.0.0.2({options})",
        f"{node.folder}/data 10.0.0.2({options})",
    ]


def test_root_of_another_node_is_root_here_only_where_the_run_is_roots(node):
    node.share("runs", others="10.0.0.2\n10.0.0.3", user=0)
    assert node.exports.read_text().count(",no_root_squash)") == 2
    node.share("runs", user=1000)
    assert "no_root_squash" not in node.exports.read_text()


def test_nothing_is_lent_when_the_task_has_ended(node):
    node.share("runs", "data")
    node.share("--end", "runs", "data")
    assert not node.exports.exists()
    assert (node.folder / "calls").read_text() == "exportfs -ra\n" * 2


def test_the_other_nodes_mount_it_and_let_go(node):
    for _ in range(2):
        node.share("runs", "data", rank=1)
        assert node.mounted == [f"{node.folder}/runs", f"{node.folder}/data"]
    node.share("--end", "runs", "data", rank=1)
    assert node.mounted == []
    assert not node.exports.exists()
