"""The whole recipe of the miniature, stage by stage, each resumable: `wegen mini train` is `wegen train` on the drawn world.

    start - tower - vae - visual-decoding - stage-1 - stage-2 - sharpen - vae-decoder - export

`stage-1` learns every task, `stage-2` goes on with more of the harder ones; `sharpen` is visual-decoding once more, partly on what the
language model itself writes. Each stage begins with the model folder that the one before it wrote. With a start folder the recipe begins
at `stage-1`; size `further` is a round of `stage-2`, `sharpen` and `vae-decoder` from there.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..chat.tokenizer import Tokenizer
from ..checkpoint import model_folder
from ..fileio import read_json, write_text
from ..runtime import Runtime
from ..train.presets import PRESETS
from ..train.run import run_stage
from ..train.settings import Settings
from ..train.trainer import finished
from .dataset import DrawnWorld, WorldOptions, held_out
from .initialise import copy_model, new_model
from .world.art import Art, load_art
from .world.concepts import TRAINED_STYLES


@dataclass(frozen=True)
class Stage:
    """One stage of the recipe. name: its folder; stage: what `wegen train` calls it; look: steps between sample pictures, 0 for none."""

    name: str
    stage: str
    settings: Settings
    world: WorldOptions
    pictures: bool = False
    look: int = 0


def _of(name: str, stage: str, preset: str, world: WorldOptions, pictures: bool = False, look: int = 0) -> Stage:
    return Stage(name, stage, PRESETS[preset][stage], world, pictures, look)


_PICTURES = WorldOptions(samples=16_000, frees=8_000)
_FURTHER = WorldOptions(samples=6_000, frees=3_000, mix="harder")
_LEAST = WorldOptions(samples=60, frees=20, tokens=300)
_VISUAL = PRESETS["miniature"]["visual-decoding"]
_SHARPEN = replace(_VISUAL, steps=1000, learning_rate=4e-4, warmup=50, own_features=0.33, own_count=4000, seed=1)

SIZES: dict[str, tuple[Stage, ...]] = {
    "cpu": (  # 2 cores, an evening
        _of("tower", "tower", "miniature", _PICTURES, True),
        _of("vae", "vae", "miniature", _PICTURES, True),
        _of("visual-decoding", "visual-decoding", "miniature", _PICTURES, True),
        _of("stage-1", "stage-1", "miniature", WorldOptions(samples=30_000, seed=1), look=1000),
        _of("stage-2", "stage-2", "miniature", WorldOptions(samples=10_000, mix="harder", seed=2), look=1000),
        Stage("sharpen", "visual-decoding", _SHARPEN, _PICTURES, True),
        _of("vae-decoder", "vae-decoder", "miniature", _PICTURES, True),
    ),
    "further": (  # from a start: three hours on a core
        _of("stage-2", "stage-2", "further", WorldOptions(samples=20_000, mix="harder", seed=2), look=2000),
        _of("sharpen", "visual-decoding", "further", _FURTHER, True),
        _of("vae-decoder", "vae-decoder", "further", _FURTHER, True),
    ),
}
SIZES["test"] = tuple(  # seconds: does it run?
    replace(s, settings=replace(s.settings, steps=4, warmup=1, batch=4, own_count=8), world=_LEAST, look=0) for s in SIZES["cpu"]
)
MADE_BY_START = ("tower", "vae", "visual-decoding")  # stages that a start folder replaces


def train(
    folder: str | Path,
    size: str = "cpu",
    only: tuple[str, ...] = (),
    target: str | Path | None = None,
    runtime: Runtime | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    art: Art | None = None,
    stop_after: float | None = None,
) -> Path | None:
    """Run the recipe, or the stages named in `only`, from nothing or from a model folder; returns the exported model folder.

    Args:
        start: its stages are those of the size, with the settings that it has from nothing; `further` is made for one.
        seed: of samples, pictures and initial weights. stop_after: seconds after which a stage saves and the recipe returns None.
    Raises:
        ValueError: no such size or stage, or a size that goes on from a start without one.
        CheckpointError: before anything runs, when the target holds something that would be lost.
    """
    if size not in SIZES:
        raise ValueError(f"no size {size!r}: the sizes are {', '.join(SIZES)}.")
    names = [s.name for s in SIZES[size]]
    if unknown := [name for name in only if name not in (*names, "export")]:
        raise ValueError(f"no stage {unknown[0]!r}: the stages of size {size} are {', '.join(names)}, export.")
    if "tower" not in names and start is None:
        raise ValueError(f"size {size!r} goes on from a miniature: name its model folder with --start.")
    folder = Path(folder)
    target = Path(target or folder / "wegen-mini")
    if "export" in (only or ("export",)):
        model_folder.check_target(target, {*model_folder.WEIGHT_FILES, "tokenizer"})
        if folder.resolve().is_relative_to(target.resolve()):
            raise model_folder.CheckpointError(f"{target}: the work folder {folder} is in it. Name another folder to export to.")
    model = _begin(folder, start, seed)
    runtime = runtime or Runtime(progress=True)
    for stage in SIZES[size]:
        if start is not None and stage.name in MADE_BY_START:
            continue
        work = folder / stage.name
        if only and stage.name not in only:
            if (work / "model").is_dir():
                model = work / "model"
            elif names.index(stage.name) < max(names.index(n) if n in names else len(names) for n in only):
                raise FileNotFoundError(f"{folder}: the stage «{stage.name}» has not run yet. `wegen mini train` runs it.")
            continue
        if not (finished(work, stage.settings.steps) and (work / "model").is_dir()):
            art = art or load_art(TRAINED_STYLES, runtime=runtime)
            world = _world(stage, art, model, seed)
            settings = replace(stage.settings, seed=stage.settings.seed + seed)
            run_stage(
                stage.stage,
                settings,
                model,
                world,
                work,
                runtime=runtime,
                stop_after=stop_after,
                sample_every=stage.look,
                samples=held_out(world) if stage.look else None,
            )
            if not finished(work, stage.settings.steps):
                return None
        model = work / "model"
    return copy_model(model, target, torch.float16) if "export" in (only or ("export",)) else None


def _begin(folder: Path, start: str | Path | None, seed: int) -> Path:
    """The model folder that the first stage starts from, in float32: new weights, or the start's."""
    begun, made = folder / "start", folder / "start.json"
    origin = {"start": str(Path(start).resolve()) if start else None, "seed": seed}
    if made.is_file() and (before := read_json(made)) != origin:
        raise ValueError(f"{folder} was begun with {before}, and this is {origin}. Go on with the same, or name another --folder.")
    if not begun.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(made, json.dumps(origin))
        if start is None:
            new_model(begun, seed)
            shutil.rmtree(begun.with_name("start.words"), ignore_errors=True)
        else:
            copy_model(Path(start), begun, torch.float32)
    return begun


def _world(stage: Stage, art: Art, model: Path, seed: int) -> DrawnWorld:
    options = replace(stage.world, seed=stage.world.seed + seed)
    return DrawnWorld(options, art, Tokenizer.load(model), model_folder.read_config(model), stage.pictures)
