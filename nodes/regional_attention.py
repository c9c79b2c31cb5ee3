"""WeGen Regional Attention: a decoder, or ComfyUI's MODEL of one, whose cross-attention is biased by places."""

from __future__ import annotations

from . import host
from .sockets import CATEGORY, DECODER, FEATURES, MODEL, REFERENCES, own_decoder

WIDGETS = {
    "locality": (
        "FLOAT",
        {
            "default": 1.0,
            "min": 0.0,
            "max": 8.0,
            "step": 0.1,
            "tooltip": "How near to its own cell a feature acts, in cells (standard deviation): 1 mostly there and beside it, 4 over half of the "
            "picture, 0 is off.",
        },
    ),
    "reference_strength": (
        "FLOAT",
        {
            "default": 1.0,
            "min": 0.0,
            "max": 100.0,
            "step": 0.1,
            "tooltip": "How much a feature of the references weighs in its box beside one of the picture's own: 1 the same, 0 is off.",
        },
    ),
}
SOCKETS = {
    "references": (REFERENCES, {"tooltip": "The boxes in which reference_features act, from Bbox Compose. Needs reference_features."}),
    "reference_features": (
        FEATURES,
        {
            "tooltip": "Features of a picture in which the references stand in their boxes: the collage of WeGen Second Look, through EVA-CLIP "
            "Encode. One for all pictures, or one each."
        },
    ),
}


def bias(locality, reference_strength, references, reference_features):
    """The widgets and sockets as a RegionalAttention."""
    from ..wegen_model.models.regional_attention import RegionalAttention

    boxes = tuple(r.box for r in references or () if r.box is not None)
    if references and not boxes:
        raise ValueError(
            f"WeGen Regional Attention: none of the {len(references)} references has a box. Draw one for each in Bbox Compose."
        )
    return RegionalAttention(locality, reference_features, boxes, reference_strength)


class WeGenRegionalAttention:
    """A decoder with a bias on its cross-attention."""

    DESCRIPTION = (
        "Makes places hold: each feature acts most near its own cell, and further features of references act only in their boxes. For decoders "
        "that read features by cross-attention, as full-size ones do; in the bundled miniature next to nothing changes."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "regional attention",
        "attention bias",
        "locality",
        "attention couple",
        "regional prompt",
        "cross attention",
        "layout",
    ]
    RETURN_TYPES = (DECODER,)
    RETURN_NAMES = ("decoder",)
    OUTPUT_TOOLTIPS = (
        "The decoder with the bias, for SDXL Feature Decoder or Decoder to MODEL + VAE. The one that came in stays as it is.",
    )
    FUNCTION = "bias"

    @classmethod
    def INPUT_TYPES(cls):
        tip = "From Load WeGen Decoder or Decoder LoRA, or simply the model, whose own decoder is used then."
        return {"required": {"decoder": (f"{DECODER},{MODEL}", {"tooltip": tip}), **WIDGETS}, "optional": dict(SOCKETS)}

    def bias(self, decoder, locality=1.0, reference_strength=1.0, references=(), reference_features=None):
        painter = own_decoder(decoder)
        with host.watch(painter.runtime) as notes:
            out = painter.with_regional_attention(bias(locality, reference_strength, references, reference_features))
            return host.shown((out,), notes)


class WeGenRegionalAttentionModel:
    """The same on ComfyUI's own MODEL."""

    DESCRIPTION = (
        "WeGen Regional Attention on ComfyUI's own MODEL of a WeGen decoder. LoRA, samplers and patches go on working; another node that "
        "replaces the same cross-attention (IP-Adapter) does not, and is refused. Inside ComfyUI only."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["regional attention", "attention bias", "model patch", "locality", "ksampler", "attention couple"]
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("A copy of the MODEL with the bias, for KSampler.",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls):
        tip = "The MODEL of a WeGen decoder: from Decoder to MODEL + VAE, or Load Diffusion Model."
        return {"required": {"model": ("MODEL", {"tooltip": tip}), **WIDGETS}, "optional": dict(SOCKETS)}

    def patch(self, model, locality=1.0, reference_strength=1.0, references=(), reference_features=None):
        return (host.with_regional_attention(model, bias(locality, reference_strength, references, reference_features)),)
