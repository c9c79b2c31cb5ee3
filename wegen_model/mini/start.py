"""Going on from a model folder: its tower, decoder and writer, in the shapes of the recipe's stages.

A further recipe may have other words; what the tokenizers share keeps its embeddings.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import model_folder
from ..config import ModelConfig
from ..models.decoder import Decoder
from ..models.eva_clip import VisionTower
from .dialogue import LanguageModule
from .tokenizer import same_words


def load_tower(folder: str | Path, config: ModelConfig) -> VisionTower:
    with torch.device("meta"):
        tower = VisionTower(config.vision)
    return model_folder.load_into(tower, folder, "vision", torch.float32).eval().requires_grad_(False)


def load_decoder(folder: str | Path, decoder: Decoder) -> Decoder:
    """Fill a decoder's VAE, UNet and layout map from a folder, with the scale its latents were trained at."""
    saved = model_folder.read_config(folder)
    for name in ("vae", "unet", "layout"):
        module = getattr(decoder, name)
        if module is not None:
            module.load_state_dict(_tensors(folder, name))
    decoder.vae.register_to_config(scaling_factor=saved.vae["scaling_factor"])
    return decoder


def load_writer(folder: str | Path, writer: LanguageModule, tokenizer: Path) -> LanguageModule:
    """Fill a writer from a folder: bodies as they are, embeddings and output rows by token."""
    pairs = torch.tensor(same_words(Path(folder), tokenizer))
    state: dict[str, Tensor] = writer.state_dict()
    for part in ("language", "projectors"):
        for key, value in _tensors(folder, part).items():
            mine = state[f"{part}.{key}"]
            if mine.shape == value.shape and "embed_tokens" not in key and "lm_head" not in key:
                mine.copy_(value)
            elif mine.shape[1:] == value.shape[1:]:
                mine[pairs[:, 1]] = value[pairs[:, 0]].to(mine)
            else:
                raise model_folder.CheckpointError(
                    f"{folder}: {part}.{key} is {tuple(value.shape)}, and this recipe needs "
                    f"{tuple(mine.shape)}. Start from a miniature of the same widths."
                )
    writer.load_state_dict(state)
    return writer


def _tensors(folder: str | Path, part: str) -> dict[str, Tensor]:
    found = model_folder.files(folder, part)
    if not found:
        model_folder.missing(folder, part)
    return {key: value.float() for path in found for key, value in model_folder.read_tensors(path).items()}
