"""From a film to shots, and of each shot the frames that are worth training on: one pass over the film.

A cut is where scenedetect's ContentDetector sees one between neighbouring frames; frames and cuts share one clock (video.py). Of a shot,
a frame every `every` seconds is looked at; what is blurred or covered with text is left out, and of the rest up to `frames` are kept,
between which something moves by itself. f frames (h,w,3) uint8
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.items import Skips
from ..data.optional import need
from ..data.record import Unreadable
from . import filters
from .motion import grey, motion
from .options import Options
from .units import Unit
from .video import Film, frames, picture, probe, small

HELD = 48  # frames of a running shot that are kept in memory: beyond it every second goes, and the rest are looked at half as often
MARGIN = 0.05  # of a shot at both its ends, where cuts fade
Record = tuple[str, dict, dict[str, np.ndarray]]


@dataclass
class _Shot:
    """A shot as it runs. `looked`: time and picture of the frames that were looked at."""

    start: float
    every: float
    looked: list[tuple[float, np.ndarray]] = field(default_factory=list)
    due: float = 0.0

    def see(self, now: float, frame: Any, film: Film, side: int) -> None:
        if now < self.due:
            return
        self.looked.append((now, picture(frame, film, side)))
        if len(self.looked) > HELD:
            self.looked, self.every = self.looked[::2], 2 * self.every
        self.due = self.looked[-1][0] + self.every - 1e-6


def shots(unit: Unit, o: Options, skips: Skips, notes: dict) -> Iterator[Record]:
    """A record per shot in which something moves: key, values (film, times, motions, fingerprints), frames.

    `skips`: what was left out, by reason. `notes`: gets `watermark` (a box, or None) and `seconds` of the film, at the end.
    Raises:
        Unreadable: no video, or smaller than `least`.
    """
    film = probe(unit.path, unit.film)
    if min(film.width, film.height) < o.least:
        raise Unreadable(f"{unit.film}: {film.width} x {film.height} pixels; --least asks for {o.least}")
    seen, mark, now = filters.Seen(o.alike), filters.Watermark(), unit.start
    for start, end, looked in _each(film, unit, o):
        now = end
        label = f"{unit.film} at {_clock(start)}"
        if end - start < o.shortest:
            skips.add(label, f"a shot shorter than {o.shortest:g} seconds")
            continue
        fit = _fit(looked, start, end, o, seen, skips, label)
        kept = _moving(fit, o)
        if len(kept) < 2:
            skips.add(label, "nothing moves in the shot but perhaps the camera" if fit else "no frame of the shot is fit")
            continue
        pictures = [p for _, p in kept]
        mark.look(pictures)
        marks = [filters.fingerprint(p) for p in pictures]
        seen.add(marks)
        values = {
            "video": unit.film,
            "start": round(start, 3),
            "end": round(end, 3),
            "seek": not film.fell,
            "times": [round(t, 3) for t, _ in kept],
            "motion": [motion(grey(a), grey(b)).dict() for a, b in zip(pictures, pictures[1:])],
            "marks": [f"{m:016x}" for m in marks],
        }
        yield f"{unit.film}_{round(1000 * start):08d}", values, {str(i): p for i, p in enumerate(pictures)}
    for lost in film.lost:
        skips.add(f"{unit.film} after {_clock(now)}", lost)
    found = mark.found()
    notes |= {"watermark": None if found is None else [found.x, found.y, found.width, found.height], "seconds": round(now - unit.start, 3)}


def _each(film: Film, unit: Unit, o: Options) -> Iterator[tuple[float, float, list[tuple[float, np.ndarray]]]]:
    """Start and end of every shot of a unit, and the frames of it that were looked at."""
    scenedetect = need("scenedetect")
    detector = scenedetect.ContentDetector(threshold=o.cut, min_scene_len=0)
    shot: _Shot | None = None
    now = unit.start
    for number, (now, frame) in enumerate(frames(film, unit.start, unit.end)):
        cut = detector.process_frame(scenedetect.FrameTimecode(number, 25.0), small(frame))
        if shot is not None and cut:
            yield shot.start, now, shot.looked
            shot = None
        shot = shot or _Shot(now, o.every)
        shot.see(now, frame, film, o.side)
    if shot is not None:
        yield shot.start, now + 1 / film.rate, shot.looked


def _fit(looked: list[tuple[float, np.ndarray]], start: float, end: float, o: Options, seen, skips: Skips, label: str):
    """The frames that are sharp, without text over them, and new."""
    margin, fit = MARGIN * (end - start), []
    for t, p in looked:
        if not start + margin <= t <= end - margin:
            continue
        if filters.blur(p) > o.blur:
            skips.add(label, "a frame is blurred")
        elif filters.text_share(p) > o.text:
            skips.add(label, "a frame is covered with text")
        elif seen.had(filters.fingerprint(p)):
            skips.add(label, "a frame was there before")
        else:
            fit.append((t, p))
    return fit


def _moving(fit: list[tuple[float, np.ndarray]], o: Options) -> list[tuple[float, np.ndarray]]:
    """At most `frames` of them, over the whole shot, each with `motion` of its own since the one before it."""
    kept: list[tuple[float, np.ndarray]] = []
    last = None
    for t, p in fit:
        looks = grey(p)
        if last is None or motion(last, looks).subject >= o.motion:
            kept.append((t, p))
            last = looks
    picks = np.linspace(0, len(kept) - 1, min(o.frames, len(kept))).round().astype(int)
    return [kept[i] for i in picks]


def dense(unit: Unit, start: float, end: float, o: Options, seek: bool = True) -> list[tuple[float, np.ndarray]]:
    """Time and picture of a frame every `every` seconds of a shot, HELD of them at most: what things are followed in."""
    film = probe(unit.path, unit.film)
    step = max(o.every, (end - start) / HELD)
    due, out = start, []
    for now, frame in frames(film, start, end, seek):
        if now >= due - 1e-6:
            out.append((round(now, 3), picture(frame, film, o.side)))
            due = now + step
    return out


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"
