"""One stage's training as one value, `Settings`, which stage reads what of it, and how it is changed and checked. The tables of
settings are in presets.py.

    STAGES   tower             the tower learns to see, for models made from nothing
             vae               the autoencoder learns to make latents and pictures, for models made from nothing
             visual-decoding   the UNet learns to paint features (public script stage1)
             stage-1           the language model and both projectors learn to read and write them (script stage2)
             stage-2           the same on other data (script stage3)
             vae-decoder       the autoencoder's decoder alone learns what the UNet paints, for small models

`release` keeps the scripts' values where they differ from the paper; one thing of theirs cannot be kept: for its first 12,000 steps
their stage1 leaves only an unused scalar trainable, and the backward pass fails. Where a source is silent, the other's value stands.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

STAGES = ("tower", "vae", "visual-decoding", "stage-1", "stage-2", "vae-decoder")
# names that settings had in 0.2 -> their names now
RENAMED = {"floor": "min_lr_ratio", "drop": "condition_dropout", "rewrite": "keep_caption_prob"}


@dataclass(frozen=True)
class Settings:
    """One stage's training. What is frozen is not here: each task (train/stages/) decides it."""

    steps: int  # optimiser steps
    batch: int  # samples of one optimiser step, over all processes
    learning_rate: float  # peak
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.05
    warmup: int = 1000  # steps, linear
    min_lr_ratio: float = 0.0  # of the peak, where the cosine ends
    clip: float = 5.0  # gradient norm; 0 is off
    precision: str = "bf16"  # "bf16", "fp16" or "no": of the computation; trained weights stay float32
    ema: float = 0.0  # decay of an averaged copy of what is trained; 0 keeps none
    checkpointing: bool = True  # recompute activations in the backward pass
    # losses
    language_weight: float = 1.0
    mse_weight: float = 1.0
    cosine_weight: float = 1.0
    diffusion_weight: float = 1.0  # through the frozen UNet
    gamma: float = 5.0  # of min-SNR; 0 is off
    location_spread: float = 0.0  # in 224ths: half of a location's loss aims at its neighbours too; 0 is off
    # what is shown
    condition_dropout: float = 0.1  # share of the decoder's conditions that are zeros
    condition_noise: float = 0.0  # noise on the decoder's conditions, at most so many of their standard deviations
    own_features: float = 0.0  # share of the decoder's conditions that the model's own language model wrote
    own_latents: float = 0.0  # share of the VAE decoder's latents that the model's own UNet painted
    own_count: int = 2000  # how many features or latents of the model's own are made for that
    time_ids: str = "size"  # of the decoder: "size" or "zeros"
    unconditional: float = 0.0  # share of written pictures that are also trained as <img> and features alone
    keep_caption_prob: float = 1.0  # share of answers with text before their picture that keep it (prompt self-rewriting)
    parallel: float = 0.0  # share of written pictures trained from placeholders, all at once
    # what is fed back while a picture is written, against exposure error (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099)
    feedback_noise: float = 0.0  # noise on the true features fed back, at most so many standard deviations
    feedback_own: float = 0.0  # share of pictures fed the model's own predictions, made by a first pass, in …
    feedback_own_batches: float = 0.5  # … this share of the batches …
    feedback_own_from: float = 0.12  # … after this share of the training
    size: int = 0  # pixels of the picture to be painted; 0 is the decoder's own
    crop: bool = False  # pictures are cut to the square (public stage1) instead of squashed
    cache: bool = False  # what does not change is kept in memory once made: features and latents (float16), or pictures as drawn
    channels_last: bool = False  # the UNet, or the VAE's decoder, in that memory format: a fifth faster on a CPU
    # adapters
    lora: int = 0  # rank; 0 trains the weights themselves
    # keeping
    save_every: int = 500
    keep_every: int = 0  # steps whose checkpoint stays for good; 0 keeps the last alone
    log_every: int = 10
    seed: int = 42
    # added since 0.2 (ADDED): each default is what was done before
    optimizer: str = "adamw"  # or "adamw8bit": moments in 8 bits (torchao or bitsandbytes)
    compile: bool = False  # torch.compile, block by block
    projector_lr_scale: float = 1.0  # of the peak rate, for both projectors (the public scripts' proj_lr_scale)
    lora_alpha: float = 0.0  # an adapter is multiplied by alpha / rank; 0: alpha is the rank
    cache_gb: float = 16.0  # bound of the cache of one process; what comes later is made anew each time


