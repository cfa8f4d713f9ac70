"""Print the folder of a sweep, below the runs: for scripts that copy it to and from a bucket.

python -m gpt2dist.sweep.print_folder FILE [a.b=value ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gpt2dist.errors import BadInput
from gpt2dist.sweep.spec.sweep_file import load_sweep


def main(words: Sequence[str]) -> int:
    """Exit code 2 for a file that is no sweep."""
    if not words:
        print(__doc__, file=sys.stderr)
        return BadInput.exit_code
    try:
        print(load_sweep(words[0], words[1:]).run_name)
    except BadInput as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
