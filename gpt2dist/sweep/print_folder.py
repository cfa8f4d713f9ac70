"""Print the folder of a sweep, below the runs: for scripts that copy it to and from a bucket.

python -m gpt2dist.sweep.print_folder FILE [a.b=value ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2dist.errors import BadInput
from gpt2dist.sweep.spec.load import load_sweep

FOLDER = "sweeps"


def folder_of(sweep_name: str) -> Path:
    """Relative to the runs."""
    return Path(FOLDER, sweep_name)


def main(words: Sequence[str]) -> int:
    """Exit code 2 for a file that is no sweep."""
    if not words:
        print(__doc__, file=sys.stderr)
        return BadInput.exit_code
    try:
        print(folder_of(load_sweep(words[0], words[1:]).name))
    except BadInput as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
