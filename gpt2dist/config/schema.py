"""Every setting of a run, typed, bounded and frozen.

`model`, `data`, `optim` and `train` say what is learned and form the run's identity.
All other sections say where, how and for how much it is computed; they never change the curve.
A bound refuses what cannot be meant and says why; what fits is for the planner to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from gpt2dist.config.bounds import AnyText, OneLine, at_least, not_negative, positive, share

MOST_STEPS = 99_999_999
GPT3 = "GPT-3 (arXiv:2005.14165) has"
LLAMA3 = "Llama 3 (arXiv:2407.21783) learned from 1.5e13"
FP32 = "fp32 ends at 3.4e38"
Steps = Annotated[int, at_least(1, most=MOST_STEPS, why="checkpoints have eight digits for it")]
Count = Annotated[int, at_least(1, most=2**53, why="larger whole numbers are not exact in JSON")]
Step = Annotated[int, not_negative(most=MOST_STEPS, why="no run is longer")]
Seed = Annotated[int, not_negative(most=2**32 - 1, why="each step makes 64 bits of it")]
Tokens = Annotated[int, at_least(1, most=1e15, why=LLAMA3)]
Positive = Annotated[float, positive(most=1e38, why=FP32)]
Usd = Annotated[float, positive(most=1e12, why="a trillion dollars")]
Hours = Annotated[float, positive(most=1e6, why="more than a century")]
NotNegative = Annotated[float, not_negative(most=1e38, why=FP32)]
Share = Annotated[float, share()]
ShareBelowOne = Annotated[float, share(below_one=True)]
Text = Annotated[str, OneLine()]
Prose = Annotated[str, AnyText()]
TrackingUri = Annotated[
    str,
    OneLine(
        "$MLFLOW_TRACKING_URI for the whole address, or $MLFLOW_TRACKING_USERNAME and "
        "$MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials"
    ),
]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ModelConfig:
    layers: Annotated[int, at_least(1, most=1_000, why=f"{GPT3} 96")] = 12
    heads: Annotated[int, at_least(1, most=1_000, why=f"{GPT3} 96")] = 12
    width: Annotated[int, at_least(1, most=100_000, why=f"{GPT3} 12,288")] = 768
    context: Annotated[int, at_least(1, most=2**20, why=f"{GPT3} 2,048")] = 1024
    "Tokens a window holds; the number of learned positions."
    vocab: Annotated[int, at_least(1, most=2**16, why="shards hold 16-bit tokens")] = 50257
    "50257 for the gpt2 tokenizer, 257 for bytes."
    dropout: ShareBelowOne = 0.0
    "GPT-2 (2019) used 0.1; 0 is better below one epoch."


@dataclass(frozen=True)
class DataConfig:
    source: Text = "stdlib"
    "stdlib, a path or glob, hf:OWNER/NAME[:CONFIG], or a folder that `data prepare` wrote."
    tokenizer: Literal["gpt2", "bytes"] = "gpt2"
    val_fraction: ShareBelowOne = 0.005
    "Share of documents held out, chosen by a hash of each document's text."
    text_field: Text = "text"
    "Column of jsonl, csv, parquet and Hugging Face sources that holds the text."
    max_documents: Count | None = None
    "Stop after this many documents of the source; None takes all."


@dataclass(frozen=True)
class OptimConfig:
    peak_lr: Positive = 6e-4
    final_lr_fraction: Share = 0.1
    "The rate at the last step, as a share of peak_lr."
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    warmup_steps: Step = 700
    decay_fraction: Share = 0.2
    "Share of all steps that wsd spends falling; the other schedules ignore it."
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.95
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.1
    "Applied to matrices and embeddings, never to biases and norms."
    clip_norm: NotNegative = 1.0
    "Global gradient norm; 0 turns clipping off."


@dataclass(frozen=True)
class TrainConfig:
    tokens: Tokens = 10_000_000_000
    "Length of the run; rounded up to whole steps."
    batch_tokens: Annotated[int, at_least(1, most=2**30, why=f"{GPT3} 3.2 million")] = 524_288
    "Tokens per optimizer step, whatever the hardware."
    seed: Seed = 0


@dataclass(frozen=True)
class ClusterConfig:
    device: Device = "auto"
    workers: Annotated[int, at_least(1, most=100_000, why="no cluster has more GPUs")] | None = None
    "One process per GPU. None: every GPU there is, or cpu_workers without one."
    cpu_workers: Annotated[int, at_least(1, most=1_024, why="one process each")] = 1
    micro_batch: Annotated[int, at_least(1, most=2**20, why="no GPU holds more")] | None = None
    "Sequences per forward pass and worker. None: the largest that fits and divides the batch."
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    "auto: bf16 where the device computes it natively, else fp16 on a GPU, fp32 on a CPU."
    mixed_precision: Literal["autocast", "engine"] = "autocast"
    "autocast keeps fp32 weights; engine is DeepSpeed's bf16/fp16 mode with fp32 masters."
    recompute: bool = False
    "Recompute each block's activations in the backward pass: less memory, a third more work."
    compile: bool | None = None
    "torch.compile; None: on for CUDA, off for CPU."
    max_restarts: Annotated[int, not_negative(most=10_000, why="each takes a minute or more")] = 3
    "How often lost workers are replaced before the run gives up."
    join_minutes: Annotated[float, positive(most=10_080, why="a week")] = 10.0
    "How long a run waits for machines for its workers, each time; then it ends with exit code 75."
    usd_per_hour: Annotated[float, not_negative(most=1e6, why="8 H100 cost 10 to 100")] | None = (
        None
    )
    "Of one worker machine; None: $GPT2DIST_USD_PER_HOUR, else own_usd_per_hour, else unknown."
    watts: Annotated[float, not_negative(most=1e6, why="72 B200 draw 1.2e5")] | None = None
    "Draw of one own machine under load."
    usd_per_kwh: Annotated[float, not_negative(most=100, why="homes pay 0.05 to 0.5")] | None = None
    purchase_usd: Annotated[float, not_negative(most=1e8, why="8 B200 cost 5e5")] | None = None
    "What one own machine cost to buy; its hours bear their share of it."
    lifetime_hours: Annotated[float, positive(most=1e6, why="ten years are 87,600")] | None = None
    "Hours under load in a machine's life."
    network_gbit: Annotated[float, positive(most=1e5, why="72 B200 send 28,800")] | None = None
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
    every_steps: Steps | None = 1000
    every_minutes: Annotated[float, positive(most=525_600, why="a year")] | None = 20.0
    keep_last: Steps = 2
    keep_best: bool = True
    storage_patience_minutes: Annotated[float, not_negative(most=1_440, why="a day")] = 10.0
    "How long training goes on while the run's folder cannot be written; 0 ends it at once."


@dataclass(frozen=True)
class EvalConfig:
    every_steps: Steps | None = 250
    tokens: Tokens = 10_485_760
    "Validation tokens per evaluation, from the front of the validation split."
    sample_every_steps: Steps | None = 1000
    sample_prompt: Prose = "\n"
    sample_tokens: Count = 64


@dataclass(frozen=True)
class BudgetConfig:
    """Hard limits: the run saves and stops before it would pass one."""

    usd: Usd | None = None
    hours: Hours | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True)
class TrackConfig:
    every_steps: Steps = 10
    "Optimizer steps per row."
    mlflow: bool = True
    experiment: Text = "gpt2dist"
    uri: TrackingUri | None = None
    "None: $MLFLOW_TRACKING_URI, else sqlite beside the runs."


@dataclass(frozen=True)
class PathsConfig:
    runs: Text = "runs"
    data: Text = "data"
    dataset: Text | None = None
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

    @property
    def total_tokens(self) -> int:
        """`train.tokens`, rounded up to whole steps."""
        return self.total_steps * self.train.batch_tokens
