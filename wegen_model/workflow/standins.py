"""Stand-ins for the few ComfyUI nodes that workflows of this pack need: Load Image, Save Image, Preview Image, Preview Any, primitives,
the lazy switch and Contains.

Sockets, widgets and file names are ComfyUI's (0.3.64 nodes.py, comfy_extras/nodes_primitive.py and nodes_string.py; 0.33
nodes_logic.py), so a workflow runs the same in both.
IMAGE is float32 (b,h,w,3) in 0..1; MASK is float32 (b,h,w), 1 where the picture is transparent.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..fileio import stays_inside, write_new
from ..images import PictureError, read_frames
from .png import save_png, text_chunks
from .spec import FOLDERS, Folders, NodeClass, values_of

PREVIEW_FOLDER = "preview"  # in the output folder; ComfyUI uses its temp folder
HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO", "folders": FOLDERS}
ANNOTATION = re.compile(r"^(.*?) ?\[(input|output|temp)\]$")


def find_picture(name: str, input_dirs: Sequence[Path], out_dir: Path) -> Path:
    """The file of a Load Image widget: an absolute path, or relative to the folders; `[output]` and `[temp]` endings as in ComfyUI.

    Raises FileNotFoundError that names the file, the folders and the remedy.
    """
    marked = ANNOTATION.match(name)
    plain, place = marked.groups() if marked else (name, "input")
    folders = {"input": list(input_dirs), "output": [out_dir], "temp": [out_dir / PREVIEW_FOLDER]}[place]
    for spelling in dict.fromkeys((plain, plain.replace("\\", "/"))):  # workflows from Windows
        for path in [Path(spelling)] if Path(spelling).is_absolute() else [folder / spelling for folder in folders]:
            if spelling and path.is_file():
                return path
    where = (
        ""
        if Path(plain).is_absolute()
        else " in " + (" or ".join(str(folder.absolute()) for folder in folders) or "any folder (no input folder is set)")
    )
    raise FileNotFoundError(f'there is no picture "{plain}"{where}; put the file there or give another, with its full path')


class LoadImage:
    """A picture file as IMAGE and MASK."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ([], {"image_upload": True})}, "hidden": {"folders": FOLDERS}}

    @classmethod
    def VALIDATE_INPUTS(cls, image, folders):
        if image is None:  # linked: known only when it runs
            return True
        try:
            find_picture(str(image), folders.input, folders.output)
        except FileNotFoundError as error:
            return str(error)
        return True

    def load_image(self, image, folders):
        path = find_picture(image, folders.input, folders.output)
        try:
            return read_frames(path)
        except PictureError as error:
            raise ValueError(f"{path}: cannot be read as a picture ({error.reason}). {error.remedy}") from error


class SaveImage:
    """IMAGE as PNG files `prefix_00001_.png`, with the workflow inside."""

    metadata = True  # embed prompt and workflow
    kind, compress_level = "output", 4
    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "ComfyUI"})}, "hidden": HIDDEN}

    def save_images(self, images, filename_prefix="ComfyUI", prompt=None, extra_pnginfo=None, folders=Folders()):
        import numpy as np
        from PIL import Image

        prefix = fill_prefix(filename_prefix, images[0].shape[1], images[0].shape[0], prompt)
        folder, name, counter = next_place(folders.output, prefix)
        info = text_chunks(prompt, extra_pnginfo) if self.metadata else None
        saved = []
        for i, image in enumerate(images):
            pixels = np.clip(255.0 * image.detach().cpu().float().numpy(), 0, 255).astype(np.uint8)
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            stem = name.replace("%batch_num%", str(i))
            path = write_new(
                (folder / f"{stem}_{number:05}_.png" for number in itertools.count(counter)),
                partial(save_png, picture, info=info, compress_level=self.compress_level),
            )
            counter = int(path.stem[len(stem) + 1 : -1]) + 1
            saved.append({"filename": path.name, "subfolder": os.path.dirname(os.path.normpath(prefix)), "type": self.kind})
        return {"ui": {"images": saved}}


class PreviewImage(SaveImage):
    """IMAGE as PNG files in the output folder's `preview`."""

    kind, compress_level = "temp", 1

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}, "hidden": HIDDEN}

    def save_images(self, images, prompt=None, extra_pnginfo=None, folders=Folders()):
        return super().save_images(images, "ComfyUI", prompt, extra_pnginfo, replace(folders, output=folders.output / PREVIEW_FOLDER))


class PreviewAny:
    """Any value as text."""

    RETURN_TYPES = ()
    FUNCTION = "main"
    OUTPUT_NODE = True
    CATEGORY = "utils"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"source": ("*", {})}}

    def main(self, source=None):
        if isinstance(source, str | int | float):
            return {"ui": {"text": (str(source),)}}
        try:
            text = json.dumps(source)
        except (TypeError, ValueError):
            text = str(source)
        return {"ui": {"text": ("None" if source is None else text,)}}


