"""The art's packages: fetched with npm, checked by hash, and drawn.

    npm pack  ->  tarball (sha256 must match concepts.STYLES)  ->  SVG or WebP  ->  RGBA sprites

The packages come from whatever registry the user's npm is set to; nothing of a package that is not the very one is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ...progress import ProgressEvent
from .concepts import CONCEPTS, DRAWINGS, HELD_OUT_DRAWINGS, STYLES, Style

SPRITE_SIZE = 160
NPM_TIMEOUT = 300  # seconds


class ArtError(RuntimeError):
    """The art could not be fetched, drawn, stored or found; the text says what to do."""


# -- fetching ------------------------------------------------------------------------------------------------


def members(style: Style) -> dict[str, bytes]:
    """The files of a style's package by their path in it, after its tarball's hash was checked."""
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
        files = ((m.name, tarball.extractfile(m)) for m in tarball.getmembers() if m.isfile())
        return {name.removeprefix("package/"): file.read() for name, file in files if file is not None}


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


def draw(style: Style, runtime=None) -> dict[str, np.ndarray]:
    """Every drawing that this style has, by key: (160, 160, 4) uint8, straight alpha. A named concept may be absent only where the
    style knows no icon for its code point."""
    files = members(style)
    if style.webp:
        icons = {_plain(Path(name).stem): name for name in files if name.startswith(style.webp + "/") and name.endswith(".webp")}
        paint: Callable[[str], Image.Image] = lambda name: Image.open(io.BytesIO(files[name]))  # noqa: E731
    else:
        icon_set = json.loads(files["icons.json"])
        named = members(STYLES[style.names_of]) if style.names_of else files
        known = {*icon_set["icons"], *icon_set.get("aliases", {})}
        icons = {_plain(code): name for code, name in json.loads(named["chars.json"]).items() if name in known}
        paint = lambda name: _render(_svg(icon_set, name))  # noqa: E731
    keys = {c.name: c.codepoint for c in CONCEPTS} | {c: c for c in (*DRAWINGS, *HELD_OUT_DRAWINGS)}
    drawn = {}
    for i, (key, code) in enumerate(keys.items()):
        if runtime is not None:
            runtime.tick(ProgressEvent("other", i, len(keys), label=f"drawing {style.name} art"))
        if code in icons:
            drawn[key] = _square(paint(icons[code]))
    return drawn


def _plain(code: str) -> str:
    return code.lower().removesuffix("-fe0f")


def _square(picture: Image.Image) -> np.ndarray:
    """Centred on a transparent square, at the size of sprites."""
    picture = picture.convert("RGBA")
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    if side != SPRITE_SIZE:
        square = square.convert("RGBa").resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS).convert("RGBA")
    return np.array(square)


def _render(svg: str) -> Image.Image:
    try:
        import resvg_py
    except ImportError:
        raise ArtError("drawing the art needs resvg_py: pip install resvg-py") from None
    data = resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_SIZE, height=SPRITE_SIZE, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(data)))


def _svg(icon_set: dict, name: str) -> str:
    """An SVG document of one icon of an Iconify set (names may be plain aliases)."""
    name = icon_set.get("aliases", {}).get(name, {}).get("parent", name)
    if name not in icon_set["icons"]:
        raise ArtError(f"the package has no icon {name!r}: correct its name in mini/concepts.py")
    icon = icon_set["icons"][name]
    left, top, width, height = (
        icon.get(key, icon_set.get(key, default)) for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )
