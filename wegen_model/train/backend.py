"""What drives a training step: accelerate (one CPU, one GPU, DDP, FSDP2, DeepSpeed), or, inside a graph, one device alone.

Both have the same few calls; the loop knows no other. `kind` says how a checkpoint is kept (checkpoint.py).
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import torch
from torch import Tensor, autocast, nn


class SingleDevice:
    """One device in this process. For training inside a host's graph: no libraries, no global state, no other processes."""

    kind, main, rank, processes = "whole", True, 0, 1

    def __init__(self, device: torch.device, precision: str = "no"):
        self.device, self.dtype = device, {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.last = True

    def prepare(self, model: nn.Module, optimizer):
        return model.to(self.device), optimizer

    def plain(self, optimizer):
        return optimizer

    def forward(self, model: nn.Module, *args) -> dict[str, Tensor]:
        with autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return model(*args)

    @contextlib.contextmanager
    def piece(self, model: nn.Module, last: bool):
        """Backward pass of one micro-batch of a step; gradients are complete after the last."""
        self.last = last
        yield

    def backward(self, loss: Tensor, pieces: int) -> None:
        self.scaler.scale(loss / pieces).backward()

    def step(self, model: nn.Module, optimizer, clip: float) -> Tensor | None:
        """Clip, step and clear, after the last micro-batch; the gradient norm before clipping."""
        if not self.last:
            return None
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(list(model.parameters()), clip) if clip else None
        if norm is None or self.scaler.is_enabled() or torch.isfinite(norm):
            self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def gathered(self, model: nn.Module):
        """As AccelerateBackend's; one device has nothing to gather."""
        return contextlib.nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def agree(self, good: bool) -> bool:
        """Is `good` true on every process?"""
        return good

    def gather(self, value: Any) -> list:
        return [value]

    def wait(self) -> None:
        pass


class AccelerateBackend:
    """accelerate, as its launcher set it up.

    Gradients are averaged over processes and pieces; a loss that is a mean over all of them is scaled by the stage (`share`).
    """

    def __init__(self, device: torch.device, precision: str = "no", pieces: int = 1):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import GradientAccumulationPlugin

        known = AcceleratorState._shared_state
        if known and known.get("_mixed_precision") != precision:  # an earlier stage of this process
            AcceleratorState._reset_state()
        plugin = GradientAccumulationPlugin(num_steps=pieces, sync_with_dataloader=False)
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision, gradient_accumulation_plugin=plugin)
        self.device, self.rank = self.accelerator.device, self.accelerator.process_index
        self.processes, self.main = self.accelerator.num_processes, self.accelerator.is_main_process
        self._shards_on_cpu()
        engine = str(self.accelerator.distributed_type).rpartition(".")[2]
        self.kind = {"DEEPSPEED": "engine", "FSDP": "sharded"}.get(engine, "whole")
        if self.kind == "engine":
            self.accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1  # for its own logs only

    def _shards_on_cpu(self) -> None:
        """FSDP2 as it was asked for, over gloo: accelerate (1.15) looks for FSDP on devices alone, and gives DDP on CPUs in silence."""
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env

        state = self.accelerator.state
        if state.distributed_type == DistributedType.MULTI_CPU and parse_flag_from_env("ACCELERATE_USE_FSDP"):
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()

    def prepare(self, model: nn.Module, optimizer):
        if self.kind == "sharded":
            self._shard_what_is_there(model)
        return self.accelerator.prepare(model, optimizer)

    def _shard_what_is_there(self, model: nn.Module) -> None:
        """One configuration for all stages: of the layer classes that it names, those that this stage trains. Weights are gathered in the
        computation's precision; gradients are added up in float32, and autocast, not FSDP, narrows inputs: rotary angles stay exact."""
        from torch.distributed.fsdp import MixedPrecisionPolicy

        plugin, held = self.accelerator.state.fsdp_plugin, {type(m).__name__ for m in model.modules()}
        if plugin.fsdp_version != 2:
            raise ValueError("FSDP 1 is not supported: set fsdp_version: 2, as `wegen train configs fsdp2` has it.")
        if plugin.transformer_cls_names_to_wrap:
            plugin.transformer_cls_names_to_wrap = [name for name in plugin.transformer_cls_names_to_wrap if name in held]
        if any(not p.is_contiguous() for p in model.parameters()):
            logging.getLogger("wegen").warning("channels_last is for whole weights: FSDP shards contiguous ones, so it is left out.")
        for p in model.parameters():  # and it shards no scalars
            p.data = p.data.reshape(1) if p.ndim == 0 else p.data.contiguous()
        if narrow := {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision):
            plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)

    def plain(self, optimizer):
        return getattr(optimizer, "optimizer", optimizer)

    def forward(self, model: nn.Module, *args) -> dict[str, Tensor]:
        with self.accelerator.autocast():  # FSDP2 is not wrapped in it, everything else is
            return model(*args)

    def piece(self, model: nn.Module, last: bool):
        return self.accelerator.accumulate(model)

    def backward(self, loss: Tensor, pieces: int) -> None:
        self.accelerator.backward(loss)  # divides by the number of micro-batches

    def step(self, model: nn.Module, optimizer, clip: float) -> Tensor | None:
        norm = None
        if self.accelerator.sync_gradients:
            if clip:
                norm = self.accelerator.clip_grad_norm_(model.parameters(), clip)
                norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            if norm is not None and self.accelerator.scaler is None and not torch.isfinite(torch.as_tensor(norm)):
                return norm  # the loop stops; the weights stay as they are
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm

    @contextlib.contextmanager
    def gathered(self, model: Any):
        """For calls of single submodules: parameters that FSDP shards at the root, outside any wrapped layer, are gathered meanwhile."""
        if self.kind == "sharded":
            model.unshard()
        yield
        if self.kind == "sharded":
            model.reshard()

    def sum(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values.to(self.device), "sum").cpu()

    def agree(self, good: bool) -> bool:
        return self.processes == 1 and good or bool(self.sum(torch.tensor([float(good)]))[0] == self.processes)

    def gather(self, value: Any) -> list:
        if self.processes == 1:
            return [value]
        out: list = [None] * self.processes
        torch.distributed.all_gather_object(out, value)
        return out

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()
