"""LDM's names (Stability's code, single-file checkpoints, ComfyUI) against diffusers', as key maps: the SDXL-shaped UNet and the VAE.

LDM counts a UNet's blocks in one list, with the samplers as blocks of their own, and a VAE's decoder levels from the other end. So
the tables depend on how many levels and layers there are, which is read from the keys of either side.

Sources: key names of the public SDXL checkpoints and of diffusers' UNet2DConditionModel and AutoencoderKL.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from .key_map import KeyRule, below

UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX = "model.diffusion_model.", "first_stage_model.", "conditioner."
_RESNET = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
_ENDS = (
    ("input_blocks.0.0", "conv_in"),
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
)


def _numbers(pattern: str, keys: Collection[str]) -> list[int]:
    return sorted({int(m[1]) for key in keys if (m := re.match(pattern, key))})


def _shape(keys: Collection[str]) -> tuple[int, int, set[int]]:
    """(levels, resnets a level, up levels with attention) of a UNet, from the keys of either side."""
    if levels := _numbers(r"down_blocks\.(\d+)\.", keys):
        attention = _numbers(r"up_blocks\.(\d+)\.attentions\.", keys)
        return len(levels), 1 + max(_numbers(r"down_blocks\.0\.resnets\.(\d+)\.", keys), default=0), set(attention)
    samplers = _numbers(r"input_blocks\.(\d+)\.0\.op\.", keys)
    blocks = _numbers(r"input_blocks\.(\d+)\.", keys)
    layers = (samplers[0] if samplers else len(blocks)) - 1
    return len(samplers) + 1, layers, {n // (layers + 1) for n in _numbers(r"output_blocks\.(\d+)\.1\.transformer_blocks\.", keys)}


def unet_rules(keys: Collection[str]) -> tuple[KeyRule, ...]:
    """The UNet's table for the keys of either side, without prefix."""
    levels, layers, attention = _shape(keys)
    step = layers + 1
    rules = [KeyRule(f"{ldm}.{{leaf}}", "unet", f"{ours}.{{leaf}}") for ldm, ours in _ENDS]

    def resnet(ldm: str, ours: str) -> list[KeyRule]:
        return [KeyRule(f"{ldm}.{a}.{{leaf}}", "unet", f"{ours}.{b}.{{leaf}}") for a, b in _RESNET]

    for level in range(levels):
        for n in range(layers):
            block, down = f"input_blocks.{1 + level * step + n}", f"down_blocks.{level}"
            rules += [
                *resnet(f"{block}.0", f"{down}.resnets.{n}"),
                KeyRule(f"{block}.1.{{rest}}", "unet", f"{down}.attentions.{n}.{{rest}}"),
            ]
        rules.append(
            KeyRule(f"input_blocks.{(level + 1) * step}.0.op.{{leaf}}", "unet", f"down_blocks.{level}.downsamplers.0.conv.{{leaf}}")
        )
        for n in range(step):
            block, up = f"output_blocks.{level * step + n}", f"up_blocks.{level}"
            rules += resnet(f"{block}.0", f"{up}.resnets.{n}")
            if n == layers:  # the upsampler follows the other modules of the level's last block
                rules.append(KeyRule(f"{block}.{2 if level in attention else 1}.conv.{{leaf}}", "unet", f"{up}.upsamplers.0.conv.{{leaf}}"))
            if level in attention:
                rules.append(KeyRule(f"{block}.1.{{rest}}", "unet", f"{up}.attentions.{n}.{{rest}}"))
    rules += [*resnet("middle_block.0", "mid_block.resnets.0"), *resnet("middle_block.2", "mid_block.resnets.1")]
    return (*rules, KeyRule("middle_block.1.{rest}", "unet", "mid_block.attentions.0.{rest}"))


def vae_rules(keys: Collection[str]) -> tuple[KeyRule, ...]:
    """The VAE's table for the keys of either side, without prefix."""
    levels = 1 + max(_numbers(r"decoder\.up(?:_blocks)?\.(\d+)\.", keys), default=0)
    rules = [KeyRule(f"{side}.{conv}.{{leaf}}", "vae") for side in ("encoder", "decoder") for conv in ("conv_in", "conv_out")]
    rules += [KeyRule(f"{conv}.{{leaf}}", "vae") for conv in ("quant_conv", "post_quant_conv")]
    for side, ldm, ours, sampler in (("encoder", "down", "down_blocks", "downsample"), ("decoder", "up", "up_blocks", "upsample")):
        rules.append(KeyRule(f"{side}.norm_out.{{leaf}}", "vae", f"{side}.conv_norm_out.{{leaf}}"))
        for n in range(levels):
            old, new = f"{side}.{ldm}.{n}.", f"{side}.{ours}.{n if side == 'encoder' else levels - 1 - n}."
            rules += [
                KeyRule(old + "block.{m}.nin_shortcut.{leaf}", "vae", new + "resnets.{m}.conv_shortcut.{leaf}"),
                KeyRule(old + f"{sampler}.conv.{{leaf}}", "vae", new + f"{sampler}rs.0.conv.{{leaf}}"),
                KeyRule(old + "block.{m}.{rest}", "vae", new + "resnets.{m}.{rest}"),
            ]
        mid, block = f"{side}.mid.", f"{side}.mid_block."
        rules += [KeyRule(mid + f"block_{n + 1}.{{rest}}", "vae", block + f"resnets.{n}.{{rest}}") for n in (0, 1)]
        rules.append(KeyRule(mid + "attn_1.norm.{leaf}", "vae", block + "attentions.0.group_norm.{leaf}"))
        for old, new in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            rules += [
                KeyRule(mid + f"attn_1.{old}.weight", "vae", block + f"attentions.0.{new}.weight", "pointwise"),
                KeyRule(mid + f"attn_1.{old}.bias", "vae", block + f"attentions.0.{new}.bias"),
            ]
    return (
        *rules,
        KeyRule("model_ema.{rest}", None, why="averages of training"),
        KeyRule("loss.{rest}", None, why="the VAE's training loss"),
    )


def checkpoint_rules(keys: Collection[str]) -> tuple[KeyRule, ...]:
    """A whole SDXL checkpoint: UNet, VAE, text encoders."""
    unet = [key.removeprefix(UNET_PREFIX) for key in keys if key.startswith(UNET_PREFIX)]
    vae = [key.removeprefix(VAE_PREFIX) for key in keys if key.startswith(VAE_PREFIX)]
    return (
        *below(UNET_PREFIX, unet_rules(unet)),
        *below(VAE_PREFIX, vae_rules(vae)),
        KeyRule(TEXT_PREFIX + "{rest}", None, why="SDXL's text encoders; WeGen's decoder reads features"),
        KeyRule("denoiser.sigmas", None, why="a table of noise levels, which the scheduler computes"),
    )
