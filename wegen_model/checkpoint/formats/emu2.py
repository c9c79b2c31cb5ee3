"""Emu2-Gen: its decoder and its tower are of use here, its language model is not.

Source: BAAI's EmuVisualGenerationPipeline: guidance 3 against the features of a picture that is all zero once normalised, 50 steps; the
scheduler is the checkpoint's EulerDiscreteScheduler with leading steps and offset 1.
"""

from __future__ import annotations

import json

from ...generation.decoder_presets import InferencePreset
from ..key_map import KeyMap, KeyRule, below
from .eva_clip import FUSED, SPLIT
from .public_format import RELEASED, TRANSFORMERS_FILES, FileLayout, PublicFormat, decoder_configs, decoder_files, within
from .sdxl import UNET_RULES, VAE_RULES

_LANGUAGE = "Emu2's own language model (LLaMA-33B) and projections to it"
_BESIDE = (
    KeyRule("project_up.{leaf}", None, why=_LANGUAGE),
    KeyRule("project_down.{leaf}", None, why=_LANGUAGE),
    KeyRule("decoder.{rest}", None, why=_LANGUAGE),
    KeyRule("model.decoder.{rest}", None, why=_LANGUAGE),
)
EMU2 = KeyMap(
    "Emu2",
    ("model.visual.blocks.0.attn.qkv.weight", "project_up.weight"),
    (*below("model.visual.", FUSED), *below("visual.", SPLIT), *_BESIDE),
    export="emu2",
)
EMU2_GEN = KeyMap(
    "Emu2-Gen in one file",
    ("unet.time_embedding.linear_1.weight", "multimodal_encoder.project_up.weight"),
    (
        *below("multimodal_encoder.visual.", SPLIT),
        *below("multimodal_encoder.", _BESIDE),
        *below("unet.", UNET_RULES),
        *below("vae.", VAE_RULES),
        KeyRule("safety_checker.{rest}", None, why="Emu2's safety checker, which is no part of the decoder"),
    ),
    export="emu2-gen",
)

FORMATS = (
    PublicFormat(
        "Emu2-Gen",
        title="Emu2-Gen's decoder",
        origin="Hugging Face `BAAI/Emu2-Gen`: `unet/`, `vae/`, `scheduler/`, `model_index.json`",
        size="4.9 GiB (c), the `bf16` variant",
        licence="**weights for non-commercial use only**",
        gives="a decoder",
        files=(*decoder_files(""), FileLayout("single", ("Emu2-Gen*.safetensors",))),
        configs=decoder_configs(""),
        told_by=("model_index.json", lambda values: "emuvisualgeneration" in json.dumps(values).lower()),  # also without its encoder
        marks=(("multimodal_encoder",), ("unet",)),
        key_maps=(EMU2_GEN,),
        preset=InferencePreset("emu2", negative="blank", guidance_scale=3.0, steps=50, time_ids="trained"),
        holds={"unet": "unet/ of Emu2-Gen"},
        needs=("unet", "vae"),
        order=RELEASED + 1,
    ),
    PublicFormat(
        "Emu2",
        title="Emu2's tower",
        origin="the same, `multimodal_encoder/`",
        size="69 GiB (c) with Emu2's own language model, of which 8.1 GiB (c) are used",
        licence="**non-commercial**",
        gives="a tower",
        files=(FileLayout("encoder", within(("multimodal_encoder",), (*TRANSFORMERS_FILES, "pytorch_model.bin"))),),
        key_maps=(EMU2,),
        holds={"vision": "the tower of Emu2-Gen"},
        order=RELEASED + 1,
    ),
)
