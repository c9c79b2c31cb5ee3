"""Models that people confuse with WeGen's: each is refused by name, with what to take instead. As tables.

By keys (`KEYS`), when a file is opened; by sizes (`SIZES`), when its part's sizes are no preset's. Sources: the public code and
configurations of SEED-X, Kolors, CLIP, EVA-CLIP, Stable Diffusion and Emu2. What to take instead, {tower} and {decoder}, is said by the
public formats themselves (formats/).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .formats import sources
from .model_paths import CheckpointError
from .tensor_file import Spec


@dataclass(frozen=True)
class UnsupportedModel:
    """A foreign model recognised by a key: a pattern that must match, and a test of the tensor's shape."""

    name: str
    pattern: str
    advice: str
    shape: Callable[[tuple[int, ...]], bool] = lambda shape: True


KEYS = (
    UnsupportedModel(
        "a LoRA of a UNet",
        r"lora_unet_.+\.lora_down\.weight",
        "It is no model by itself: put it into ComfyUI's models/loras and take it with Decoder LoRA.",
    ),
    UnsupportedModel(
        "SEED-X's de-tokenizer",
        r"resampler\.(latents|layers\..+|proj_in\..+|attn_pool\..+|unet_proj_\d\..+)",
        "Its features are of another space. {decoder}",
    ),
    UnsupportedModel(
        "SEED-X's language model",
        r"(input|output)_resampler\.(attn\..+|kv_proj\..+|query|pos_embed|ln_\w+\..+)",
        "It writes 64 features at once, of another space. WeGen's is pytorch_model.bin of its release.",
    ),
    UnsupportedModel(
        "SEED-X's vision tower (Qwen-VL's ViT-bigG)", r"(?:visual\.)?transformer\.resblocks\.\d+\.attn\.in_proj\.weight", "{tower}"
    ),
    UnsupportedModel("Kolors' UNet", r"encoder_hid_proj\.weight", "It reads ChatGLM3's text. {decoder}", lambda s: s[-1:] == (4096,)),
    UnsupportedModel(
        "CLIP (OpenAI's or open_clip's ViT)",
        r"(?:.+\.)?(?:visual|vision_model|vision)\.transformer\.resblocks\.\d+\.attn\.in_proj_weight",
        "It is another tower. {tower}",
    ),
    UnsupportedModel(
        "CLIP (Hugging Face's)",
        r"(?:clip\.)?(?:vision_model|text_model)\.encoder\.layers\.\d+\.self_attn\.q_proj\.weight",
        "It is another tower. {tower}",
    ),
    UnsupportedModel(
        "EVA02-CLIP-L or -B",
        r"(?:.*\.)?blocks\.\d+\.(?:attn\.q_proj\.weight|mlp\.w1\.weight|mlp\.fc1_g\.weight)",
        "It is a smaller tower with rotary positions and gated layers. {tower}",
    ),
    UnsupportedModel(
        "EVA02-CLIP-E/14 (not «plus»)",
        r"text\.(?:.+\.)?token_embedding\.weight|token_embedding\.weight",
        "Its tower has the same shapes, but its features are others. {tower}",
        lambda s: s == (49408, 1024),
    ),
)

# part -> (sizes that identify it, what it is and what to do); consulted when no preset fits
SIZES: dict[str, tuple[tuple[dict[str, int], str], ...]] = {
    "unet": (
        (
            {"cross_attention_dim": 2048, "projection_class_embeddings_input_dim": 2816},
            "a stock SDXL UNet: it reads text of width 2048, WeGen's reads features of width 1792. {decoder} To begin the training of "
            "a decoder from it, add --initialise.",
        ),
        (
            {"cross_attention_dim": 2048, "projection_class_embeddings_input_dim": 5632},
            "Kolors' UNet, which reads ChatGLM3's text. {decoder}",
        ),
        ({"cross_attention_dim": 1280, "projection_class_embeddings_input_dim": 2560}, "SDXL's refiner. {decoder}"),
        ({"cross_attention_dim": 768}, "the UNet of Stable Diffusion 1. {decoder}"),
        ({"cross_attention_dim": 1024}, "the UNet of Stable Diffusion 2. {decoder}"),
    ),
    "vision": (
        ({"width": 1408}, "EVA-CLIP-g. {tower}"),
        ({"width": 1024}, "EVA-CLIP-L. {tower}"),
        ({"width": 768}, "EVA-CLIP-B. {tower}"),
        ({"width": 5120}, "EVA-CLIP-18B. {tower}"),
    ),
    "language": (
        (
            {"vocab_size": 32000},
            "plain LLaMA-2: its vocabulary of 32000 lacks the 330 tokens for pictures and places, so it cannot open a picture. Take "
            "pytorch_model.bin of the public WeGen release; to begin training from it, add --initialise.",
        ),
        ({"width": 5120, "layers": 40}, "a language model of 13 billion parameters (SEED-X's has this size); WeGen's is LLaMA-2-7B."),
        ({"width": 6656, "layers": 60}, "Emu2's language model of 33 billion parameters; WeGen's is LLaMA-2-7B."),
    ),
    "vae": (({"latent_channels": 16}, "a VAE of 16 channels (FLUX, SD3); the decoder needs SDXL's, of 4 channels."),),
}


def refuse_unsupported(path: Path, specs: dict[str, Spec]) -> None:
    """Raise when a key shows that this is a known model other than WeGen."""
    for model in KEYS:
        pattern = re.compile(model.pattern)
        key = next((k for k, spec in specs.items() if pattern.fullmatch(k) and model.shape(spec.shape)), None)
        if key is not None:
            raise CheckpointError(f"{path}: this is {model.name}, told by {key} {specs[key].shape}. {_advice(model.advice)}")


def known_size(part: str, sizes: dict[str, int]) -> str | None:
    """What a component of these sizes is, where it fits no preset."""
    return next((_advice(text) for told, text in SIZES.get(part, ()) if all(sizes.get(k) == v for k, v in told.items())), None)


def _advice(text: str) -> str:
    """With the places of the towers and decoders that do fit."""
    *towers, last = sources("vision")
    return text.format(
        tower=f"WeGen needs EVA02-CLIP-E/14+ at 448 pixels: {', '.join(towers)} or {last}.",
        decoder=f"WeGen's decoders: {', '.join(sources('unet'))}.",
    )
