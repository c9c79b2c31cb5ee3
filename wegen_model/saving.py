"""Errors of saving that say what could not be written, where, how much room there is, and what is kept."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


class SaveFailed(OSError):
    """The disk is full, or the folder cannot be written; what was there before is intact."""


@contextlib.contextmanager
def writing(what: str, target: Path, kept: str) -> Iterator[None]:
    """SaveFailed for whatever cannot be written into `target`; `kept` says what there still is, and what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise SaveFailed(
            f"{what} could not be written to {target} ({reason(error)}; {free_gb(target):.2f} GB are free there). {kept}"
        ) from error


def reason(error: Exception | None) -> str:
    """One line: shutil tells of every file, torch of a line of its source."""
    if error is None:
        return "another process failed"
    if isinstance(error, RuntimeError):
        return f"a file came out short: {str(error).splitlines()[0].partition('] ')[2].strip(' .') or error}"
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][2])
    return str(error)


def free_gb(place: Path) -> float:
    """GB free on the disk of a file or folder, which need not exist yet."""
    return shutil.disk_usage(next(p for p in (place, *place.absolute().parents) if p.exists())).free / 1e9
