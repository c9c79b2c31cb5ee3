"""Sprites of the miniature's concepts: fetched as an npm package, checked, drawn once, kept in one file a style.

    npm pack  ->  tarball (sha256 must match concepts.STYLES)  ->  SVG  ->  resvg  ->  RGBA 160x160  ->  .npz

Shapes: a sprite is (160, 160, 4) uint8, straight (not premultiplied) alpha; a style's cache holds `names` (n,)
and `sprites` (n, 160, 160, 4). Sources and licences of the art are in concepts.STYLES; the package comes from
whatever registry the user's npm is set to.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from .art_download import SPRITE_SIZE, ArtError, draw
from .concepts import CONCEPTS, DRAWINGS, HELD_OUT_DRAWINGS, OFFERED_STYLES, STYLES, Style

_FITTED_KEPT = 8192  # resized sprites kept per Art: a few sizes of each concept

log = logging.getLogger(__name__)


class Art:
    """Sprites by (concept, style). `fitted` remembers sizes it has made, so drawing many scenes is cheap."""

    def __init__(self, sprites: Mapping[tuple[str, str], np.ndarray]):
        """sprites: (concept, style) -> (h, w, 4) uint8, straight alpha."""
        self._sprites = dict(sprites)
        self._fitted: dict[tuple[str, str, int, int], np.ndarray] = {}

    def keys(self):
        """(concept, style) of every drawing."""
        return self._sprites.keys()

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._sprites

    def sprite(self, concept: str, style: str = "noto") -> np.ndarray:
        """(160, 160, 4) uint8, straight alpha. ArtError when this style has no such concept."""
        try:
            return self._sprites[concept, style]
        except KeyError:
            offered = ", ".join(sorted(c for c, s in self._sprites if s == style))
            raise ArtError(
                f"no drawing of {concept!r} in style {style!r}: "
                + (f"it offers {offered}" if offered else "that style is not loaded (load_art(styles=…))")
            ) from None

    def fitted(self, concept: str, style: str, width: int, height: int) -> np.ndarray:
        """The sprite without its transparent rim, at the largest size that fits width x height, aspect kept.

        Returns (h, w, 4) uint8 with *premultiplied* alpha; do not write to it.
        """
        key = (concept, style, width, height)
        if key not in self._fitted:
            if len(self._fitted) >= _FITTED_KEPT:
                self._fitted.clear()
            self._fitted[key] = _fit(self.sprite(concept, style), width, height)
        return self._fitted[key]


def _fit(sprite: np.ndarray, width: int, height: int) -> np.ndarray:
    solid = sprite[..., 3] >= 8
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    if len(rows):
        sprite = sprite[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(width / sprite.shape[1], height / sprite.shape[0])
    size = max(1, round(sprite.shape[1] * scale)), max(1, round(sprite.shape[0] * scale))
    picture = Image.fromarray(np.ascontiguousarray(sprite)).convert("RGBa").resize(size, Image.Resampling.LANCZOS)
    fitted = np.array(picture)
    np.minimum(fitted[..., :3], fitted[..., 3:], out=fitted[..., :3])  # the filter overshoots at edges
    return fitted


def cache_dir() -> Path:
    """Where drawn art is kept: the environment variable WEGEN_CACHE, else ~/.cache/wegen."""
    return Path(os.environ.get("WEGEN_CACHE") or Path.home() / ".cache" / "wegen")


def cache_path(style: str = "noto", cache: str | os.PathLike | None = None) -> Path:
    """The file a style is kept in. Its name changes with the package and with the table of concepts."""
    row = _style(style)
    key = hashlib.sha256(json.dumps([row.sha256, SPRITE_SIZE, sorted(wanted().items())]).encode()).hexdigest()
    return Path(cache or cache_dir()) / f"art-{style}-{row.version}-{key[:10]}.npz"


def wanted() -> dict[str, str]:
    """Every drawing by its key (a concept's name, or the code point of one without a name) -> its code point."""
    return {c.name: c.codepoint for c in CONCEPTS} | {c: c for c in (*DRAWINGS, *HELD_OUT_DRAWINGS)}


def load_art(styles=OFFERED_STYLES, cache: str | os.PathLike | None = None, *, fetch: bool = True, runtime=None) -> Art:
    """The sprites of every concept and drawing in these styles, drawn on the first call and read from the cache afterwards.

    cache: a folder; default cache_dir(). fetch=False never starts npm: absent art is then an error.
    runtime: anything with tick(event) for progress and cancelling. Errors: ArtError.
    """
    sprites: dict[tuple[str, str], np.ndarray] = {}
    for style in styles:
        path = cache_path(style, cache)
        drawn = _read(path)
        if drawn is None:
            if not fetch:
                raise ArtError(f"the art of style {style!r} is not at {path}: load_art() with fetch=True makes it")
            row = _style(style)
            log.info("fetching %s %s with npm and drawing it to %s", row.package, row.version, path)
            drawn = draw(row, runtime)
            _write(path, drawn)
        sprites.update({(key, style): sprite for key, sprite in drawn.items()})
    return Art(sprites)


def _style(name: str) -> Style:
    if name not in STYLES:
        raise ArtError(f"no style {name!r}: the styles are {', '.join(STYLES)}")
    return STYLES[name]


# -- the cache -----------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The sprites in a cache file; None when it is absent, cut short or of another shape (it is then rebuilt)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, sprites = [str(name) for name in stored["names"]], stored["sprites"]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s cannot be read (%s); it is made again", path, error)
        return None
    if not set(names) <= set(wanted()) or not names or sprites.dtype != np.uint8:
        return None
    if sprites.shape != (len(names), SPRITE_SIZE, SPRITE_SIZE, 4):
        return None
    return dict(zip(names, sprites))


def _write(path: Path, drawn: dict[str, np.ndarray]) -> None:
    """Atomic: readers see the old file or the whole new one."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.savez_compressed(file, names=np.array(list(drawn)), sprites=np.stack(list(drawn.values())))
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        reason = "the disk is full" if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)) else str(error)
        raise ArtError(
            f"cannot store the art in {path.parent}: {reason}. It needs 60 MB a style; set WEGEN_CACHE to use another folder."
        ) from error
