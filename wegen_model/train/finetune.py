"""A decoder LoRA on a studio's pictures, inside a host's graph: one device, no worker processes, nothing that outlives the call.

m pictures · n features · c feature width · k latent channels · f pixels along a side of a latent cell

Pictures are encoded once, by tower and VAE; then only the UNet's adapter is trained, on copies of the UNet's weights that are read anew
(a host's own may be inference tensors, or streamed). Cancelling keeps what was learned: the same call goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .. import locks
from ..chat.conversation import Conversation
from ..config import ModelConfig
from ..data.image_folder import PictureFolder, caption_of, rows
from ..data.model_inputs import KeyedPicture, ShownPicture, target_pixels
from ..data.sample import Sample, Turn
from ..images import PictureError, read, to_float
from ..models.decoder import time_ids
from ..models.lora import Adapters, save_lora
from ..progress import ProgressEvent
from ..runtime import Runtime
from .encoders import EncodedPictures, vae_latents
from .modules import Components, load_decoder
from .presets import LORA
from .sample_images import paint
from .settings import ADDED, Settings, check
from .stages.decoder import DecoderTask, PictureBatch
from .trainer import train

CELL = 64  # pixels: sides of buckets are multiples, of small decoders 16
CAPTIONED = 0.5  # share of the steps in which a captioned picture is painted from what the model wrote
FARTHEST = 0.5  # of the pictures' own spread: a written feature that is farther off is another picture


class Rows:
    """A source (data/image_folder.py) of pictures that are encoded already and known by their number. `groups`: rows that are of one size;
    a step's pictures are of one group, which is drawn in proportion to its pictures."""

    def __init__(self, groups: list[list[int]], seed: int):
        self.groups, self.seed = groups, seed

    def samples(self, step: int, part: int, parts: int, count: int) -> list[Sample]:
        group, at = self.groups[0], step
        if len(self.groups) > 1:
            share = np.array([len(g) for g in self.groups]) / sum(map(len, self.groups))
            drawn = np.random.default_rng((self.seed, 23)).choice(len(share), step + 1, p=share)  # step for step, the same from the start
            group, at = self.groups[drawn[step]], int((drawn[:step] == drawn[step]).sum())
        picked = rows(self.seed, at, parts * count, len(group))[part * count : (part + 1) * count].tolist()
        return [Sample("reconstruction", (Turn("assistant", "", drawn=numbered(group[row])),), str(group[row])) for row in picked]


def numbered(row: int) -> KeyedPicture:
    return KeyedPicture(str(row), lambda: np.zeros((0, 0, 3), np.uint8))