ADDED = ("optimizer", "compile", "projector_lr_scale", "lora_alpha", "cache_gb")  # since 0.2, whose runs are known without them
_ALL: tuple[str, ...] = (
    "steps",
    "batch",
    "learning_rate",
    "betas",
    "eps",
    "weight_decay",
    "warmup",
    "min_lr_ratio",
    "clip",
    "precision",
    "ema",
)
_ALL += ("save_every", "keep_every", "log_every", "seed", "optimizer", "compile", "cache", "cache_gb")
_PAINTED = ("size", "crop")
_ADAPTED = ("lora", "lora_alpha", "checkpointing")
_LANGUAGE: tuple[str, ...] = (
    "language_weight",
    "mse_weight",
    "cosine_weight",
    "diffusion_weight",
    "gamma",
    "location_spread",
    "time_ids",
    "size",
)
_LANGUAGE += ("unconditional", "keep_caption_prob", "parallel", "projector_lr_scale")
_LANGUAGE += ("feedback_noise", "feedback_own", "feedback_own_batches", "feedback_own_from")
# stage -> the settings that it reads; the others are refused by --set, and "-" in the table of presets
READS: dict[str, frozenset[str]] = {
    "tower": frozenset(_ALL),
    "vae": frozenset(_ALL + _PAINTED),
    "visual-decoding": frozenset(
        _ALL
        + _PAINTED
        + _ADAPTED
        + ("gamma", "time_ids", "condition_dropout", "condition_noise", "own_features", "own_count", "channels_last")
    ),
    "stage-1": frozenset(_ALL + _ADAPTED + _LANGUAGE),
    "stage-2": frozenset(_ALL + _ADAPTED + _LANGUAGE),
    "vae-decoder": frozenset(_ALL + _PAINTED + ("own_latents", "own_count", "channels_last")),
}
_SHARES = (
    "condition_dropout",
    "unconditional",
    "keep_caption_prob",
    "parallel",
    "min_lr_ratio",
    "own_features",
    "own_latents",
    "feedback_own",
    "feedback_own_batches",
    "feedback_own_from",
)
_POSITIVE = ("steps", "batch", "learning_rate", "eps", "save_every", "log_every", "projector_lr_scale", "cache_gb")
_CHOICES = {"precision": ("bf16", "fp16", "no"), "time_ids": ("size", "zeros"), "optimizer": ("adamw", "adamw8bit")}


def changed(row: Settings, changes: dict[str, str] | None = None, stage: str = "") -> Settings:
    """Settings with changes given as text. `stage`: whose settings they are; empty: of no stage in particular.

    Raises:
        ValueError: an unknown name, one that the stage does not read, a value of the wrong kind or out of its range; it says what would do.
    """
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    made: dict[str, Any] = {}
    for name, text in (changes or {}).items():
        if name in RENAMED:
            raise ValueError(f"--set {name}: this setting is called {RENAMED[name]} now.")
        if name not in fields:
            import difflib

            near = difflib.get_close_matches(name, fields, 1)
            raise ValueError(
                f"--set {name}: there is no such setting{f' (did you mean {near[0]}?)' if near else ''}. Settings: {', '.join(fields)}."
            )
        if stage and name not in READS[stage]:
            raise ValueError(unread(stage, name, text))
        made[name] = _value(name, text, fields[name])
    return check(dataclasses.replace(row, **made))


def unread(stage: str, name: str, value: Any) -> str:
    """What is said of a setting that a stage does not read."""
    return f"--set {name}={value}: {stage} does not read it; it is for {', '.join(s for s in STAGES if name in READS[s])}."


def learning_rate_factor(s: Settings, step: int) -> float:
    """Of the peak rate, at a step in 0..steps-1: linear warm-up, then a cosine down to `min_lr_ratio`."""
    if step < s.warmup:
        return (step + 1) / s.warmup
    done = (step - s.warmup) / max(1, s.steps - s.warmup)
    return s.min_lr_ratio + (1 - s.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _value(name: str, text: str, old: Any) -> Any:
    try:
        if isinstance(old, bool):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if isinstance(old, int):
            return int(text.replace("_", ""))
        if isinstance(old, float):
            return float(text)
        if isinstance(old, tuple):
            first, second = text.strip("()").split(",")
            return float(first), float(second)
        return text
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number", tuple: "two numbers, as 0.9,0.95"}[type(old)]
        raise ValueError(f"--set {name}={text}: {name} is {kind} (now {old}).") from None


def check(s: Settings) -> Settings:
    """The settings, checked.

    Raises:
        ValueError: naming the setting, its value and what would do.
    """
    for name, value in dataclasses.asdict(s).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}: it must be a finite number.")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
            raise ValueError(f"{name} is {value}: it cannot be negative.")
    for name in _POSITIVE:
        if getattr(s, name) <= 0:
            raise ValueError(f"{name} is {getattr(s, name)}: it must be above 0.")
    for name in _SHARES:
        if getattr(s, name) > 1:
            raise ValueError(f"{name} is {getattr(s, name)}: it is a share, from 0 to 1.")
    for name, allowed in _CHOICES.items():
        if getattr(s, name) not in allowed:
            raise ValueError(f"{name} is {getattr(s, name)!r}: choose {', '.join(allowed)}.")
    if not all(0 <= b < 1 for b in s.betas):
        raise ValueError(f"betas is {s.betas}: both must be at least 0 and below 1.")
    if s.ema >= 1:
        raise ValueError(f"ema is {s.ema}: a decay below 1 (0.9999, say), or 0 for none.")
    if s.learning_rate > 1:
        raise ValueError(f"learning_rate is {s.learning_rate}: AdamW's are below 1 (5e-4 in the paper).")
    if s.steps <= s.warmup:
        raise ValueError(f"warmup is {s.warmup} of {s.steps} steps: the rate would never reach its peak. Lower warmup, or train longer.")
    if s.size % 8 or s.size > 8192:
        raise ValueError(
            f"size is {s.size}: the side of a painted picture is a multiple of 8 pixels, at most 8192, or 0 for the decoder's own."
        )
    return s
