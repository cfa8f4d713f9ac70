"""How one training step is laid out on the hardware: all that its memory and speed depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
MixedPrecision = Literal["autocast", "engine"]
Kernels = Literal["eager", "compiled", "hand-written"]
Optimizer = Literal["adamw", "adamw8bit"]
Offload = Literal["none", "optimizer"]


@dataclass(frozen=True)
class Layout:
    gpus_per_node: int = 1
    nodes: int = 1
    micro_batch: int = 1
    "Sequences of full context per forward pass and GPU."
    accumulation: int = 1
    "Micro-batches per GPU and optimizer step."
    precision: Precision = "bf16"
    mixed_precision: MixedPrecision = "autocast"
    kernels: Kernels = "compiled"
    zero_stage: Literal[0, 1, 2, 3] = 0
    recompute: bool = False
    "Recompute each block in the backward pass."
    fused_attention: bool = True
    "False: the T x T attention matrix is stored."
    loss_chunk_tokens: int | None = 1024
    "Tokens whose logits exist at once; None: those of the whole micro-batch."
    optimizer: Optimizer = "adamw"
    lora_rank: int | None = None
    "Rank of the adapters beside the four matrices of each block; None trains all weights."
    offload: Offload = "none"
    "optimizer: Adam's moments and the fp32 master weights live in host memory."

    @property
    def gpus(self) -> int:
        return self.gpus_per_node * self.nodes
