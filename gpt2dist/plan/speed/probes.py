"""Measured speeds of machines at hand, kept beside the runs: better than any prediction."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gpt2dist.config.schema import Config, ModelConfig
from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput

PROBES_FILE = "probes.json"


@dataclass(frozen=True)
class Probe:
    """Steps of one model that were really taken on one device."""

    device: str
    precision: str
    model: ModelConfig
    micro_batch: int
    recompute: bool
    tokens_per_micro_batch: int
    micro_batch_seconds: float
    "Median: forward and backward."
    optimizer_seconds: float
    "Median: clipping and the update."
    peak_gib: float
    "Of the device's memory; on a CPU, of the process."
    measured_at: str
    "Date, ISO 8601."

    @property
    def of(self) -> tuple[str, str, ModelConfig, bool]:
        """What was measured: the last probe of it counts."""
        return self.device, self.precision, self.model, self.recompute

    def tokens_per_s(self, accumulation: int) -> float:
        """At `accumulation` micro-batches to the optimizer step."""
        return accumulation * self.tokens_per_micro_batch / self.step_seconds(accumulation)

    def step_seconds(self, accumulation: int) -> float:
        return accumulation * self.micro_batch_seconds + self.optimizer_seconds


def probe_of(config: Config, device: str, precision: str) -> Probe | None:
    """The last probe of this model on this device, from the config's runs folder; None without."""
    of = (device, precision, config.model, config.cluster.recompute)
    probes = read_probes(Path(config.paths.runs) / PROBES_FILE)
    return next((probe for probe in reversed(probes) if probe.of == of), None)


def read_probes(path: Path) -> list[Probe]:
    """Probes oldest first; BadInput naming the file when it is damaged."""
    try:
        records = json.loads(path.read_text())
        return [Probe(**{**record, "model": ModelConfig(**record["model"])}) for record in records]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{path} is damaged ({error}); remove it and probe again with `gpt2dist plan --probe`"
        ) from None


def save_probe(path: Path, probe: Probe) -> None:
    """Adds a probe; one of the same device, precision and model takes the old one's place."""
    others = [old for old in read_probes(path) if old.of != probe.of]
    entries = [asdict(entry) for entry in (*others, probe)]
    write_atomically(path, json.dumps(entries, indent=1) + "\n")
