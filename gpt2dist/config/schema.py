"""Every setting of a run, typed and frozen.

`model`, `data`, `optim` and `train` say what is learned and form the run's identity.
All other sections say where, how and for how much it is computed; they never change the curve.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ModelConfig:
    layers: int = 12
    heads: int = 12
    width: int = 768
    context: int = 1024
    "Tokens a window holds; the number of learned positions."
    vocab: int = 50257
    "50257 for the gpt2 tokenizer, 257 for bytes."
    dropout: float = 0.0
    "GPT-2 (2019) used 0.1; 0 is better below one epoch."


@dataclass(frozen=True)
class DataConfig:
    source: str = "stdlib"
    "stdlib, a path or glob, hf:OWNER/NAME[:CONFIG], or a folder that `data prepare` wrote."
    tokenizer: Literal["gpt2", "bytes"] = "gpt2"
    val_fraction: float = 0.005
    "Share of documents held out, chosen by a hash of each document's text."
    text_field: str = "text"
    "Column of jsonl, csv, parquet and Hugging Face sources that holds the text."
    max_documents: int | None = None
    "Stop after this many documents of the source; None takes all."


@dataclass(frozen=True)
class OptimConfig:
    peak_lr: float = 6e-4
    final_lr_fraction: float = 0.1
    "The rate at the last step, as a share of peak_lr."
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    warmup_steps: int = 700
    decay_fraction: float = 0.2
    "Share of all steps that wsd spends falling; the other schedules ignore it."
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    "Applied to matrices and embeddings, never to biases and norms."
    clip_norm: float = 1.0
    "Global gradient norm; 0 turns clipping off."


@dataclass(frozen=True)
class TrainConfig:
    tokens: int = 10_000_000_000
    "Length of the run; rounded up to whole steps."
    batch_tokens: int = 524_288
    "Tokens per optimizer step, whatever the hardware."
    seed: int = 0


@dataclass(frozen=True)
class ClusterConfig:
    device: Device = "auto"
    workers: int | None = None
    "One process per GPU. None: every GPU there is, or cpu_workers without one."
    cpu_workers: int = 1
    micro_batch: int | None = None
    "Sequences per forward pass and worker. None: the largest that fits and divides the batch."
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    "auto: bf16 where the device computes it natively, else fp32."
    mixed_precision: Literal["autocast", "engine"] = "autocast"
    "autocast keeps fp32 weights; engine is DeepSpeed's bf16/fp16 mode with fp32 masters."
    recompute: bool = False
    "Recompute each block's activations in the backward pass: less memory, a third more work."
    compile: bool | None = None
    "torch.compile; None: on for CUDA, off for CPU."
    max_restarts: int = 3
    "How often lost workers are replaced before the run gives up."
    usd_per_hour: float | None = None
    "Price of one worker machine; None: $GPT2DIST_USD_PER_HOUR, else own_usd_per_hour, else 0."
    watts: float | None = None
    "Draw of one own machine under load."
    usd_per_kwh: float | None = None
    purchase_usd: float | None = None
    "What one own machine cost to buy; its hours bear their share of it."
    lifetime_hours: float | None = None
    "Hours under load in a machine's life."
    network_gbit: float | None = None
    "Between machines, what one of them sends; None: 100 Gbit/s in plans."

    @property
    def own_usd_per_hour(self) -> tuple[float, str] | None:
        """An hour of one own machine, and what it is made of: its price, or power and purchase."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour, "config"
        parts = {}
        if self.watts is not None and self.usd_per_kwh is not None:
            parts["power"] = self.watts / 1000 * self.usd_per_kwh
        if self.purchase_usd is not None and self.lifetime_hours is not None:
            parts["purchase"] = self.purchase_usd / self.lifetime_hours
        return (sum(parts.values()), " and ".join(parts)) if parts else None


@dataclass(frozen=True)
class ZeroConfig:
    stage: Literal[0, 1, 2, 3] = 0
    "0 replicates; 1 shards optimizer states, 2 also gradients, 3 also weights."


@dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int | None = 1000
    every_minutes: float | None = 20.0
    keep_last: int = 2
    keep_best: bool = True


@dataclass(frozen=True)
class EvalConfig:
    every_steps: int | None = 250
    tokens: int = 10_485_760
    "Validation tokens per evaluation, from the front of the validation split."
    sample_every_steps: int | None = 1000
    sample_prompt: str = "\n"
    sample_tokens: int = 64


@dataclass(frozen=True)
class BudgetConfig:
    """Hard limits: the run saves and stops before it would pass one."""

    usd: float | None = None
    hours: float | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class TrackConfig:
    every_steps: int = 10
    "Optimizer steps per row."
    mlflow: bool = True
    experiment: str = "gpt2dist"
    uri: str | None = None
    "None: $MLFLOW_TRACKING_URI, else sqlite beside the runs."


@dataclass(frozen=True)
class PathsConfig:
    runs: str = "runs"
    data: str = "data"
    dataset: str | None = None
    "Folder of prepared shards; None: a folder under `data` named after source and tokenizer."


IDENTITY_SECTIONS = ("model", "data", "optim", "train")


@dataclass(frozen=True)
class Config:
    recipe: str = "custom"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)

    @property
    def batch_sequences(self) -> int:
        """Training windows per optimizer step."""
        return self.train.batch_tokens // self.model.context

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.train.tokens // self.train.batch_tokens)
