"""Runs one stage, from a model folder to a model folder: for `wegen train`, the miniature's recipe and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .. import locks
from ..checkpoint import model_folder
from ..runtime import Runtime
from .held_out import HeldOut
from .modules import PRECISIONS, load
from .run_record import make_record
from .sample_images import SampleImages
from .settings import READS, Settings
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
    trackers: list[str] | None = None,
    sample_every: int = 0,
    samples: list | None = None,
    held_out: HeldOut | None = None,
    processes: int = 1,
    command: str = "",
    allowed: frozenset[str] = frozenset(),
    main: bool = True,
) -> str:
    """Train a stage, or go on with it, and write the trained model folder at its end.

    Args:
        model: folder to start from. source: of samples (data/image_folder.py). folder: work folder. target: folder to write (default:
            FOLDER/model).
        samples: what the sample pictures are made of; None takes the source's first. With samples given, the written features' error on
            them is logged too.
        held_out: data whose loss is measured on the way. trackers: names of accelerate's.
        processes: how many train together, this one included. command: as it was typed, for the record.
        allowed: names of settings, `data`, `micro`, that may differ from those that the run in the folder began with.
        main: is this the process that writes?
    Returns:
        what was written, or, on every process, that the stage goes on; nothing on other processes at its end.
    Raises:
        ValueError, CheckpointError: before any work, for what does not fit together, or is not what the run began with. As train().
    """
    s, folder = settings, Path(folder)
    if sample_every and stage not in SAMPLED:
        raise ValueError(f"--sample-every: {stage} draws no sample pictures; {', '.join(SAMPLED)} do. Leave it out.")
    start = model_folder.resolve(model)
    target = Path(target or folder / "model")
    model_folder.check_target(target, {*model_folder.WEIGHT_FILES, "tokenizer"}, start)
    record = make_record(stage, s, accumulate * processes, source, start, command, allowed)
    record.go_on_from(folder)

    def on(name: str) -> bool:
        return name in READS[stage] and getattr(s, name) > 0

    torch.manual_seed(s.seed)
    components = load(
        start,
        stage,
        frozen=PRECISIONS[s.precision],
        lora=on("lora"),
        decoder=on("diffusion_weight") or sample_every > 0,
        language=on("own_features") or on("own_latents"),
    )
    task = make_task(stage, components, source, s, folder)
    if sample_every:
        task.images = SampleImages(components, samples or source, stage, measured=samples is not None)
    with locks.held(folder / ".lock", f"train {stage}", main):
        reached = train(
            task,
            folder,
            runtime,
            stop_after,
            accumulate=accumulate,
            workers=workers,
            trackers=trackers,
            sample_every=sample_every,
            held_out=held_out,
            record=record,
        )
    weights = reached.weights()  # on every process: shards are gathered
    if not reached.finished:
        return f"{folder}: stopped on the way; the same command goes on."
    return task.export(weights, start, target, folder) if main else ""
