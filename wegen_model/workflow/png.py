"""The workflow inside a picture: PNG text chunks "prompt" (API format) and "workflow" (the canvas), as ComfyUI's Save Image writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..fileio import JSONError, atomic, parse_json
from ..images import PNG_SIGNATURE, PNG_TEXTS, png_chunks, png_text
from .spec import GraphError

MAX_TEXT = 64 << 20  # bytes of a text that is read: what Pillow reads of all of them together


def text_chunks(prompt: dict | None, extra: dict | None) -> Any:
    """PngInfo with `prompt` and each entry of `extra` (ComfyUI's EXTRA_PNGINFO) as JSON."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    chunks = {} if prompt is None else {"prompt": prompt}
    for name, value in [*chunks.items(), *(extra or {}).items()]:
        info.add_text(name, json.dumps(value))
    return info


def save_png(picture: Any, path: Path, info: Any, compress_level: int = 4) -> None:
    """Write a PIL picture so that `path` is either absent or complete."""
    with atomic(path) as part:
        picture.save(part, format="PNG", pnginfo=info, compress_level=compress_level)


def prompt_from_png(path: str | Path) -> dict[str, dict]:
    """{"prompt": API format, "workflow": the canvas}, each where present. Raises GraphError for a picture without either."""
    found: dict[str, dict] = {}
    text: dict[str, str | None] = {}
    try:
        with open(path, "rb") as file:
            if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
                raise ValueError("it is no PNG")
            for kind, content, _ in png_chunks(file):
                keyword = content.partition(b"\0")[0]
                if kind in PNG_TEXTS and keyword in (b"prompt", b"workflow"):
                    text[keyword.decode()] = png_text(kind, content, MAX_TEXT)[1]
    except (OSError, ValueError) as error:
        raise GraphError(
            f"{path}: cannot be read as a picture ({error}); give a workflow JSON or a PNG saved by ComfyUI or `wegen run`"
        ) from error
    for name, value in text.items():
        where = f'{path}: its embedded "{name}"'
        try:
            if value is None:
                raise JSONError(where, f"is damaged, or longer than {MAX_TEXT >> 20} MiB")
            found[name] = parse_json(value, where, MAX_TEXT, lenient=True)
        except JSONError as error:
            raise GraphError(f"{error}; use the workflow's own JSON file") from error
    if not found:
        raise GraphError(
            f"{path}: no workflow is embedded in this picture (another program may have removed it); "
            "use the file as first saved, or the workflow's JSON"
        )
    return found
