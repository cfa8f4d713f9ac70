"""On the rented machine: print what the run may spend, as shell assignments for rented.sh.

    eval "$(python -m gpt2dist.launch.machine.allot)"

Reads BUDGET_USD, USD_PER_HOUR and RUN of the task, SkyPilot's SKYPILOT_CLUSTER_INFO and
SKYPILOT_NUM_NODES, and the ledger of the earlier attempts of the run, or of the sweep as a whole.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.launch.allowance import (
    GRACE_S,
    UPLOAD_S,
    Allowance,
    Reserve,
    amount_at,
    spent_now,
)
from gpt2dist.run_files import LEDGER_FILE
from gpt2dist.track.ledger import BILLED_VARIABLE, PRICE_VARIABLE, Account

ACCOUNTED_FILE = Path(".gpt2dist", "accounted_until")
"""In the home directory: Unix time up to which a run has taken this machine's bill."""


def assignments(environ: Mapping[str, str], runs: Path, now: float) -> dict[str, str]:
    """The variables that rented.sh needs; BadInput when the budget allows no run."""
    cloud = _cloud(environ)
    budget_usd = amount_at("BUDGET_USD", environ.get("BUDGET_USD", ""), cloud)
    nodes = int(environ.get("SKYPILOT_NUM_NODES", "1"))
    price = amount_at("USD_PER_HOUR", environ.get("USD_PER_HOUR", ""), cloud)
    past_usd, last_seen_at = _past(runs, environ.get("RUN", ""))
    billed_from = max(_booted_at(), _accounted_until(Path(environ["HOME"])))
    spent_usd = spent_now(past_usd, (billed_from, last_seen_at), now, price * nodes)
    reserve = Reserve(
        amount_at("GRACE_S", environ.get("GRACE_S") or f"{GRACE_S}", cloud),
        amount_at("UPLOAD_S", environ.get("UPLOAD_S") or f"{UPLOAD_S}", cloud),
        bucket=bool(environ.get("BUCKET")),
    )
    allowance = Allowance(budget_usd, price * nodes, spent_usd, reserve)
    return {
        PRICE_VARIABLE: f"{price:g}",
        BILLED_VARIABLE: f"{billed_from:.0f}",
        "RUN_BUDGET_USD": f"{allowance.run_usd:.4f}",
        # `timeout 0` sets no limit.
        "DEADLINE_S": str(allowance.deadline_s or 0),
        "GRACE_S": f"{reserve.grace_s:g}",
        "UPLOAD_S": f"{reserve.upload_s:g}",
        "SPENT_USD": f"{spent_usd:.2f}",
        "BUDGET_USD": f"{budget_usd:g}",
    }


def _cloud(environ: Mapping[str, str]) -> str | None:
    text = environ.get("SKYPILOT_CLUSTER_INFO")
    return json.loads(text).get("cloud") if text else None


def _past(runs: Path, run: str) -> tuple[float, float]:
    """Dollars of earlier attempts and the last sign of life on this machine.

    Of all runs here when none is named.
    """
    ledgers = [runs / run / LEDGER_FILE] if run else sorted(runs.glob(f"*/{LEDGER_FILE}"))
    accounts = [Account.read(path) for path in ledgers if path.exists()]
    seen = max((account.last_seen_here() for account in accounts), default=0.0)
    return sum(account.usd for account in accounts), seen


def _booted_at() -> float:
    """When process 1 started: the boot of a machine, or the start of a rented container."""
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime_s + started_s


def _accounted_until(home: Path) -> float:
    path = home / ACCOUNTED_FILE
    return float(path.read_text()) if path.exists() else 0.0


def main() -> int:
    """Print the assignments; exit code 2 when the budget is spent or a variable is bad."""
    try:
        found = assignments(os.environ, Path("runs"), time.time())
    except (BadInput, RunFailure) as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code
    print("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
