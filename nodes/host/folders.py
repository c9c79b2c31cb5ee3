"""Model folders as ComfyUI knows them: models/wegen and what extra_model_paths.yaml adds; headless, WEGEN_MODELS and ./models/wegen."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

BUNDLED = "wegen-mini"
FOLDER = "wegen"  # below ComfyUI's models folder


def inside_comfyui() -> bool:
    return "folder_paths" in sys.modules and "comfy" in sys.modules


def register() -> None:
    """Make models/wegen known to ComfyUI; paths of a user's extra_model_paths.yaml stay, and stay first."""
    if not inside_comfyui():
        return
    import folder_paths

    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def model_roots() -> tuple[Path, ...]:
    """Folders that model folders are in. Headless: WEGEN_MODELS, and models/wegen where the command runs."""
    if inside_comfyui():
        import folder_paths

        return tuple(Path(p) for p in folder_paths.get_folder_paths(FOLDER))
    named = [Path(p) for p in os.environ.get("WEGEN_MODELS", "").split(os.pathsep) if p]
    return (*named, Path("models") / FOLDER)


def bundled() -> Path:
    from ...wegen_model.checkpoint.model_paths import resolve

    return resolve(BUNDLED)


def list_models(kind: str) -> list[str]:
    """Names for a loader's combo: the bundled model, then folders below the roots, `/` as separator.

    `kind`: "model", or "decoder" (folders with unet/).
    """
    found = set()
    for root in model_roots():
        for folder in _folders(root):
            decoder = (folder / "unet" / "config.json").is_file()
            model = any(
                (folder / name).exists()
                for name in ("vision.safetensors", "vision.safetensors.index.json", "language", "projectors.safetensors")
            )
            if decoder if kind == "decoder" else model or not decoder:
                found.add(folder.relative_to(root).as_posix())
    return [BUNDLED, *sorted(found - {BUNDLED})]


def _folders(root: Path):
    """Folders with a config.json, the topmost of each branch."""
    for path, names, files in _walk(root):
        names[:] = sorted(n for n in names if not n.startswith("."))  # dot folders: a conversion on its way
        if "config.json" in files and Path(path) != root:
            names.clear()
            yield Path(path)


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from a root down, linked ones too, with the names of its files."""
    for path, _, files in _walk(root):
        yield path, files


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk that follows links, but not back to a folder that contains them."""
    above: dict[str, frozenset[str]] = {}  # walked folder: real paths of itself and all above it
    for path, names, files in os.walk(root, followlinks=True):
        real, outer = os.path.realpath(path), above.get(os.path.dirname(path), frozenset())
        if real in outer:
            names.clear()
            continue
        above[path] = outer | {real}
        yield path, names, files


def check_model(name: str, kind: str) -> bool | str:
    """True, or why a loader cannot open `name`. Inside ComfyUI only listed names are opened; headless also paths."""
    if name == BUNDLED:
        if (bundled() / "config.json").is_file():
            return True
        return f"the bundled {BUNDLED} is missing its weights, which come with WeGen ({bundled()}). Install WeGen again."
    listed = list_models(kind)
    if name in listed or not inside_comfyui() and (Path(name) / "config.json").is_file():
        return True
    where = " or ".join(str(root) for root in model_roots())
    what = "decoder folder (config.json, unet/, vae/, scheduler/)" if kind == "decoder" else "model folder"
    return (
        f"there is no {what} '{name}' in {where}. Found: {', '.join(listed)}. Put the folder there (`wegen convert` makes one "
        "from public files), or choose another."
    )


def knows() -> str:
    """One sentence on what the bundled model can draw, read from its config.json."""
    try:
        values = json.loads((bundled() / "config.json").read_text())
    except (OSError, ValueError):
        return ""
    concepts = values.get("concepts") or ()
    return f"{BUNDLED} (small, bundled, runs on any CPU) knows: {', '.join(concepts)}." if concepts else values.get("knows", "")


def person_folders() -> dict[str, Path] | None:
    """ComfyUI's input and output folders; None headless, where `wegen run` says them."""
    if not inside_comfyui():
        return None
    import folder_paths

    return {"input": Path(folder_paths.get_input_directory()), "output": Path(folder_paths.get_output_directory())}


def fingerprint(name: str) -> str:
    """Changes when a model folder's files do, so that a replaced model is loaded anew."""
    from ...wegen_model.checkpoint.model_paths import CheckpointError, resolve

    try:
        folder = resolve(name, model_roots())
    except CheckpointError:
        return name
    stamps = [(p.relative_to(folder).as_posix(), p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()]
    return f"{folder} {stamps}"
