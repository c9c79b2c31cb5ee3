"""Bridges to ComfyUI's own sampling: features -> CONDITIONING, a decoder -> MODEL and VAE."""

from __future__ import annotations

from . import host
from .sockets import CATEGORY, DECODER, FEATURES, MODEL, own_decoder


class WeGenFeaturesToConditioning:
    """Features as what KSampler is conditioned on, and zeros as its negative."""

    DESCRIPTION = (
        "Features as conditioning for ComfyUI's own samplers: positive are the features, negative the zeros that WeGen decoders "
        "were trained with. For the MODEL of Decoder to MODEL + VAE."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["conditioning", "ksampler", "positive", "negative", "features to conditioning", "prompt", "ip adapter", "clip vision"]
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    OUTPUT_TOOLTIPS = ("The features, for KSampler's positive.", "Zeros, for KSampler's negative: what guidance leads away from.")
    FUNCTION = "condition"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "features": (
                    FEATURES,
                    {
                        "tooltip": (
                            "From AR Feature Decode or EVA-CLIP Encode. Of a batch, each picture needs a latent of its own: set the batch size of "
                            "Empty Latent Image to the same number."
                        )
                    },
                )
            }
        }

    def condition(self, features):
        if not len(features):
            raise ValueError("features: the batch is empty. Encode at least one picture.")
        features.check_finite("features")
        tokens = features.tokens.float()
        return tuple([[t, {"pooled_output": t.mean(1), "wegen_space": features.space}]] for t in (tokens, tokens.new_zeros(tokens.shape)))


class WeGenDecoderToModel:
    """A decoder as ComfyUI's own MODEL and VAE."""

    DESCRIPTION = (
        "The decoder's UNet and VAE for ComfyUI's own nodes: KSampler with any sampler, img2img, inpainting, LoRA, previews. "
        "Its conditioning comes from Features to Conditioning. KSampler's sampler «euler» with scheduler «ddim_uniform» "
        "(wegen-mini: «simple») paints what SDXL Feature Decoder paints."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["ksampler", "model", "vae", "unet", "diffusion model", "img2img", "inpaint", "lora", "native"]
    RETURN_TYPES = ("MODEL", "VAE")
    RETURN_NAMES = ("model", "vae")
    OUTPUT_TOOLTIPS = ("The UNet, for KSampler and everything that patches a MODEL.", "The VAE, for VAE Decode, VAE Encode and inpainting.")
    FUNCTION = "convert"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "decoder": (
                    f"{DECODER},{MODEL}",
                    {
                        "tooltip": (
                            "From Load WeGen Decoder, or simply the model, whose own decoder is used then. Its precision is the loader's."
                        )
                    },
                )
            }
        }

    def convert(self, decoder):
        return host.native(own_decoder(decoder))
