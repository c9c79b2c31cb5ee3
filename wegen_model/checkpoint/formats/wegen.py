"""The public WeGen release: the agent's state dict (`llm.*`, `input_resampler.*`, `adapter.*`), the tower, the first stage's UNet.

Source: the public WeGen code; its SDXLAdapter guides by 6 against zeros, in 50 steps of EulerDiscreteScheduler with leading steps and
offset 1. In its folder the agent's UNet overrides stage1_final/unet, as in the public loader, and visual.pt overrides a tower saved
inside the agent.
"""

from __future__ import annotations

from ...generation.decoder_presets import InferencePreset
from ..key_map import KeyMap, KeyRule, below
from .eva_clip import FUSED
from .llama import LLAMA_RULES
from .public_format import DIFFUSERS_FILES, EVERYTHING, RELEASED, FileLayout, PublicFormat, within
from .sdxl import UNET_RULES, VAE_RULES

_UNUSED = "never used by the public code's forward pass"
PUBLIC_PROJECTORS = (
    KeyRule("input_resampler.avgpoolquery.scale", None, why=_UNUSED),
    KeyRule("input_resampler.proj.weight", "projectors"),
    KeyRule("output_resampler.proj.weight", "projectors"),
)
AGENT = KeyMap(
    "WeGen agent",
    ("llm.model.embed_tokens.weight", "input_resampler.proj.weight", "adapter.unet.conv_in.weight"),
    (
        *below("llm.", LLAMA_RULES),
        *PUBLIC_PROJECTORS,
        KeyRule("adapter.resampler.scale", None, why=_UNUSED),
        *below("adapter.unet.", UNET_RULES),
        *below("adapter.vae.", VAE_RULES),
        *below("adapter.visual_encoder.", FUSED),
    ),
    ("", "module."),
    export="wegen",
)

_SDXL = "pretrained/stable-diffusion-xl-base-1.0"
_UNETS, _VAES = ("stage1_final/unet", "unet"), ("vae", f"{_SDXL}/vae")
_AGENT = "pytorch_model.bin of the public WeGen release"
FORMATS = (
    PublicFormat(
        "public WeGen release",
        title="WeGen, whole",
        origin="the Google Drive folder named in github.com/hzphzp/WeGen (`wegen_mllm_ckpt/`)",
        size="`pytorch_model.bin` 17.4 GiB (c), `EVA-CLIP/visual.pt` 8.1 GiB (c), `stage1_final/unet` 4.7 GiB (c), all in 16 bits",
        licence="none stated; made from LLaMA-2 (Llama 2 Community License) and SDXL (CreativeML Open RAIL++-M), whose terms bind what is "
        "derived from them",
        gives="everything",
        files=(
            FileLayout(
                "tower",
                ("EVA-CLIP/visual.pt", "pretrained/EVA-CLIP/visual.pt", "visual.pt", "EVA-CLIP/*.safetensors", "*visual*.safetensors"),
            ),
            FileLayout("agent", ("pytorch_model.bin", "pytorch_model_merged.bin", "stage2_final/*/pytorch_model_merged.bin")),
            FileLayout("unet", within(_UNETS, DIFFUSERS_FILES)),
            FileLayout("vae", within(_VAES, DIFFUSERS_FILES)),
            FileLayout(
                "tokenizer",
                (
                    "tokenizer/tokenizer.model",
                    "*tokenizer*/tokenizer.model",
                    "pretrained/SEED-X/*tokenizer*/tokenizer.model",
                    "tokenizer.model",
                    "pretrained/*tokenizer*/tokenizer.model",
                    "pretrained/meta-llama/*/tokenizer.model",
                ),
            ),
        ),
        configs=(
            FileLayout("unet", within(_UNETS, ("config.json",))),
            FileLayout("vae", within(_VAES, ("config.json",))),
            FileLayout("scheduler", within(("scheduler", f"{_SDXL}/scheduler"), ("scheduler_config.json",))),
        ),
        roots=("wegen_mllm_ckpt/",),
        marks=(("EVA-CLIP", "visual.pt", "stage1_final", "pretrained", "stage2_final", "pytorch_model.bin"),),
        key_maps=(AGENT,),
        preset=InferencePreset("wegen", negative="zeros", guidance_scale=6.0, steps=50, time_ids="size"),
        holds={
            "vision": "EVA-CLIP/visual.pt of the public WeGen release",
            "language": _AGENT,
            "projectors": _AGENT,
            "unet": "stage1_final/unet of the public WeGen release",
        },
        needs=EVERYTHING,
        order=RELEASED,
    ),
)
