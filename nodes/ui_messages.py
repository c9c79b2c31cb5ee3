"""What nodes and the pack's own scripts (js/) exchange: pictures by file, colours of features, messages while a node runs.

A picture by file is {"filename", "subfolder", "type"}, type one of PLACES, as ComfyUI's /view takes it. Inside ComfyUI the folders are its
own; headless, pictures are read from `input`, the working folder or `output`, and none is written.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from pathlib import Path
from typing import Any

from ..wegen_model.progress import ProgressEvent
from . import host
from .host.progress import Listener

PLACES = ("input", "output", "temp")
THUMB = 160  # pixels, longer side
PER_SECOND = 10  # messages
MESSAGES = {"write_text": "text", "write_features": "features", "denoise": "paint"}  # kinds of progress -> kinds of messages


def load_picture(file: dict, where: str):
    """IMAGE (1,h,w,3), or (1,h,w,4) of a picture with transparency.

    `file` was checked by `wegen_model.transcript`; here its path is made sure to stay inside its folder.

    Raises:
        ValueError: the file is gone, or no picture; says which turn names it.
    """
    from ..wegen_model.images import PictureError, read_reference
    from ..wegen_model.workflow.standins import find_picture

    name = "/".join(part for part in (file["subfolder"], file["filename"]) if part)
    try:
        if host.inside_comfyui():
            root = Path(_folder(file["type"])).resolve()
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise ValueError(f"{where}: «{name}» leads out of the {file['type']} folder. Take the picture out of the message.")
        else:
            path = find_picture(f"{name} [{file['type']}]", [Path("input"), Path(".")], Path("output"))
        return read_reference(path, name)
    except (OSError, PictureError) as error:
        reason = error.reason if isinstance(error, PictureError) else error
        raise ValueError(
            f"{where}: the picture «{name}» ({file['type']} folder) cannot be read: {reason}. Put the file back, or take the "
            "turn out of the conversation."
        ) from error


def save_picture(image: Any, prefix: str, prompt: dict | None = None, extra: dict | None = None) -> dict | None:
    """Save IMAGE (1,h,w,3) as PNG below ComfyUI's output folder, the workflow inside as Save Image has it; None when headless."""
    if not host.inside_comfyui():
        return None
    from ..wegen_model.workflow.png import save_png, text_chunks

    paths, picture = sys.modules["folder_paths"], _pil(image)
    folder, name, counter, subfolder, _ = paths.get_save_image_path(prefix, paths.get_output_directory(), *picture.size)
    args = getattr(sys.modules.get("comfy.cli_args"), "args", None)
    info = None if getattr(args, "disable_metadata", False) else text_chunks(prompt, extra)
    save_png(picture, Path(folder) / f"{name}_{counter:05}_.png", info)
    return {"filename": f"{name}_{counter:05}_.png", "subfolder": subfolder, "type": "output"}


def save_thumb(image: Any, key: str, side: int = THUMB) -> dict | None:
    """A JPEG of at most `side` pixels in ComfyUI's temp folder for the canvas of Bbox Compose; None when headless."""
    if not host.inside_comfyui() or image is None:
        return None
    import hashlib

    from ..wegen_model.fileio import atomic

    picture = _pil(image)
    picture.thumbnail((side, side))
    folder = Path(sys.modules["folder_paths"].get_temp_directory())
    name = f"wegen-{key}-{hashlib.sha256(picture.tobytes()).hexdigest()[:16]}.jpg"
    with atomic(folder / name) as part:
        picture.save(part, "JPEG", quality=85)
    return {"filename": name, "subfolder": "", "type": "temp"}


def colours(features: Any) -> list[list[str]]:
    """The cells of each row of features as #rrggbb, row-major, for `wegen_features` in a node's ui."""
    from ..wegen_model.features import mosaic

    return [hexes(mosaic(row, features.grid)) for row in features.tokens[:8]]


def hexes(cells: Any) -> list[str]:
    """(rows,columns,3) in 0..1 to #rrggbb each."""
    return ["#%02x%02x%02x" % tuple(cell) for cell in (cells.reshape(-1, 3) * 255).round().int().tolist()]


def chat_progress(turn: str) -> Listener:
    """For `host.watch`: what the chat panel shows while its turn is answered, as `wegen.chat` messages (js/chat/ names their kinds)."""
    last: dict[str, float] = {}
    said = sent = ""

    def listen(event: ProgressEvent) -> None:
        nonlocal said, sent
        now, said = time.monotonic(), event.text or said
        if not event.done and now - last.get(event.label, 0.0) < 1 / PER_SECOND:
            return
        last[event.label] = now
        message: dict[str, Any] = {"turn": turn, "kind": MESSAGES.get(event.kind, event.label), "i": event.step, "n": event.total}
        if said != sent:  # with whatever comes next: the last words of a reply may fall between two messages
            message["text"] = sent = said
        if event.cells is not None:
            message["cells"] = hexes(event.cells())
        elif event.preview is not None:
            message["picture"] = _data_url(event.preview())
        send("wegen.chat", message)

    return listen


def grid_progress() -> Listener:
    """For `host.watch`: the grid below the running node fills while its features are written, as `wegen.features` messages."""
    last = 0.0

    def listen(event: ProgressEvent) -> None:
        nonlocal last
        if event.cells is None or (not event.done and time.monotonic() - last < 1 / PER_SECOND):
            return
        last = time.monotonic()
        send("wegen.features", {"node": host.executing_node(), "cells": hexes(event.cells()), "n": event.total})

    return listen


def send(event: str, data: dict) -> None:
    """A message to the browser that queued the running prompt; nothing when headless."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and host.inside_comfyui():
        server.send_sync(event, data, server.client_id)


def _pil(image: Any):
    from PIL import Image

    from ..wegen_model.chat.boxes import _rgb

    return Image.fromarray((_rgb(image).clamp(0, 1).nan_to_num() * 255).round().byte().numpy())


def _data_url(picture: Any) -> str:
    out, image = io.BytesIO(), _pil(picture[None])
    image.thumbnail((512, 512))
    image.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _folder(kind: str) -> str:
    return sys.modules["folder_paths"].get_directory_by_type(kind)
