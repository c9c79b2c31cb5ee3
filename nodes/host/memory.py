"""Layers, devices, memory, progress and cancel as ComfyUI decides them: `ComfyRuntime`. Imported only inside ComfyUI."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Any

import torch

from ...wegen_model.progress import ProgressEvent
from ...wegen_model.runtime import Component, Placement
from .progress import NodeRuntime, show

UPDATES_PER_SECOND = 10  # of text and preview pictures sent to the browser


class ComfyRuntime(NodeRuntime):
    """Layers, devices, precision, memory, progress and cancel as ComfyUI decides them."""

    def __init__(self, dtype: torch.dtype | None = None, offload: str = "default", blocks: str = ""):
        super().__init__(device="cpu", dtype=dtype, blocks=blocks)
        self.chosen = dtype  # precision chosen in the loader; None leaves it to ComfyUI
        self.offload = offload  # one of OFFLOAD
        self.operations = layers()
        self._active: list[tuple[Any, int]] = []  # patchers in use, with the room each asked for
        self._last: tuple[str, int, int] = ("", 0, 0)  # label, total and step of the last event
        self._shown = 0.0  # when

    def place(self, part: str) -> Placement:
        import comfy.model_management as mm

        if part == "unet":
            device, offload = mm.get_torch_device(), mm.unet_offload_device()
            dtype = self.chosen or mm.unet_dtype(device, supported_dtypes=[torch.bfloat16, torch.float16, torch.float32])
        elif part == "vae":
            device, offload = mm.vae_device(), mm.vae_offload_device()
            wide = self.chosen if self.chosen != torch.float16 else None  # SDXL's VAE overflows in float16
            dtype = wide or mm.vae_dtype(device, [torch.bfloat16, torch.float32])
        else:
            device, offload = mm.text_encoder_device(), mm.text_encoder_offload_device()
            dtype = self.chosen or mm.text_encoder_dtype(device)
            if self.chosen is None and dtype == torch.float16 and mm.should_use_bf16(device):
                dtype = torch.bfloat16  # WeGen's public weights were trained in it
        if self.offload == "cpu":
            device = offload = torch.device("cpu")
        if mm.is_device_cpu(device) and self.chosen is None:
            dtype = torch.float32
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            dtype = torch.bfloat16 if mm.should_use_bf16(device) else torch.float16  # --fp8_…: stored wide for now
        return Placement(torch.device(device), torch.device(offload), dtype)

    def register_component(self, part: str, module: torch.nn.Module) -> Component:
        return Component(part, module, self.hold(part, register_leaves(module)))

    def hold(self, part: str, module: torch.nn.Module):
        """A ModelPatcher for a part's module, placed as the loader says."""
        place = self.place(part)
        held = patcher(module, place.device, place.offload_device)
        return streamed(held) if self.offload == "stream" else held

    @contextlib.contextmanager
    def use(self, part: Component, extra_bytes: int = 0):
        """Nested uses are loaded together, so that one does not push the other out."""
        import comfy.model_management as mm

        self._active.append((part.handle, extra_bytes))
        try:
            mm.load_models_gpu([patcher for patcher, _ in self._active], memory_required=sum(n for _, n in self._active))
            yield torch.device(part.handle.load_device)
        finally:
            self._active.pop()

    def tick(self, event: ProgressEvent) -> None:
        import comfy.model_management as mm
        import comfy.utils

        mm.throw_exception_if_processing_interrupted()
        last_label, last_total, last_step = self._last
        if self._bar is None or (event.label, event.total) != (last_label, last_total) or event.step <= last_step:
            self._bar, self._shown = comfy.utils.ProgressBar(event.total), 0.0
        self._last = (event.label, event.total, event.step)
        if self.listener is not None:  # the node shows it itself
            self.listener(event)
            self._bar.update_absolute(event.step, event.total)
            return
        picture = None
        if time.monotonic() - self._shown >= 1 / UPDATES_PER_SECOND or event.done:
            self._shown = time.monotonic()
            picture = _preview(event.preview)
            if event.text:
                show(event.text)
        self._bar.update_absolute(event.step, event.total, picture)

    def close(self) -> None:
        self._bar, self._last = None, ("", 0, 0)


class PatcherShell(torch.nn.Module):
    """A module under one name, where a patcher may write its own attributes."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module


def patcher(module: torch.nn.Module, device: torch.device, offload_device: torch.device):
    """A ModelPatcher of the class that this ComfyUI uses now: newer ones choose it after packs are loaded."""
    import comfy.model_patcher

    # diffusers' `device` is read-only, and the patcher writes it
    read_only = isinstance(getattr(type(module), "device", None), property)
    held = type(type(module).__name__, (PatcherShell,), {})(module) if read_only else module  # the log names a model by its class
    kind = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return kind(held, load_device=device, offload_device=offload_device)


def streamed(held):
    """The same patcher, which never brings its weights to the device to stay: each layer's come when it runs."""
    if getattr(held, "is_dynamic", bool)():  # it does so by itself, as memory asks
        return held

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        kind.load(self, device_to, 0.1, force_patch_weights, False)  # room for a tenth of a byte

    kind = type(held)
    held.__class__ = type(kind.__name__, (kind,), {"load": load})
    return held


@functools.cache
def layers() -> Any:
    """comfy.ops.manual_cast, without the layers that newer versions leave empty until their weights come: ours are built on
    the meta device and checked against the file."""
    from comfy.ops import manual_cast

    from .quantization import QuantizedLinear

    def full(base: type) -> type:
        def load(self, *args, **kwargs):
            return base._load_from_state_dict(self, *args, **kwargs)

        return type(base.__name__, (base,), {"_load_from_state_dict": load})

    return type(
        "operations",
        (manual_cast,),
        {"Linear": full(manual_cast.Linear), "Embedding": full(manual_cast.Embedding), "QuantizedLinear": QuantizedLinear},
    )


def register_leaves(module: torch.nn.Module) -> torch.nn.Module:
    """Give plain layers (diffusers') ComfyUI's behaviour: streaming, casting. Other layers with weights move them to the input's device."""
    from comfy.ops import CastWeightBiasOp

    kinds = {kind: getattr(layers(), kind.__name__) for kind in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)}
    for leaf in module.modules():
        kind = type(leaf)
        if kind in kinds:
            leaf.__class__ = kinds[kind]
        elif leaf._parameters and not leaf._modules and not issubclass(kind, CastWeightBiasOp):
            leaf.__class__ = type(kind.__name__, (CastOnForward, kind, CastWeightBiasOp), {"comfy_cast_weights": True})
    return module


class CastOnForward:
    """A layer class without a counterpart in comfy.ops (diffusers' RMSNorm): its weights are moved to the input's device for each call."""

    def forward(self, x, *args, **kwargs):
        kept = self._parameters
        self._parameters = {name: p if p is None else p.to(x.device, x.dtype) for name, p in kept.items()}
        try:
            return super().forward(x, *args, **kwargs)
        finally:
            self._parameters = kept


def _preview(preview: Any):
    """("JPEG", picture, longest side) as ComfyUI's bar takes it, or None; the user's preview setting is respected."""
    if preview is None:
        return None
    from comfy.cli_args import LatentPreviewMethod, args

    if args.preview_method == LatentPreviewMethod.NoPreviews:
        return None
    from PIL import Image

    pixels = (preview().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return "JPEG", Image.fromarray(pixels), getattr(args, "preview_size", 512)
