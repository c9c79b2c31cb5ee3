"""Video made of drawn shapes: things that move and turn on plain grounds, with a cut to another scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from wegen.wegen_model.mini.concepts import COLOURS

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


SCENES = (("white", [("red", 0.1, 0.25), ("blue", 0.9, -0.25)]), ("navy", [("yellow", 0.5, 0.3)]),
          ("beige", [("green", 0.05, 0.3), ("purple", 0.5, -0.2), ("black", 0.95, 0.2)]))


def write(path: Path, scenes=SCENES, seconds: float = 2.0, rate: int = 12) -> Path:
    """An MP4 of the scenes, one after another."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 4_000_000
        for ground, things in scenes:
            for i in range(int(seconds * rate)):
                for packet in stream.encode(av.VideoFrame.from_ndarray(scene(ground, things, i / rate), format="rgb24")):
                    out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path
