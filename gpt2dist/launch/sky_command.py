"""The `sky` executable: whether it is there, and calling it.

SkyPilot is called, never imported: its requirements exclude ours, so it lives in an environment of
its own, and `import sky` in a clone of this repository finds the folder of task files instead.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.launch.providers import sky_environment

TESTED_VERSION = "0.14.1"
DETACHED = 130
JOB_FAILED = 100
"""Exit code of `sky launch` and `sky logs` for a job that ended badly on a machine that is fine."""


def find_sky(extra: str = "") -> str:
    """Path of the executable; BadInput says how to install it. `extra` is the provider's extra."""
    found = shutil.which("sky")
    if found is None:
        what = f"skypilot[{extra}]" if extra else "skypilot"
        raise BadInput(
            f"SkyPilot is not installed; `pipx install '{what}=={TESTED_VERSION}'` (or `uv tool "
            "install`) gives it an environment of its own"
        )
    said = _captured(found, ["--version"]).stdout
    if not re.search(r"skypilot.*\d+\.\d+", said):
        raise BadInput(f"{found} is not SkyPilot: `{found} --version` says {said.strip()[:80]!r}")
    return found


def call(sky: str, words: Sequence[str]) -> int:
    """Run `sky WORDS...` on this terminal; DETACHED after Ctrl-C, which does not end the job."""
    process = subprocess.Popen([sky, *words], env=sky_environment())
    interrupted = False
    while True:
        try:
            code = process.wait()
            return DETACHED if interrupted else code
        except KeyboardInterrupt:
            interrupted = True  # SkyPilot got it too, and leaves


def works_on(sky: str, cluster: str) -> bool:
    """Whether a job waits or runs there: then a failed command was only the connection's."""
    try:
        said = ask(sky, ["queue", "--skip-finished", "--output", "json", cluster])
        jobs = json.loads(said[said.index("{") :])  # SkyPilot may log a line before it
    except (RunFailure, ValueError):
        return False
    return any(jobs.values())


def ask(sky: str, words: Sequence[str]) -> str:
    """What `sky WORDS...` prints; RunFailure with its last line when it fails."""
    done = _captured(sky, words)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise RunFailure(f"`sky {' '.join(words)}` failed: {lines[-1]}")
    return done.stdout


def _captured(sky: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sky, *words],
        env=sky_environment(),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def give_back(sky: str, words: Sequence[str], provider: str) -> None:
    """Call `sky down ...` or the like; RunFailure says where to look when it fails."""
    code = call(sky, words)
    if code:
        raise RunFailure(
            f"`sky {' '.join(words)}` failed with {code}: the machine may still be billed; look at "
            f"`sky status --refresh` and at the console of {provider}"
        )


def fetch_runs(cluster: str, runs: Path) -> int:
    """Copy a cluster's runs folder here over SSH, which SkyPilot has set up; rsync's exit code."""
    runs.mkdir(parents=True, exist_ok=True)
    rsync = shutil.which("rsync")
    if rsync is None:
        return 127
    words = [rsync, "-a", "--partial", f"{cluster}:sky_workdir/runs/", f"{runs}{os.sep}"]
    return subprocess.run(words, check=False).returncode
