"""The same step beside what others would run, in turn: see benchmarks/peers.py."""

from __future__ import annotations

import statistics

import peers

from proof.bench import Bench

AT_LEAST = {"trainer": 1.3, "nanogpt": 1.0}
"Ours over theirs, on a GPU: what the project promises."


def measure(bench: Bench) -> None:
    """Ours against a bare compiled loop and Hugging Face's Trainer."""
    chosen = [peer for peer in peers.usable_peers() if peer not in ("bare", "ours-ray")]
    case, rounds, steps = ("tiny", 1, 8) if bench.quick else ("124m-gpu", 2, 25)
    if bench.quick:
        chosen = ["nanogpt", "ours-local"]
    with bench.each("peers"):
        found = peers.compare(case, chosen, rounds, steps)
        ours = statistics.median(found["ours-local"])
        bench.found("ours, --local", ours, "tokens/s")
        for peer, least in AT_LEAST.items():
            if peer not in found:
                bench.found(f"ours over {peer}", None, note="not installed")
                continue
            ratio = ours / statistics.median(found[peer])
            bound = least if bench.device == "cuda" else None
            bench.found(f"ours over {peer}", ratio, "x", least=bound)
