"""AR Feature Decode: the picture that a conversation opened -> its features, written one after another."""

from __future__ import annotations

from dataclasses import replace

from . import host, ui_messages
from .sockets import CATEGORY, CHAT, FEATURES, GUIDANCE, MODEL


class WeGenDraw:
    """The 64 features of the picture that WeGen Chat opened."""

    DESCRIPTION = (
        "Writes the picture that WeGen Chat opened: 64 features, one after another, each from all before it. "
        "SDXL Feature Decoder paints them. Parts of an earlier picture can be kept."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["autoregressive", "draw", "feature decode", "generate features", "keep", "inpaint features", "next token"]
    RETURN_TYPES = (FEATURES, CHAT)
    RETURN_NAMES = ("features", "chat")
    OUTPUT_TOOLTIPS = (
        "The picture's 64 features, for SDXL Feature Decoder (or as a reference for another WeGen Chat).",
        "The conversation with the picture in it. Connect it to the next WeGen Chat to go on.",
    )
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "chat": (
                    CHAT,
                    {"tooltip": ("A conversation whose last answer opened a picture: WeGen Chat with picture on auto or always.")},
                ),
                "guidance": (
                    "FLOAT",
                    {
                        **GUIDANCE,
                        "tooltip": (
                            "How much the features lean towards the conversation, away from a picture of nothing in particular. 1 is off and "
                            "fastest; 1.5 to 3 follows the words more closely."
                        ),
                    },
                ),
                "mode": (
                    ["autoregressive", "parallel"],
                    {
                        "default": "autoregressive",
                        "tooltip": (
                            "autoregressive: one feature after another, the way WeGen works. parallel: all at once, faster and less coherent; "
                            "only for weights trained for it."
                        ),
                    },
                ),
                "readout": (
                    ["aligned", "released"],
                    {
                        "default": "aligned",
                        "advanced": True,
                        "tooltip": (
                            "aligned: each feature where it was trained to be. released: shifted by one, as the public WeGen code returns them."
                        ),
                    },
                ),
                "trim_oldest": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": (
                            "When a conversation has grown too long for the model: forget its oldest exchanges instead of stopping. Set it as on "
                            "WeGen Chat."
                        ),
                    },
                ),
            },
            "optional": {
                "model": (MODEL, {"tooltip": "The model that held the conversation. Empty: the conversation's own."}),
                "keep_features": (
                    FEATURES,
                    {
                        "tooltip": (
                            "Features of an earlier picture, parts of which stay exactly as they are. Needs keep_mask. The first of a batch is "
                            "used."
                        )
                    },
                ),
                "keep_mask": (
                    "MASK",
                    {
                        "tooltip": (
                            "White where the earlier picture stays. It is brought to 8x8 cells; a cell more than half white is kept. Several "
                            "masks count together. A kept cell can only influence cells right of and below it."
                        )
                    },
                ),
            },
        }

    def draw(
        self,
        model=None,
        chat=None,
        guidance=1.0,
        mode="autoregressive",
        readout="aligned",
        trim_oldest=False,
        keep_features=None,
        keep_mask=None,
    ):
        model = chat.model if model is None else model
        if model is None:
            raise ValueError("AR Feature Decode: model is not connected, and the conversation names none. Connect Load WeGen Model.")
        with host.watch(model.runtime, ui_messages.grid_progress()) as notes:
            keep = None
            if (keep_features is None) != (keep_mask is None):
                have, lack = ("keep_features", "keep_mask") if keep_mask is None else ("keep_mask", "keep_features")
                raise ValueError(
                    f"AR Feature Decode: {have} is connected but {lack} is not. Keeping needs both: the earlier features, "
                    "and a mask that is white where they stay. Connect both, or neither."
                )
            if keep_mask is not None:
                if not len(keep_features):
                    raise ValueError("AR Feature Decode: keep_features is an empty batch. Connect the features of one earlier picture.")
                if len(keep_features) > 1:
                    model.runtime.warn(f"keep_features holds {len(keep_features)} pictures: the first is used.")
                kept = cells(keep_mask, model.config.features.grid)
                if not kept.any():
                    model.runtime.warn(
                        "keep_mask keeps no cell: no cell is more than half white, so the whole picture is written anew. "
                        "Paint larger areas white."
                    )
                keep = (keep_features[:1], kept)
            features, conversation = model.draw(chat, guidance=guidance, mode=mode, readout=readout, keep=keep, trim_oldest=trim_oldest)
            return host.shown((features, replace(conversation, model=model)), notes, ui={"wegen_features": ui_messages.colours(features)})


def cells(mask, grid):
    """A MASK (b,h,w) or (h,w) to (rows, columns) 0 or 1: the share of white in each cell, above one half; any mask of the batch."""
    from ..wegen_model.generation.feature_ops import cell_shares

    return (cell_shares(mask, grid) > 0.5).any(0).float()
