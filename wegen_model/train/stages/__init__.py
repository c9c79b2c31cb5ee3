"""The stages of training: what each trains, its batches, its loss and its export.

tower.py, vae.py (`vae`, `vae-decoder`), decoder.py (`visual-decoding`), language.py (`stage-1`, `stage-2`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..modules import Components
from ..settings import STAGES, Settings
from ..trainer import TrainingTask
from .decoder import DecoderTask
from .language import LanguageTask
from .tower import TowerTask
from .vae import VaeDecoderTask, VaeTask

# settings that only these stages read, when they are set
READ_BY = {
    "lora": ("visual-decoding", "stage-1", "stage-2"),
    "own_features": ("visual-decoding",),
    "own_latents": ("vae-decoder",),
    "condition_noise": ("visual-decoding",),
    "feedback_noise": ("stage-1", "stage-2"),
    "feedback_own": ("stage-1", "stage-2"),
    "location_spread": ("stage-1", "stage-2"),
}


def make_task(stage: str, components: Components, source: Any, settings: Settings, folder: Path | None = None) -> TrainingTask:
    """The task of a stage over a source of samples (data/image_folder.py). `folder`: the work folder, for what is made once for a run.

    Raises:
        ValueError: no such stage, or a setting that it does not read. CheckpointError: the model folder lacks a part that the stage needs.
    """
    for name, stages in READ_BY.items():
        if getattr(settings, name) and stage not in stages:
            raise ValueError(f"--set {name}={getattr(settings, name)}: {stage} does not read it; it is for {', '.join(stages)}.")
    if stage == "tower":
        return TowerTask(components, source, settings)
    if stage == "vae":
        return VaeTask(components, source, settings)
    if stage == "vae-decoder":
        return VaeDecoderTask(components, source, settings, folder)
    if stage == "visual-decoding":
        return DecoderTask(components, source, settings, folder=folder)
    if stage in ("stage-1", "stage-2"):
        return LanguageTask(stage, components, source, settings)
    raise ValueError(f"stage {stage!r}: choose {', '.join(STAGES)}.")
