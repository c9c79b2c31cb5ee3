"""What a host offers to the model: layer classes, devices, memory, progress and cancelling.

The default is plain PyTorch on one device with a tqdm bar. `nodes/host/` is the same contract inside ComfyUI.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .config import check_kind
from .progress import ProgressEvent

PARTS = ("vision", "language", "projectors", "unet", "vae")


class Cancelled(Exception):
    """The person cancelled; nothing of the call is kept."""


class Placement(NamedTuple):
    device: torch.device  # where the part computes
    offload_device: torch.device  # where it waits
    dtype: torch.dtype  # precision of its weights


@dataclass
class Component:
    """A loaded part: its name (one of PARTS), its module, and whatever handle the host keeps it by."""

    name: str
    module: Any  # a torch.nn.Module
    handle: Any = None


class Runtime:
    """One device, torch.nn layers, no bar.

    Args:
        device: "cpu", "cuda", … ; None takes CUDA when there is one.
        dtype: precision of the weights; None is float32 on the CPU and bfloat16 elsewhere.
        progress: show a tqdm bar on standard error.
        blocks: kind that tower and language model are quantized to as they are read (config.QUANTIZATIONS); empty leaves them as stored.
    """

    operations: Any = torch.nn  # namespace of layer classes: Linear, LayerNorm, RMSNorm, Embedding, Conv2d

    def __init__(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None, progress: bool = False, blocks: str = ""
    ):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
        self.progress = progress
        self.blocks = check_kind(blocks)
        self._bar: Any = None

    def place(self, part: str) -> Placement:
        """Where and in which precision a part (one of PARTS) lives. Projectors follow the language model."""
        return Placement(self.device, self.device, self.dtype)

    def register_component(self, part: str, module: torch.nn.Module) -> Component:
        """Take charge of a freshly loaded part."""
        return Component(part, module.to(self.place(part).device))

    @contextlib.contextmanager
    def use(self, part: Component, extra_bytes: int = 0):
        """Keep a part resident on its device for the duration, with room for `extra_bytes` more; yields the device."""
        yield self.place(part.name).device

    def tick(self, event: ProgressEvent) -> None:
        """A step of something long is done. Raises `Cancelled` to stop."""
        if not self.progress:
            return
        from tqdm import tqdm

        if self._bar is None or self._bar.desc != event.label or self._bar.total != event.total:
            self.close()
            self._bar = tqdm(total=event.total, desc=event.label, leave=False)
        if event.kind == "train" and event.text:  # loss and rate
            self._bar.set_postfix_str(event.text, refresh=False)
        self._bar.update(event.step - self._bar.n)
        if event.done:
            self.close()

    def warn(self, text: str) -> None:
        """Tell the person something that is not an error."""
        logging.getLogger("wegen").warning(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
