"""The decoder as ComfyUI's own MODEL and VAE, so that its samplers, LoRA, inpainting, previews and fp8 are the person's.

    WEGEN_DECODER -> MODEL    comfy's own UNet, its conditioning the features (b,n,c), pooled and sizes as SDXL's
                  -> VAE      comfy's VAE, around diffusers' module where it is not SDXL's

b pictures · n features · c feature width · k latent channels · h,w latent height and width

`register` makes the full-size UNet (cross-attention 1792, added condition 3328) known, so that ComfyUI's Load Diffusion Model opens
an LDM-style file of it. Imported only inside ComfyUI. Source: ComfyUI's supported_models.SDXL and load_diffusion_model.
"""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_sampling
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Timestep
from torch import Tensor

from ...wegen_model.checkpoint import model_folder
from ...wegen_model.config import SDXL_VAE, DecoderConfig, ModelConfig
from ...wegen_model.models.decoder import Decoder, FeatureToLatent
from ...wegen_model.runtime import check_result
from .memory import layers, register_leaves

PREDICTIONS = {"epsilon": comfy.model_base.ModelType.EPS, "v_prediction": comfy.model_base.ModelType.V_PREDICTION}
NEARLY_NOISE = 5.0  # sigma: above it, hardly anything of the picture is left


class WeGenSDXL(comfy.supported_models.SDXL):
    """What ComfyUI finds in a full-size UNet's file; `model` sets the rest for other sizes."""

    unet_config = {**comfy.supported_models.SDXL.unet_config, "context_dim": 1792, "adm_in_channels": 3328}
    decoder = DecoderConfig(space="")  # no space: a stock file does not say which
    factor = 8  # pixels along one side of a latent cell
    prediction = None
    size_width = 256  # width of the sinusoidal embedding of each of the six sizes

    def inpaint_model(self):
        return not self.decoder.layout_channels and super().inpaint_model()

    def model_type(self, state_dict, prefix=""):
        return self.prediction or super().model_type(state_dict, prefix)

    def get_model(self, state_dict, prefix="", device=None):
        out = WeGenModel(self, model_type=self.model_type(state_dict, prefix), device=device)
        if self.inpaint_model():
            out.set_inpaint()
        return out


class WeGenModel(comfy.model_base.SDXL):
    """SDXL with features for text: checks its inputs, and adds the features to the input channels where the decoder does."""

    def __init__(self, model_config, model_type=comfy.model_base.ModelType.EPS, device=None):
        super().__init__(model_config, model_type, device=device)
        sampling = type(self.model_sampling)
        self.model_sampling.__class__ = type(sampling.__name__, (FromNothing, sampling), {})
        self.embedder, decoder = Timestep(model_config.size_width), model_config.decoder
        with torch.device("meta"):
            self.layout = FeatureToLatent(decoder, layers()) if decoder.layout_channels else None

    def extra_conds(self, **kwargs):
        self._check(
            kwargs.get("cross_attn"),
            kwargs.get("pooled_output"),
            kwargs["noise"],
            kwargs.get("prompt_type") or "conditioning",
            kwargs.get("wegen_space"),
        )
        return super().extra_conds(**kwargs)

    def _check(self, tokens: Tensor | None, pooled: Tensor | None, noise: Tensor, where: str, space: str | None) -> None:
        decoder, width = self.model_config.decoder, self.model_config.unet_config["context_dim"]
        pooled_width = self.adm_channels - 6 * self.model_config.size_width
        if tokens is None or tokens.shape[-1] != width or pooled is None or pooled.shape[-1] != pooled_width:
            got = "nothing" if tokens is None else f"a conditioning {tokens.shape[-1]} numbers wide (as text encoders make)"
            raise ValueError(
                f"{where}: this model is a WeGen decoder, which paints features {width} numbers wide, and was given {got}. "
                f"Connect «Features to Conditioning» to {where}."
            )
        if space and decoder.space and space != decoder.space:
            raise ValueError(
                f"{where}: the features are of the space '{space}', but this decoder reads '{decoder.space}'. Encode or "
                f"generate them with a model of '{decoder.space}', or load a decoder made for '{space}'."
            )
        cells = decoder.grid[0] * decoder.grid[1]
        if decoder.layout_channels and tokens.shape[1] != cells:
            raise ValueError(
                f"{where}: this decoder takes {cells} features, one for each cell of the picture, and was given {tokens.shape[1]}. "
                "Conditionings for it cannot be joined end to end; combine them, or mix their features before."
            )
        if len(tokens) not in (1, len(noise)):
            raise ValueError(
                f"{where}: features of {len(tokens)} pictures for {len(noise)} latents. Set the latents' batch size to "
                f"{len(tokens)}, or connect the features of one picture."
            )

    def encode_adm(self, **kwargs):
        decoder = self.model_config.decoder
        scale = 0 if decoder.time_ids == "zeros" else self.model_config.factor / 8  # ComfyUI counts 8 pixels a cell
        for side in ("width", "height", "crop_w", "crop_h", "target_width", "target_height"):
            if side in kwargs:
                kwargs[side] = int(kwargs[side] * scale)
        if decoder.time_ids == "trained":
            target = {f"target_{side}": kwargs[side] for side in ("width", "height") if side in kwargs}
            kwargs = {**target, **kwargs, "width": decoder.size, "height": decoder.size}
        return super().encode_adm(**kwargs)

    def concat_cond(self, **kwargs):
        if self.layout is None:
            return super().concat_cond(**kwargs)
        return self.layout(kwargs["cross_attn"].to(kwargs["device"], torch.float32), tuple(kwargs["noise"].shape[-2:]))


