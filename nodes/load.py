"""Loaders: a folder's name -> WEGEN_MODEL or WEGEN_DECODER. Weights are read when a node first needs them."""

from __future__ import annotations

from typing import Any

from ..wegen_model.checkpoint import formats
from . import host
from .sockets import CATEGORY, DECODER, MODEL

DTYPE: tuple[list[str], dict[str, Any]] = (
    list(host.DTYPES),
    {
        "default": "default",
        "advanced": True,
        "tooltip": "Precision of the weights in memory. default: what ComfyUI finds best for your hardware (float32 on a CPU, bfloat16 "
        "on most GPUs). float32 takes twice the memory of the others.",
    },
)
OFFLOAD = (
    list(host.OFFLOAD),
    {
        "default": "default",
        "advanced": True,
        "tooltip": "Where the weights are. default: ComfyUI moves them to the graphics card and away again as its memory allows. stream: they "
        "stay in main memory and each layer's are fetched when it runs: little video memory, slower. cpu: the processor computes, "
        "and the graphics card is left alone.",
    },
)

PRECISION = (
    [*DTYPE[0], *host.QUANTISED],
    {
        **DTYPE[1],
        "tooltip": (
            DTYPE[1]["tooltip"]
            + " fp8, q8_0 (8 bits) and q4_0 (4 bits) quantize the tower and the language model while they are read: half or a "
            "quarter of the memory, slower, less exact; the rest and the decoder stay as with default. A folder that `wegen convert --quantize` "
            "made stays as it is."
        ),
    },
)

OWN_CHOICE = "from checkpoint"  # the folder's configuration decides


def preset_choices() -> dict[str, str | None]:
    """Widget's value -> the name of an inference preset."""
    return {OWN_CHOICE: None, **{name: name for name in formats.inference_presets()}}


def preset_words() -> str:
    """What each preset sets: "wegen: guidance 6 against zeros, 50 steps. …". Presets with the same settings share a sentence."""
    names: dict[str, list[str]] = {}
    for name, preset in formats.inference_presets().items():
        names.setdefault(preset.text(), []).append(name)
    return " ".join(f"{', '.join(who)}: {text}." for text, who in names.items())


class WeGenLoadModel:
    """A model folder, opened."""

    DESCRIPTION = "Opens a WeGen model: the folder under models/wegen that holds tower, language model and decoder."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["wegen", "load wegen", "checkpoint", "multimodal", "chat model", "loader", "vlm", "unified model", "emu"]
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model, for WeGen Chat, AR Feature Decode, EVA-CLIP Encode and, with its own decoder, SDXL Feature Decoder.",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (
                    host.list_models("model"),
                    {
                        "default": host.BUNDLED,
                        "tooltip": ("A folder under models/wegen (subfolders too) as `wegen convert` makes it. " + host.knows()).strip(),
                    },
                ),
                "dtype": PRECISION,
            },
            "optional": {"offload": OFFLOAD},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model):
        return _valid(model, "model")

    @classmethod
    def IS_CHANGED(cls, model, **_):
        return host.fingerprint(model)

    def load(self, model, dtype="default", offload="default"):
        from ..wegen_model.evaluate.precision import verdict
        from ..wegen_model.pipeline import WeGen

        _check(model, "model")
        loaded = WeGen.load(model, runtime=host.runtime(dtype, offload), roots=host.model_roots())
        text, warning = verdict(loaded.folder, loaded.runtime.blocks)
        if not text:
            return (loaded,)
        with host.watch(loaded.runtime) as notes:
            if warning:
                loaded.runtime.warn(warning)
            return host.shown((loaded,), notes, "" if warning else text)


class WeGenLoadDecoder:
    """A decoder folder, opened."""

    DESCRIPTION = "Opens a decoder (UNet, VAE, scheduler) to paint features with; the decoder of a whole model folder counts too."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["wegen decoder", "load decoder", "sdxl unet", "detokenizer", "emu", "blip3o"]
    RETURN_TYPES = (DECODER,)
    RETURN_NAMES = ("decoder",)
    OUTPUT_TOOLTIPS = ("The decoder, for SDXL Feature Decoder.",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "decoder": (
                    host.list_models("decoder"),
                    {
                        "default": host.BUNDLED,
                        "tooltip": (
                            "A folder under models/wegen with unet/, vae/ and scheduler/. It must read the features' space: one made for the same "
                            "model, or fine-tuned from its decoder."
                        ),
                    },
                ),
                "dtype": DTYPE,
            },
            "optional": {
                "offload": OFFLOAD,
                "preset": (
                    list(preset_choices()),
                    {
                        "default": OWN_CHOICE,
                        "advanced": True,
                        "tooltip": (
                            "Inference settings of the decoder. from checkpoint: those in its folder, which `wegen convert` wrote. "
                            + preset_words()
                        ),
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, decoder):
        return _valid(decoder, "decoder")

    @classmethod
    def IS_CHANGED(cls, decoder, **_):
        return host.fingerprint(decoder)

    def load(self, decoder, dtype="default", offload="default", preset=OWN_CHOICE):
        from ..wegen_model.generation.decoder_presets import describe
        from ..wegen_model.pipeline import WeGenDecoder

        _check(decoder, "decoder")
        loaded = WeGenDecoder.load(decoder, runtime=host.runtime(dtype, offload), roots=host.model_roots(), preset=preset_choices()[preset])
        return host.shown((loaded,), [], f"{loaded.name}, inference preset {describe(loaded.config)}.")


def _valid(name, kind: str) -> bool | str:
    return True if name is None else host.check_model(name, kind)  # None: linked, known only when it runs


def _check(name: str, kind: str) -> None:
    answer = host.check_model(name, kind)
    if answer is not True:
        raise ValueError(f"{kind}: {answer}")
