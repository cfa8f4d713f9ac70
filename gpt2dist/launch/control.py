"""`gpt2dist launch status|logs|stop`: what was launched, what it says, and giving it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2dist.errors import BadInput
from gpt2dist.launch.record import LaunchRecord, names, read_record
from gpt2dist.launch.sky_command import ask, call, fetch_runs, find_sky, give_back


def status(runs: Path = Path("runs")) -> str:
    """Every launch from here, one line each, then what SkyPilot knows of them now."""
    records = [read_record(runs, name) for name in names(runs)]
    if not records:
        return f"nothing was launched from here: there are no records in {runs / 'launches'}"
    lines = [_line(record) for record in records]
    try:
        sky = find_sky()
    except BadInput as missing:
        return "\n".join([*lines, f"what is running now is unknown: {missing}"])
    for managed, words in ((False, ["status", "--refresh"]), (True, ["jobs", "queue"])):
        if any(record.managed is managed for record in records):
            lines += ["", ask(sky, words).strip()]
    return "\n".join(lines)


def _line(record: LaunchRecord) -> str:
    machines = f"{record.nodes} x {record.instance}{' spot' if record.spot else ''}"
    return (
        f"{record.name}  {record.launched_at}  {record.recipe} on {machines} at {record.provider}, "
        f"${record.usd_per_hour * record.nodes:.2f}/h ({record.price_source}), "
        f"budget ${record.budget_usd:.2f}, run {record.run}"
    )


def logs(name: str, runs: Path = Path("runs")) -> int:
    """Follow what a launch prints; Ctrl-C leaves it running."""
    record = read_record(runs, name)
    words = ["jobs", "logs", "--name", name] if record.managed else ["logs", name]
    return call(find_sky(), words)


def stop(name: str, runs: Path = Path("runs"), say: Callable[[str], None] = print) -> int:
    """Fetch what there is and give the machines back; raises RunFailure when they may remain."""
    record = read_record(runs, name)
    sky = find_sky()
    if record.managed:
        words = ["jobs", "cancel", "--yes", "--name", name]
    else:
        if record.bucket is None and fetch_runs(name, runs):
            say("note     the run could not be copied here first")
        words = ["down", "--yes", name]
    give_back(sky, words, record.provider)
    return 0
