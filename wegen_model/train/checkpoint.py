"""A stage's checkpoint: everything a run needs to go on bit for bit, written beside and renamed.

    FOLDER/checkpoint/        the last one            state.json     step, stage, how the weights are kept
    FOLDER/checkpoint-000500/ one that stays          weights.pt     model, optimiser, ema, random states ("whole")
    FOLDER/checkpoint.new/    being written           shards/        the same by torch.distributed.checkpoint ("sharded", FSDP)
    FOLDER/checkpoint.old/    between two renames     engine/        DeepSpeed's own files ("engine")
                                                      run.json       what the run was made with (run_record.py)

A run that is killed while it writes leaves `checkpoint` as it was; one that is killed between the renames leaves it as `.old`.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from ..saving import SaveFailed, free_gb, reason

KEPT = re.compile(r"checkpoint-(\d+)$")
RECORD = "run.json"


def save(folder: Path, step: int, name: str, backend, model, optimiser, ema: dict, keep_every: int = 0, record: dict | None = None) -> None:
    """Write `checkpoint` of a step; the one it replaces stays as `checkpoint-STEP` when `keep_every` divides its step.

    `record`: what the run is made with, as `run.json` in it.

    Raises:
        SaveFailed: on every process when one of them could not write.
    """
    new, old, gone = folder / "checkpoint.new", folder / "checkpoint", folder / "checkpoint.old"
    error: Exception | None = None
    if backend.main:
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir()
        except OSError as problem:
            error = problem
    backend.agree(error is None)
    randoms = backend.gather(_random_states())
    if error is None:
        try:
            _write(new, backend, model, optimiser, ema, randoms)
            if backend.main:
                _dump(new / "state.json", {"step": step, "stage": name, "kind": backend.kind, "processes": backend.processes})
                if record is not None:
                    _dump(new / RECORD, record)
        except (OSError, RuntimeError) as problem:  # torch's writer raises RuntimeError on a short write
            error = problem
    if not backend.agree(error is None):
        backend.wait()
        if backend.main:
            shutil.rmtree(new, ignore_errors=True)
        then = "There is no earlier checkpoint. Make room, then start again."
        if step_of(old):
            then = f"The checkpoint of step {step_of(old)} in {folder} is intact. Make room, then start again: it goes on from there."
        raise SaveFailed(
            f"{name}: the checkpoint of step {step} could not be written to {folder} ({reason(error)}; "
            f"{free_gb(folder):.2f} GB are free there). {then}"
        )
    if backend.main:
        kept = step_of(old)
        shutil.rmtree(gone, ignore_errors=True)
        if old.exists():
            stays = keep_every and kept and kept % keep_every == 0 and not (folder / f"checkpoint-{kept:06d}").exists()
            gone = folder / f"checkpoint-{kept:06d}" if stays else gone
            os.replace(old, gone)
        os.replace(new, old)
        shutil.rmtree(folder / "checkpoint.old", ignore_errors=True)
    backend.wait()


def restore(folder: Path, name: str, backend, model, optimiser) -> tuple[int, dict]:
    """Load model and optimiser from the last checkpoint; (its step, its averaged weights), or (0, {}) where there is none.

    Args:
        name: of the stage.
    Raises:
        ValueError: it was written by another kind of run, by another stage, or of another model; or it is damaged.
    """
    place = folder / "checkpoint"
    if backend.main and not place.exists() and (other_place := last(folder)) is not None:
        if KEPT.search(other_place.name):
            shutil.copytree(other_place, place)
        else:  # killed between the two renames
            os.replace(other_place, place)
    backend.wait()
    if not place.exists():
        return 0, {}
    other = f"Name another --folder, or move {place} away to begin anew."
    try:
        state = json.loads((place / "state.json").read_text())
        kind, stage = state.get("kind", "whole"), state["stage"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{place} is damaged: its state.json cannot be read ({error!r}). {_kept(folder)}{other}") from error
    if stage != name:
        raise ValueError(f"{place} is of a run of {stage}, and this is {name}. {other}")
    if kind != backend.kind:
        raise ValueError(
            f"{place} was written by a {_NAMES[kind]} run, and this is a {_NAMES[backend.kind]} run. Go on with the launch "
            "configuration that it began with, or start in another folder."
        )
    try:
        return state["step"], _read(place, backend, model, optimiser)
    except (EOFError, pickle.UnpicklingError, FileNotFoundError) as error:
        raise ValueError(f"{place} is damaged ({error!r}). {_kept(folder)}{other}") from error
    except (RuntimeError, ValueError, KeyError) as error:  # torch's ways to say that names or shapes differ, and that a file is cut off
        raise ValueError(
            f"{place} does not fit this run: it is damaged, or was begun with other settings (lora, model). Go on with the "
            f"settings that it began with. {_kept(folder)}{other} ({' '.join(str(error).split())[:300]})"
        ) from error


def last(folder: Path) -> Path | None:
    """The checkpoint that a run in this folder goes on from: the last, the one between two renames, or the last that was kept."""
    for name in ("checkpoint", "checkpoint.old"):
        if (folder / name).exists():
            return folder / name
    return kept[-1] if (kept := _kept_ones(folder)) else None


def _kept_ones(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("checkpoint-*") if KEPT.search(p.name))


def _kept(folder: Path) -> str:
    kept = _kept_ones(folder)
    return f"An earlier one is kept: {kept[-1].name} is taken when checkpoint/ is moved away. " if kept else ""


_NAMES = {"whole": "single-device or DDP", "sharded": "FSDP", "engine": "DeepSpeed"}


def step_of(place: Path) -> int:
    """The step of a checkpoint folder, 0 where there is none."""
    try:
        return json.loads((place / "state.json").read_text())["step"]
    except (OSError, ValueError, KeyError):
        return 0


def _write(new: Path, backend, model, optimiser, ema: dict, randoms: list) -> None:
    if backend.kind == "engine":
        backend.accelerator.save_state(str(new / "engine"))
    elif backend.kind == "sharded":
        import torch.distributed.checkpoint as shards

        shards.save(_sharded(model, optimiser) | {"ema": dict(ema)}, checkpoint_id=str(new / "shards"))
    if backend.main:
        whole = {}
        if backend.kind == "whole":
            whole = {"model": model.state_dict(), "optimiser": backend.plain(optimiser).state_dict(), "ema": ema}
        with (new / "weights.pt").open("wb") as file:
            torch.save(whole | {"random": randoms}, file)
            file.flush()
            os.fsync(file.fileno())


def _read(place: Path, backend, model, optimiser) -> dict:
    saved = torch.load(place / "weights.pt", map_location="cpu", weights_only=True)
    mine = saved.get("random") or []
    if backend.rank < len(mine):
        _set_random_states(mine[backend.rank])
    if backend.kind == "engine":
        backend.accelerator.load_state(str(place / "engine"))
        return {}
    if backend.kind == "sharded":
        import torch.distributed.checkpoint as shards
        from torch.distributed.checkpoint.state_dict import set_state_dict

        state = _sharded(model, optimiser)
        names = shards.FileSystemReader(str(place / "shards")).read_metadata().state_dict_metadata
        own = model.state_dict()
        state["ema"] = {k[4:]: torch.empty_like(own[k[4:]]) for k in names if k.startswith("ema.")}
        shards.load(state, checkpoint_id=str(place / "shards"))
        set_state_dict(model, backend.plain(optimiser), model_state_dict=state["model"], optim_state_dict=state["optimiser"])
        return state["ema"]
    model.load_state_dict(saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    return {key: value.to(backend.device) for key, value in saved["ema"].items()}


def _sharded(model, optimiser) -> dict:
    from torch.distributed.checkpoint.state_dict import get_state_dict

    weights, moments = get_state_dict(model, getattr(optimiser, "optimizer", optimiser))
    return {"model": weights, "optimiser": moments}


def _random_states() -> dict[str, Any]:
    out: dict[str, Any] = {"torch": torch.get_rng_state(), "python": list(random.getstate()[1])}
    if torch.cuda.is_available():
        out["cuda"] = torch.cuda.get_rng_state()
    return out


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate((3, tuple(states["python"]), None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _dump(path: Path, values: dict) -> None:
    with path.open("w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())


def plain_batch(value: Any) -> Any:
    """A batch as what torch.save keeps without pickling classes: tensors, numbers, lists and dictionaries."""
    import dataclasses

    if dataclasses.is_dataclass(value):
        return {f.name: plain_batch(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain_batch(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_batch(v) for v in value]
    if hasattr(value, "__array__") and not isinstance(value, torch.Tensor):
        return torch.as_tensor(value.__array__()) if value.dtype.kind in "biuf" else str(value)
    return value if isinstance(value, (torch.Tensor, int, float, str, bool, type(None))) else str(value)
