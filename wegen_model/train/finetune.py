"""A decoder LoRA on a studio's pictures, inside a host's graph: one device, no worker processes, nothing that outlives the call.

m pictures · n features · c feature width · k latent channels · f pixels along a side of a latent cell

Pictures are encoded once, by tower and VAE; then only the UNet's adapter is trained, on copies of the UNet's weights that are read anew
(a host's own may be inference tensors, or streamed). Cancelling keeps what was learned: the same call goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig
from ..data.image_folder import rows
from ..data.model_inputs import KeyedPicture, ShownPicture, target_pixels
from ..data.sample import Sample, Turn
from ..models.lora import Adapters, save_lora
from ..progress import ProgressEvent
from ..runtime import Runtime
from .encoders import EncodedPictures, vae_latents
from .modules import Components, load_decoder
from .presets import LORA
from .sample_images import paint
from .settings import ADDED, Settings, check
from .stages.decoder import DecoderTask
from .trainer import train


class Rows:
    """A source (data/image_folder.py) of pictures that are encoded already and known by their number."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def samples(self, step: int, part: int, parts: int, count: int) -> list[Sample]:
        picked = rows(self.seed, step, parts * count, self.count)[part * count : (part + 1) * count].tolist()
        return [Sample("reconstruction", (Turn("assistant", "", drawn=numbered(row)),), str(row)) for row in picked]


def numbered(row: int) -> KeyedPicture:
    return KeyedPicture(str(row), lambda: np.zeros((0, 0, 3), np.uint8))


class InGraphDecoderTask(DecoderTask):
    """The pictures are encoded already: tower and VAE stay where the host has them."""

    def prepare(self, device: torch.device, runtime: Runtime | None = None) -> None:
        self.components.freeze(self.decoder.unet, self.decoder.layout, device=device, dtype=None)
        self._recompute()


class Ticks(Runtime):
    """Passes progress to the host, with a painted picture every so many steps. Raises what the host raises to cancel."""

    def __init__(self, host: Runtime, device: torch.device, every: int, picture):
        super().__init__(device)
        self.host, self.every, self.picture = host, every, picture

    def tick(self, event: ProgressEvent) -> None:
        due = self.every and (event.step % self.every == 0 or event.step == event.total)
        self.host.tick(dataclasses.replace(event, preview=self.picture if due else None))


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
    """Eight letters that change with the decoder, the pictures or the settings: the same run resumes, another one starts from the beginning."""
    weights = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted((folder / "unet").glob("*"))]
    pictures = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    later = {f.name: f.default for f in dataclasses.fields(s) if f.name in ADDED}  # left as they are, they change nothing
    kept = {name: value for name, value in dataclasses.asdict(s).items() if name not in later or value != later[name]}
    text = json.dumps([str(folder), weights, pictures, kept])
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
            latents.append(vae_latents(decoder, target_pixels(picture, size, s.crop)[None], None).cpu())
            runtime.tick(ProgressEvent("vae", i + 1, len(pictures)))
        decoder.vae.cpu()
        components = Components(config, None, decoder)
        encoded = EncodedPictures(components, size, torch.float32, s.crop)
        for row, (features, latent) in enumerate(zip(tokens.clone().float(), torch.cat(latents))):
            key = ShownPicture(numbered(row)).key
            encoded.known_features[key], encoded.known_latents[key] = features, latent
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            task = InGraphDecoderTask(components, Rows(len(pictures), s.seed), s, encoded)
        shown = tokens[:4].clone().float()

        def preview() -> Tensor:
            decoder.vae.to(device)
            with torch.no_grad():
                return paint(components, shown[:1].to(device), steps=8)[0]

        train(task, work, Ticks(runtime, device, preview_every, preview), alone=True)
        decoder.vae.to(device)
        with torch.no_grad():
            painted = paint(components, shown.to(device), steps=config.decoder.steps)
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert isinstance(task.model, Adapters)
    return task.model.tensors(), [row["loss"] for row in log], painted


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
