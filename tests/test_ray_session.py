"""How many cores Ray is told of."""

import os
import subprocess
import sys

from gpt2dist.ray_session import usable_cores

BOUND = """
import os
from gpt2dist.ray_session import usable_cores
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(usable_cores(), os.cpu_count())
"""


def test_cores_are_those_that_the_process_may_use():
    assert usable_cores() == len(os.sched_getaffinity(0))
    bound = subprocess.run(
        [sys.executable, "-c", BOUND], capture_output=True, text=True, check=True
    )
    assert bound.stdout == f"1 {os.cpu_count()}\n"  # noqa: TID251
