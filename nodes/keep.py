"""What was not touched stays, as nodes: the mask of an edit, the original's pixels laid over any painting, its latents for KSampler."""

from __future__ import annotations

from . import host
from .sockets import CATEGORY, DECODER, FEATHER, FEATURES, MATCH_COLOURS, MODEL, SEED, SIDE, own_decoder

MASK_MODE = (
    ["paint", "probe"],
    {
        "default": "paint",
        "tooltip": (
            "How the change is found. paint: both are painted from the same noise and compared, surer. probe: the UNet is asked "
            "at one noise level, faster (3.7 times on the miniature, which paints in 6 steps) and coarser."
        ),
    },
)


class WeGenChangeMask:
    """Where written features change a picture."""

    DESCRIPTION = (
        "Finds where an edit changes the picture: paints the features before and after from the same noise and compares the two "
        "pictures. Its mask goes to SDXL Feature Decoder, which then leaves the rest of the original alone."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["auto mask", "difference mask", "change mask", "edit mask", "diffedit", "automatic inpaint mask"]
    RETURN_TYPES = ("MASK", "IMAGE")
    RETURN_NAMES = ("mask", "preview")
    OUTPUT_TOOLTIPS = (
        "White where the edit changes the picture, one mask for each of after.",
        "The original with all that stays darkened (the mask alone where no original is connected). For Preview Image.",
    )
    FUNCTION = "find"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "before": (FEATURES, {"tooltip": "Features of the picture as it was: EVA-CLIP Encode of the original."}),
                "after": (FEATURES, {"tooltip": "Features of the edit: AR Feature Decode."}),
                "decoder": (f"{DECODER},{MODEL}", {"tooltip": "The decoder that paints both: from Load WeGen Decoder, or the model."}),
                "seed": ("INT", {**SEED, "tooltip": "The noise that both are painted from. Set it as on SDXL Feature Decoder."}),
                "mode": MASK_MODE,
                "threshold": (
                    "FLOAT",
                    {
                        "default": 16.0,
                        "min": 0.0,
                        "max": 255.0,
                        "step": 0.5,
                        "tooltip": (
                            "From which difference on a pixel counts as changed, of 255. Lower it when the mask misses a part, raise it "
                            "when it takes too much."
                        ),
                    },
                ),
                "grow": (
                    "FLOAT",
                    {
                        "default": 3.0,
                        "min": 0.0,
                        "max": 50.0,
                        "step": 0.1,
                        "tooltip": "Widens what changed, in percent of the shorter side: room for outlines and for the decoder's feather.",
                    },
                ),
            },
            "optional": {"original": ("IMAGE", {"tooltip": "The picture as it was: for the preview, and what mode probe looks at."})},
        }

    def find(self, before, after, decoder, seed=0, mode="paint", threshold=16.0, grow=3.0, original=None):
        from ..wegen_model.generation.change_mask import overlay
        from ..wegen_model.validation import check_images

        painter = own_decoder(decoder)
        with host.watch(painter.runtime) as notes:
            mask = painter.change_mask(before, after, mode=mode, original=original, seed=seed, threshold=threshold, grow=grow)
            shares = ", ".join(f"{share:.0%}" for share in mask.mean((1, 2)).tolist())
            if not mask.any():
                painter.runtime.warn("Nothing changed: the mask is black. Lower threshold, or look at what the edit wrote.")
            picture = None if original is None else check_images(original, "WeGen Change Mask, original")
            return host.shown((mask, overlay(mask, picture)), notes, f"{shares} of the picture changes.")


class WeGenKeepOriginal:
    """The original's own pixels outside a mask, whatever painted the picture."""

    DESCRIPTION = (
        "Lays a painting into the original: outside the mask every pixel is the original's to the last bit, at the original's "
        "size; inside it blends in from the edge. For pictures of KSampler and VAE Decode; SDXL Feature Decoder has it built in."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["composite", "keep original", "paste back", "stitch", "inpaint composite", "uncrop", "blend"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The original with the painting in it, of the original's size.",)
    FUNCTION = "lay"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "painted": ("IMAGE", {"tooltip": "The painting, of any size: it is brought to the original's."}),
                "original": ("IMAGE", {"tooltip": "The picture that stays outside the mask. One, or one for each painting."}),
                "mask": ("MASK", {"tooltip": "White where the painting comes in, black where the original stays; grey blends."}),
                "feather": ("FLOAT", FEATHER),
                "grow": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": -50.0,
                        "max": 50.0,
                        "step": 0.1,
                        "tooltip": "Widens the mask first, in percent of the shorter side; below 0 narrows it.",
                    },
                ),
                "match_colours": ("BOOLEAN", MATCH_COLOURS),
            }
        }

    def lay(self, painted, original, mask, feather=3.0, grow=0.0, match_colours=False):
        from ..wegen_model.generation import keep
        from ..wegen_model.validation import check_images

        run = host.runtime()  # no model here: only for what the host shows
        with host.watch(run) as notes:
            painted = check_images(painted.detach().cpu(), "Keep Original Pixels, painted")
            picture = check_images(original.detach().cpu(), "Keep Original Pixels, original")
            stays = keep.kept(
                picture,
                mask,
                len(painted),
                feather=feather,
                grow=grow,
                match_colours=match_colours,
                where="Keep Original Pixels",
                warn=run.warn,
            )
            return host.shown((stays.composite(painted),), notes)


class WeGenOriginalToLatent:
    """A latent in which KSampler paints only the masked cells."""

    DESCRIPTION = (
        "The original as a latent whose unmasked cells stay, for KSampler with Decoder to MODEL + VAE. Unlike VAE Encode with Set Latent "
        "Noise Mask, no thin line of the mask is lost, and KSampler starts from noise alone inside it. Follow with VAE Decode "
        "and Keep Original Pixels."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["inpaint latent", "noise mask", "set latent noise mask", "vae encode inpaint", "ksampler inpaint"]
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("The original's latent with its noise mask. For KSampler's latent_image.",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "vae": ("VAE", {"tooltip": "From Decoder to MODEL + VAE."}),
                "original": ("IMAGE", {"tooltip": "The picture that is edited, of any size; it is squashed to width and height."}),
                "mask": ("MASK", {"tooltip": "White where KSampler paints, black where the original stays."}),
                "width": ("INT", {**SIDE, "tooltip": "Pixels that are painted: what the decoder was trained at (wegen-mini: 128)."}),
                "height": ("INT", {**SIDE, "tooltip": "Pixels that are painted."}),
            },
            "optional": {
                "inside": (
                    ["empty", "original"],
                    {
                        "default": "empty",
                        "tooltip": (
                            "What KSampler finds inside the mask. empty: nothing, for denoise 1. original: the picture there, for denoise below 1 "
                            "(img2img): the lower, the more of it shows."
                        ),
                    },
                )
            },
        }

    def encode(self, vae, original, mask, width=1024, height=1024, inside="empty"):
        from ..wegen_model.generation import keep
        from ..wegen_model.validation import check_images

        run = host.runtime()
        with host.watch(run) as notes:
            picture = check_images(original.detach().cpu(), "Original to Latent, original")
            stays = keep.kept(picture, mask, len(picture), where="Original to Latent", warn=run.warn)
            pixels = (stays.pixels(height, width).movedim(1, -1) + 1) / 2
            samples = vae.encode(pixels)
            cells = stays.cells(*samples.shape[-2:])
            if inside == "empty":
                samples = samples.masked_fill(cells.to(samples.device), 0)
            return host.shown(({"samples": samples, "noise_mask": cells.float()},), notes)
