"""What the three stages are trained with, as one table: the supplement's Table 2, the public scripts, and the miniature.

    STAGES   visual-decoding   the UNet learns to paint features (public script stage1)
             stage-1           the language model and both projectors learn to read and write them (script stage2)
             stage-2           the same on other data (script stage3)

`release` keeps the scripts' values where they differ from the paper; one thing of theirs cannot be kept: for its first 12,000 steps
their stage1 leaves only an unused scalar trainable, and the backward pass fails. Where a source is silent, the other's value stands.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

STAGES = ("visual-decoding", "stage-1", "stage-2")


@dataclass(frozen=True)
class Settings:
    """One stage's training. What is frozen is not here: `decoding.py` and `writing.py` decide it by stage."""

    steps: int  # optimiser steps
    batch: int  # samples of one optimiser step, over all processes
    learning_rate: float  # peak
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.05
    warmup: int = 1000  # steps, linear
    floor: float = 0.0  # of the peak, where the cosine ends
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
    # what is shown
    drop: float = 0.1  # share of the decoder's conditions that are zeros
    time_ids: str = "size"  # of the decoder: "size" or "zeros"
    unconditional: float = 0.0  # share of written pictures that are also trained as <img> and features alone
    rewrite: float = 1.0  # share of answers with text before their picture that keep it (prompt self-rewriting)
    parallel: float = 0.0  # share of written pictures trained from placeholders, all at once
    size: int = 0  # pixels of the picture to be painted; 0 is the decoder's own
    crop: bool = False  # pictures are cut to the square (public stage1) instead of squashed
    # adapters
    lora: int = 0  # rank; 0 trains the weights themselves
    # keeping
    save_every: int = 500
    keep_every: int = 0  # steps whose checkpoint stays for good; 0 keeps the last alone
    log_every: int = 10
    seed: int = 42


# the supplement's Table 2; it leaves weight decay, the cosine's end and min-SNR open
_PAPER_WRITER = Settings(steps=15_000, batch=2048, learning_rate=5e-4, clip=5.0, unconditional=0.1)
_RELEASE_WRITER = Settings(steps=30_000, batch=2048, learning_rate=5e-4, floor=0.05, clip=1.0, drop=0.0, time_ids="zeros", save_every=1000)
_MINI_WRITER = Settings(
    steps=200,
    batch=8,
    learning_rate=3e-4,
    eps=1e-8,
    weight_decay=0.01,
    warmup=10,
    clip=1.0,
    precision="no",
    checkpointing=False,
    diffusion_weight=0.1,
    unconditional=0.04,
    parallel=0.25,
    save_every=50,
)

PRESETS: dict[str, dict[str, Settings]] = {
    "paper": {
        "visual-decoding": Settings(
            steps=5_000, batch=4096, learning_rate=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, clip=1.0, ema=0.0
        ),
        "stage-1": _PAPER_WRITER,
        "stage-2": dataclasses.replace(_PAPER_WRITER, steps=5_000, learning_rate=1e-4),
    },
    "release": {
        "visual-decoding": Settings(
            steps=160_000,
            batch=1024,
            learning_rate=1e-4,
            betas=(0.9, 0.999),
            eps=1e-6,
            weight_decay=0.01,
            warmup=2000,
            floor=0.05,
            clip=1.0,
            drop=0.0,
            time_ids="zeros",
            crop=True,
            save_every=5000,
        ),
        "stage-1": _RELEASE_WRITER,
        "stage-2": _RELEASE_WRITER,
    },
    "mini": {
        "visual-decoding": Settings(
            steps=200,
            batch=8,
            learning_rate=3e-4,
            betas=(0.9, 0.99),
            eps=1e-8,
            weight_decay=0.0,
            warmup=10,
            clip=1.0,
            precision="no",
            ema=0.99,
            checkpointing=False,
            save_every=50,
        ),
        "stage-1": _MINI_WRITER,
        "stage-2": dataclasses.replace(_MINI_WRITER, learning_rate=1e-4),
    },
}
# a decoder LoRA on a studio's pictures: what WeGenTrainDecoder and `--lora` start from
LORA = Settings(
    steps=1000,
    batch=4,
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.01,
    warmup=50,
    floor=0.1,
    clip=1.0,
    lora=16,
    save_every=100,
)

_SHARES = ("drop", "unconditional", "rewrite", "parallel", "floor")
_POSITIVE = ("steps", "batch", "learning_rate", "eps", "save_every", "log_every")
_CHOICES = {"precision": ("bf16", "fp16", "no"), "time_ids": ("size", "zeros")}


def settings(preset: str, stage: str, changes: dict[str, str] | None = None) -> Settings:
    """A row of the table, with changes given as text.

    Raises:
        ValueError: an unknown preset, stage or name, a value of the wrong kind or out of its range; it says what would do.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r}: choose {', '.join(PRESETS)}.")
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose {', '.join(STAGES)}.")
    row = PRESETS[preset][stage]
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    made: dict[str, Any] = {}
    for name, text in (changes or {}).items():
        if name not in fields:
            import difflib

            near = difflib.get_close_matches(name, fields, 1)
            raise ValueError(
                f"--set {name}: there is no such setting{f' (did you mean {near[0]}?)' if near else ''}. Settings: {', '.join(fields)}."
            )
        made[name] = _value(name, text, fields[name])
    return check(dataclasses.replace(row, **made))


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
    """The settings, if they make sense together.

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


def table() -> str:
    """The presets beside one another, one line a setting."""
    columns = [(p, stage) for p in PRESETS for stage in STAGES]
    lines = ["".join(f"{text:>17}" for text in ("", *(p for p, _ in columns))), "".join(f"{t:>17}" for t in ("", *(s for _, s in columns)))]
    for f in dataclasses.fields(Settings):
        values = [getattr(PRESETS[p][s], f.name) for p, s in columns]
        lines.append("".join(f"{_short(v):>17}" for v in (f.name, *values)))
    return "\n".join(lines)


def _short(value: Any) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
