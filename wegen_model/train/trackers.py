"""Where a run's numbers and pictures go besides its log: TensorBoard, and every tracker that accelerate knows (`--track wandb`).

A tracker is never worth a run: one that is not installed, cannot be reached or breaks on the way is left out, with words.
"""

from __future__ import annotations

import json
import logging
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..fileio import read_json, write_text

_log = logging.getLogger("wegen")


class TensorBoard:
    """FOLDER/tensorboard; lines of steps that are run again take the place of earlier ones."""

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self.board.add_scalar(key, value, step)
        self.board.flush()

    def pictures(self, name: str, sheet: np.ndarray, texts: list[str], step: int) -> None:
        """`sheet` (h,w,3) uint8; `texts`: what was asked for, from left to right."""
        self.board.add_image(name, sheet, step, dataformats="HWC")
        self.board.add_text(f"{name} requests", "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1)), step)
        self.board.flush()

    def close(self) -> None:
        self.board.close()


class OfAccelerate:
    """One of accelerate's own trackers."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]):
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        made, more = LOGGER_TYPE_TO_CLASS[name], {}
        if name == "wandb":  # a run that goes on stays one run there
            more = {"id": _known_id(folder, name), "resume": "allow", "dir": str(folder), "name": str(folder)}
        self.tracker = made("wegen", str(folder), **more) if made.requires_logging_directory else made("wegen", **more)
        if hasattr(self.tracker, "start"):  # accelerate since 1.9; before, it starts when it is made
            self.tracker.start()
        self.tracker.store_init_configuration({k: list(v) if isinstance(v, tuple) else v for k, v in config.items()})

    def log(self, values: dict[str, float], step: int) -> None:
        self.tracker.log(values, step=step)

    def pictures(self, name: str, sheet: np.ndarray, texts: list[str], step: int) -> None:
        if hasattr(self.tracker, "log_images"):
            self.tracker.log_images({name: [sheet] if self.tracker.name == "wandb" else sheet[None]}, step=step)

    def close(self) -> None:
        self.tracker.finish()


class Trackers:
    """Those that were asked for and could be started."""

    def __init__(self, names: list[str], folder: Path, step: int, config: dict[str, Any]):
        self.open: dict[str, Any] = {}
        for name in names:
            try:
                self.open[name] = TensorBoard(folder, step) if name == "tensorboard" else OfAccelerate(name, folder, config)
            except Exception as error:  # noqa: BLE001 each tracker has its own ways to fail
                _log.warning("--track %s could not be started (%s); training goes on without it.", name, _said(error))

    def log(self, values: dict[str, float], step: int) -> None:
        self._each("log", values, step)

    def pictures(self, path: Path, texts: list[str], step: int) -> None:
        """A sheet of sample pictures, where there is one, and what was asked for."""
        if self.open and path.is_file():
            self._each("pictures", "samples", np.array(Image.open(path).convert("RGB")), texts, step)

    def close(self) -> None:
        self._each("close")

    def _each(self, what: str, *values: Any) -> None:
        for name, one in list(self.open.items()):
            try:
                getattr(one, what)(*values)
            except Exception as error:  # noqa: BLE001 as above
                del self.open[name]
                _log.warning("--track %s failed (%s); training goes on without it.", name, _said(error))


def check_names(names: list[str]) -> list[str]:
    """The names, each once. ValueError: a tracker that accelerate does not know."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"--track {name}: there is no such tracker. accelerate has {', '.join(LOGGER_TYPE_TO_CLASS)}.")
    return list(dict.fromkeys(names))


def _known_id(folder: Path, name: str) -> str:
    path = folder / "trackers.json"
    known = read_json(path) if path.is_file() else {}
    if name not in known:
        known[name] = secrets.token_hex(4)
        write_text(path, json.dumps(known))
    return known[name]


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"it is not installed: {text}" if isinstance(error, ImportError) else text or type(error).__name__
