"""`wegen train start`: the model folder that training begins with, joined from converted stock parts, with new projectors.

tower     vision.safetensors                      from EVA-CLIP (`wegen convert`)
language  language/, tokenizer                    from LLaMA-2 (`wegen convert --initialise`)
decoder   unet/, vae/, scheduler/                 from SDXL (`wegen convert --initialise`)
new       projectors.safetensors                  drawn as new linear layers, as the public code leaves them
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch

from ..config import ModelConfig
from ..models.projectors import Projectors
from . import model_folder
from .model_paths import CheckpointError

TAKEN = {"tower": ("vision",), "language": ("language",), "decoder": ("unet", "vae")}


def start(tower: str | Path, language: str | Path, decoder: str | Path, target: str | Path, seed: int = 0) -> Path:
    """Join three model folders (any may be the same) into one.

    Raises:
        CheckpointError: a folder lacks its component, is quantized, or has another feature space; or the target would lose something.
    """
    from safetensors.torch import save_file

    sources = {name: model_folder.resolve(place) for name, place in (("tower", tower), ("language", language), ("decoder", decoder))}
    for name, folder in sources.items():
        for part in TAKEN[name]:
            if not model_folder.files(folder, part):
                model_folder.missing(folder, part)
    target = Path(target)
    for folder in sources.values():
        model_folder.check_target(target, {*model_folder.WEIGHT_FILES, "tokenizer"}, folder)
    if not any((sources["language"] / name).is_file() for name in model_folder.TOKENIZER[:2]):
        raise CheckpointError(
            f"{sources['language']}: no tokenizer ({' or '.join(model_folder.TOKENIZER[:2])}). Put LLaMA-2's tokenizer.model "
            "beside its weights and convert them again."
        )
    config = join(*(model_folder.read_config(folder) for folder in sources.values()))
    torch.manual_seed(seed)
    projectors = Projectors(config.features, config.language.width).state_dict()
    with model_folder.replacing(target) as new:
        for name, folder in sources.items():
            for part in TAKEN[name]:
                place = folder / model_folder.WEIGHT_FILES[part]
                names = [p for p in place.parent.iterdir() if p.is_file() and not p.name.startswith(".")]
                for path in names if place.parent != folder else model_folder.files(folder, part):
                    copy = new / path.relative_to(folder)
                    copy.parent.mkdir(exist_ok=True)
                    shutil.copy2(path, copy)
        if (sources["decoder"] / "scheduler").is_dir():
            shutil.copytree(sources["decoder"] / "scheduler", new / "scheduler")
        for name in model_folder.TOKENIZER:
            if (sources["language"] / name).is_file():
                shutil.copy2(sources["language"] / name, new / name)
        save_file({k: v.contiguous() for k, v in projectors.items()}, new / "projectors.safetensors", {"format": "pt"})
        model_folder.write_config(new, config)
    return target


def join(tower: ModelConfig, language: ModelConfig, decoder: ModelConfig) -> ModelConfig:
    """Each part's configuration from its folder; features are the tower's."""
    features = dataclasses.replace(tower.features, parallel=False)
    widths = {
        "the tower writes": tower.vision.width,
        "the features are": features.width,
        "the decoder reads": decoder.unet.get("cross_attention_dim"),
    }
    if len(set(widths.values())) > 1:
        raise CheckpointError(f"these parts do not fit together: {', '.join(f'{what} {width} wide' for what, width in widths.items())}.")
    if decoder.decoder.space != features.space:
        raise CheckpointError(
            f"the decoder reads the features '{decoder.decoder.space}', the tower writes '{features.space}'. Choose a "
            "tower and a decoder of one space."
        )
    return dataclasses.replace(
        language,
        vision=tower.vision,
        features=features,
        decoder=decoder.decoder,
        unet=decoder.unet,
        vae=decoder.vae,
        scheduler=decoder.scheduler,
    )
