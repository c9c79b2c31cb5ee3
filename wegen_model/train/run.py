"""Runs one stage, from a model folder to a model folder: for `wegen train`, the miniature's recipe and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..checkpoint import model_folder
from ..runtime import Runtime
from .modules import PRECISIONS, load
from .sample_images import SampleImages
from .settings import Settings
from .stages import make_task
from .trainer import train

SAMPLED = ("visual-decoding", "stage-1", "stage-2")  # stages with sample pictures


def run_stage(
    stage: str,
    settings: Settings,
    model: str | Path,
    source: Any,
    folder: str | Path,
    target: str | Path | None = None,
    *,
    runtime: Runtime | None = None,
    accumulate: int = 1,
    stop_after: float | None = None,
    workers: int = 0,
    tensorboard: bool = False,
    sample_every: int = 0,
    samples: list | None = None,
    main: bool = True,
) -> str:
    """Train a stage, or go on with it, and write the trained model folder at its end.

    Args:
        model: folder to start from. source: of samples (data/image_folder.py). folder: work folder. target: folder to write (default:
            FOLDER/model).
        samples: what the sample pictures are made of; None takes the source's first. With samples given, the written features' error on
            them is logged too.
        main: is this the process that writes?
    Returns:
        what was written, or, on every process, that the stage goes on; nothing on other processes at its end.
    Raises:
        ValueError, CheckpointError: before any work, for what does not fit together. As train().
    """
    s, folder = settings, Path(folder)
    if sample_every and stage not in SAMPLED:
        raise ValueError(f"--sample-every: {stage} draws no sample pictures; {', '.join(SAMPLED)} do. Leave it out.")
    start = model_folder.resolve(model)
    target = Path(target or folder / "model")
    model_folder.check_target(target, {*model_folder.WEIGHT_FILES, "tokenizer"}, start)
    torch.manual_seed(s.seed)
    components = load(
        start,
        stage,
        frozen=PRECISIONS[s.precision],
        lora=s.lora > 0,
        decoder=s.diffusion_weight > 0 or sample_every > 0,
        language=s.own_features > 0 or s.own_latents > 0,
    )
    task = make_task(stage, components, source, s, folder)
    if sample_every:
        task.images = SampleImages(components, samples or source, stage, measured=samples is not None)
    reached = train(
        task, folder, runtime, stop_after, accumulate=accumulate, workers=workers, tensorboard=tensorboard, sample_every=sample_every
    )
    weights = reached.weights()  # on every process: shards are gathered
    if not reached.finished:
        return f"{folder}: stopped on the way; the same command goes on."
    return task.export(weights, start, target, folder) if main else ""