class FromNothing:
    """Sampling that starts from an empty latent starts from unit noise, as diffusers does: equal to SDXL Feature Decoder.

    ComfyUI does so only at the schedule's very last step, where `ddim_uniform` does not start.
    """

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        empty = float(sigma.min()) >= NEARLY_NOISE and not bool(latent_image.any())
        return super().noise_scaling(sigma, noise, latent_image, max_denoise or empty)


class Width(int):
    """A level's width, where ComfyUI's UNet multiplies the first level's: widths need not be multiples."""

    def __mul__(self, _first):
        return int(self)

    __rmul__ = __mul__


def unet_shape(c: dict) -> dict:
    """A diffusers UNet's configuration in ComfyUI's terms.

    Raises:
        ValueError: attention heads of more than one width, which ComfyUI's UNet cannot build.
    """
    widths = list(c["block_out_channels"])
    levels = len(widths)

    def each(value) -> list:
        return list(value) if isinstance(value, (list, tuple)) else [value] * levels

    layers_, depths, heads = each(c["layers_per_block"]), each(c["transformer_layers_per_block"]), each(c["attention_head_dim"])
    down = ["Attn" in kind for kind in c["down_block_types"]]
    up = ["Attn" in kind for kind in reversed(c["up_block_types"])]
    head_widths = {w / h for w, h, a, b in zip(widths, heads, down, up) if a or b}
    if len(head_widths) > 1 or not float(next(iter(head_widths), 1)).is_integer():
        raise ValueError(
            f"decoder: attention heads of different widths ({', '.join(map(str, sorted(head_widths)))}); ComfyUI's UNet "
            "has one width. Use SDXL Feature Decoder."
        )
    return {
        "use_checkpoint": False,
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_classes": "sequential",
        "in_channels": c["in_channels"],
        "out_channels": c["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [Width(w) for w in widths],
        "num_res_blocks": layers_,
        "transformer_depth": [d if a else 0 for d, a, n in zip(depths, down, layers_) for _ in range(n)],
        "transformer_depth_output": [d if a else 0 for d, a, n in zip(depths, up, layers_) for _ in range(n + 1)],
        "transformer_depth_middle": depths[-1],
        "use_linear_in_transformer": bool(c.get("use_linear_projection")),
        "context_dim": c["cross_attention_dim"],
        "adm_in_channels": c["projection_class_embeddings_input_dim"],
        "num_head_channels": int(next(iter(head_widths), 64)),
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }


def latent_format(c: ModelConfig, factor: int) -> comfy.latent_formats.LatentFormat:
    """Channels, scale and preview factors of a decoder's latents."""
    if c.vae["latent_channels"] == 4 and not c.decoder.latent_rgb:
        return comfy.latent_formats.SDXL()
    made = comfy.latent_formats.LatentFormat()
    made.latent_channels, made.scale_factor, made.spacial_downscale_ratio = c.vae["latent_channels"], c.vae["scaling_factor"], factor
    if c.decoder.latent_rgb:  # ours give 0..1, ComfyUI's -1..1
        rgb = [[2 * x for x in row] for row in c.decoder.latent_rgb]
        made.latent_rgb_factors, made.latent_rgb_factors_bias = rgb[:-1], [x - 1 for x in rgb[-1]]
    return made


def settings(scheduler: dict) -> dict:
    """A diffusers scheduler's noise schedule in ComfyUI's terms."""
    kind = scheduler.get("beta_schedule", "linear")
    if kind != "scaled_linear" or scheduler.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise ValueError(
            f"decoder: the noise schedule '{kind}' with '{scheduler.get('prediction_type')}' has no counterpart among "
            "ComfyUI's samplers. Use SDXL Feature Decoder."
        )
    return {
        "linear_start": scheduler["beta_start"],
        "linear_end": scheduler["beta_end"],
        "timesteps": scheduler.get("num_train_timesteps", 1000),
        "zsnr": bool(scheduler.get("rescale_betas_zero_snr")),
    }


def model(decoder) -> Any:
    """A `WeGenDecoder`'s UNet as ComfyUI's MODEL (a ModelPatcher), its weights read again."""
    c: ModelConfig = decoder.config
    shape = unet_shape(c.unet)
    config = WeGenSDXL(shape)
    config.unet_config["num_head_channels"] = shape["num_head_channels"]  # ComfyUI overwrites it with SDXL's
    config.decoder, config.factor = c.decoder, Decoder.cell(c.vae)
    config.size_width = c.unet["addition_time_embed_dim"]
    config.sampling_settings = settings(c.scheduler)
    config.prediction = PREDICTIONS[c.scheduler.get("prediction_type", "epsilon")]
    config.latent_format = latent_format(c, config.factor)
    state = renamed(decoder.folder, config.unet_config)
    device = decoder.runtime.place("unet").device
    dtype = decoder.runtime.chosen or mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    made = config.get_model(state, "")
    if made.layout is not None:
        model_folder.load_into(made.layout, decoder.folder, "layout")
    held = decoder.runtime.hold("unet", made)
    lazy = {"assign": True} if getattr(held, "is_dynamic", bool)() else {}
    lacking = sorted(set(made.diffusion_model.state_dict()) - set(state)) if not lazy else []
    if lacking:
        raise model_folder.CheckpointError(
            f"{decoder.name}: its UNet's file lacks {lacking[0]} and {len(lacking) - 1} more. Convert it again."
        )
    made.load_model_weights(state, "", **lazy)
    return held


def renamed(folder, shape: dict) -> dict[str, Tensor]:
    """A folder's UNet in ComfyUI's names."""
    paths = model_folder.files(folder, "unet")
    if not paths:
        model_folder.missing(folder, "unet")
    names, out = comfy.utils.unet_to_diffusers(shape), {}
    for path in paths:
        for key, tensor in model_folder.read_tensors(path).items():
            if key not in names:
                raise model_folder.CheckpointError(f"{path}: {key} has no place in ComfyUI's UNet. Use SDXL Feature Decoder.")
            out[names[key]] = tensor
    return out


# --- the VAE --------------------------------------------------------------------------------------------------------


class Coder(torch.nn.Module):
    """A diffusers VAE as ComfyUI's VAE calls it: pixels in -1..1 to latents as ComfyUI keeps them (unscaled), and back."""

    vae: Any  # one of diffusers', which have no common type

    def __init__(self, vae: torch.nn.Module):
        super().__init__()
        self.vae = vae

    def encode(self, pixels: Tensor, *_, **__) -> Tensor:
        out = self.vae.encode(pixels)
        return out.latent if hasattr(out, "latent") else out.latent_dist.mode()

    def decode(self, latents: Tensor, *_, **__) -> Tensor:
        return check_result(self.vae.decode(latents, return_dict=False)[0], "a picture", vae=self.vae)


def vae(decoder) -> comfy.sd.VAE:
    """A `WeGenDecoder`'s VAE as ComfyUI's."""
    c: ModelConfig = decoder.config
    place = decoder.runtime.place("vae")
    if all(_plain(c.vae.get(key)) == _plain(value) for key, value in SDXL_VAE.items() if "channels" in key or key == "layers_per_block"):
        state: dict[str, Tensor] = {}
        for path in model_folder.files(decoder.folder, "vae") or model_folder.missing(decoder.folder, "vae"):
            state |= model_folder.read_tensors(path)
        return comfy.sd.VAE(sd=state, device=place.device, dtype=place.dtype)
    with torch.device("meta"):
        module = Decoder.make_vae(c.vae)
    model_folder.load_into(module, decoder.folder, "vae", place.dtype)
    coder = Coder(register_leaves(module))
    out = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})  # the plainest kind: whatever attributes this ComfyUI's VAE has
    factor = Decoder.cell(c.vae)
    out.first_stage_model, out.vae_dtype, out.device = coder, place.dtype, place.device
    out.latent_channels, out.downscale_ratio, out.upscale_ratio = c.vae["latent_channels"], factor, factor
    out.disable_offload, out.size = False, None
    wide = max(c.vae.get("block_out_channels") or c.vae["decoder_block_out_channels"]) / 512  # ComfyUI's figures are SDXL's VAE's
    out.memory_used_encode = lambda shape, dtype: 1767 * shape[2] * shape[3] * wide * dtype.itemsize
    out.memory_used_decode = lambda shape, dtype: 2178 * shape[2] * shape[3] * factor**2 * wide * dtype.itemsize
    out.patcher = decoder.runtime.hold("vae", coder)
    return out


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def register() -> None:
    """Add our UNet to what ComfyUI's loaders recognise, once."""
    known = comfy.supported_models.models
    if not any(kind.__name__ == WeGenSDXL.__name__ for kind in known):
        known.append(WeGenSDXL)
