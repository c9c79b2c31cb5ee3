"""Where a fine-tune finds its pictures, keeps its work and puts its LoRA; and making room for it.

Headless: folders below the current one.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .folders import inside_comfyui

LORA_FOLDER = "loras"  # below ComfyUI's models folder


def picture_folder(name: str) -> Path:
    """A folder of pictures: below ComfyUI's input folder; headless, any.

    Raises:
        ValueError: there is none of that name; it lists those that there are.
    """
    root = Path("input")
    if inside_comfyui():
        import folder_paths

        root = Path(folder_paths.get_input_directory())
    elif name and Path(name).is_dir():
        return Path(name)
    place = (root / name).resolve()
    inside = place == root.resolve() or root.resolve() in place.parents
    if not name.strip() or not inside or not place.is_dir():
        found = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        raise ValueError(
            f"folder: there is no folder {name!r} in {root}. Put your pictures into a folder there, and write its name here. "
            f"Found: {', '.join(found) or 'no folders'}."
        )
    return place


def folder_choices() -> list[str]:
    """Folders below the input folder for a combo, as ComfyUI's own training nodes list them; never empty."""
    if inside_comfyui():
        import folder_paths

        found = folder_paths.get_input_subfolders()
    else:
        root = Path("input")
        found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_dir()) if root.is_dir() else []
    return found or [""]


def listing_of(folder: str) -> str:
    """Changes with the files below a folder of pictures; the name where there is none."""
    try:
        place = picture_folder(folder)
    except ValueError:
        return folder
    return str(sorted((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in place.rglob("*") if p.is_file()))


def work_folder() -> Path:
    """The folder of checkpoints and logs of fine-tunes."""
    if inside_comfyui():
        import folder_paths

        return Path(folder_paths.get_output_directory()) / "wegen_training"
    return Path("output") / "wegen_training"


def lora_roots() -> list[Path]:
    """Folders of LoRAs, the first one to write to."""
    if inside_comfyui():
        import folder_paths

        return [Path(p) for p in folder_paths.get_folder_paths(LORA_FOLDER)]
    return [Path("models") / LORA_FOLDER]


def list_loras() -> list[str]:
    """Names for a combo."""
    if inside_comfyui():
        import folder_paths

        return folder_paths.get_filename_list(LORA_FOLDER)
    return sorted(p.relative_to(root).as_posix() for root in lora_roots() for p in root.rglob("*.safetensors"))


def find_lora(name: str) -> Path:
    """A LoRA's file by its name in the combo. ValueError where there is none."""
    for root in lora_roots():
        place = (root / name).resolve()
        if place.is_file() and root.resolve() in place.parents:
            return place
    raise ValueError(f"lora: there is no {name!r} in {' or '.join(map(str, lora_roots()))}. Found: {', '.join(list_loras()) or 'none'}.")


def make_room() -> None:
    """Unload what ComfyUI keeps on the device: training needs it."""
    if inside_comfyui():
        import comfy.model_management as mm

        mm.unload_all_models()
        mm.soft_empty_cache()


def patched(model, path: Path, strength: float):
    """ComfyUI's MODEL with a LoRA, as its own loader makes it."""
    import comfy.sd
    import comfy.utils

    return comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path), safe_load=True), strength, 0)[0]


def training_device() -> torch.device:
    if inside_comfyui():
        import comfy.model_management as mm

        return torch.device(mm.get_torch_device())
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
