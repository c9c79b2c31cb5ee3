"""SDXL Feature Decoder: WEGEN_FEATURES -> IMAGE."""

from __future__ import annotations

from ..wegen_model.checkpoint.formats import presets_with
from ..wegen_model.config import NEGATIVES, SAMPLERS, TIME_IDS
from . import host
from .sockets import CATEGORY, DECODER, FEATHER, FEATURES, MATCH_COLOURS, MODEL, SEED, own_decoder

OWN_CHOICE = "from decoder"  # the folder's configuration decides
# widget's value -> what the library takes
SCHEDULER_CHOICES = {OWN_CHOICE: None, **SAMPLERS}
NEGATIVE_CHOICES = {OWN_CHOICE: None, **{negative.label: name for name, negative in NEGATIVES.items()}}
TIME_ID_CHOICES = {OWN_CHOICE: None, **{name: name for name in TIME_IDS}}
OWN = {"label_on": "decoder's own", "label_off": "as set below"}


class WeGenDecode:
    """Features to pictures by a diffusion decoder."""

    DESCRIPTION = (
        "Paints features as pictures, one for each in the batch, with the decoder's diffusion UNet and VAE. With an original and a "
        "mask, everything outside the mask stays the original to the last bit."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["sdxl", "decode", "features to picture", "detokenize", "paint", "diffusion decoder", "sampler", "inpaint", "emu"]
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
                    list(SCHEDULER_CHOICES),
                    {
                        "default": OWN_CHOICE,
                        "advanced": True,
                        "tooltip": ("The sampling method. «from decoder» is the one it was made for."),
                    },
                ),
            },
            "optional": {  # widgets since 0.1.0: API prompts of before do not name them
                "negative": (
                    list(NEGATIVE_CHOICES),
                    {
                        "default": OWN_CHOICE,
                        "advanced": True,
                        "tooltip": (
                            f"What guidance pushes away from. zeros: as {presets_with('negative', 'zeros')}. blank picture: its features, as "
                            f"{presets_with('negative', 'blank')}, which take a tower: the decoder's own, or that of a model at negative_features."
                        ),
                    },
                ),
                "time_ids": (
                    list(TIME_ID_CHOICES),
                    {
                        "default": OWN_CHOICE,
                        "advanced": True,
                        "tooltip": (
                            f"The size numbers that SDXL is told. size: the picture's, twice ({presets_with('time_ids', 'size')}). trained: the "
                            f"trained size, then the picture's ({presets_with('time_ids', 'trained')}). zeros: as the public WeGen was trained."
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
                "feather": ("FLOAT", FEATHER),
                "grow": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": -50.0,
                        "max": 50.0,
                        "step": 0.1,
                        "advanced": True,
                        "tooltip": (
                            "Widens the mask first, in percent of the shorter side; below 0 narrows it. For a new background behind a thing that "
                            "stays, 1 takes its old rim away."
                        ),
                    },
                ),
                "match_colours": ("BOOLEAN", MATCH_COLOURS),
                "variations": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 64,
                        "tooltip": (
                            "Pictures of each of the features: with seed, seed + 1 and so on, each as it would be painted alone with that seed."
                        ),
                    },
                ),
                "last_steps": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "advanced": True,
                        "tooltip": "The share of the denoising steps, counted from the end, that is painted from late_features, where connected.",
                    },
                ),
                "original": (
                    "IMAGE",
                    {
                        "tooltip": (
                            "The picture that is edited, of any size: the result has its size, and outside the mask is this picture to the last "
                            "bit. Needs mask."
                        )
                    },
                ),
                "mask": (
                    "MASK",
                    {
                        "tooltip": (
                            "White where the original is painted anew, black where it stays; grey blends. From WeGen Change Mask, Bbox Compose, "
                            "or drawn by hand. It is stretched to the original."
                        )
                    },
                ),
                "late_features": (
                    FEATURES,
                    {
                        "tooltip": "Features that take over for the last steps, such as those of WeGen Second Look: features then place, these "
                        "draw. As many pictures as features."
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
        scheduler=OWN_CHOICE,
        negative=OWN_CHOICE,
        time_ids=OWN_CHOICE,
        negative_features=None,
        feather=3.0,
        grow=0.0,
        match_colours=False,
        variations=1,
        last_steps=0.5,
        original=None,
        mask=None,
        late_features=None,
    ):
        from ..wegen_model.pipeline import WeGen

        options = {} if use_defaults else {"steps": steps, "guidance_scale": guidance_scale}
        options |= {"negative": NEGATIVE_CHOICES[negative], "time_ids": TIME_ID_CHOICES[time_ids]}
        if negative_features is not None and negative != "zeros":
            options["negative"] = negative_features.blank() if isinstance(negative_features, WeGen) else negative_features
        if not use_default_size:
            options |= {"width": width, "height": height}
        if variations > 1:
            if original is not None and len(original) == len(features) > 1:
                original = original.repeat_interleave(variations, 0)
            if mask is not None and mask.ndim > 2 and len(mask) == len(features) > 1:
                mask = mask.repeat_interleave(variations, 0)
            seed = [(seed + k) % 2**64 for k in range(variations)] * len(features)
            features = features.repeat(variations)
            late_features = late_features and late_features.repeat(variations)
        options |= {"original": original, "mask": mask, "feather": feather, "grow": grow, "match_colours": match_colours}
        if late_features is not None:
            options["late"] = late_features, last_steps
        painter = own_decoder(decoder)
        with host.watch(painter.runtime) as notes:
            image = painter.decode(features, seed=seed, scheduler=SCHEDULER_CHOICES[scheduler], **options)
            return host.shown((image,), notes)
