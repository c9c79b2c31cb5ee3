"""Names and shapes of the decoder's parts from their configurations alone, so that `wegen inspect` need not import diffusers.

Measured on a full-size UNet and VAE folder, processor seconds on one core: `wegen inspect` takes 1.8; when diffusers' classes are imported
(2.4 to 3.0) and built on the meta device (0.35) instead, 5.5. More than two seconds for a look at headers: so these hundred lines stay.

Only the SDXL-shaped UNet and the plain AutoencoderKL are known; for anything else, and for any difference, diffusers is asked.
Source: diffusers' UNet2DConditionModel and AutoencoderKL; a test compares every name and shape.
"""

from __future__ import annotations

from typing import Any

from torch import nn

Shapes = dict[str, tuple[int, ...]]


class Blank:
    """Layer classes that leave their weights as they are: on the meta device there is nothing to draw."""

    class Linear(nn.Linear):
        def reset_parameters(self) -> None:
            pass

    class Embedding(nn.Embedding):
        def reset_parameters(self) -> None:
            pass

    class Conv2d(nn.Conv2d):
        def reset_parameters(self) -> None:
            pass

    LayerNorm, RMSNorm = nn.LayerNorm, nn.RMSNorm


def _layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {})


def _resnet(name: str, inside: int, out: int, time: int = 0) -> Shapes:
    shapes = _layer(f"{name}.norm1", inside) | _layer(f"{name}.conv1", out, inside, 3, 3)
    shapes |= _layer(f"{name}.time_emb_proj", out, time) if time else {}
    shapes |= _layer(f"{name}.norm2", out) | _layer(f"{name}.conv2", out, out, 3, 3)
    return shapes | (_layer(f"{name}.conv_shortcut", out, inside, 1, 1) if inside != out else {})


def _transformer(name: str, width: int, depth: int, cross: int) -> Shapes:
    shapes = _layer(f"{name}.norm", width) | _layer(f"{name}.proj_in", width, width) | _layer(f"{name}.proj_out", width, width)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for n, context in ((1, width), (2, cross)):
            shapes |= _layer(f"{block}.attn{n}.to_q", width, width, bias=False) | _layer(f"{block}.attn{n}.to_out.0", width, width)
            shapes |= {f"{block}.attn{n}.{x}.weight": (width, context) for x in ("to_k", "to_v")}
        for n in (1, 2, 3):
            shapes |= _layer(f"{block}.norm{n}", width)
        shapes |= _layer(f"{block}.ff.net.0.proj", 8 * width, width) | _layer(f"{block}.ff.net.2", width, 4 * width)
    return shapes


def unet(c: dict[str, Any]) -> Shapes:
    """The SDXL-shaped UNet of a diffusers configuration."""
    widths, layers, cross = c["block_out_channels"], c["layers_per_block"], c["cross_attention_dim"]
    depths = c.get("transformer_layers_per_block", 1)
    depths = [depths] * len(widths) if isinstance(depths, int) else list(depths)
    time = 4 * widths[0]
    shapes = _layer("conv_in", widths[0], c["in_channels"], 3, 3) | _layer("conv_norm_out", widths[0])
    shapes |= _layer("conv_out", c["out_channels"], widths[0], 3, 3)
    shapes |= _layer("time_embedding.linear_1", time, widths[0]) | _layer("time_embedding.linear_2", time, time)
    shapes |= _layer("add_embedding.linear_1", time, c["projection_class_embeddings_input_dim"])
    shapes |= _layer("add_embedding.linear_2", time, time)
    before = widths[0]
    for i, (width, kind) in enumerate(zip(widths, c["down_block_types"])):
        for n in range(layers):
            shapes |= _resnet(f"down_blocks.{i}.resnets.{n}", width if n else before, width, time)
            if "Attn" in kind:
                shapes |= _transformer(f"down_blocks.{i}.attentions.{n}", width, depths[i], cross)
        before = width
        if i < len(widths) - 1:
            shapes |= _layer(f"down_blocks.{i}.downsamplers.0.conv", width, width, 3, 3)
    for n in (0, 1):
        shapes |= _resnet(f"mid_block.resnets.{n}", before, before, time)
    shapes |= _transformer("mid_block.attentions.0", before, depths[-1], cross)
    wide, deep = widths[::-1], depths[::-1]
    for i, (width, kind) in enumerate(zip(wide, c["up_block_types"])):
        for n in range(layers + 1):
            skipped = width if n < layers else wide[min(i + 1, len(wide) - 1)]
            shapes |= _resnet(f"up_blocks.{i}.resnets.{n}", (width if n else before) + skipped, width, time)
            if "Attn" in kind:
                shapes |= _transformer(f"up_blocks.{i}.attentions.{n}", width, deep[i], cross)
        before = width
        if i < len(wide) - 1:
            shapes |= _layer(f"up_blocks.{i}.upsamplers.0.conv", width, width, 3, 3)
    return shapes


def vae(c: dict[str, Any]) -> Shapes:
    """The AutoencoderKL of a diffusers configuration."""
    widths, layers, k = c["block_out_channels"], c["layers_per_block"], c["latent_channels"]
    shapes = _layer("quant_conv", 2 * k, 2 * k, 1, 1) | _layer("post_quant_conv", k, k, 1, 1)
    ends = {"encoder": (widths[0], c["in_channels"], widths[-1], 2 * k), "decoder": (widths[-1], k, widths[0], c["out_channels"])}
    for side, (first, into, last, out) in ends.items():
        shapes |= _layer(f"{side}.conv_in", first, into, 3, 3) | _layer(f"{side}.conv_norm_out", last)
        shapes |= _layer(f"{side}.conv_out", out, last, 3, 3)
        middle = f"{side}.mid_block.attentions.0"
        shapes |= _layer(f"{middle}.group_norm", widths[-1])
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= _layer(f"{middle}.{name}", widths[-1], widths[-1])
        for n in (0, 1):
            shapes |= _resnet(f"{side}.mid_block.resnets.{n}", widths[-1], widths[-1])
        blocks, sampler = ("down_blocks", "downsamplers") if side == "encoder" else ("up_blocks", "upsamplers")
        before = first
        for i, width in enumerate(widths if side == "encoder" else widths[::-1]):
            for n in range(layers + (side == "decoder")):
                shapes |= _resnet(f"{side}.{blocks}.{i}.resnets.{n}", width if n else before, width)
            before = width
            if i < len(widths) - 1:
                shapes |= _layer(f"{side}.{blocks}.{i}.{sampler}.0.conv", width, width, 3, 3)
    return shapes
