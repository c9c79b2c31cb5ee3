"""A model folder of random weights with the miniature's sizes and words: where its training begins; and its last form.

Scaled normal weights; a post-norm tower starts near the identity; placeholders and locations start as sines of where they are, in the
coordinates of the tower's own positions; pointers and boxes begin without effect.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from ..box import LOCATIONS
from ..chat.tokenizer import Tokenizer
from ..checkpoint import model_folder
from ..config import PRESETS
from ..models.box_embedding import Regions
from ..models.decoder import Decoder
from ..models.eva_clip import Block, VisionTower
from ..models.pointer import Block as PointerBlock
from ..train.modules import LanguageModule
from .tokenizer import build_tokenizer
from .world.concepts import NAMES, OFFERED_STYLES

KNOWS = (
    f"{len(NAMES)} things in {len(OFFERED_STYLES)} styles of drawing ({', '.join(OFFERED_STYLES)}), on 16 plain colours; "
    "pictures you show it may hold anything drawn"
)


def new_model(folder: str | Path, seed: int = 0) -> Path:
    """Write a model folder of random weights; a pure function of the seed."""
    folder = Path(folder)
    words = folder.with_name(folder.name + ".words")
    build_tokenizer(words)
    tokenizer = Tokenizer.load(words)
    config = PRESETS["wegen-mini"]
    config = dataclasses.replace(
        config, concepts=NAMES, knows=KNOWS, language=dataclasses.replace(config.language, vocab_size=tokenizer.size)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = VisionTower(config.vision)
        initialise_tower(tower)
        writer = LanguageModule(config)
        initialise_language(writer, tokenizer)
        decoder = Decoder(config.decoder, config.unet, config.vae, config.scheduler)
    modules = {
        "vision": tower,
        "language": writer.language,
        "projectors": writer.projectors,
        "unet": decoder.unet,
        "vae": decoder.vae,
        "layout": decoder.layout,
    }
    states = {name: module.state_dict() for name, module in modules.items() if module is not None}
    return model_folder.save(folder, config, states, words)


def copy_model(source: Path, target: Path, dtype: torch.dtype) -> Path:
    """A model folder with all its weights in another precision: float32 to train on, float16 to ship."""
    config = model_folder.read_config(source)
    states = {
        part: {key: value for path in files for key, value in model_folder.read_tensors(path).items()}
        for part in model_folder.WEIGHT_FILES
        if (files := model_folder.files(source, part))
    }
    return model_folder.save(target, config, states, source, dtype)


def initialise_tower(tower: VisionTower, gain: float = 0.15) -> None:
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Block):
            nn.init.constant_(module.norm1.weight, gain)
            nn.init.constant_(module.norm2.weight, gain)
    nn.init.normal_(tower.cls_token, std=0.02)
    with torch.no_grad():
        tower.pos_embed[0, 1:] = 0.3 * grid_code(tower.config.side, tower.config.width)


def initialise_language(writer: LanguageModule, tokenizer: Tokenizer) -> None:
    language, projectors = writer.language, writer.projectors
    d = language.config.width
    for name, p in language.named_parameters():
        if p.ndim == 2:
            quiet = (2 * language.config.layers) ** -0.5 if "o_proj" in name or "down_proj" in name else 1
            nn.init.normal_(p, std=0.8 * quiet * p.shape[1] ** -0.5)
    nn.init.normal_(language.lm_head.weight, std=0.02)
    table = language.model.embed_tokens.weight
    nn.init.normal_(table, std=0.5)
    with torch.no_grad():
        side = projectors.config.grid[0]
        table[tokenizer.image_first : tokenizer.image_first + side * side, : d // 2] = grid_code(side, d // 2) * 0.7
        at = torch.arange(LOCATIONS) / LOCATIONS
        waves = torch.pi / 2 * at[:, None] * (torch.arange(d // 8) + 1.0)[None] * side / (d // 8)
        line = torch.cat([waves.sin(), waves.cos()], -1) * 0.7  # the coordinates of grid_code, for rows and for columns
        table[tokenizer.loc_first : tokenizer.loc_first + LOCATIONS, : d // 2] = torch.cat([line, line], -1)
    nn.init.normal_(projectors.input_resampler.proj.weight, std=0.5 * projectors.config.width**-0.5)
    nn.init.normal_(projectors.output_resampler.proj.weight, std=0.5 * d**-0.5)
    if projectors.config.pointer:
        nn.init.zeros_(projectors.pointer.change.weight)  # what is pointed at begins unchanged
        for module in projectors.pointer.modules():
            if isinstance(module, PointerBlock):
                nn.init.zeros_(module.down.weight)
    if isinstance(projectors.regions, Regions):  # and boxes begin untold
        nn.init.zeros_(projectors.regions.outer.weight)
        nn.init.zeros_(projectors.regions.number.weight)


def grid_code(side: int, width: int) -> Tensor:
    """(side*side, width): sines and cosines of row and column, row-major."""
    at = torch.arange(side).float() / side
    waves = torch.arange(width // 4) + 1.0
    wave = torch.pi * at[:, None] * waves[None, :] * side / (width // 4) / 2
    code = torch.cat([wave.sin(), wave.cos()], -1)
    grid = torch.cat([code[:, None].expand(-1, side, -1), code[None].expand(side, -1, -1)], -1).reshape(side * side, -1)
    return nn.functional.pad(grid, (0, width - grid.shape[1]))
