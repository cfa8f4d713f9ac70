"""`gpt2dist train` as people type it: to its end, interrupted and resumed, out of memory."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from proof.bench import TINY, Bench

STEPS = 100
ROWS = ["track.every_steps=1", "track.mlflow=false", "eval.every_steps=25", "eval.tokens=2048",
        "eval.sample_every_steps=null", "checkpoint.every_steps=25"]  # fmt: skip
RESUMED_NATS = 0.02
"Between a run and its like that was interrupted; kernels that add atomically differ in bits."


def measure(bench: Bench) -> None:
    """On text of this machine's own Python, as bytes: nothing has to be downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shards = _prepared(home)
        words = [f"cluster.device={bench.device}", f"paths.dataset={shards}", *ROWS]
        words.append(f"data.source={home / 'text'}")
        with bench.each("train --local"):
            _interrupted(bench, home, [*words, "--local"])
        if importlib.util.find_spec("ray") is not None and not bench.quick:
            with bench.each("train under Ray", seconds=90):
                done = _train(home, "ray", [*words, "--fresh"])
                bench.found("train under Ray: exit code", done.returncode, most=0)
        if bench.device == "cuda":
            with bench.each("out of memory", seconds=30):
                _out_of_memory(bench, home, [*words, "--local"])


def _prepared(home: Path) -> Path:
    text = home / "text"
    text.mkdir()
    for number, source in enumerate(sorted(Path(json.__file__).parents[1].glob("*.py"))[:40]):
        (text / f"{number}.txt").write_text(source.read_text(errors="replace"))
    shards = home / "shards"
    words = ["data", "prepare", str(text), "--out", str(shards), "--tokenizer", "bytes",
             "--val-fraction", "0.1", "--local"]  # fmt: skip
    subprocess.run([sys.executable, "-m", "gpt2dist", *words], check=True, capture_output=True)
    return shards


def _command(home: Path, name: str, words: list[str]) -> list[str]:
    runs = f"paths.runs={home / 'runs'}"
    tiny = [*TINY, f"train.tokens={STEPS * 1024}", "data.val_fraction=0.1"]
    return [sys.executable, "-m", "gpt2dist", "train", "debug", "--name", name, runs, *tiny, *words]


def _train(home: Path, name: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(home, name, words), capture_output=True, text=True, check=False)


def _rows(home: Path, name: str) -> list[dict[str, float]]:
    path = home / "runs" / name / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _interrupted(bench: Bench, home: Path, words: list[str]) -> None:
    whole = _train(home, "whole", words)
    bench.found("train --local: exit code", whole.returncode, most=0, note=whole.stderr[-300:])
    rows = _rows(home, "whole")
    steps = [row["step_s"] for row in rows[5:]]
    p99 = quantiles(steps, n=100)[-1]
    bench.found("99th percentile of a step's time", p99 / median(steps), "x the median")
    gaps = [after["time"] - before["time"] for before, after in pairwise(rows)]
    stall = max(gaps[5:]) - median(gaps[5:])
    bench.found("longest pause for validation and save", stall, "s")
    with subprocess.Popen(
        _command(home, "half", words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while process.poll() is None and len(_rows(home, "half")) < STEPS // 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    bench.found("SIGTERM: exit code", process.returncode, least=143, most=143)
    resumed = _train(home, "half", words)
    bench.found("resumed: exit code", resumed.returncode, most=0, note=resumed.stderr[-300:])
    pairs = zip(rows, _rows(home, "half"), strict=True)
    worst = max(abs(one["loss"] - other["loss"]) for one, other in pairs)
    bench.found("resumed: worst difference of a row", worst, "nats", most=RESUMED_NATS)


def _out_of_memory(bench: Bench, home: Path, words: list[str]) -> None:
    """A micro-batch that was typed and does not fit is one line, not a trace."""
    large = ["model.layers=48", "model.width=1600", "model.heads=25", "model.context=1024",
             "train.batch_tokens=4194304", "train.tokens=8388608", "cluster.micro_batch=4096",
             "cluster.recompute=false"]  # fmt: skip
    done = _train(home, "large", [*words, *large])
    bench.found("out of memory: exit code", done.returncode, least=1, most=2)
    told = "micro_batch" in done.stderr and "Traceback" not in done.stderr
    bench.found("out of memory: one line", float(told), least=1, note=done.stderr[-300:])
