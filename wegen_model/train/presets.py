"""What each stage is trained with, as one table: the supplement's Table 2, the public scripts, and the miniature.

`release` keeps the scripts' values where they differ from the paper; one thing of theirs cannot be kept: for its first 12,000 steps
their stage1 leaves only an unused scalar trainable, and the backward pass fails. `paper` holds what Table 2 of the supplement holds, with
the dropped conditions of its text; where it is silent `release`'s value stands, and the printed table marks it.
`mini` is for going on from the bundled miniature with one's own pictures; `miniature` made it from nothing (mini/recipe.py), and
`further` goes on with the same data.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .settings import READS, STAGES, Settings, changed

# the public scripts
_RELEASE_DECODER = Settings(
    steps=160_000,
    batch=1024,
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    eps=1e-6,
    weight_decay=0.01,
    warmup=2000,
    min_lr_ratio=0.05,
    clip=1.0,
    condition_dropout=0.0,
    time_ids="zeros",
    crop=True,
    save_every=5000,
)
_RELEASE_WRITER = Settings(
    steps=30_000, batch=2048, learning_rate=5e-4, min_lr_ratio=0.05, clip=1.0, condition_dropout=0.0, time_ids="zeros", save_every=1000
)
# the supplement: Table 2, and of its text the dropped conditions of visual-decoding
_TABLE_2 = ("steps", "batch", "learning_rate", "betas", "eps", "warmup", "clip", "precision")
PUBLISHED = {"visual-decoding": (*_TABLE_2, "condition_dropout"), "stage-1": _TABLE_2, "stage-2": _TABLE_2}
# what the public scripts or their code say beyond it; everything else is ours, and off in both presets
SCRIPTED: tuple[str, ...] = (
    "weight_decay",
    "min_lr_ratio",
    "checkpointing",
    "language_weight",
    "mse_weight",
    "cosine_weight",
    "diffusion_weight",
    "gamma",
    "time_ids",
    "crop",
    "save_every",
    "projector_lr_scale",
)
_PAPER_WRITER = dataclasses.replace(
    _RELEASE_WRITER, steps=15_000, batch=2048, learning_rate=5e-4, betas=(0.9, 0.95), eps=1e-6, warmup=1000, clip=5.0, precision="bf16"
)
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


def _made(steps: int, batch: int, learning_rate: float, **more: Any) -> Settings:
    """Of the miniature made from nothing: float32 on a CPU, features and latents cached."""
    kept: dict[str, Any] = dict(
        eps=1e-8,
        weight_decay=0.0,
        min_lr_ratio=0.05,
        clip=1.0,
        precision="no",
        ema=0.998,
        checkpointing=False,
        cache=True,
        save_every=250,
        log_every=50,
        seed=0,
    )
    return Settings(steps, batch, learning_rate, **kept | more)


_PAINTS: dict[str, Any] = dict(condition_noise=0.5, channels_last=True)
_WRITES: dict[str, Any] = dict(
    language_weight=0.4,
    cosine_weight=0.5,
    diffusion_weight=0.0,
    location_spread=6.0,
    unconditional=0.04,
    parallel=0.5,
    feedback_noise=0.6,
    feedback_own=0.65,
)

PRESETS: dict[str, dict[str, Settings]] = {
    "paper": {
        "visual-decoding": dataclasses.replace(
            _RELEASE_DECODER,
            steps=5_000,
            batch=4096,
            learning_rate=5e-4,
            betas=(0.9, 0.999),
            eps=1e-8,
            warmup=1000,
            clip=1.0,
            precision="bf16",
            condition_dropout=0.1,
            save_every=500,  # ours: the scripts' would save once
        ),
        "stage-1": _PAPER_WRITER,
        "stage-2": dataclasses.replace(_PAPER_WRITER, steps=5_000, learning_rate=1e-4),
    },
    "release": {"visual-decoding": _RELEASE_DECODER, "stage-1": _RELEASE_WRITER, "stage-2": _RELEASE_WRITER},
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
    "miniature": {
        "tower": _made(3000, 24, 1.5e-3, weight_decay=0.01, warmup=200, ema=0.995),
        "vae": _made(4000, 8, 1e-3, warmup=50, ema=0.995),
        "visual-decoding": _made(2600, 12, 1e-3, betas=(0.9, 0.99), warmup=100, **_PAINTS),
        "stage-1": _made(5000, 12, 1.5e-3, weight_decay=0.01, warmup=200, save_every=500, **_WRITES),
        "stage-2": _made(6000, 12, 8e-4, weight_decay=0.01, warmup=200, save_every=500, seed=1, **_WRITES | {"feedback_own_from": 0.0}),
        "vae-decoder": _made(2500, 8, 6e-4, warmup=50, ema=0.995, own_latents=0.5, channels_last=True),
    },
    "further": {
        "visual-decoding": _made(4500, 12, 8e-4, betas=(0.9, 0.99), warmup=50, seed=1, own_features=0.33, own_count=4000, **_PAINTS),
        "stage-2": _made(8000, 12, 8e-4, weight_decay=0.01, warmup=200, save_every=500, seed=1, **_WRITES | {"feedback_own_from": 0.0}),
        "vae-decoder": _made(4500, 8, 6e-4, warmup=50, ema=0.995, own_latents=0.5, channels_last=True),
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
    min_lr_ratio=0.1,
    clip=1.0,
    lora=16,
    save_every=100,
)

# an adapter of the language model on a handful of pictures of one thing (subject.py, which fits it to the model)
SUBJECT = Settings(
    steps=600,
    batch=8,
    learning_rate=2e-3,
    betas=(0.9, 0.99),
    eps=1e-8,
    weight_decay=0.01,
    warmup=20,
    min_lr_ratio=0.1,
    clip=1.0,
    lora=16,
    diffusion_weight=0.0,
    unconditional=0.04,
    save_every=50,
    log_every=5,
)


def settings(preset: str, stage: str, changes: dict[str, str] | None = None) -> Settings:
    """A row of the table, with changes given as text.

    Raises:
        ValueError: an unknown preset, stage or setting, or a value that does not fit; it says what would do.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r}: choose {', '.join(PRESETS)}.")
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: choose {', '.join(STAGES)}.")
    if stage not in PRESETS[preset]:
        having = [name for name, rows in PRESETS.items() if stage in rows]
        raise ValueError(f"preset {preset!r} has no stage {stage!r}; it is for models made from nothing: --preset {' or '.join(having)}.")
    return changed(PRESETS[preset][stage], changes, stage)


LEGEND = "* of the public scripts (preset release), where the supplement says nothing    - not read by the stage"


def table() -> str:
    """The presets beside one another, one line a setting; LEGEND says what its marks mean."""
    columns = [(p, stage) for p in PRESETS for stage in STAGES if stage in PRESETS[p]]
    rows = [("", *(p for p, _ in columns)), ("", *(stage for _, stage in columns))]
    rows += [(f.name, *(_cell(p, s, f.name) for p, s in columns)) for f in dataclasses.fields(Settings)]
    return "\n".join(f"{row[0]:<22}" + "".join(f"{text:>17}" for text in row[1:]) for row in rows)


def _cell(preset: str, stage: str, name: str) -> str:
    if name not in READS[stage]:
        return "-"
    value = getattr(PRESETS[preset][stage], name)
    borrowed = preset == "paper" and name in SCRIPTED and value == getattr(PRESETS["release"][stage], name)
    return _short(value) + "*" * borrowed


def _short(value: Any) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
