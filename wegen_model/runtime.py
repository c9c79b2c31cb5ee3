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
WORDS = {"vision": "tower (vision)", "language": "language model", "projectors": "projectors", "unet": "UNet", "vae": "VAE"}


class Cancelled(Exception):
    """The person cancelled; nothing of the call is kept."""


class NotANumber(ValueError):
    """What a part made holds NaN or infinity; the text names the part and what to try."""


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


def check_result(made: torch.Tensor, what: str, **modules: torch.nn.Module) -> torch.Tensor:
    """`made`, any shape, unchanged; one look over it, and only where it is no number over the weights.

    Args:
        what: its name in the error. modules: part (one of PARTS) -> module of those that made it, the one that made it last first.
    Raises:
        NotANumber: NaN or infinity in it.
    """
    if bool(torch.isfinite(made).all()):
        return made
    for part, module in modules.items():
        if name := not_finite(module):
            raise NotANumber(
                f"The {WORDS[part]} made {what} with NaN or infinity in it, because its weights hold some ({name}): its file is damaged, or "
                "a LoRA that was added is. Copy or convert the model again (`wegen convert` names such weights), or leave the LoRA out."
            )
    part, module = next(iter(modules.items()))
    dtype = str(next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)).removeprefix("torch.")
    wider = "float32" if dtype == "bfloat16" else "bfloat16 or float32"
    advice = (
        "Its weights are numbers, but too large or not of this configuration: copy or convert the model again."
        if dtype == "float32"
        else f"It computes in {dtype}, which some models overflow. Load the model in {wider} (dtype of the loader node, `WeGen.load(dtype=…)`)."
    )
    raise NotANumber(f"The {WORDS[part]} made {what} with NaN or infinity in it. {advice}")


def not_finite(module: torch.nn.Module) -> str:
    """The name of the first floating-point weight of a module that holds NaN or infinity; empty where none does."""
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.is_meta and not is_finite(tensor):
            return name
    return ""


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a floating-point tensor holds numbers alone; piece by piece, so that little memory is taken beside it."""
    for piece in tensor.detach().reshape(-1).split(1 << 22):
        if not bool(torch.isfinite(piece.float() if piece.element_size() == 1 else piece).all()):
            return False
    return True
