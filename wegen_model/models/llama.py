"""The LLaMA body with a static KV cache.

b rows · t new positions · n cache slots · h heads · d head width · c model width

Source: LLaMA-2 (RMSNorm before each branch, rotary positions in the half-split layout of Hugging Face, SwiGLU, no biases).
State-dict keys are Hugging Face's. A cache slot is a rotary position, per row: rows of different length share a batch without
padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import LanguageConfig
from ..progress import ProgressEvent
from ..runtime import Runtime


@dataclass
class Cache:
    """Keys and values of every layer, (layers, b, h, n, d) each; lives for one call."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, config: LanguageConfig, rows: int, slots: int, device: torch.device, dtype: torch.dtype) -> Cache:
        shape = (config.layers, rows, config.heads, slots, config.width // config.heads)
        return cls(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))

    @staticmethod
    def bytes(config: LanguageConfig, rows: int, slots: int, dtype: torch.dtype) -> int:
        return 2 * config.layers * rows * slots * config.width * dtype.itemsize

    def rows(self, first: int, end: int) -> Cache:
        """A view of some rows: writing through it changes the whole cache."""
        return Cache(self.keys[:, first:end], self.values[:, first:end])

    def write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (b,h,t,d) at positions (b,t); returns the layer's whole keys and values (b,h,n,d)."""
        index = positions[:, None, :, None].expand_as(k)
        self.keys[layer].scatter_(2, index, k)
        self.values[layer].scatter_(2, index, v)
        return self.keys[layer], self.values[layer]


def rotary(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin (b,1,t,width) of positions (b,t), in float32; computed, never stored."""
    steps = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions[:, None, :, None].float() * (theta**-steps)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c: LanguageConfig, ops: Any):
        super().__init__()
        self.heads = c.heads
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, ops.Linear(c.width, c.width, bias=False))

    def forward(self, x, layer, cache, positions, angles, mask):
        b, t, c = x.shape
        q, k, v = (p(x).view(b, t, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, *angles), rotate(k, *angles)
        if cache is not None:
            k, v = cache.write(layer, positions, k, v)
            if mask is not None:
                k, v = k[:, :, : mask.shape[-1]], v[:, :, : mask.shape[-1]]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, c))


class Mlp(nn.Module):
    def __init__(self, c: LanguageConfig, ops: Any):
        super().__init__()
        self.gate_proj = ops.Linear(c.width, c.mlp_width, bias=False)
        self.up_proj = ops.Linear(c.width, c.mlp_width, bias=False)
        self.down_proj = ops.Linear(c.mlp_width, c.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c: LanguageConfig, ops: Any):
        super().__init__()
        self.self_attn = Attention(c, ops)
        self.mlp = Mlp(c, ops)
        self.input_layernorm = ops.RMSNorm(c.width, eps=c.eps)
        self.post_attention_layernorm = ops.RMSNorm(c.width, eps=c.eps)

    def forward(self, x, *context):
        x = x + self.self_attn(self.input_layernorm(x), *context)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c: LanguageConfig, ops: Any):
        super().__init__()
        self.embed_tokens = ops.Embedding(c.vocab_size, c.width)
        self.layers = nn.ModuleList(Layer(c, ops) for _ in range(c.layers))
        self.norm = ops.RMSNorm(c.width, eps=c.eps)


class Language(nn.Module):
    """`forward(embeds (b,t,c)) -> hidden (b,t,c)`, after the final norm; `logits(hidden)` reads words from it."""

    def __init__(self, config: LanguageConfig, operations: Any = nn):
        super().__init__()
        self.config = config
        self.model = Body(config, operations)
        self.lm_head = operations.Linear(config.width, config.vocab_size, bias=False)

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    def forward(
        self, embeds: Tensor, cache: Cache | None = None, positions: Tensor | None = None, checkpoint=None, runtime: Runtime | None = None
    ) -> Tensor:
        """Run t new positions.

        Args:
            embeds: (b,t,c) input embeddings.
            cache: static cache; None computes plain causal attention over the t positions.
            positions: (b,t) rotary positions, which are also the cache slots; None is 0..t-1 in each row.
            checkpoint: wraps each layer's call (gradient checkpointing in training).
            runtime: gets a tick a layer: for prompts, which take as long as hundreds of words.
        Returns:
            (b,t,c) hidden states after the final norm.
        """
        b, t, _ = embeds.shape
        fresh = positions is None
        if positions is None:
            positions = torch.arange(t, device=embeds.device).expand(b, t)
        mask = None
        if cache is not None and not fresh:
            used = int(positions.max()) + 1 if embeds.device.type == "cpu" else cache.keys.shape[3]
            mask = torch.arange(used, device=embeds.device)[None, None, None, :] <= positions[:, None, :, None]
        elif cache is not None:
            mask = torch.ones(t, t, dtype=torch.bool, device=embeds.device).tril()[None, None]
        angles = rotary(positions, self.config.width // self.config.heads, self.config.rope_theta)
        x = embeds
        for i, layer in enumerate(self.model.layers):
            args = (x, i, cache, positions, angles, mask)
            x = checkpoint(layer, *args) if checkpoint else layer(*args)
            if runtime is not None:
                runtime.tick(ProgressEvent("read_prompt", i + 1, len(self.model.layers)))
        return self.model.norm(x)
