"""EVA-CLIP Encode: IMAGE -> WEGEN_FEATURES."""

from __future__ import annotations

from . import host, ui_messages
from .sockets import CATEGORY, FEATURES, MODEL


class WeGenEncode:
    """Pictures to the features that WeGen reads, writes and paints."""

    DESCRIPTION = "Turns a picture into 64 features (8x8), which WeGen can read in a chat and a decoder can paint again."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "eva clip",
        "image encode",
        "vision encode",
        "picture to features",
        "tokenize image",
        "clip vision",
        "emu",
        "ip adapter",
    ]
    RETURN_TYPES = (FEATURES,)
    RETURN_NAMES = ("features",)
    OUTPUT_TOOLTIPS = ("64 features a picture, in the batch's order. They fit an image socket of WeGen Chat, or SDXL Feature Decoder.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "The model whose tower looks at the picture."}),
                "image": ("IMAGE", {"tooltip": "One picture or a batch, of any size. Transparency is laid over white."}),
                "fit": (
                    ["squash", "crop", "pad"],
                    {
                        "default": "squash",
                        "tooltip": (
                            "The tower sees a square. squash: the whole picture, distorted (as WeGen was trained). crop: its centre. "
                            "pad: the whole picture with bars."
                        ),
                    },
                ),
            }
        }

    def encode(self, model, image, fit="squash"):
        with host.watch(model.runtime) as notes:
            features = model.encode(image, fit=fit)
            return host.shown((features,), notes, ui={"wegen_features": ui_messages.colours(features)})