class InGraphDecoderTask(DecoderTask):
    """The pictures are encoded already: tower and VAE stay where the host has them."""

    written: dict[int, Tensor] = {}  # row -> features (n,c) that the language model wrote on its caption

    def prepare(self, device: torch.device, runtime: Runtime | None = None) -> None:
        self.components.freeze(self.decoder.unet, self.decoder.layout, device=device, dtype=None)
        self._recompute()

    def micro_batch(self, step: int, index: int, count: int) -> PictureBatch:
        batch = super().micro_batch(step, index, count)
        assert batch.latents is not None and batch.features is not None
        height, width = (side * self.decoder.factor for side in batch.latents.shape[-2:])
        batch.size_ids = time_ids(self.components.config.decoder, height, width, len(batch), torch.device("cpu"), self.settings.time_ids)
        if self.written:
            rng = np.random.default_rng((self.settings.seed, 29, step, index))
            keys = [int(sample.key) for sample in self.source.samples(step, index, count, self.settings.batch // count)]
            for at, row in enumerate(keys):
                if row in self.written and rng.random() < CAPTIONED:
                    batch.features[at] = self.written[row]
        return batch


class Ticks(Runtime):
    """Passes progress to the host, with `picture(step)`, painted, every so many steps. Raises what the host raises to cancel.

    `saved`: called with the step every `save_every` steps, for what is kept of it."""

    def __init__(self, host: Runtime, device: torch.device, every: int, picture, save_every: int = 0, saved=None):
        super().__init__(device)
        self.host, self.every, self.picture, self.save_every, self.saved = host, every, picture, save_every, saved

    def tick(self, event: ProgressEvent) -> None:
        if self.save_every and event.step % self.save_every == 0 and event.step < event.total:
            self.saved(event.step)
        if not self.every or not (event.step % self.every == 0 or event.step == event.total):
            return self.host.tick(dataclasses.replace(event, preview=None))
        picture = self.picture(event.step)
        return self.host.tick(dataclasses.replace(event, preview=lambda: picture))


def lora_settings(
    steps: int, learning_rate: float, rank: int, batch: int, seed: int, size: int, device: torch.device, alpha: float = 0.0
) -> Settings:
    """The fine-tune's settings: LORA with what a person chooses. `alpha`: 0 is the rank."""
    row = dataclasses.replace(
        LORA,
        steps=steps,
        learning_rate=learning_rate,
        lora=rank,
        lora_alpha=alpha,
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


def identity(folder: Path, paths: list[Path], s: Settings, *more: object) -> str:
    """Eight letters that change with the decoder, the pictures or the settings: the same run resumes, another one starts from the beginning.
    `more`: what else the run is made of, where it is not as it always was."""
    weights = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted((folder / "unet").glob("*"))]
    pictures = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    later = {f.name: f.default for f in dataclasses.fields(s) if f.name in ADDED}  # left as they are, they change nothing
    kept = {name: value for name, value in dataclasses.asdict(s).items() if name not in later or value != later[name]}
    text = json.dumps([str(folder), weights, pictures, kept, *more])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def bucket(height: int, width: int, size: int, cell: int) -> tuple[int, int]:
    """Rows and columns of the bucket of a picture: multiples of `cell` of about size x size pixels in all, of its proportions, at most 2:1."""
    ratio = min(max(width / height, 0.5), 2.0) ** 0.5
    return max(cell, round(size / ratio / cell) * cell), max(cell, round(size * ratio / cell) * cell)


def cover(picture: np.ndarray, rows_: int, columns: int) -> np.ndarray:
    """The middle of a picture (h,w,3) uint8, scaled to cover rows x columns."""
    return np.array(ImageOps.fit(Image.fromarray(picture), (columns, rows_), Image.Resampling.BICUBIC))


def encode_pictures(model: Any, source: PictureFolder, size: int, buckets: bool) -> tuple[list[Path], list[np.ndarray], Tensor]:
    """The pictures of a folder that can be read, one at a time: their files, themselves at the size that they are painted at (h,w,3) uint8,
    and their features (m,n,c), by a `WeGen`. A photo is decoded at about that size and let go, so that memory holds small ones alone.

    Args:
        size: side in pixels. buckets: cut to the nearest shape (`bucket`) instead of squashed to the square.
    Raises:
        ValueError: none can be read.
    """
    paths, pictures, tokens = [], [], []
    enough = 2 * max(size, model.config.vision.image_size)  # larger photos are reduced as they are read
    for i, path in enumerate(source.files):
        try:
            picture = read(path, side=enough)
        except (OSError, PictureError) as error:  # a good header, a broken body
            source.skipped[path.name] = error.reason if isinstance(error, PictureError) else str(error)
            continue
        if buckets:
            height, width = picture.shape[:2]
            picture = cover(picture, *bucket(height, width, size, CELL if size >= 512 else 16))
        paths.append(path)
        tokens.append(model.encode(to_float(picture)[None], where=f"WeGen Train Decoder, {path.name}").tokens)
        pictures.append(picture if buckets else target_pixels(picture, size).numpy())
        model.runtime.tick(ProgressEvent("tower", i + 1, len(source.files)))
    if not pictures:
        raise ValueError(f"folder: none of the {len(source.files)} pictures can be read ({next(iter(source.skipped.values()))}).")
    return paths, pictures, torch.cat(tokens)


@dataclass
class Finetuned:
    """The adapter's tensors, the losses as they were logged, (j,h,w,3) the first j pictures that are of the first one's size, `shown`, the
    same `painted` afterwards, and the strips of previews, (k,h,w,3): a row of pictures for each."""

    tensors: dict[str, Tensor]
    losses: list[float]
    shown: Tensor
    painted: Tensor
    strips: Tensor


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
    *,
    preview_count: int = 1,
    written: dict[int, Tensor] | None = None,
    save_every: int = 0,
    saved: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> Finetuned:
    """Train an adapter on a decoder folder's UNet, or go on with one.

    Args:
        tokens: (m,n,c) features of the pictures (h,w,3 uint8), which are of the size that they are painted at: see `encode_pictures`.
        work: its checkpoints and log.
        preview_count: pictures of a preview, each painted with the same seed every time. saved: gets the adapter's tensors every
            `save_every` steps. written: row -> features (n,c) that take the tower's place in a share of the steps.
    """
    with torch.inference_mode(False), torch.enable_grad():
        decoder = load_decoder(folder, config, torch.float32 if device.type == "cpu" else torch.bfloat16)
        size = s.size or config.decoder.size
        decoder.vae.to(device).eval().requires_grad_(False)
        latents = []
        for i, picture in enumerate(pictures):
            latents.append(vae_latents(decoder, torch.from_numpy(np.array(picture))[None], None).cpu())
            runtime.tick(ProgressEvent("vae", i + 1, len(pictures)))
        decoder.vae.cpu()
        components = Components(config, None, decoder)
        encoded = EncodedPictures(components, size, torch.float32, s.crop)
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, (features, latent) in enumerate(zip(tokens.clone().float(), latents)):
            key = ShownPicture(numbered(row)).key
            encoded.known_features[key], encoded.known_latents[key] = features, latent[0]
            groups.setdefault(tuple(latent.shape), []).append(row)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            task = InGraphDecoderTask(components, Rows(list(groups.values()), s.seed), s, encoded)
        task.written = {row: features.clone().float() for row, features in (written or {}).items()}
        assert isinstance(task.model, Adapters)
        adapters = task.model
        first = groups[tuple(latents[0].shape)]
        shown = tokens[first[: max(4, preview_count)]].clone().float()
        sides = {"height": latents[0].shape[-2] * decoder.factor, "width": latents[0].shape[-1] * decoder.factor}

        def painting(count: int, steps: int) -> Tensor:
            decoder.vae.to(device)
            with torch.no_grad():
                made = paint(components, shown[:count].to(device), steps=steps, **sides)
            decoder.vae.cpu()  # its place is the training's
            return made

        strips: list[Tensor] = []

        def preview(step: int) -> Tensor:
            strip = torch.cat(list(painting(preview_count, 8)), 1)
            strips.append(strip)
            (work / "samples").mkdir(exist_ok=True)
            Image.fromarray((strip * 255).round().byte().numpy()).save(work / "samples" / f"{step:06d}.png")
            return strip

        keep = None if saved is None else lambda step: saved(step, adapters.tensors())
        with locks.held(work / ".lock", "train a decoder"):
            train(task, work, Ticks(runtime, device, preview_every, preview, save_every, keep), alone=True)
        painted = painting(4, config.decoder.steps)
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    originals = torch.stack([torch.from_numpy(np.array(pictures[row])) for row in first[: len(painted)]]).float() / 255
    return Finetuned(
        adapters.tensors(),
        [row["loss"] for row in log],
        originals,
        painted,
        torch.stack(strips) if strips else torch.cat(list(painted), 1)[None],
    )


def written_on_captions(model: Any, paths: list[Path], true: Tensor) -> dict[int, Tensor]:
    """Features (n,c) that a `WeGen` writes on the .txt beside pictures, by row; those far from the picture's own (m,n,c) are left out:
    a decoder learns to sharpen what is written, and cannot mend what it does not know."""
    out: dict[int, Tensor] = {}
    spread = (true - true.mean(0)).square().mean().clamp(min=1e-9) if len(true) > 1 else true.square().mean()
    for row, path in enumerate(paths):
        caption = caption_of(path)
        if not caption:
            continue
        talk = model.chat(Conversation().user(caption), picture="always", max_tokens=64)
        if not talk.open_image:
            continue
        tokens = model.draw(talk)[0].tokens[0]
        if (tokens - true[row]).square().mean() < FARTHEST * spread:
            out[row] = tokens.clone()
        model.runtime.tick(ProgressEvent("other", row + 1, len(paths), label="captions"))
    return out


def write_lora(
    root: Path, name: str, tensors: dict[str, Tensor], run: str, config: ModelConfig, s: Settings, more: dict[str, str] | None = None
) -> Path:
    """NAME.safetensors, or NAME_2 … where another run's file has that name. `more`: of its metadata."""
    from safetensors import safe_open

    meta = {"wegen_space": config.decoder.space, "wegen_run": run, "base": config.name, "steps": str(s.steps), "rank": str(s.lora)}
    meta |= more or {}
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
