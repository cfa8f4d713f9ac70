"""One record per logged step: `metrics.jsonl`, the file that every table and curve is made from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpt2dist.disk import AppendedFile, write_atomically
from gpt2dist.errors import BadInput

Row = dict[str, Any]

ROW_METRICS = (
    "tokens", "loss", "grad_norm", "lr", "skipped", "tokens_per_s", "step_s", "data_wait_s",
    "val_loss", "mfu", "gpu_peak_gib", "host_gib", "seconds", "usd",
)  # fmt: skip
"What a row holds beside its step and its time."
ROW_COUNTS = ("tokens", "skipped")


class RowWriter:
    """Appends rows to a JSONL file, one JSON object a line, readable while the run goes on.

    On opening, rows later than `resume_step` are dropped: the steps behind them were rolled back
    to the checkpoint and are about to be trained again. None (nothing to resume) drops all.
    """

    def __init__(self, path: Path, resume_step: int | None) -> None:
        self.path = Path(path)
        keep_to = -1 if resume_step is None else resume_step
        rows = read_rows(self.path) if self.path.exists() else []
        kept = [row for row in rows if row["step"] <= keep_to]
        write_rows(self.path, kept)
        self.count = len(kept)
        self._file = AppendedFile(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Hands one row to the operating system whole; NaN and infinity become null.

        Raises StorageRefused; the same row may then be tried again.
        """
        self._file.append(_line(row))
        self.count += 1

    def sync(self) -> None:
        """Forces all rows onto the disk; to be called before a checkpoint claims their steps."""
        self._file.sync()


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replaces the file in one move."""
    write_atomically(path, "".join(map(_line, rows)))


def read_rows(path: Path) -> list[Row]:
    """All rows of a file; a last line cut short by a crash is left out.

    Raises BadInput naming file and line for damage anywhere else.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        raise BadInput(f"no rows at {path}; is this the folder of a run?") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    rows: list[Row] = []
    for position, (number, line) in enumerate(numbered):
        try:
            row = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            row = None
        if isinstance(row, dict) and _is_step(row.get("step")):
            rows.append(row)
        elif position < len(numbered) - 1:
            raise BadInput(
                f"{path}:{number}: not a row: {line[:40].decode(errors='replace')!r}; "
                "delete that line to go on without it"
            )
    return rows


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(_plain(row), allow_nan=False, separators=(", ", ": ")) + "\n"


def _plain(value: Any) -> Any:
    """`value` in the types of JSON, floats at full precision, NaN and infinity as None."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    number = float(value)  # also scalars of torch and numpy
    return number if math.isfinite(number) else None
