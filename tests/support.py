"""Shared by tests: a random model folder of a few thousand weights, and a picture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from wegen.wegen_model import config as configs
from wegen.wegen_model.chat.tokenizer import special_tokens
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.models.decoder import Decoder
from wegen.wegen_model.models.eva_clip import VisionTower
from wegen.wegen_model.models.llama import Language
from wegen.wegen_model.models.projectors import Projectors


def tiny_config(**changes) -> configs.ModelConfig:
    """The preset `tiny` with a 112-pixel tower (an 8x8 grid as it is), a byte tokenizer's vocabulary and 3 steps."""
    base = configs.PRESETS["tiny"]
    values = dict(
        vision=dataclasses.replace(base.vision, image_size=112),
        language=dataclasses.replace(base.language, vocab_size=259 + len(special_tokens(0))),
        features=dataclasses.replace(base.features, parallel=True),
        decoder=dataclasses.replace(base.decoder, steps=3, guidance_scale=2.0),
    )
    return dataclasses.replace(base, **(values | changes))


def byte_tokenizer(folder: Path) -> Path:
    """tokenizer.json of single bytes (ids 3 to 258) and added_tokens.json with WeGen's table behind them."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    names = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(names[:3])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "added_tokens.json").write_text(json.dumps(special_tokens(len(names))))
    return folder


def tiny_model(folder: str | Path, seed: int = 0, parts: tuple[str, ...] | None = None, **changes) -> Path:
    """Write a random model folder. `parts`: only these (keys of `model_folder.WEIGHT_FILES`); `changes`: fields of the ModelConfig."""
    folder = Path(folder)
    config = tiny_config(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = Decoder(config.decoder, config.unet, config.vae, config.scheduler)
        modules = {
            "vision": VisionTower(config.vision),
            "language": Language(config.language),
            "projectors": Projectors(config.features, config.language.width),
            "unet": decoder.unet,
            "vae": decoder.vae,
        }
        for module in modules.values():
            for p in module.parameters():
                if p.ndim > 1:
                    torch.nn.init.normal_(p, 0, 0.15)
    states = {name: m.state_dict() for name, m in modules.items() if parts is None or name in parts}
    if parts is not None and "unet" not in parts:
        config = dataclasses.replace(config, unet={}, vae={}, scheduler={})
    tokenizer = byte_tokenizer(folder.with_name(folder.name + "-tokenizer"))
    return model_folder.save(folder, config, states, tokenizer)


def picture(width: int = 40, height: int = 30, channels: int = 3, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """(b,h,w,c) in 0..1."""
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))
