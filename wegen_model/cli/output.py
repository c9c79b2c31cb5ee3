"""What the commands put out: words for the person, pictures, and folders that can be written to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def say(text: str) -> None:
    """A line for the person, on standard error: standard output holds results."""
    sys.stderr.write(text + "\n")


def writable(*folders: Path) -> None:
    """Make the folders; refuse before the work what could not be saved after it."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written: choose another place, or change its permissions.")


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}


def picture_format(path: Path) -> tuple[str, dict[str, Any]]:
    """(Pillow's name of the format, its options) by the ending of a file's name. ValueError for one that is not written."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: pictures are written as {', '.join(FORMATS)}; give a name with one of these endings.")
    return FORMATS[path.suffix.lower()]


def save_picture(image: Any, path: Path, ending: str = "") -> None:
    """(h,w,3) in 0..1 as a picture file, in the format that `ending` names, else its name's own ending."""
    from PIL import Image

    from ..fileio import atomic

    kind, options = picture_format(Path(f"picture{ending}") if ending else path)
    with atomic(path) as part:
        Image.fromarray((image * 255).round().byte().numpy()).save(part, kind, **options)
