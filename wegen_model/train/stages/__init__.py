"""The stages of training: what each trains, its batches, its loss and its export.

tower.py, vae.py (`vae`, `vae-decoder`), decoder.py (`visual-decoding`), language.py (`stage-1`, `stage-2`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..modules import Components
from ..settings import READS, STAGES, Settings, unread
from ..trainer import TrainingTask
from .decoder import DecoderTask
from .language import LanguageTask
from .tower import TowerTask
from .vae import VaeDecoderTask, VaeTask

# settings that are off unless somebody asks for them: asked of a stage that does not read them, they are refused
ASKED = ("lora", "own_features", "own_latents", "condition_noise", "feedback_noise", "feedback_own", "location_spread")


def make_task(stage: str, components: Components, source: Any, settings: Settings, folder: Path | None = None) -> TrainingTask:
    """The task of a stage over a source of samples (data/image_folder.py). `folder`: the work folder, for what is made once for a run.

    Raises:
        ValueError: no such stage, or a setting that it does not read. CheckpointError: the model folder lacks a part that the stage needs.
    """
    for name in ASKED:
        if stage in READS and getattr(settings, name) and name not in READS[stage]:
            raise ValueError(unread(stage, name, getattr(settings, name)))
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
