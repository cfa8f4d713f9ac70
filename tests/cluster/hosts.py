"""Two hosts on one machine: kernel namespaces joined by a cable, with no way out.

Each host has a network, a host name, processes and mounts of its own; disks are shared. The
namespaces have no names: they vanish, cable and all, when their first process ends, which the
kernel sees to even when the tests are killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.train.command import wait_until

ADDRESSES = ("10.78.0.11", "10.78.0.12")
NAMES = ("host-a", "host-b")
TOOLS = ("ip", "mount", "nsenter", "setpriv", "taskset", "unshare")
NAMESPACES = ("--net", "--uts", "--mount", "--pid")

# The first process of a host adopts and buries what others leave behind.
FIRST_PROCESS = """
import os, time
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
"""


def why_not() -> str | None:
    """What is missing for two hosts on this machine, or None."""
    if not sys.platform.startswith("linux"):
        return "two hosts on one machine are made of Linux namespaces"
    if os.geteuid() != 0:
        return "two hosts on one machine need root, for network namespaces"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux)"
    trial = subprocess.run(["unshare", *NAMESPACES, "--fork", "true"], capture_output=True)
    return None if trial.returncode == 0 else "this container may not make namespaces"


class Host:
    def __init__(self, rank: int, scratch: Path) -> None:
        self.name, self.address, self.rank = NAMES[rank], ADDRESSES[rank], rank
        self._scratch = scratch
        self._network: int | None = None
        "Held, it outlives the host's processes."
        self._outer = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child",
             "--mount-proc", sys.executable, "-c", FIRST_PROCESS],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        outer = psutil.Process(self._outer.pid)
        self.first = wait_until(lambda: outer.children(), lambda: self._outer.poll() is None)[0]
        # As on an ordinary Debian machine, the host's name stands for an address that no other
        # machine can reach.
        hosts = scratch / f"hosts-{self.name}"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        self.do("hostname", self.name)
        self.do("mount", "--bind", str(hosts), "/etc/hosts")
        self.do("ip", "link", "set", "lo", "up")

    def do(self, *words: str) -> None:
        subprocess.run([*self._enter(), *words], check=True)

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> Program:
        core = sorted(os.sched_getaffinity(0))[self.rank % len(os.sched_getaffinity(0))]
        number = len(list(self._scratch.glob("*.log")))
        return Program(
            [*self._enter(), "taskset", "-c", str(core), *words],
            environment,
            self._scratch / f"{number}-{self.name}.log",
        )

    def processes(self) -> list[str]:
        """Command lines of everything that runs here, without the host's first process."""
        found = []
        here = os.readlink(f"/proc/{self.first.pid}/ns/pid")
        for process in psutil.process_iter():
            try:
                if (
                    process.pid != self.first.pid
                    and process.status() != psutil.STATUS_ZOMBIE
                    and os.readlink(f"/proc/{process.pid}/ns/pid") == here
                ):
                    found.append(" ".join(process.cmdline()))
            except (OSError, psutil.Error):  # it has ended meanwhile
                continue
        return found

    def lose_power(self) -> None:
        """Nothing runs here any more, and nobody is told; the cable stays."""
        self._network = os.open(f"/proc/{self.first.pid}/ns/net", os.O_RDONLY)
        self.do("ip", "link", "set", "eth0", "down")
        self.first.kill()
        self._outer.wait()

    def end(self) -> None:
        if self._network is not None:
            os.close(self._network)
        self._outer.kill()
        self._outer.wait()

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.first.pid), *NAMESPACES]


class Program:
    """A program on a host, below the `nsenter` that brought it there."""

    def __init__(self, words: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as file:
            self._outer = subprocess.Popen(
                words,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def is_alive(self) -> bool:
        assert self._outer.poll() is None, self.log
        return True

    def send_signal(self, number: int) -> None:
        (program,) = psutil.Process(self._outer.pid).children()
        program.send_signal(number)

    def ends(self, timeout_s: float = 120) -> int:
        """The exit code."""
        return self._outer.wait(timeout_s)


class TwoHosts:
    def __init__(self, scratch: Path) -> None:
        self.hosts: list[Host] = []
        try:
            self.hosts.extend(Host(rank, scratch) for rank in range(2))
            a, b = (host.first.pid for host in self.hosts)
            cable = f"ip link add eth0 netns {a} type veth peer name eth0 netns {b}"
            subprocess.run(cable.split(), check=True)
            for host in self.hosts:
                host.do("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
                host.do("ip", "link", "set", "eth0", "up")
        except BaseException:
            self.end()
            raise

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def processes(self) -> list[str]:
        return [words for host in self.hosts for words in host.processes()]

    def end(self) -> None:
        for host in self.hosts:
            host.end()
