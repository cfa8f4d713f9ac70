"""What a run of the lab must have left behind: `python check.py RUN_DIR KEY=VALUE ...`.

Checks that no row is missing or there twice and that summary.json says every KEY=VALUE; `usd<=40`
asks for a limit, `attempts` and `machines` are counted in the ledger.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(run_dir: Path, wanted: list[str]) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == list(range(1, summary["steps"] + 1)), "a row is missing or there twice"
    attempts = json.loads((run_dir / "ledger.json").read_text())["attempts"]
    facts = {
        **summary,
        "attempts": len({attempt["attempt_id"] for attempt in attempts}),
        "machines": min(attempt["machines"] for attempt in attempts),
    }
    for wish in wanted:
        key, relation, value = wish.partition("<=" if "<=" in wish else "=")
        met = facts[key] <= float(value) if relation == "<=" else str(facts[key]) == value
        assert met, f"{run_dir}: wanted {wish}, found {key}={facts[key]}"
    said = ", ".join(
        f"{wish.split('<')[0].split('=')[0]} {facts[wish.split('<')[0].split('=')[0]]}"
        for wish in wanted
    )
    print(f"proved: {run_dir.name}: {len(steps)} rows without a gap; {said}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
