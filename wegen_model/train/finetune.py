"""A decoder LoRA on a studio's pictures, inside a host's graph: one device, no worker processes, nothing that outlives the call.

m pictures · n features · c feature width · k latent channels · f pixels along a side of a latent cell

Pictures are encoded once, by tower and VAE; then only the UNet's adapter is trained, on copies of the UNet's weights that are read anew
(a host's own may be inference tensors, or streamed). Cancelling keeps what was learned: the same call goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig
from ..data.image_folder import rows
from ..models.lora import save_lora
from ..runtime import Runtime
from .modules import Components, load_decoder
from .sample_images import paint
from .settings import LORA, Settings, check
from .stages.decoder import Encoded, decoding_stage, latents_of, resize
from .trainer import run


@dataclass
class EncodedPictures:
    """A source (order.py) of pictures that are encoded already: `tokens` (m,n,c), `latents` (m,k,h/f,w/f)."""

    tokens: Tensor
    latents: Tensor
    size: int
    seed: int

    def encoded(self, step: int, part: int, parts: int, count: int) -> Encoded:
        picked = rows(self.seed, step, parts * count, len(self.tokens))[part * count : (part + 1) * count]
        return Encoded(self.tokens[picked], self.latents[picked], self.size, self.size)


class Ticks(Runtime):
    """The host's progress with a painted picture now and then. Raises what the host raises to cancel."""

    def __init__(self, host: Runtime, device: torch.device, every: int, picture):
        super().__init__(device)
        self.host, self.every, self.picture = host, every, picture

    def tick(self, i: int, n: int, what: str, preview: Any = None, text: str | None = None) -> None:
        due = self.every and (i % self.every == 0 or i == n)
        self.host.tick(i, n, what, preview=self.picture if due else None)


def lora_settings(steps: int, learning_rate: float, rank: int, batch: int, seed: int, size: int, device: torch.device) -> Settings:
    """The fine-tune's settings: LORA with what a person chooses."""
    row = dataclasses.replace(
        LORA,
        steps=steps,
        learning_rate=learning_rate,
        lora=rank,
        batch=batch,
        seed=seed % 2**31,
        size=size,
        warmup=min(LORA.warmup, steps // 10),
        save_every=max(1, min(LORA.save_every, steps // 4)),
        log_every=5,
        precision="no" if device.type == "cpu" else "bf16",
        checkpointing=device.type != "cpu",
    )
    return check(row)


def identity(folder: Path, paths: list[Path], s: Settings) -> str:
    """Eight letters that change with the decoder, the pictures or the settings: the same run goes on, another one starts anew."""
    weights = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted((folder / "unet").glob("*"))]
    pictures = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    text = json.dumps([str(folder), weights, pictures, dataclasses.asdict(s)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def finetune(
    folder: Path,
    config: ModelConfig,
    tokens: Tensor,
    pictures: list[np.ndarray],
    s: Settings,
    work: Path,
    runtime: Runtime,
    device: torch.device,
    preview_every: int = 0,
) -> tuple[dict[str, Tensor], list[float], Tensor]:
    """Train an adapter on a decoder folder's UNet, or go on with one.

    Args:
        tokens: (m,n,c) features of the pictures (h,w,3 uint8). work: its checkpoints and log.
    Returns:
        the adapter's tensors, the losses as they were logged, and (j,h,w,3) paintings of the first j pictures afterwards.
    """
    with torch.inference_mode(False), torch.enable_grad():
        decoder = load_decoder(folder, config, torch.float32 if device.type == "cpu" else torch.bfloat16)
        size = s.size or config.decoder.size
        decoder.vae.to(device).eval().requires_grad_(False)
        latents = []
        for i, picture in enumerate(pictures):
            latents.append(latents_of(decoder, resize(picture, size, s.crop)[None], None).cpu())
            runtime.tick(i + 1, len(pictures), "VAE")
        decoder.vae.cpu()
        source = EncodedPictures(tokens.clone().float(), torch.cat(latents), size, s.seed)
        parts = Components(config, None, decoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            stage = decoding_stage(parts, source, s, 1)
        stage.place = lambda where: (parts.frozen(decoder.unet, decoder.layout, device=where, dtype=None), _train_mode(decoder.unet, s))

        def picture() -> Tensor:
            decoder.vae.to(device)
            with torch.no_grad():
                return paint(parts, source.tokens[:1].to(device), steps=8)[0]

        run(stage, work, Ticks(runtime, device, preview_every, picture), alone=True)
        decoder.vae.to(device)
        with torch.no_grad():
            painted = paint(parts, source.tokens[:4].to(device), steps=config.decoder.steps)
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    return stage.model.tensors(), [row["loss"] for row in log], painted


def _train_mode(unet, s: Settings) -> None:
    if s.checkpointing:
        unet.train()


def write_lora(root: Path, name: str, tensors: dict[str, Tensor], run: str, config: ModelConfig, s: Settings) -> Path:
    """NAME.safetensors, or NAME_2 … where another run's file has that name."""
    from safetensors import safe_open

    meta = {"wegen_space": config.decoder.space, "wegen_run": run, "base": config.name, "steps": str(s.steps), "rank": str(s.lora)}
    for k in range(1, 10_000):
        path = root / f"{name}{f'_{k}' if k > 1 else ''}.safetensors"
        if path.exists():
            try:
                with safe_open(path, "pt") as file:
                    if (file.metadata() or {}).get("wegen_run") != run:
                        continue
            except Exception:  # noqa: BLE001 whatever it is, it is not ours
                continue
        return save_lora(path, tensors, meta)
    raise ValueError(f"name: {root} holds 10,000 files called {name}. Choose another name.")
