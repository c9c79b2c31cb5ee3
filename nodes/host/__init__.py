"""Where the nodes run: inside ComfyUI, or headless. The only package that touches comfy.*, folder_paths and the server.

    folders.py        which model folders there are           progress.py   what a node tells the person
    memory.py         the Runtime inside ComfyUI              sampling.py   the decoder as ComfyUI's own MODEL and VAE
    quantization.py   its layer over quantized weights        training.py   folders and memory of a fine-tune
    regional.py       a bias on its MODEL's cross-attention   later.py      whether what follows a node can run

ComfyUI is used when it is already loaded (it is, before any pack), and never imported from outside: memory.py, sampling.py
and regional.py import comfy.* and are imported late.
"""

from __future__ import annotations

import logging
import sys

import torch

from ...wegen_model.config import QUANTIZATIONS
from .folders import (
    BUNDLED,
    FOLDER,
    bundled,
    check_model,
    fingerprint,
    inside_comfyui,
    knows,
    list_models,
    model_roots,
    person_folders,
    walk,
)
from .folders import register as register_folder
from .later import check_later
from .later import register as register_later
from .progress import NodeRuntime, executing_node, nothing, show, shown, watch

__all__ = [
    "BUNDLED",
    "DTYPES",
    "FOLDER",
    "HeadlessRuntime",
    "OFFLOAD",
    "QUANTISED",
    "bundled",
    "check_later",
    "check_model",
    "executing_node",
    "fingerprint",
    "inside_comfyui",
    "knows",
    "list_models",
    "model_roots",
    "native",
    "nothing",
    "person_folders",
    "with_regional_attention",
    "runtime",
    "show",
    "shown",
    "walk",
    "watch",
]

DTYPES = ("default", "float32", "bfloat16", "float16")
QUANTISED = tuple(sorted(QUANTIZATIONS, key=lambda name: name != "fp8"))  # the widget's order: fp8 has always stood first
OFFLOAD = ("default", "stream", "cpu")


class HeadlessRuntime(NodeRuntime):
    """`wegen run` and tests: plain PyTorch."""


def runtime(dtype: str = "default", offload: str = "default") -> NodeRuntime:
    """A Runtime for one loaded model. `dtype`: one of DTYPES or QUANTISED. `offload`: one of OFFLOAD; headless, all but "cpu" leave it
    to torch."""
    blocks = dtype if dtype in QUANTISED else ""
    chosen = None if dtype == "default" or blocks else getattr(torch, dtype)
    if not inside_comfyui():
        return HeadlessRuntime("cpu" if offload == "cpu" else None, chosen, progress=sys.stderr.isatty(), blocks=blocks)
    from .memory import ComfyRuntime

    return ComfyRuntime(chosen, offload, blocks)


def native(decoder):
    """A `WeGenDecoder` as ComfyUI's own (MODEL, VAE).

    Raises:
        ValueError: outside ComfyUI; a decoder that ComfyUI's samplers cannot run.
    """
    if not inside_comfyui():
        raise ValueError(
            "Decoder to MODEL + VAE works only inside ComfyUI: there is no KSampler here. Use SDXL Feature Decoder, "
            "which paints with the same weights."
        )
    from . import sampling

    model = sampling.model(decoder)
    for path, strength in decoder.loras:
        from .training import patched

        model = patched(model, path, strength)
    if decoder.regional is not None:
        model = with_regional_attention(model, decoder.regional)
    return model, sampling.vae(decoder)


def with_regional_attention(model, bias):
    """A copy of ComfyUI's MODEL with a `RegionalAttention`.

    Raises:
        ValueError: outside ComfyUI; a MODEL that cannot have one.
    """
    if not inside_comfyui():
        raise ValueError("WeGen Regional Attention (MODEL) works only inside ComfyUI. Use WeGen Regional Attention on the decoder.")
    from .regional import patched

    return patched(model, bias)


def _register() -> None:
    """Tell ComfyUI of our folder, of our look at each prompt, and of the decoder's UNet, which its own Load Diffusion Model can then open."""
    register_folder()
    register_later()
    if not inside_comfyui():
        return
    try:
        from . import sampling
    except (ImportError, AttributeError, RuntimeError) as error:  # other samplers, or no device (outside its server): the rest goes on
        logging.getLogger("wegen").warning("WeGen decoders cannot be used with KSampler in this ComfyUI: %s", error)
    else:
        sampling.register()


_register()
