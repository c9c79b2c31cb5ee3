"""A film's frames as its container means them: the clock's start, missing and falling stamps, variable rate, rotation, pixels that are not
square, interlaced fields, cover pictures, damaged packets. PyAV decodes.

Times are seconds since the film's first frame: what an .mpg whose clock starts at 0.54 s calls 2.54 is 2.0 here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.optional import need
from ..data.record import Unreadable
from ..images import from_video

BEFORE = (0.0, 3.0, 20.0)  # seconds before its aim to which a seek goes, until one lands before the aim; then from the beginning
JITTER = 0.25  # seconds: program streams stamp a frame too early or late now and then


@dataclass
class Film:
    """A video file. `width`, `height`: as it is shown, upright and with square pixels. `seconds`: None where its container does not say."""

    path: Path
    width: int
    height: int
    seconds: float | None
    rate: float
    origin: float  # seconds on the container's clock of the first frame
    stamped: bool  # whether its frames have stamps
    splits: bool  # whether a time can be sought without having read what is before it: not where stamps may start anew (MPEG streams)
    fell: bool = False  # whether a stamp fell back in what was read: times behind it are not those that a seek finds
    lost: list[str] = field(default_factory=list)  # what could not be decoded, in words


def probe(path: Path, name: str = "") -> Film:
    """A film's head. Unreadable: no video, or none whose frames can be decoded."""
    av = need("av")
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            frame = next(container.decode(stream), None)
            if frame is None:
                raise Unreadable(f"{name or path.name}: its video has no frame")
            stamps = stream.start_time is not None and frame.time is not None
            origin = float(stream.start_time * stream.time_base) if stamps else float(frame.time or 0)
            seconds = _seconds(stream.duration, stream.time_base) or _seconds(container.duration, 1 / av.time_base)
            high, wide = _shown_size(frame, stream)
            discontinuous = bool(container.format.flags & av.format.Flags.ts_discont.value)
            origin = min(origin, float(frame.time or origin))
            return Film(path, wide, high, seconds, _rate(stream), origin, stamps, stamps and not discontinuous)
    except (av.FFmpegError, StopIteration, IndexError, ValueError, OSError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{name or path.name}: not a video that can be read ({type(error).__name__}: {error})") from error


def frames(film: Film, start: float = 0.0, end: float | None = None, seek: bool = True) -> Iterator[tuple[float, Any]]:
    """Time and frame (PyAV's) of every frame shown from `start` until before `end`. What cannot be decoded is left out and told in
    `film.lost`. Without `seek`, or where there are no stamps, the film is read from its beginning."""
    av = need("av")
    aims = [start - before for before in BEFORE] if seek and film.stamped else []
    for aim in (*aims, 0.0):
        with av.open(str(film.path)) as container:
            stream = _stream(container)
            stream.thread_type = "AUTO"
            if aim > 0:
                container.seek(int((film.origin + aim) / stream.time_base), stream=stream)
            clock, first = _Clock(film), True
            for frame in _decoded(container, stream, film):
                now = clock(frame)
                if first and aim > 0 and now > start + 0.5 / film.rate:
                    break  # the seek went past its aim
                first = False
                if end is not None and now >= end - 1e-6:
                    return
                if now >= start - 1e-6:
                    yield now, frame
            else:
                return
    return


def picture(frame: Any, film: Film, side: int) -> np.ndarray:
    """(h,w,3) uint8 sRGB of a frame, upright, with square pixels, its longer side at most `side`."""
    return from_video(frame, side, film.path.name, _aspect(frame, film))


def small(frame: Any, side: int = 256) -> np.ndarray:
    """(h,w,3) uint8 in OpenCV's order, of at most `side` pixels, as it is stored: for comparing neighbours."""
    scale = min(1.0, side / max(frame.width, frame.height))
    wide, high = (max(8, round(v * scale)) for v in (frame.width, frame.height))
    return frame.to_ndarray(format="bgr24", width=wide, height=high)


class _Clock:
    """Seconds since the first frame, never falling. A frame without a stamp comes a frame's length after the one before it; one whose stamp
    falls back by more than JITTER (streams that were joined) does too, and those behind it follow."""

    def __init__(self, film: Film):
        self.film, self.shift = film, 0.0
        self.last: float | None = None

    def __call__(self, frame: Any) -> float:
        step, now = 1 / self.film.rate, None if frame.time is None else float(frame.time) - self.film.origin + self.shift
        if now is None:
            now = 0.0 if self.last is None else self.last + step
        elif self.last is not None and now < self.last - JITTER:
            self.film.fell = True
            self.shift += self.last + step - now
            now = self.last + step
        self.last = now if self.last is None else max(now, self.last)
        return self.last


def _decoded(container: Any, stream: Any, film: Film) -> Iterator[Any]:
    """Whole frames; packets that cannot be decoded are counted."""
    av = need("av")
    lost = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                if frame.is_corrupt:
                    lost += 1
                else:
                    yield frame
        except av.EOFError:
            break
        except (av.FFmpegError, OSError) as error:
            lost += 1
            if not isinstance(error, av.InvalidDataError):
                film.lost.append(f"it ends early ({error})")
                break
    if lost:
        film.lost.append(f"{lost} of its packets or frames are damaged")


def _stream(container: Any) -> Any:
    """The video among a container's streams: the best that is no cover picture."""
    cover = need("av").stream.Disposition.attached_pic
    shown = [s for s in container.streams.video if not s.disposition & cover]
    best = container.streams.best("video")
    if not shown:
        raise Unreadable("it holds no moving picture")
    return best if best in shown else shown[0]


def _seconds(value: Any, base: Any) -> float | None:
    return float(value * base) if value and value > 0 else None


def _rate(stream: Any) -> float:
    """Frames a second, for frames without a stamp."""
    rate = stream.average_rate or stream.guessed_rate or 25
    return float(rate) if 0 < float(rate) < 1000 else 25.0


def _aspect(frame: Any, film: Film) -> float:
    """Width of a pixel by its height, of the stored frame."""
    wide, high = (film.height, film.width) if frame.rotation % 180 else (film.width, film.height)
    return (wide / high) / (frame.width / frame.height)


def _shown_size(frame: Any, stream: Any) -> tuple[int, int]:
    """Rows and columns of the upright picture with square pixels, at its full height."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
    ratio = float(ratio) if 0.1 < float(ratio) < 10 else 1.0
    wide, high = max(1, round(frame.width * ratio)), frame.height
    return (wide, high) if frame.rotation % 180 else (high, wide)
