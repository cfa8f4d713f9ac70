"""The only module that touches DeepSpeed: build an engine, step it, take its state apart.

The state that leaves this module is per parameter and full fp32 (weight, exp_avg, exp_avg_sq),
so a checkpoint does not depend on ZeRO stage or world size.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
import torch.distributed as dist

from gpt2dist.config.schema import Config
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.plan.memory.training import bucket_elements
from gpt2dist.plan.placement import Placement

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class StepResult:
    applied: bool
    "False: the gradient was not finite and neither weights nor moments changed."
    grad_norm: float
    "Global norm before clipping; infinite when the step was skipped."


@dataclass(frozen=True)
class ParameterState:
    """One parameter, whole and in fp32, on whatever device the engine runs."""

    name: str
    weight: torch.Tensor
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor


def deepspeed_config(config: Config, placement: Placement) -> dict[str, Any]:
    """DeepSpeed's own configuration for a run on a placement."""
    stage = placement.zero_stage
    engine_mode = placement.layout.mixed_precision == "engine"
    half = placement.precision != "fp32"
    tree: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": placement.micro_batch,
        "gradient_accumulation_steps": placement.accumulation,
        # Stage 0 is clipped by Engine.step, which needs the norm before the step anyway.
        "gradient_clipping": config.optim.clip_norm if stage else 0.0,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": bucket_elements(config.model)},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
        "wall_clock_breakdown": False,
        "data_types": {"grad_accum_dtype": "fp32"},
    }
    if placement.precision == "fp16":
        tree["fp16"] = {"enabled": True, "initial_scale_power": 16}
    elif half and engine_mode:
        # Else stage 1 holds every gradient twice, in bf16 and in fp32.
        tree["bf16"] = {"enabled": True, "immediate_grad_update": True}
    elif half:
        tree["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    if placement.device == "cpu":
        # Large default buckets are sized for GPUs: they cost 2 GB of host memory a worker.
        tree["zero_optimization"]["allgather_bucket_size"] = 50_000_000
        if stage == 3:
            tree["zero_optimization"]["stage3_prefetch_bucket_size"] = 5_000_000
    return tree


class Engine:
    """A model under DeepSpeed on one rank of an initialised process group."""

    def __init__(
        self,
        model: GPT2,
        optimizer: torch.optim.Optimizer,
        config: Config,
        placement: Placement,
    ) -> None:
        deepspeed = _import_deepspeed(placement.device)
        self.stage = placement.zero_stage
        self.clip_norm = config.optim.clip_norm
        self.device = torch.device(placement.torch_device)
        self.precision = placement.precision
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.names = [name for name, _ in model.named_parameters()]
        self.shapes = [tuple(p.shape) for p in model.parameters()]
        # The scaler of DeepSpeed 0.19 asks autocast for its device before a model is moved.
        # BF16_Optimizer prints the machine's memory.
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            self._engine, *_ = deepspeed.initialize(
                model=model,
                optimizer=optimizer,
                config=deepspeed_config(config, placement),
                dist_init_required=False,
            )
        if self.stage in (1, 2):
            # DeepSpeed looks for non-finite gradients only in fp16 unless told to.
            self._engine.optimizer.check_grad_overflow = True

    @property
    def module(self) -> GPT2:
        """The model itself; call it only through `autocast` and with all ranks at stage 3."""
        return self._engine.module

    @property
    def config(self) -> dict[str, Any]:
        """What the live engine understood: stage, dtype, batches."""
        return {
            "stage": self._engine.zero_optimization_stage(),
            "accumulation": self._engine.gradient_accumulation_steps(),
            "micro_batch": self._engine.train_micro_batch_size_per_gpu(),
            "autocast": self._engine.torch_autocast_enabled(),
            "bf16": self._engine.bfloat16_enabled(),
            "fp16": self._engine.fp16_enabled(),
        }

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that training forwards run in, for evaluation and sampling."""
        if not self._engine.torch_autocast_enabled():
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._engine.torch_autocast_dtype())

    def accumulate(
        self, tokens_BT: torch.Tensor, targets_BT: torch.Tensor, global_valid: int
    ) -> torch.Tensor:
        """One micro-batch forward and backward; returns its summed loss, detached, fp32.

        `global_valid` counts the targets of the whole step over all ranks and micro-batches:
        gradients are those of sum(loss) / global_valid however the batch is cut.
        """
        loss_sum = self._engine(tokens_BT, targets_BT)
        # DeepSpeed averages over ranks; the loss is already divided by the global count.
        self._engine.backward(loss_sum * (self.world / global_valid), scale_wrt_gas=False)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # advances DeepSpeed's micro-step counter only
        return loss_sum.detach()

    def step(self, rate: float) -> StepResult:
        """The optimizer step at learning rate `rate`, after the last `accumulate`."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        if self.stage == 0:
            return self._step_replicated()
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        norm = math.inf if norm is None else float(norm)
        return StepResult(applied=not self._engine.optimizer.overflow, grad_norm=norm)

    def _step_replicated(self) -> StepResult:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        applied = math.isfinite(float(norm))
        if not applied:
            for parameter in self.module.parameters():
                parameter.grad = None  # AdamW leaves parameters without gradient untouched
        elif self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.module.parameters(), self.clip_norm, norm)
        self._engine.step()
        return StepResult(applied, float(norm) if applied else math.inf)

    @property
    def loss_scale(self) -> float | None:
        """fp16's current loss scale; None in other precisions."""
        return float(self._engine.optimizer.loss_scale) if self._engine.fp16_enabled() else None

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        if self._engine.fp16_enabled():
            self._engine.optimizer.loss_scaler.cur_scale = scale

    # State. Collective at stages 1 to 3: every rank calls, every rank receives.

    def parameter_states(self) -> Iterator[ParameterState]:
        """Every parameter in the order of `names`."""
        self._link()
        for name, parameter in zip(self.names, self.module.parameters()):
            yield ParameterState(
                name,
                self._read(parameter, None),
                *(self._read(parameter, moment) for moment in MOMENTS),
            )

    def load_optimizer(self, read: Callable[[str], ParameterState], applied_steps: int) -> None:
        """Restore masters and moments; `read(name)` gives each parameter's full state.

        The model handed to the constructor must already hold the weights.
        """
        if not applied_steps:
            return
        optimizer = self._torch_optimizer()
        for flat in self._optimized_tensors():
            optimizer.state[flat] = _empty_moments(flat, optimizer, applied_steps)
        self._link()
        for name, parameter in zip(self.names, self.module.parameters()):
            saved = read(name)
            self._write(parameter, None, saved.weight)
            self._write(parameter, "exp_avg", saved.exp_avg)
            self._write(parameter, "exp_avg_sq", saved.exp_avg_sq)

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return self._engine.optimizer if self.stage == 0 else self._engine.optimizer.optimizer

    def _optimized_tensors(self) -> list[torch.Tensor]:
        if self.stage == 3:  # whose groups are filled only while it steps
            return list(self._engine.optimizer.fp32_partitioned_groups_flat)
        groups = self._torch_optimizer().param_groups
        return [tensor for group in groups for tensor in group["params"]]

    def _link(self) -> None:
        """Point stages 1 to 3 at the moments that exist now; DeepSpeed links 1 and 2 only once."""
        if self.stage == 0:
            return
        optimizer = self._torch_optimizer()
        for flat in self._optimized_tensors():
            if not optimizer.state.get(flat):
                optimizer.state[flat] = _empty_moments(flat, optimizer, 0)
        if self.stage < 3:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _read(self, parameter: torch.nn.Parameter, moment: str | None) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage == 0:
            if moment is None:
                return parameter.detach().float()
            state = self._engine.optimizer.state.get(parameter, {})
            return state[moment] if moment in state else torch.zeros_like(parameter)
        if moment is None:
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, moment)

    def _write(self, parameter: torch.nn.Parameter, moment: str | None, value: Any) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        value = value.to(self.device, torch.float32)
        if self.stage == 0:
            state = self._engine.optimizer.state
            with torch.no_grad():
                (parameter if moment is None else state[parameter][moment]).copy_(value)
        elif moment is None:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, moment)


def _empty_moments(
    flat: torch.Tensor, optimizer: torch.optim.Optimizer, applied_steps: int
) -> dict[str, torch.Tensor]:
    on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    return {
        "step": torch.tensor(
            float(applied_steps), device=flat.device if on_device else "cpu", dtype=torch.float32
        ),
        "exp_avg": torch.zeros_like(flat, dtype=torch.float32),
        "exp_avg_sq": torch.zeros_like(flat, dtype=torch.float32),
    }


def _import_deepspeed(device: str) -> Any:
    """DeepSpeed without its banner, and without compiling an op that gloo does not need."""
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it looked for a GPU
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _hidden("mlflow"):
        warnings.simplefilter("ignore")
        import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Otherwise the first CPU engine compiles a shared-memory extension for 25 s.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Looks not installed: DeepSpeed's autotuner imports MLflow on sight, which takes a second."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
