"""SDXL's UNet and VAE: diffusers' folders and files, and Stability's single files (LDM's names, ldm.py).

WeGen's decoders have this UNet with other conditions, and this VAE as it is; stock SDXL's UNet is only a start of training.
"""

from __future__ import annotations

from .. import ldm
from ..key_map import KeyMap, KeyRule
from .public_format import DIFFUSERS_FILES, GENERAL, FileLayout, PublicFormat, decoder_configs, decoder_files

_OLD = "{side}.mid_block.attentions.{n}."  # VAE files from before diffusers 0.17
VAE_RULES = (
    *(
        KeyRule(_OLD + f"{old}.{{leaf}}", "vae", _OLD + f"{new}.{{leaf}}", "pointwise", only_read=True)
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
    ),
    KeyRule("{rest}", "vae"),
)
UNET_RULES = (KeyRule("{rest}", "unet"),)
UNET = KeyMap("diffusers UNet", ("time_embedding.linear_1.weight",), UNET_RULES, export="diffusers-unet")
VAE = KeyMap("diffusers VAE", ("decoder.conv_in.weight",), VAE_RULES, export="diffusers-vae")
LDM_UNET = KeyMap("LDM UNet", ("time_embed.0.weight",), ldm.unet_rules, (ldm.UNET_PREFIX, ""), export="ldm-unet")
LDM_VAE = KeyMap("LDM VAE", ("decoder.up.0.block.0.conv1.weight",), ldm.vae_rules, export="ldm-vae")
LDM = KeyMap("SDXL checkpoint in one file", (ldm.VAE_PREFIX + "decoder.conv_in.weight",), ldm.checkpoint_rules)

_RAIL = "CreativeML Open RAIL++-M"
FORMATS = (
    PublicFormat(
        "diffusers pipeline",
        title="SDXL's UNet",
        origin="Hugging Face `stabilityai/stable-diffusion-xl-base-1.0`: `unet/`",
        size="4.8 GiB (c)",
        licence=_RAIL,
        gives="only a **start of training** (`--initialise`)",
        files=decoder_files(""),
        configs=decoder_configs(""),
        marks=(("model_index.json", "unet/config.json", "vae/config.json"),),
        needs=("unet", "vae"),
        order=GENERAL,
    ),
    PublicFormat(
        "SDXL checkpoint in one file",
        files=(FileLayout("single", ("sdxl*vae*.safetensors", "sd_xl*.safetensors")),),
        key_maps=(LDM, LDM_UNET, LDM_VAE),
        order=GENERAL,
    ),
    PublicFormat(
        "diffusers UNet",
        files=(FileLayout("single", DIFFUSERS_FILES),),
        told_by=("config.json", lambda values: values.get("_class_name") == "UNet2DConditionModel"),
        key_maps=(UNET,),
        order=GENERAL,
    ),
    PublicFormat(
        "diffusers VAE",
        title="SDXL's VAE",
        origin="Hugging Face `stabilityai/stable-diffusion-xl-base-1.0`: `vae/`",
        size="0.16 GiB (c)",
        licence=_RAIL,
        gives="a VAE",
        files=(FileLayout("single", DIFFUSERS_FILES),),
        told_by=("config.json", lambda values: values.get("_class_name") == "AutoencoderKL"),
        key_maps=(VAE,),
        holds={"vae": "vae/ of stabilityai/stable-diffusion-xl-base-1.0"},
        order=GENERAL,
    ),
    PublicFormat(
        "SDXL's VAE for 16 bits",
        title="the same for 16 bits",
        origin="Hugging Face `madebyollin/sdxl-vae-fp16-fix`",
        size="0.16 GiB (c)",
        licence="MIT",
        gives="a VAE that does not overflow in float16",
        order=GENERAL,
    ),
)
