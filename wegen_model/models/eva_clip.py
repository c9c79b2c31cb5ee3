"""The EVA-CLIP tower: a post-norm vision transformer whose raw last block, class token dropped, is the feature map.

b pictures · p patches (side x side, row-major) · c width

Source: EVA-02-CLIP-E/14+ as the public WeGen and Emu2 code build it (fused `qkv` with a full bias, x + LN(attention(x)),
exact GELU, no norm before the first or after the last block). State-dict keys are theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import VisionConfig
from ..images import resize_float
from ..progress import ProgressEvent
from ..runtime import Runtime


class Attention(nn.Module):
    def __init__(self, c: VisionConfig, ops: Any):
        super().__init__()
        self.heads = c.heads
        self.qkv = ops.Linear(c.width, 3 * c.width)
        self.proj = ops.Linear(c.width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    def __init__(self, c: VisionConfig, ops: Any):
        super().__init__()
        self.fc1 = ops.Linear(c.width, c.mlp_width)
        self.fc2 = ops.Linear(c.mlp_width, c.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + LN(attention(x)), then x + LN(mlp(x)): the norm is on the branch's output."""

    def __init__(self, c: VisionConfig, ops: Any):
        super().__init__()
        self.attn = Attention(c, ops)
        self.norm1 = ops.LayerNorm(c.width, eps=c.eps)
        self.mlp = Mlp(c, ops)
        self.norm2 = ops.LayerNorm(c.width, eps=c.eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class PatchEmbed(nn.Module):
    def __init__(self, c: VisionConfig, ops: Any):
        super().__init__()
        self.proj = ops.Conv2d(3, c.width, c.patch_size, c.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class VisionTower(nn.Module):
    """`forward(pixels (b,3,s,s), normalised) -> tokens (b,p,c)`. 4,350,208,256 parameters as wegen-7b."""

    def __init__(self, config: VisionConfig, operations: Any = nn):
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.side**2, config.width))
        self.patch_embed = PatchEmbed(config, operations)
        self.blocks = nn.ModuleList(Block(config, operations) for _ in range(config.layers))

    def forward(self, pixels: Tensor, runtime: Runtime | None = None) -> Tensor:
        size = self.config.image_size
        if pixels.shape[-3:] != (3, size, size):
            raise ValueError(f"vision tower: pixels are {tuple(pixels.shape)}, expected (b, 3, {size}, {size}).")
        x = self.patch_embed(pixels)
        x = torch.cat([self.cls_token.to(x).expand(len(x), -1, -1), x], 1) + self.pos_embed.to(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if runtime is not None:
                runtime.tick(ProgressEvent("tower", i + 1, len(self.blocks)))
        return x[:, 1:]


def prepare(images: Tensor, config: VisionConfig, fit: str = "squash") -> Tensor:
    """Pictures (b,h,w,3) in 0..1, float, to normalised pixels (b,3,s,s).

    `fit`: "squash" to the square (the public inference), "crop" the centre, or "pad" with the mean colour. Bilinear with
    antialiasing.
    """
    x = images.movedim(-1, 1).float()
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (config.mean, config.std))
    h, w = x.shape[-2:]
    s = config.image_size
    if fit == "crop":
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        x = x[..., top : top + side, left : left + side]
    elif fit == "pad":
        scale = s / max(h, w)  # first, so that a long picture needs no canvas of its length squared
        h, w = max(1, round(h * scale)), max(1, round(w * scale))
        x = resize_float(x, (h, w))
        canvas = mean.expand(len(x), 3, s, s).clone()
        top, left = (s - h) // 2, (s - w) // 2
        canvas[..., top : top + h, left : left + w] = x
        x = canvas
    elif fit != "squash":
        raise ValueError(f"fit is {fit!r}; choose squash, crop or pad.")
    return (resize_float(x, (s, s)).clamp(0, 1) - mean) / std


def resize_positions(pos_embed: Tensor, side: int) -> Tensor:
    """Positions (1, 1 + g*g, c) of a g x g grid to (1, 1 + side*side, c), class position first.

    Bicubic without antialiasing and with the scale factor (side + 0.1) / g, as the public code's helper does for the
    official 224-pixel file (16x16 to 32x32). A grid that already fits passes through untouched.
    """
    grid = round((pos_embed.shape[1] - 1) ** 0.5)
    if grid * grid + 1 != pos_embed.shape[1]:
        raise ValueError(f"pos_embed: {pos_embed.shape[1]} positions are not one class token and a square grid.")
    if grid == side:
        return pos_embed
    first, rest = pos_embed[:, :1], pos_embed[:, 1:]
    rest = rest.reshape(1, grid, grid, -1).permute(0, 3, 1, 2).float()
    rest = F.interpolate(rest, scale_factor=(side + 0.1) / grid, mode="bicubic", align_corners=False)
    if rest.shape[-2:] != (side, side):
        raise ValueError(f"pos_embed: a {grid}x{grid} grid cannot be brought to {side}x{side} by the documented formula.")
    return torch.cat([first, rest.flatten(2).transpose(1, 2).to(first)], 1)
