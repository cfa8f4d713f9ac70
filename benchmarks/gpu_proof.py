"""Is this GPU used rightly and fully? One command, one table, one JSON; fails below thresholds.

    python benchmarks/gpu_proof.py [--minutes 9] [--out RESULT.json] [--only SECTION ...] [--quick]

Needs torch and DeepSpeed; uses Ray and transformers where they are installed. Every section runs
in a process of its own: one that breaks or hangs is a finding, and the others go on. `--quick`
runs tiny models, on a CPU in about a minute, to see that the proof itself works.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SECTIONS = {
    "ceilings": 0.05,
    "correctness": 0.28,
    "compiled": 0.07,
    "speed": 0.34,
    "profile": 0.06,
    "end_to_end": 0.12,
    "peers": 0.08,
}
"Each with its share of the time."
PACKAGES = ("torch", "deepspeed", "ray", "transformers", "triton", "numpy")
UNPROVEN = (
    "one GPU cannot show: NCCL between GPUs and machines, sharding that saves memory, the loss "
    "of a machine, real prices"
)


def main() -> int:
    """0 when every figure holds, 1 when one does not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--figures", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.section:
        return _run_section(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.jsonl"
        for name in arguments.only or SECTIONS:
            _in_a_process(name, arguments, figures)
        found = [json.loads(line) for line in figures.read_text().splitlines()]
    _show(found)
    if arguments.out:
        result = {"about": about(), "findings": found}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    missed = [record for record in found if not holds(record)]
    print(f"{len(found)} figures, {len(missed)} below what they must reach; {UNPROVEN}")
    return 1 if missed else 0


def about() -> dict[str, Any]:
    """Where and with what the figures were measured."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    gpu = torch.cuda.is_available()
    return {
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(0) if gpu else platform.processor() or "CPU",
        "memory_gib": torch.cuda.mem_get_info(0)[1] / 2**30 if gpu else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": versions,
        "command": " ".join(["python", "benchmarks/gpu_proof.py", *sys.argv[1:]]),
    }


def _in_a_process(name: str, arguments: argparse.Namespace, figures: Path) -> None:
    seconds = 60 * arguments.minutes * SECTIONS[name]
    command = [sys.executable, __file__, "--section", name, "--figures", str(figures)]
    command += ["--minutes", str(arguments.minutes), *["--quick"] * arguments.quick]
    print(f"{name} ...", file=sys.stderr, flush=True)
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:  # a section looks at the clock itself; one that hangs is ended with all it started
            _, errors = process.communicate(timeout=1.5 * seconds + 60)
            said = " ".join(errors.strip().splitlines()[-1:])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            said = "did not end in its time"
    broken = process.returncode != 0
    if broken:
        record = {"section": name, "what": name, "value": None, "unit": "", "least": 0.0,
                  "most": None, "note": said}  # fmt: skip
        with figures.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _run_section(arguments: argparse.Namespace) -> int:
    from proof.bench import Bench, OutOfTime

    seconds = 60 * arguments.minutes * SECTIONS[arguments.section]
    bench = Bench(arguments.figures, arguments.section, seconds, arguments.quick)
    section = importlib.import_module(f"proof.{arguments.section}")
    with contextlib.suppress(OutOfTime):
        section.measure(bench)
    return 0


def holds(record: dict[str, Any]) -> bool:
    from proof.bench import Finding

    return Finding(**{name: value for name, value in record.items() if name != "section"}).holds


def _show(found: list[dict[str, Any]]) -> None:
    section = ""
    for record in found:
        if record["section"] != section:
            section = record["section"]
            print(f"\n{section}")
        value = "-" if record["value"] is None else f"{record['value']:,.4g}"
        bounds = [f"{sign} {record[key]:,.4g}" for key, sign in (("least", ">="), ("most", "<="))
                  if record[key] is not None]  # fmt: skip
        mark = " " if holds(record) else "!"
        line = f"{mark} {record['what']:58} {value:>12} {record['unit']:12} {' '.join(bounds)}"
        print(line.rstrip() + (f"  ({record['note']})" if record["note"] else ""))
    print()


if __name__ == "__main__":
    sys.exit(main())
