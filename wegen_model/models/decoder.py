"""The SDXL-shaped decoder: features condition a UNet, a VAE turns its latents into pictures.

b pictures · n features · c feature width · k latent channels · h,w latent height and width

Source: the public WeGen code and Emu2-Gen: cross-attention over the n tokens, added condition = mean over the tokens and six
size embeddings, zeros as the unconditional input. UNet, VAE and schedulers are diffusers'. The miniature adds the tokens, mapped
to the latent grid by a learned linear layer, to the UNet's input channels (`layout_channels`).
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import SAMPLERS, TIME_IDS, DecoderConfig
from ..progress import ProgressEvent
from ..runtime import Runtime
from .guidance import guide

VAES = ("AutoencoderKL", "AutoencoderDC")


class FeatureToLatent(nn.Module):
    """Tokens (b,n,c) to (b,channels,h,w): one linear map a token, spread over factor x factor latent cells of its place."""

    def __init__(self, config: DecoderConfig, operations: Any = nn):
        super().__init__()
        self.grid, self.factor = tuple(config.grid), config.layout_factor
        self.proj = operations.Linear(config.width, config.layout_channels * config.layout_factor**2, bias=False)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        b, n, _ = tokens.shape
        x = self.proj(tokens).transpose(1, 2).reshape(b, -1, *self.grid)
        x = F.pixel_shuffle(x, self.factor)
        return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """UNet, VAE and, where the configuration has it, the feature-to-latent map. The host places each by itself."""

    def __init__(self, config: DecoderConfig, unet: dict, vae: dict, scheduler: dict, operations: Any = nn):
        import diffusers

        super().__init__()
        self.config = config
        self.scheduler_config = dict(scheduler)
        self.unet: Any
        self.vae: Any  # diffusers' own classes; None where a configuration is empty
        with _described("UNet", "unet/config.json"):
            self.unet = diffusers.UNet2DConditionModel.from_config(_plain(unet)) if unet else None
        self.vae = self.make_vae(vae) if vae else None
        self.layout = FeatureToLatent(config, operations) if unet and config.layout_channels else None

    @staticmethod
    def make_vae(vae: dict) -> nn.Module:
        """diffusers' VAE of a configuration. ValueError: of a class that is none of VAES."""
        import diffusers

        kind = vae.get("_class_name", "AutoencoderKL")
        if kind not in VAES:
            raise ValueError(f"decoder: a VAE of class {kind!r} is not one of {', '.join(VAES)}.")
        with _described("VAE", "vae/config.json"):
            return getattr(diffusers, kind).from_config(_plain(vae))

    @property
    def factor(self) -> int:
        """Pixels along one side of a latent cell."""
        return self.cell(self.vae.config)

    @staticmethod
    def cell(vae: dict) -> int:
        """The factor of a VAE's configuration."""
        return 2 ** (len(vae.get("block_out_channels") or vae["encoder_block_out_channels"]) - 1)

    def sampling_bytes(self, rows: int, height: int, width: int, itemsize: int) -> int:
        """What a UNet call needs beside its weights, for latents of height x width. SDXL's holds 5.0 kB x rows x cells x itemsize at its
        peak (counted on the meta device, fused attention); ComfyUI plans with 8.4, for the kernels' own room, and so do we."""
        return int(8400 * self.unet.config.block_out_channels[0] / 320 * rows * height * width * itemsize)

    def painting_bytes(self, height: int, width: int, itemsize: int) -> int:
        """What the VAE needs beside its weights for one picture of height x width pixels: ComfyUI's figure for SDXL's, by width."""
        c = self.vae.config
        first = (c.get("block_out_channels") or c["decoder_block_out_channels"])[0]
        return int(2178 * first / 128 * height * width * itemsize)

    def time_ids(self, height: int, width: int, rows: int, device: torch.device, kind: str | None = None) -> Tensor:
        """(rows,6): see `time_ids`."""
        return time_ids(self.config, height, width, rows, device, kind)

    def denoise(self, latents: Tensor, timestep: Tensor, tokens: Tensor, pooled: Tensor, time_ids: Tensor) -> Tensor:
        """One UNet call: noisy latents (b,k,h,w), tokens (b,n,c), pooled (b,c), time ids (b,6) -> prediction (b,k,h,w)."""
        if self.layout is not None:
            latents = torch.cat([latents, self.layout(tokens, latents.shape[-2:]).to(latents)], 1)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return self.unet(latents, timestep, tokens, added_cond_kwargs=added, return_dict=False)[0]

    def scheduler(self, name: str | None = None):
        """A fresh scheduler object from the checkpoint's configuration, or another class over the same noise schedule."""
        import diffusers

        config = dict(self.scheduler_config)
        own = config.pop("_class_name", "EulerDiscreteScheduler")
        name = name or own
        if name not in SAMPLERS.values():
            raise ValueError(f"decoder: scheduler {name!r} is not one of {', '.join(SAMPLERS.values())}.")
        with _described("noise schedule", "scheduler/scheduler_config.json"):
            return getattr(diffusers, name).from_config({k: v for k, v in config.items() if not k.startswith("_")})

    @torch.no_grad()
    def sample(
        self,
        tokens: Tensor,
        pooled: Tensor,
        noise: Tensor,
        *,
        steps: int,
        guidance_scale: float = 1.0,
        negative: tuple[Tensor, Tensor] | None = None,
        scheduler: str | None = None,
        time_ids: str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        keep: tuple[Tensor, Tensor] | None = None,
        late: tuple[Tensor, Tensor, float] | None = None,
        runtime: Runtime | None = None,
    ) -> Tensor:
        """Denoise.

        Args:
            tokens: (b,n,c) raw features. pooled: (b,c) their mean.
            noise: (b,k,h,w) of unit variance; scaled here as the scheduler wants.
            negative: unconditional tokens (1 or b,n,c) and pooled; None is zeros.
            time_ids: one of config.TIME_IDS; None as the decoder was trained. Guided rows are in the order of guidance.py.
            generator: of schedulers that add noise at each step; on the CPU; a list has one a row. None is seed 0.
            keep: cells (1 or b,1,h,w) bool and scaled latents (1 or b,k,h,w) of an original: before the first step and after each, the
                cells that are not set follow the original, noised to the same time with the *starting* noise; at the end they are its own.
            late: other tokens and pooled, and the share of the steps, counted from the end, that they condition.
        Returns:
            (b,k,h,w) latents, still scaled.
        """
        runtime = runtime or Runtime()
        solver = self.scheduler(scheduler)
        with _described("noise schedule", "scheduler/scheduler_config.json"):
            solver.set_timesteps(steps, device=noise.device)
        height, width = (s * self.factor for s in noise.shape[-2:])
        guided = guidance_scale != 1.0
        first_late = len(solver.timesteps) - round(late[2] * len(solver.timesteps)) if late else None
        if guided:
            blank = negative or (torch.zeros_like(tokens), torch.zeros_like(pooled))
            tokens, pooled = torch.cat([tokens, blank[0].expand_as(tokens)]), torch.cat([pooled, blank[1].expand_as(pooled)])
        sizes = self.time_ids(height, width, len(tokens), noise.device, time_ids)
        latents = noise * solver.init_noise_sigma
        extra = {}
        if "generator" in inspect.signature(solver.step).parameters:
            extra["generator"] = generator or torch.Generator().manual_seed(0)
        if keep is not None:
            latents = self._follow(keep, latents, noise, solver, solver.timesteps[0])
        for i, timestep in enumerate(solver.timesteps):
            if late and i == first_late:
                tokens, pooled = (torch.cat([new, old[len(new) :]]) for new, old in zip(late[:2], (tokens, pooled)))
            x = solver.scale_model_input(torch.cat([latents] * 2) if guided else latents, timestep)
            out = self.denoise(x.to(tokens.dtype), timestep, tokens, pooled, sizes)
            out = guide(out, guidance_scale)
            step = solver.step(out.to(latents.dtype), timestep, latents, **extra)
            latents = step.prev_sample
            if keep is not None:
                latents = self._follow(keep, latents, noise, solver, solver.timesteps[i + 1] if i + 1 < len(solver.timesteps) else None)
            clean = getattr(step, "pred_original_sample", None)
            preview = self._previewer(latents if clean is None else clean)
            runtime.tick(ProgressEvent("denoise", i + 1, len(solver.timesteps), preview=preview))
        return latents

    @staticmethod
    def _follow(keep: tuple[Tensor, Tensor], latents: Tensor, noise: Tensor, solver: Any, timestep: Tensor | None) -> Tensor:
        """Latents whose kept cells are the original's at a time (None: after the last step)."""
        cells, original = keep
        original = original.expand_as(latents)
        if timestep is not None:
            original = solver.add_noise(original, noise, timestep[None])
        return torch.where(cells, latents, original.to(latents))

    def _previewer(self, latents: Tensor):
        """A callable that gives the first latents as a small picture (h,w,3) in 0..1, or None without factors."""
        if not self.config.latent_rgb:
            return None

        def picture() -> Tensor:
            factors = torch.tensor(self.config.latent_rgb, device=latents.device, dtype=torch.float32)
            return (latents[0].float().movedim(0, -1) @ factors[:-1] + factors[-1]).clamp(0, 1).cpu()

        return picture

    @torch.no_grad()
    def to_pixels(self, latents: Tensor, runtime: Runtime | None = None) -> Tensor:
        """Scaled latents (b,k,h,w) to pixels (b,3,H,W) in -1..1, on the CPU; the VAE's forced float32 is respected.

        A tick a layer of the VAE, by which it can be cancelled; picture after picture, since one fills the memory.
        """
        runtime = runtime or Runtime()
        layers = [m for block in self.vae.decoder.up_blocks for m in getattr(block, "resnets", block.children())]
        done = itertools.count(1)

        def told(*_) -> None:  # a hook that returns a value would replace the layer's output
            runtime.tick(ProgressEvent("vae", next(done), len(latents) * len(layers)))

        hooks = [m.register_forward_hook(told) for m in layers]
        try:
            return torch.cat([self._to_pixels(row) for row in latents.split(1)])
        finally:
            for hook in hooks:
                hook.remove()

    def _to_pixels(self, latents: Tensor) -> Tensor:
        vae = self.vae
        with self._vae_dtype() as dtype:
            return vae.decode((latents / vae.config.scaling_factor).to(dtype), return_dict=False)[0].float().cpu()

    @contextlib.contextmanager
    def _vae_dtype(self) -> Iterator[torch.dtype]:
        """The type in which the VAE computes; its forced float32 for the duration."""
        dtype = next(self.vae.parameters()).dtype
        upcast = dtype == torch.float16 and self.vae.config.get("force_upcast", False)
        if upcast:
            self.vae.to(torch.float32)
        try:
            yield torch.float32 if upcast else dtype
        finally:
            if upcast:
                self.vae.to(torch.float16)

    def original_latents(self, pixels: Tensor, device: torch.device) -> Tensor:
        """Scaled latents (b,k,h,w) in float32 of pixels (b,3,H,W) in -1..1, picture after picture, in the VAE's own precision."""
        with self._vae_dtype() as dtype:
            return torch.cat([self.to_latents(row.to(device, dtype)).float() for row in pixels.split(1)])

    def to_latents(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels (b,3,H,W) in -1..1 to scaled latents: the mode, or a sample when a generator is given."""
        out = self.vae.encode(pixels)
        if hasattr(out, "latent"):  # AutoencoderDC gives no distribution
            return out.latent * self.vae.config.scaling_factor
        latents = out.latent_dist.mode() if generator is None else out.latent_dist.sample(generator)
        return latents * self.vae.config.scaling_factor


def time_ids(config: DecoderConfig, height: int, width: int, rows: int, device: torch.device, kind: str | None = None) -> Tensor:
    """(rows,6) SDXL's size numbers, in pixels. `kind`: one of config.TIME_IDS; None as the decoder was trained."""
    kind, trained = kind or config.time_ids, (config.size,) * 2
    sizes = {"size": (height, width, 0, 0, height, width), "trained": (*trained, 0, 0, height, width), "zeros": (0,) * 6}
    if kind not in sizes:
        raise ValueError(f"decoder: time_ids is {kind!r}; choose {', '.join(TIME_IDS)}.")
    return torch.tensor([sizes[kind]], device=device).expand(rows, -1)


@contextlib.contextmanager
def _described(what: str, file: str) -> Iterator[None]:
    """Whatever diffusers raises over a configuration, as a ValueError that says which file it is."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"decoder: {file} describes no {what} that diffusers can make ({said}). Copy or convert the model again."
        ) from error


def _plain(config: dict) -> dict:
    return {k: v for k, v in config.items() if not k.startswith("_")}


def noise(batch: int, channels: int, height: int, width: int, seed: int | torch.Generator | list[torch.Generator]) -> Tensor:
    """(b,k,h,w) unit noise from one generator, or from one a row, on the CPU in float32: the same seed gives the same picture everywhere."""
    if isinstance(seed, list):
        return torch.cat([noise(1, channels, height, width, one) for one in seed])
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, generator=generator)
