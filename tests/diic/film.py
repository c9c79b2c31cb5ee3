"""Video made here: things that move and turn on plain grounds, with a cut to another scene. Drawn shapes, or open art (Noto Emoji) cut
out of the pictures that come with the pack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from wegen.wegen_model.mini.world.concepts import COLOURS

SIZE = (192, 128)


def shape(colour: str, side: int, turn: float) -> Image.Image:
    """A flag-like thing that looks different from every side, turned by some degrees."""
    out = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(out)
    draw.rounded_rectangle((side * 0.1, side * 0.25, side * 0.9, side * 0.75), side // 8, fill=COLOURS[colour])
    draw.polygon([(side * 0.5, side * 0.02), (side * 0.8, side * 0.4), (side * 0.2, side * 0.4)], fill=COLOURS[colour])
    return out.rotate(turn, Image.Resampling.NEAREST)


def scene(ground: str, things: list[tuple[str, float, float]], t: float) -> np.ndarray:
    """`things`: colour, height 0..1, speed in widths a second (negative: from the right)."""
    out = Image.new("RGB", SIZE, COLOURS[ground])
    for colour, height, speed in things:
        side = 40
        x = speed * t * SIZE[0] if speed > 0 else SIZE[0] - side + speed * t * SIZE[0]
        thing = shape(colour, side, 20 * np.sin(4 * t + height * 9))
        out.paste(thing, (round(x + 4), round(height * (SIZE[1] - side))), thing)
    return np.array(out)


SCENES = (
    ("white", [("red", 0.1, 0.25), ("blue", 0.9, -0.25)]),
    ("navy", [("yellow", 0.5, 0.3)]),
    ("beige", [("green", 0.05, 0.3), ("purple", 0.5, -0.2), ("black", 0.95, 0.2)]),
)


PICTURES = Path(__file__).parents[2] / "workflows" / "pictures"
ART = {"fox": "fox_on_beige", "cat": "cat_on_blue", "panda": "panda", "rocket": "rocket", "cactus": "cactus"}  # thing -> its picture
# ground, and of each thing: name, height 0..1, speed in widths a second
ART_SCENES = (
    ("white", [("fox", 0.0, 0.22), ("rocket", 1.0, -0.22)]),
    ("navy", [("panda", 0.5, 0.22)]),
    ("beige", [("cat", 0.0, 0.2), ("cactus", 1.0, -0.2)]),
    ("teal", [("panda", 0.0, -0.22), ("cat", 1.0, 0.22)]),
)


def sprite(name: str) -> Image.Image:
    """(RGBA) a thing without its plain ground: what is joined to the border and of its colour is transparent."""
    picture = Image.open(PICTURES / f"{ART[name]}.png").convert("RGB")
    solid = picture.copy()
    for x, y in ((0, 0), (127, 0), (0, 127), (127, 127)):
        ImageDraw.floodfill(solid, (x, y), (255, 0, 254), thresh=24)
    alpha = (np.array(solid) != (255, 0, 254)).any(-1)
    out = Image.fromarray(np.dstack([np.array(picture), alpha * np.uint8(255)]))
    return out.crop(out.getbbox())


def art_scene(ground: str, things: list[tuple[str, float, float]], t: float, side: int = 92) -> np.ndarray:
    """As `scene`, of open art: it sways as it moves. Square, and things of half its side: as the miniature knows them."""
    size = (192, 192)
    out = Image.new("RGB", size, COLOURS[ground])
    for name, height, speed in things:
        thing = sprite(name)
        thing = thing.resize((round(thing.width * side / max(thing.size)), round(thing.height * side / max(thing.size))))
        thing = thing.rotate(5 * np.sin(3 * t + height * 9), Image.Resampling.BICUBIC, expand=True)
        x = speed * t * size[0] if speed > 0 else size[0] - side + speed * t * size[0]
        out.paste(thing, (round(x), round(height * (size[1] - side))), thing)
    return np.array(out)


def write(path: Path, scenes=SCENES, seconds: float = 2.0, rate: int = 12, scene=scene) -> Path:
    """An MP4 of the scenes, one after another."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        height, width = scene(*scenes[0], 0).shape[:2]
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        for ground, things in scenes:
            for i in range(int(seconds * rate)):
                for packet in stream.encode(av.VideoFrame.from_ndarray(scene(ground, things, i / rate), format="rgb24")):
                    out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path
