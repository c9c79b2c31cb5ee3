"""From a video to shots, and from a shot to frames between which something moves. scenedetect finds the cuts, PyAV decodes.

f frames (h,w,3) uint8
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.optional import need
from ..data.record import Unreadable
from ..images import from_video

SMALL = 48  # pixels: motion is measured on grey pictures of this side


def cuts(path: Path, threshold: float, shortest: float) -> list[tuple[float, float]]:
    """Start and end of each shot in seconds; shots shorter than `shortest` are left out. A video without a cut is one shot."""
    scenedetect = need("scenedetect")
    try:
        found = scenedetect.detect(str(path), scenedetect.ContentDetector(threshold=threshold, min_scene_len=5), start_in_scene=True)
    except Exception as error:  # scenedetect and OpenCV raise classes of their own for what is no video
        raise Unreadable(f"{path.name}: not a video that can be read ({type(error).__name__}: {error})") from error
    times = [(_seconds(start), _seconds(end)) for start, end in found]
    return [(a, b) for a, b in times if b - a >= shortest]


def _seconds(time) -> float:
    value = time.seconds if hasattr(time, "seconds") else time.get_seconds()
    return float(value() if callable(value) else value)


def motion(a: np.ndarray, b: np.ndarray) -> float:
    """How much of the picture changed, 0..1: the share of SMALL x SMALL cells that differ by more than 25 of 255."""
    small = [np.array(Image.fromarray(p).convert("L").resize((SMALL, SMALL), Image.Resampling.BOX)).astype(int) for p in (a, b)]
    return float((np.abs(small[0] - small[1]) > 25).mean())


def frames(path: Path, start: float, end: float, every: float, least: float, most: int, side: int) -> list[tuple[float, np.ndarray]]:
    """At most `most` frames of a shot, each `least` or more in motion from the one before it, and their times in seconds.

    every: seconds between the frames looked at. The first and last 5 % of the shot, where cuts fade, are left out.
    """
    av = need("av")
    margin = 0.05 * (end - start)
    start, end = start + margin, end - margin
    kept: list[tuple[float, np.ndarray]] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            container.seek(int(start / stream.time_base), stream=stream)
            due = start
            for frame in container.decode(stream):
                if frame.time is None or frame.time < due:
                    continue
                if frame.time > end:
                    break
                due = frame.time + every
                picture = from_video(frame, side, path.name)
                if not kept or motion(kept[-1][1], picture) >= least:
                    kept.append((float(frame.time), picture))
    except (av.FFmpegError, IndexError, OSError) as error:
        if not kept:
            raise Unreadable(f"{path.name}: cannot be decoded at {start:.1f} s ({error})") from error
    picks = np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int)
    return [kept[i] for i in picks]


def shots(path: Path, options) -> Iterator[tuple[str, dict, dict[str, np.ndarray]]]:
    """A record per shot in which something moves: key, times, frames."""
    for number, (start, end) in enumerate(cuts(path, options.cut, options.shortest)):
        found = frames(path, start, end, options.every, options.motion, options.frames, options.side)
        if len(found) >= 2:
            values = {"video": path.name, "shot": number, "start": start, "end": end, "times": [t for t, _ in found]}
            yield f"{path.stem}_{number:04d}", values, {str(i): p for i, (_, p) in enumerate(found)}
