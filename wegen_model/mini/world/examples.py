"""The small pictures that the example workflows begin with: scenes of the miniature's own world, drawn by its own code.

    python -m wegen.wegen_model.mini.world.examples [FOLDER]      draws them anew (workflows/pictures)

Art: the styles `noto` and `3d` of concepts.STYLES; credits and licences are in NOTICE.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from .art import Art, load_art
from .scenes import CENTRE, Item, Scene, boxed, canonical, pair, render

FOLDER = Path(__file__).parents[3] / "workflows" / "pictures"
TEDDY, SHIRT, HAT = "1f9f8", "1f455", "1f3a9"  # drawings without a name in the miniature's words

EXAMPLES: Mapping[str, Scene] = {
    # references
    "panda": canonical("panda", "white"),
    "rocket": canonical("rocket", "white"),
    "cactus": canonical("cactus", "white"),
    "teddy": Scene("white", (Item(TEDDY, "noto", CENTRE),)),
    "shirt": canonical(SHIRT, "white"),
    "hat": canonical(HAT, "white"),
    # to change
    "fox_on_beige": canonical("fox", "beige"),
    "cat_and_dog": boxed(("cat", "dog"), ((0, 0.25, 0.5, 0.5), (0.5, 0.25, 0.5, 0.5)), "lime"),
    "whale_3d": canonical("whale", "yellow", "3d"),
    "rocket_3d": canonical("rocket", "white", "3d"),
    "noisy_butterfly": Scene("yellow", canonical("butterfly", "yellow").items, "noise:1"),
    "torn_house": Scene("lime", canonical("house", "lime").items, "holes:3"),
    # conditions
    "cat_edges": Scene("blue", canonical("cat", "blue").items, "edges"),
    "whale_shape": Scene("beige", canonical("whale", "beige").items, "silhouette"),
    # to ask about
    "boat_and_panda": pair("sailboat", "panda", "cyan"),
    # to calculate with
    "cat_on_blue": canonical("cat", "blue"),
    "plain_blue": Scene("blue", ()),
    "plain_orange": Scene("orange", ()),
}


STICKER = "teddy_sticker"  # the teddy as a picture with transparency: a chequered ground lies under it, as image editors show it


def sticker(art: Art, size: int = 128) -> Image.Image:
    """The teddy, opaque, on a transparent chequered ground, as RGBA."""
    drawing = Image.fromarray(art.sprite(TEDDY)).resize((size * 3 // 4,) * 2, Image.Resampling.LANCZOS)
    rows, columns = np.mgrid[:size, :size] // 8
    ground = np.repeat(np.where((rows + columns) % 2, 160, 230).astype(np.uint8)[..., None], 3, -1)
    colours = Image.fromarray(ground)
    colours.paste(drawing, (size // 8, size // 8), drawing)
    opacity = Image.new("L", (size, size))
    opacity.paste(drawing.getchannel("A"), (size // 8, size // 8))
    colours.putalpha(opacity)
    return colours


def draw_examples(folder: Path = FOLDER, art: Art | None = None) -> list[Path]:
    """Write every picture as NAME.png, 128 pixels square. The art is fetched where it is not there yet."""
    art = art or load_art(("noto", "3d"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, scene in EXAMPLES.items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(render(scene, art)).save(paths[-1], optimize=True)
    paths.append(folder / f"{STICKER}.png")
    sticker(art).save(paths[-1], optimize=True)
    return paths


if __name__ == "__main__":
    draw_examples(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
