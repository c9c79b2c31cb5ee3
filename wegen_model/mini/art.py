"""Sprites of the miniature's concepts: fetched as an npm package, checked, drawn once, kept in one file a style.

    npm pack  ->  tarball (sha256 must match concepts.STYLES)  ->  SVG  ->  resvg  ->  RGBA 256x256  ->  .npz

Shapes: a sprite is (256, 256, 4) uint8, straight (not premultiplied) alpha; a style's cache holds `names` (n,)
and `sprites` (n, 256, 256, 4). Sources and licences of the art are in concepts.STYLES; the package comes from
whatever registry the user's npm is set to.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import CONCEPTS, STYLES, Style

SPRITE_SIZE = 256
NPM_TIMEOUT = 300  # seconds
_FITTED_KEPT = 1024  # resized sprites kept per Art: a few sizes of each concept

log = logging.getLogger(__name__)


class ArtError(RuntimeError):
    """The art could not be fetched, drawn, stored or found; the text says what to do."""


class Art:
    """Sprites by (concept, style). `fitted` remembers sizes it has made, so drawing many scenes is cheap."""

    def __init__(self, sprites: Mapping[tuple[str, str], np.ndarray]):
        """sprites: (concept, style) -> (h, w, 4) uint8, straight alpha."""
        self._sprites = dict(sprites)
        self._fitted: dict[tuple[str, str, int, int], np.ndarray] = {}

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._sprites

    def sprite(self, concept: str, style: str = "noto") -> np.ndarray:
        """(256, 256, 4) uint8, straight alpha. ArtError when this style has no such concept."""
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
    key = hashlib.sha256(json.dumps([row.sha256, SPRITE_SIZE, sorted(_icons(style).items())]).encode()).hexdigest()
    return Path(cache or cache_dir()) / f"art-{style}-{row.version}-{key[:10]}.npz"


def load_art(styles=("noto",), cache: str | os.PathLike | None = None, *, fetch: bool = True, runtime=None) -> Art:
    """The sprites of every concept in these styles, drawn on the first call and read from the cache afterwards.

    cache: a folder; default cache_dir(). fetch=False never starts npm: absent art is then an error.
    runtime: anything with tick(i, n, what) for progress and cancelling. Errors: ArtError.
    """
    sprites: dict[tuple[str, str], np.ndarray] = {}
    for style in styles:
        path = cache_path(style, cache)
        drawn = _read(path, style)
        if drawn is None:
            if not fetch:
                raise ArtError(f"the art of style {style!r} is not at {path}: load_art() with fetch=True makes it")
            log.info("fetching %s %s with npm and drawing it to %s", _style(style).package, _style(style).version, path)
            drawn = _draw(_icon_set(_style(style)), style, runtime)
            _write(path, drawn)
        sprites.update({(concept, style): sprite for concept, sprite in drawn.items()})
    return Art(sprites)


def _style(name: str) -> Style:
    if name not in STYLES:
        raise ArtError(f"no style {name!r}: the styles are {', '.join(STYLES)}")
    return STYLES[name]


def _icons(style: str) -> dict[str, str]:
    return {c.name: c.icons[style] for c in CONCEPTS if style in c.icons}


# -- fetching ------------------------------------------------------------------------------------------------


def _icon_set(style: Style) -> dict:
    """The package's icons.json, after its tarball's hash was checked."""
    wanted = f"{style.package}@{style.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise ArtError(f"npm was not found, and {wanted} (the art) comes with it: install Node.js, or put npm on PATH")
    with tempfile.TemporaryDirectory(prefix="wegen-art-") as folder:
        try:
            done = subprocess.run(
                [npm, "pack", wanted, "--ignore-scripts"],
                cwd=folder, capture_output=True, text=True, errors="replace", timeout=NPM_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ArtError(f"npm pack {wanted} gave no answer in {NPM_TIMEOUT} s: is the network up?") from None
        except OSError as error:
            raise ArtError(f"npm ({npm}) did not start: {error}") from error
        tarballs = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not tarballs:
            raise ArtError(f"npm could not fetch {wanted}: {_last_line(done.stderr)}")
        data = tarballs[0].read_bytes()
    check_hash(style, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tarball:
        return json.load(tarball.extractfile("package/icons.json"))


def check_hash(style: Style, data: bytes) -> None:
    """ArtError unless `data` is the very tarball that the table of styles names."""
    found = hashlib.sha256(data).hexdigest()
    if found != style.sha256:
        raise ArtError(
            f"{style.package}@{style.version} is not the package this was made with: "
            f"expected sha256 {style.sha256}, found {found}. Nothing of it was used."
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "complete log" not in line and "npm-cache" not in line and "_logs" not in line]
    return (telling or lines or ["it gave no reason"])[-1]


# -- drawing -------------------------------------------------------------------------------------------------


def _draw(icon_set: dict, style: str, runtime=None) -> dict[str, np.ndarray]:
    try:
        import resvg_py
    except ImportError:
        raise ArtError("drawing the art needs resvg_py: pip install resvg-py") from None
    drawn, icons = {}, _icons(style)
    for i, (concept, icon) in enumerate(icons.items()):
        if runtime is not None:
            runtime.tick(i, len(icons), f"drawing {style} art")
        data = resvg_py.svg_to_bytes(
            svg_string=_svg(icon_set, icon), width=SPRITE_SIZE, height=SPRITE_SIZE, skip_system_fonts=True
        )
        picture = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
        if picture.size != (SPRITE_SIZE, SPRITE_SIZE):  # an icon that is not square: centred
            square = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
            square.paste(picture, ((SPRITE_SIZE - picture.width) // 2, (SPRITE_SIZE - picture.height) // 2))
            picture = square
        drawn[concept] = np.array(picture)
    return drawn


def _svg(icon_set: dict, name: str) -> str:
    """An SVG document of one icon of an Iconify set (names may be plain aliases)."""
    name = icon_set.get("aliases", {}).get(name, {}).get("parent", name)
    if name not in icon_set["icons"]:
        raise ArtError(f"the package has no icon {name!r}: correct its name in mini/concepts.py")
    icon = icon_set["icons"][name]
    left, top, width, height = (
        icon.get(key, icon_set.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


# -- the cache -----------------------------------------------------------------------------------------------


def _read(path: Path, style: str) -> dict[str, np.ndarray] | None:
    """The sprites in a cache file; None when it is absent, cut short or of another shape (it is then rebuilt)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, sprites = [str(name) for name in stored["names"]], stored["sprites"]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("%s cannot be read (%s); it is made again", path, error)
        return None
    if sorted(names) != sorted(_icons(style)) or sprites.dtype != np.uint8:
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
            f"cannot store the art in {path.parent}: {reason}. It needs 10 MB; set WEGEN_CACHE to use another folder."
        ) from error
