"""The steps from shots to samples: each takes a record (key, values, frames) and gives records, or at the end samples.

f frames of a shot · k instances
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..chat.conversation import Box
from ..data import tasks
from ..data.readers.files import cut, rng
from ..data.readers.grounded import tagged
from ..data.sample import Sample, Turn
from . import models
from .noun_phrases import head
from .options import Options

Record = tuple[str, dict, dict[str, np.ndarray]]


def _frames(pictures: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [pictures[str(i)] for i in range(len(pictures))]


def caption(record: Record, o: Options) -> Iterator[Record]:
    """+ captions (f), and the noun phrases of the first with their places in it."""
    key, values, pictures = record
    said = [models.model("captioner", o.captioner).caption(p) for p in _frames(pictures)]
    found = models.phrases(o.phrases)(said[0])
    if found:
        yield key, {**values, "captions": said, "phrases": found}, pictures


def ground(record: Record, o: Options) -> Iterator[Record]:
    """Adds the instances of the first frame: phrase and box; of boxes that overlap, the one with the highest score."""
    key, values, pictures = record
    names = list(dict.fromkeys(text for _, _, text in values["phrases"]))
    found = models.model("detector", o.detector).detect(pictures["0"], names)
    kept: list[tuple[int, Box]] = []
    for i, b, score in sorted(found, key=lambda f: -f[2]):
        if score >= o.score and b.width * b.height >= o.smallest and all(iou(b, other) < o.overlap for _, other in kept):
            kept.append((i, b))
    if kept:
        instances = [{"phrase": names[i], "box": corners(b)} for i, b in kept[: o.instances]]
        yield key, {**values, "instances": instances}, pictures


def track(record: Record, o: Options) -> Iterator[Record]:
    """+ boxes (f) of each instance, null where it is lost."""
    key, values, pictures = record
    boxes = [Box(*i["box"]) for i in values["instances"]]
    paths = models.model("tracker", o.tracker).track(_frames(pictures), boxes)
    instances = [
        {**i, "boxes": [None if b is None else corners(b) for b in path]} for i, path in zip(values["instances"], paths, strict=True)
    ]
    yield key, {**values, "instances": instances}, pictures


def pair(record: Record, o: Options) -> Iterator[Sample]:
    """A sample for each two neighbouring frames in which instances persist; see `interleaved`."""
    key, values, pictures = record
    frames = _frames(pictures)
    instances = [{**i, "boxes": [None if b is None else Box(*b) for b in i["boxes"]]} for i in values["instances"]]
    looks = [_looks(i["boxes"], frames, o) for i in instances]
    for b in range(1, len(frames)):
        a = b - 1
        kept = [i for i, look in zip(instances, looks) if a in look and b in look and o.same <= float(look[a] @ look[b]) <= o.copy]
        if kept:
            yield interleaved(f"{key}_{a}_{b}", values["captions"], frames, kept, a, b)


def _looks(boxes: list[Box | None], frames: list[np.ndarray], o: Options) -> dict[int, np.ndarray]:
    """The embedding of an instance in each frame where it is seen large enough."""
    seen = {f: b for f, b in enumerate(boxes) if b is not None and b.width * b.height >= o.smallest}
    if not seen:
        return {}
    rows = models.model("embedder", o.embedder).embed([cut(frames[f], b) for f, b in seen.items()])
    return dict(zip(seen, rows))


def interleaved(key: str, captions: list[str], frames: list[np.ndarray], instances: list[dict], a: int, b: int) -> Sample:
    """Frames and descriptions in one sequence: the instances cut from frame a, with their boxes there, and its caption give frame a;
    the caption of frame b, with the boxes there, then gives frame b: what is said changes, who is in it stays."""
    draw = rng(key)
    crops = [cut(frames[a], i["boxes"][a]) for i in instances]
    first = Turn("user", _said(captions[a], instances, True), tuple(crops), tuple(i["boxes"][a] for i in instances))
    second = Turn("user", _said(captions[b], instances, False), (None,) * len(instances), tuple(i["boxes"][b] for i in instances))
    return Sample(
        "subject",
        (
            first,
            Turn("assistant", tasks.pick(draw, tasks.GIVEN), drawn=frames[a]),
            second,
            Turn("assistant", tasks.pick(draw, tasks.GIVEN), drawn=frames[b]),
        ),
        key,
        "diic",
    )


def _said(text: str, instances: list[dict], shown: bool) -> str:
    """A caption with the marks of the instances behind their phrases; those it does not name stand at its end."""
    spans, order, used = [], [], 0
    for k, instance in enumerate(instances):
        name = head(instance["phrase"])
        at = text.lower().find(name, used)
        if at >= 0:
            used = at + len(name)
            spans.append((at, used))
            order.append(k)
    marks = {k: (f"<image_{k + 1}>" if shown else "") + f"<bbox_{k + 1}>" for k in range(len(instances))}
    whole = tagged(text, spans)
    for n in range(len(spans), 0, -1):  # the n-th mark of the text is the order[n-1]-th instance's
        whole = whole.replace(f"<image_{n}><bbox_{n}>", f"\0{order[n - 1]}\0")
    for k in order:
        whole = whole.replace(f"\0{k}\0", marks[k])
    rest = [f"{instances[k]['phrase']} {marks[k]}" for k in range(len(instances)) if k not in order]
    return whole + ("" if not rest else " " + ", ".join(rest))


def recaption(sample: Sample, o: Options) -> Iterator[Sample]:
    """Laion-COCO-Recaption: a short and a long caption of the picture that a sample draws."""
    drawn = sample.turns[-1].drawn
    if drawn is None:
        raise ValueError("this sample draws no picture")
    picture = np.asarray(drawn)
    short, long = (models.model("captioner", spec).caption(picture) for spec in (o.captioner, o.longer))
    if not short or not long:
        raise ValueError("a captioner said nothing")
    yield Sample(
        "text-to-picture",
        tasks.text_to_picture(sample.key, short, picture, rng(sample.key), long).turns,
        sample.key,
        "laion-coco-recaption",
    )


STEPS: dict[str, Callable] = {"caption": caption, "ground": ground, "track": track, "pair": pair}


def corners(b: Box) -> list[float]:
    return [b.x, b.y, b.width, b.height]


def iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(wide, 0) * max(high, 0)
    return shared / (a.width * a.height + b.width * b.height - shared)
