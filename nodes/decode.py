"""SDXL Feature Decoder: WEGEN_FEATURES -> IMAGE."""

from __future__ import annotations

from . import host
from .sockets import CATEGORY, DECODER, FEATURES, MODEL, SEED, own_decoder

SCHEDULERS = {
    "from decoder": None,
    "euler": "EulerDiscreteScheduler",
    "euler ancestral": "EulerAncestralDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpm++ 2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "ddpm": "DDPMScheduler",
}
NEGATIVES = {"from decoder": None, "zeros": "zeros", "blank picture": "blank"}
TIME_IDS = {"from decoder": None, "size": "size", "trained": "trained", "zeros": "zeros"}
OWN = {"label_on": "decoder's own", "label_off": "as set below"}


class WeGenDecode:
    """Features to pictures by a diffusion decoder."""

    DESCRIPTION = "Paints features as pictures, one for each in the batch, with the decoder's diffusion UNet and VAE."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["sdxl", "decode", "features to picture", "detokenize", "paint", "diffusion decoder", "sampler"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The painted pictures.",)
    FUNCTION = "decode"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "features": (FEATURES, {"tooltip": "From AR Feature Decode or EVA-CLIP Encode."}),
                "decoder": (
                    f"{DECODER},{MODEL}",
                    {"tooltip": ("The decoder: from Load WeGen Decoder, or simply the model, whose own decoder is used then.")},
                ),
                "seed": (
                    "INT",
                    {**SEED, "tooltip": "The noise that painting starts from: another seed paints the same features differently."},
                ),
                "use_defaults": (
                    "BOOLEAN",
                    {
                        "default": True,
                        **OWN,
                        "tooltip": ("On: steps and guidance that this decoder was made for; the two widgets below do not count."),
                    },
                ),
                "steps": (
                    "INT",
                    {
                        "default": 20,
                        "min": 1,
                        "max": 1000,
                        "tooltip": ("Denoising steps, when use_defaults is off. More is slower and a little cleaner."),
                    },
                ),
                "guidance_scale": (
                    "FLOAT",
                    {
                        "default": 3.0,
                        "min": 0.0,
                        "max": 30.0,
                        "step": 0.1,
                        "tooltip": (
                            "How strictly the picture follows the features, when use_defaults is off. 1 is off and twice as fast; too much burns "
                            "the colours."
                        ),
                    },
                ),
                "use_default_size": (
                    "BOOLEAN",
                    {
                        "default": True,
                        **OWN,
                        "tooltip": ("On: the size that this decoder was trained at; width and height below do not count."),
                    },
                ),
                "width": (
                    "INT",
                    {
                        "default": 1024,
                        "min": 8,
                        "max": 8192,
                        "step": 8,
                        "tooltip": (
                            "Pixels, a multiple of 8, when use_default_size is off. Far from the trained size pictures fall apart."
                        ),
                    },
                ),
                "height": (
                    "INT",
                    {
                        "default": 1024,
                        "min": 8,
                        "max": 8192,
                        "step": 8,
                        "tooltip": ("Pixels, a multiple of 8, when use_default_size is off."),
                    },
                ),
                "scheduler": (
                    list(SCHEDULERS),
                    {
                        "default": "from decoder",
                        "advanced": True,
                        "tooltip": ("The sampling method. «from decoder» is the one it was made for."),
                    },
                ),
            },
            "optional": {  # widgets since 0.1.0: API prompts of before do not name them
                "negative": (
                    list(NEGATIVES),
                    {
                        "default": "from decoder",
                        "advanced": True,
                        "tooltip": (
                            "What guidance pushes away from. WeGen's decoder: zeros. Emu2's and BLIP3-o's: the features of a blank picture, which "
                            "take a tower: the decoder's own, or that of a model at negative_features."
                        ),
                    },
                ),
                "time_ids": (
                    list(TIME_IDS),
                    {
                        "default": "from decoder",
                        "advanced": True,
                        "tooltip": (
                            "The size numbers that SDXL is told. size: the picture's, twice (WeGen). trained: the trained size, then the picture's "
                            "(Emu2, BLIP3-o). zeros: as the public WeGen was trained."
                        ),
                    },
                ),
                "negative_features": (
                    f"{FEATURES},{MODEL}",
                    {
                        "tooltip": (
                            "Features that guidance pushes away from, instead of the widget's choice; or a model, whose tower then looks at the blank "
                            "picture."
                        )
                    },
                ),
            },
        }

    def decode(
        self,
        features,
        decoder,
        seed=0,
        use_defaults=True,
        steps=20,
        guidance_scale=3.0,
        use_default_size=True,
        width=1024,
        height=1024,
        scheduler="from decoder",
        negative="from decoder",
        time_ids="from decoder",
        negative_features=None,
    ):
        from ..wegen_model.pipeline import WeGen

        options = {} if use_defaults else {"steps": steps, "guidance_scale": guidance_scale}
        options |= {"negative": NEGATIVES[negative], "time_ids": TIME_IDS[time_ids]}
        if negative_features is not None and negative != "zeros":
            options["negative"] = negative_features.blank() if isinstance(negative_features, WeGen) else negative_features
        if not use_default_size:
            options |= {"width": width, "height": height}
        painter = own_decoder(decoder)
        with host.watch(painter.runtime) as notes:
            image = painter.decode(features, seed=seed, scheduler=SCHEDULERS[scheduler], **options)
            return host.shown((image,), notes)