class ComfySwitchNode:
    """One of two values of any type; only the one that is taken is computed."""

    RETURN_TYPES = ("*",)
    FUNCTION = "execute"
    CATEGORY = "utils/logic"

    @classmethod
    def INPUT_TYPES(cls):
        lazy = ("*", {"lazy": True})
        return {"required": {"switch": ("BOOLEAN", {})}, "optional": {"on_false": lazy, "on_true": lazy}}

    def check_lazy_status(self, switch, on_false=..., on_true=...):  # None: connected, and not computed yet
        wanted, value = ("on_true", on_true) if switch else ("on_false", on_false)
        return [wanted] if value is None else []

    def execute(self, switch, on_false=None, on_true=None):
        return (on_true if switch else on_false,)


class StringContains:
    """Whether a text stands in another."""

    RETURN_TYPES = ("BOOLEAN",)
    FUNCTION = "execute"
    CATEGORY = "utils/string"

    @classmethod
    def INPUT_TYPES(cls):
        text = ("STRING", {"multiline": True})
        return {"required": {"string": text, "substring": text, "case_sensitive": ("BOOLEAN", {"default": True})}}

    def execute(self, string, substring, case_sensitive=True):
        return (substring in string if case_sensitive else substring.lower() in string.lower(),)


PRIMITIVES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PrimitiveInt", "INT", {"min": -sys.maxsize, "max": sys.maxsize, "control_after_generate": True}),
    ("PrimitiveFloat", "FLOAT", {"min": -sys.maxsize, "max": sys.maxsize}),
    ("PrimitiveString", "STRING", {}),
    ("PrimitiveStringMultiline", "STRING", {"multiline": True}),
    ("PrimitiveBoolean", "BOOLEAN", {}),
)


def _primitive(name: str, kind: str, options: dict) -> type:
    def declare(cls):
        return {"required": {"value": (kind, dict(options))}}

    def execute(self, value):
        return (value,)

    body = {
        "INPUT_TYPES": classmethod(declare),
        "execute": execute,
        "RETURN_TYPES": (kind,),
        "FUNCTION": "execute",
        "CATEGORY": "utils/primitive",
    }
    return type(name, (), body)


STANDINS: dict[str, NodeClass] = {
    cls.__name__: cls for cls in (LoadImage, SaveImage, PreviewImage, PreviewAny, ComfySwitchNode, StringContains)
} | {name: _primitive(name, kind, options) for name, kind, options in PRIMITIVES}  # {class type: V1 node class}

NAMES = {  # {class type: display name}, as in ComfyUI 0.33
    "LoadImage": "Load Image",
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
    "PreviewAny": "Preview as Text",
    "ComfySwitchNode": "If/Else Switch",
    "StringContains": "Contains Text",
    "PrimitiveInt": "Int",
    "PrimitiveFloat": "Float",
    "PrimitiveString": "Text",
    "PrimitiveStringMultiline": "Text (Multiline)",
    "PrimitiveBoolean": "Boolean",
}


def fill_prefix(prefix: str, width: int, height: int, prompt: dict | None = None) -> str:
    """Fill in the %…% of a filename_prefix: %width%, %year% … as the server, %date:yyyy-MM-dd% and %Node.widget% as the frontend does."""
    now = time.localtime()
    parts = {"year": now.tm_year, "month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}
    known = {"width": str(width), "height": str(height), **{name: str(value).zfill(2) for name, value in parts.items()}}
    letters = {"d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}

    def date(match: re.Match) -> str:
        unit = match.group()
        if unit[0] == "y":
            return str(now.tm_year)[-len(unit) :]
        return str(letters[unit[0]]).zfill(len(unit))

    def fill(match: re.Match) -> str:
        key = match.group(1)
        if key in known:
            return known[key]
        if key == "date" or key.startswith("date:"):
            return re.sub(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?", date, key[5:] or "yyyyMMddhhmmss")
        title, _, widget = key.rpartition(".")
        for node in (prompt or {}).values():
            value = values_of(node).get(widget)
            if title and title in ((node.get("_meta") or {}).get("title"), node.get("class_type")) and isinstance(value, str | int | float):
                return re.sub(r'[/?<>\\:*|"\x00-\x1f\x7f]', "_", str(value))
        return match.group()

    return re.sub(r"%([^%]+)%", fill, prefix)


def next_place(out_dir: Path, prefix: str, windows: bool = os.name == "nt") -> tuple[Path, str, int]:
    """(folder, made if absent; name; next number) for a filled-in filename_prefix. ValueError where it leads out of the output folder, or
    (`windows`) is a drive, a stream or a device there."""
    subfolder, name = os.path.split(os.path.normpath(prefix))
    folder = out_dir / subfolder
    if windows and not stays_inside(prefix) or "\0" in prefix:
        raise ValueError(f'filename_prefix "{prefix}" is no name for a file on this system; use letters, numbers, - and _')
    if not folder.resolve().is_relative_to(out_dir.resolve()):
        raise ValueError(
            f'filename_prefix "{prefix}" leads out of the output folder {out_dir.absolute()}; use a name or subfolder inside it'
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder, name, next_counter(folder, name)


def next_counter(folder: Path, name: str) -> int:
    """One more than the highest number that a file `name_NUMBER_…` of the folder has."""
    pattern = re.compile(re.escape(os.path.normcase(name)) + r"_(\d+)(?:_|$)")
    found = (pattern.match(os.path.normcase(entry.name)) for entry in folder.iterdir())
    return max((int(match.group(1)) for match in found if match), default=0) + 1
