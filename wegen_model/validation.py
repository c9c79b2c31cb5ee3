"""What the pipeline refuses before anything is loaded, in words for the person at the graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .chat.conversation import Conversation
from .config import ModelConfig


def check_number(where: str, name: str, value: float, low: float, high: float = math.inf, hint: str = "") -> None:
    """A finite number in low..high, or an error naming the input."""
    if not (math.isfinite(value) and low <= value <= high):
        span = f"between {low:g} and {high:g}" if math.isfinite(high) else f"{low:g} or more"
        raise ValueError(f"{where}: {name} is {value}: it must be {span}{hint}.")


def check_seed(where: str, seed: int) -> None:
    """A seed of torch's generators."""
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{where}: seed is {seed}: it must fit in 64 bits (0 to {2**64 - 1}).")


def check_draw(conversation: Conversation, config: ModelConfig, guidance: float, mode: str, readout: str, keep) -> None:
    """Everything that `draw` refuses, before anything is loaded."""
    if not conversation.open_image:
        said = "" if conversation.last and conversation.last.pictures else conversation.reply[:300]
        raise ValueError(
            "AR Feature Decode: this turn opened no picture, so there is nothing to draw. "
            + (f"The answer was: «{said}» " if said else "")
            + ("Ask for one, or set `picture` to «always» on WeGen Chat." if not (said and config.refuses) else "Ask for something else.")
        )
    check_number("AR Feature Decode", "guidance", guidance, 0, hint=" (1 is off)")
    if mode not in ("autoregressive", "parallel") or readout not in ("aligned", "released"):
        raise ValueError(
            f"AR Feature Decode: mode is {mode!r} and readout {readout!r}; choose autoregressive or parallel, aligned or released."
        )
    if mode == "parallel" and not config.features.parallel:
        raise ValueError(
            f"AR Feature Decode: the weights of '{config.name}' were not trained to write in parallel. Set mode to «autoregressive»."
        )
    if mode == "parallel" and readout == "released":
        raise ValueError("AR Feature Decode: the released read-out exists only for autoregressive writing. Set readout to «aligned».")
    if keep is not None:
        if mode == "parallel" or readout == "released":
            raise ValueError("AR Feature Decode: keeping cells needs mode «autoregressive» and readout «aligned».")
        if keep[1].numel() != config.features.count:
            raise ValueError(
                f"AR Feature Decode: the mask has {keep[1].numel()} cells, the features have {config.features.count} "
                f"({config.features.grid[0]}x{config.features.grid[1]})."
            )


def check_reference(picture: Tensor, where: str) -> Tensor:
    """A reference's picture (1,h,w,3), or (1,h,w,4) with opacity, of whatever `check_images` takes; ValueError too when all is transparent."""
    whole = check_images(picture, where)
    if picture.shape[-1] != 4:
        return whole
    if not (picture[..., 3] > 0).any():
        raise ValueError(f"{where}: the picture is transparent everywhere, so there is nothing to show. Connect one with something in it.")
    return picture.reshape(*whole.shape[:3], 4).float().clamp(0, 1)


def check_images(images: Tensor, where: str = "EVA-CLIP Encode, image") -> Tensor:
    """Float pictures (b,h,w,3) in 0..1 of whatever came: greyscale is repeated, alpha laid over white."""
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(
            f"{where}: the shape {tuple(images.shape)} is no picture; expected (batch, height, width, channels) with 1, 3 or 4 channels."
        )
    images = images.float()
    if not torch.isfinite(images).all():
        raise ValueError(
            f"{where}: it contains NaN or infinite values. A VAE that overflows in 16 bits is the usual cause: decode it in 32 bits."
        )
    if images.shape[-1] == 1:
        images = images.expand(*images.shape[:-1], 3)
    elif images.shape[-1] == 4:
        images = images[..., :3] * images[..., 3:] + (1 - images[..., 3:])
    return images.clamp(0, 1)
