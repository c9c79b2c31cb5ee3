"""WeGen Second Look: the features of references, seen in their boxes, for the written ones that blurred them."""

from __future__ import annotations

from . import host, ui_messages
from .sockets import CATEGORY, FEATURES, MODEL, REFERENCES


class WeGenSecondLook:
    """Lays the references over the painting, looks at that, and mixes what it sees into the written features."""

    DESCRIPTION = (
        "Makes references look like themselves: they are cut out and laid over the first painting in their boxes, the model looks at that, "
        "and its features take the place of the written ones there. Paint the result again. A collage: no change of pose."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["second look", "identity", "references", "subject", "collage", "paste", "likeness", "multi reference"]
    RETURN_TYPES = (FEATURES, "IMAGE")
    RETURN_NAMES = ("features", "collage")
    OUTPUT_TOOLTIPS = (
        "The written features, with the references' own in their boxes. For a second SDXL Feature Decoder.",
        "What the model looked at: the painting with the references laid over it.",
    )
    FUNCTION = "look"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "The model that wrote the features: its tower looks at the collage."}),
                "features": (FEATURES, {"tooltip": "The written features, from AR Feature Decode."}),
                "painting": ("IMAGE", {"tooltip": "What SDXL Feature Decoder (or KSampler) painted of these features, of any size."}),
                "references": (
                    REFERENCES,
                    {
                        "tooltip": "The references with their boxes, from Bbox Compose. Where boxes overlap, the later reference lies on top."
                    },
                ),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "How much of what is seen takes the place of what was written: 0 changes nothing, 1 all of it, in cells more "
                        "than half inside a box.",
                    },
                ),
            }
        }

    def look(self, model, features, painting, references, strength=1.0):
        from ..wegen_model.second_look import look_again

        with host.watch(model.runtime) as notes:
            made = look_again(model.encode, features, painting, tuple(references), strength, model.runtime.warn)
            return host.shown((made.features, made.collage), notes, ui={"wegen_features": ui_messages.colours(made.features)})
