"""BLIP3-o: a diffusers decoder in diffusion-decoder/, and its tower as a repository of its own (keys: eva_clip.TOWER).

Source: its copy of Emu2's EmuVisualGeneration, with the same settings.
"""

from __future__ import annotations

from ...generation.decoder_presets import InferencePreset
from .public_format import RELEASED, PublicFormat, decoder_configs, decoder_files

FORMATS = (
    PublicFormat(
        "BLIP3-o",
        title="BLIP3-o's decoder",
        origin="Hugging Face `BLIP3o/BLIP3o-Model-8B` or `-4B`: `diffusion-decoder/`",
        size="4.9 GiB (c)",
        licence="see the model card; the repository's main branch has no licence file, and the decoder is said to come from Emu2",
        gives="a decoder",
        files=decoder_files("diffusion-decoder"),
        configs=decoder_configs("diffusion-decoder"),
        folder_names=("diffusion-decoder",),
        marks=(("diffusion-decoder/unet",),),
        preset=InferencePreset("blip3o", negative="blank", guidance_scale=3.0, steps=50, time_ids="trained"),
        holds={"unet": "diffusion-decoder/unet of BLIP3-o"},
        needs=("unet", "vae"),
        order=RELEASED + 2,
    ),
    PublicFormat(
        "BLIP3-o's tower",
        title="BLIP3-o's tower",
        origin="Hugging Face `jiuhai/eva_clip_vision_tower`: `pytorch_model.bin`",
        size="8.1 GiB (c)",
        licence="see the model card",
        gives="a tower",
        holds={"vision": "the tower of BLIP3-o"},
        order=RELEASED + 2,
    ),
)
