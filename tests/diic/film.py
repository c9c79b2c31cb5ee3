"""Video made here: things that move and turn on plain grounds, with a cut to another scene. Drawn shapes, or open art (Noto Emoji) cut
out of the pictures that come with the pack."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
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


OTHER = (  # for a second film: other things, so that it repeats nothing
    ("navy", [("orange", 0.2, 0.3), ("white", 0.85, -0.22)]),
    ("white", [("green", 0.5, -0.3), ("black", 0.0, 0.2)]),
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
    shown = [(ground, things, i / rate) for ground, things in scenes for i in range(int(seconds * rate))]
    return record(path, (scene(ground, things, t) for ground, things, t in shown), rate)


def record(
    path: Path, frames, rate: int = 12, times=None, codec: str = "mpeg4", turn: int = 0, pixels: Fraction | None = None, **options
) -> Path:
    """A film of pictures (h,w,3), in the container that the path's ending names.

    times: seconds of each (default: `rate` a second). turn: degrees of the display matrix, counter-clockwise. pixels: width of a pixel by its
    height. options: of the codec.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    stream, base = None, Fraction(1, 1000)
    with av.open(str(path), "w") as out:
        for i, p in enumerate(frames):
            if stream is None:
                stream = out.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = p.shape[:2]
                stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
                if times is not None:
                    stream.codec_context.time_base = base
                if pixels is not None:
                    stream.codec_context.sample_aspect_ratio = pixels
                if turn:
                    stream.set_display_rotation(turn)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(p), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[i] / base), base
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path


def ground(seed: int, size: tuple[int, int] = (1400, 700)) -> np.ndarray:
    """(h,w,3) a wide plain of soft spots, the same for a seed: a background in which a camera's motion is seen."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (size[1] // 20, size[0] // 20, 3), np.uint8)
    out = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(out)
    for _ in range(400):
        x, y, r = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(4, 16)
        draw.rectangle((x, y, x + r, y + r), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return np.array(out)


def seen(plain: np.ndarray, left: float, top: float = 100, wide: int = 480, high: int = 320) -> np.ndarray:
    """What a camera sees of a plain."""
    return plain[round(top) : round(top) + high, round(left) : round(left) + wide]


def caption(picture: np.ndarray, lines: list[str], size: int = 22) -> np.ndarray:
    """Lines of text laid over a picture's foot, white with a black edge, as subtitles are."""
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for i, line in enumerate(reversed(lines), 1):
        draw.text((20, image.height - i * size * 1.25), line, fill="white", stroke_width=2, stroke_fill="black", font=font)
    return np.array(image)
