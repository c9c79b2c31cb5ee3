"""The steps from shots to samples. Each takes a few records (key, values, frames of the shot) and gives for each what it becomes: a record,
samples, or nothing. Values are added to; the frames stay in the shards of the first step.

f frames of a shot · k instances
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..chat.conversation import Box
from ..data import tasks
from ..data.readers.files import cut, rng
from ..data.readers.grounded import tagged
from ..data.sample import Sample, Turn
from . import models
from .change import changed
from .motion import Motion
from .noun_phrases import head
from .options import Options
from .shots import Record

CROPS = 4  # looks of an instance that are kept as references, from frames that are not drawn
Made = tuple[dict, dict[str, np.ndarray]]  # values and pictures of a record
Dense = Callable[[dict], list[tuple[float, np.ndarray]]]  # of a shot's values: time and picture of the frames to follow things in


def ordered(pictures: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The frames of a shot, by number."""
    return [pictures[str(i)] for i in range(sum(name.isdigit() for name in pictures))]


def _model(kind: str, o: Options) -> Any:
    return models.model(kind, getattr(o, kind), o.precision, o.batch)


def caption(records: Sequence[Record], o: Options) -> list[Made | None]:
    """+ captions (f), and phrases: the noun phrases of all of them, each once. Nothing where no caption names anything."""
    frames = [ordered(pictures) for _, _, pictures in records]
    said = iter(_model("captioner", o).captions([p for some in frames for p in some]))
    out: list[Made | None] = []
    for (_, values, _), some in zip(records, frames):
        captions = [next(said) for _ in some]
        named = {head(text): text for c in reversed(captions) for _, _, text in reversed(models.phrases(o.phrases)(c))}
        out.append(({**values, "captions": captions, "phrases": list(reversed(named.values()))}, {}) if named else None)
    return out


def ground(records: Sequence[Record], o: Options) -> list[Made | None]:
    """+ found (f): in every frame, phrase, box and score of each thing; of boxes that overlap, the one with the highest score."""
    out: list[Made | None] = []
    for _, values, pictures in records:
        names = values["phrases"]
        found = []
        for some in _model("detector", o).detections(ordered(pictures), names):
            kept: list[tuple[int, Box, float]] = []
            for i, b, score in sorted(some, key=lambda f: -f[2]):
                if score >= o.score and b.width * b.height >= o.smallest and all(iou(b, other) < o.overlap for _, other, _ in kept):
                    kept.append((i, b, score))
            found.append([{"phrase": names[i], "box": corners(b), "score": round(score, 4)} for i, b, score in kept[: o.instances]])
        out.append(({**values, "found": found}, {}) if any(found) else None)
    return out


def track(records: Sequence[Record], o: Options, dense: Dense) -> list[Made | None]:
    """+ instances: phrase, and boxes (f), null where it is not seen; and pictures `look_INSTANCE_N`, cut from frames between those kept.

    Things are followed through `dense` frames, forward and back from the frame in which they were found; what is found in a later frame
    and is none of those followed there is an instance more.
    """
    return [_tracked(values, ordered(pictures), o, dense) for _, values, pictures in records]


def _tracked(values: dict, frames: list[np.ndarray], o: Options, dense: Dense) -> Made | None:
    pictures, kept = _timeline(values["times"], frames, dense(values))
    follow = _model("tracker", o).track
    paths: list[list[Box | None]] = []
    phrases: list[str] = []
    for f, found in enumerate(values["found"]):
        at = kept[f]
        new = _unfollowed(found, phrases, [path[at] for path in paths], o)
        if not new:
            continue
        boxes = [Box(*thing["box"]) for thing in new]
        ahead = follow(pictures[at:], boxes)
        before = follow(pictures[at::-1], boxes) if at else [[b] for b in boxes]
        for thing, back, forth in zip(new, before, ahead, strict=True):
            path = back[:0:-1] + forth
            lost = [k for k, p in enumerate(phrases) if head(p) == head(thing["phrase"]) and paths[k][at] is None]
            if len(lost) == 1 and sum(head(t["phrase"]) == head(thing["phrase"]) for t in new) == 1:
                paths[lost[0]] = [old or now for old, now in zip(paths[lost[0]], path)]  # the one thing of this name, seen again
            else:
                paths.append(path)
                phrases.append(thing["phrase"])
    instances: list[dict] = []
    looks: dict[str, np.ndarray] = {}
    for phrase, path in zip(phrases, paths):
        placed = [_placed(phrase, path[at], found) for at, found in zip(kept, values["found"])]
        if sum(b is not None for b in placed) < 2:
            continue
        seen = {i: b for i, b in enumerate(path) if b is not None and i not in kept and b.width * b.height >= o.smallest}
        for n, i in enumerate(_spread(list(seen), CROPS)):
            looks[f"look_{len(instances)}_{n}"] = cut(pictures[i], seen[i])
        instances.append({"phrase": phrase, "boxes": [None if b is None else corners(b) for b in placed]})
    return ({**values, "instances": instances}, looks) if instances else None


def _unfollowed(found: list[dict], phrases: list[str], here: list[Box | None], o: Options) -> list[dict]:
    """What is found in a frame and is none of the things that are followed there, as many as a frame may have."""

    def followed(thing: dict) -> bool:
        b = Box(*thing["box"])
        touching = [(p, iou(b, other)) for p, other in zip(phrases, here) if other is not None]
        return any(shared >= o.overlap / 2 or shared > 0 and head(p) == head(thing["phrase"]) for p, shared in touching)

    room = o.instances - sum(b is not None for b in here)
    return [thing for thing in found if not followed(thing)][: max(0, room)]


def _placed(phrase: str, b: Box | None, found: list[dict]) -> Box | None:
    """A thing's place in a kept frame: as it was followed, or as it was found there, where the two agree."""
    same = [Box(*thing["box"]) for thing in found if b is not None and head(thing["phrase"]) == head(phrase)]
    near = max(same, key=lambda other: iou(b, other), default=None) if b is not None else None
    return near if b is not None and near is not None and iou(b, near) >= 0.5 else b


def _timeline(times: list[float], frames: list[np.ndarray], dense: list[tuple[float, np.ndarray]]) -> tuple[list[np.ndarray], list[int]]:
    """The kept frames among the dense ones, in order of time, and where the kept ones stand."""
    rest = [(t, p) for t, p in dense if times[0] < t < times[-1] and min(abs(t - k) for k in times) > 1e-3]
    every = sorted([*((t, 0, p) for t, p in zip(times, frames)), *((t, 1, p) for t, p in rest)], key=lambda e: e[:2])
    where = {t: i for i, (t, extra, _) in enumerate(every) if not extra}
    return [p for _, _, p in every], [where[t] for t in times]


def _spread(items: list[int], most: int) -> list[int]:
    """At most so many of them, over their whole range."""
    if not items:
        return []
    return [items[i] for i in dict.fromkeys(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int).tolist())]


def pair(records: Sequence[Record], o: Options) -> list[list[Sample]]:
    """A sample for each two neighbouring frames in which instances persist; see `interleaved`."""
    return [_pairs(key, values, pictures, o) for key, values, pictures in records]


def _pairs(key: str, values: dict, pictures: dict[str, np.ndarray], o: Options) -> list[Sample]:
    frames = ordered(pictures)
    instances = [{**i, "boxes": [None if b is None else Box(*b) for b in i["boxes"]]} for i in values["instances"]]
    crops = [[p for name, p in pictures.items() if name.startswith(f"look_{k}_")] for k in range(len(instances))]
    looks = [_looks(i["boxes"], frames, crops[k], o) for k, i in enumerate(instances)]
    out = []
    for b in range(1, len(frames)):
        a, kept = b - 1, []
        for k, (instance, (seen, others)) in enumerate(zip(instances, looks)):
            if a in seen and b in seen and o.same <= float(seen[a] @ seen[b]) <= o.copy:
                if (reference := _reference(k, a, b, frames, instance, crops, seen, others, o)) is not None:
                    kept.append({**instance, "reference": reference})
        if kept:
            moved = Motion(**values["motion"][a])
            new = [i for i in instances if i["boxes"][a] is None and i["boxes"][b] is not None]
            gone = [i for i in instances if i["boxes"][a] is not None and i["boxes"][b] is None]
            out.append(interleaved(f"{key}_{a}_{b}", values["captions"], frames, kept, a, b, moved, new, gone))
    return out


def _looks(boxes: list[Box | None], frames: list[np.ndarray], crops: list[np.ndarray], o: Options):
    """The embeddings of an instance: by frame, where it is seen large enough; and of its looks between the frames."""
    seen = {f: b for f, b in enumerate(boxes) if b is not None and b.width * b.height >= o.smallest}
    if not seen:
        return {}, []
    rows = _model("embedder", o).embed([*(cut(frames[f], b) for f, b in seen.items()), *crops])
    return dict(zip(seen, rows)), list(rows[len(seen) :])


def _reference(k: int, a: int, b: int, frames, instance: dict, crops, seen: dict, others: list, o: Options) -> np.ndarray | None:
    """A look of the instance that is neither of the two pictures to be drawn, so that its identity must be learned and not its pixels.

    Of those within the identity window of both, between the kept frames or in another of them, the one that is least like them. None
    without one: of what is seen in the two pictures alone, only copying can be learned.
    """

    def fits(row: np.ndarray) -> bool:
        return all(o.same <= float(row @ seen[f]) <= o.copy for f in (a, b))

    ranked = [(float(row @ seen[a] + row @ seen[b]), crop) for row, crop in zip(others, crops[k]) if fits(row)]
    ranked += [
        (float(seen[f] @ seen[a] + seen[f] @ seen[b]), cut(frames[f], instance["boxes"][f]))
        for f in seen
        if f not in (a, b) and fits(seen[f])
    ]
    return min(ranked, key=lambda r: r[0])[1] if ranked else None


def interleaved(
    key: str, captions: list[str], frames: list[np.ndarray], instances: list[dict], a: int, b: int, moved: Motion, new=(), gone=()
) -> Sample:
    """Frames and descriptions in one sequence: looks of the instances, their places and the first caption give frame a; what changed since,
    with the places in frame b, then gives frame b. Who is in it stays."""
    draw = rng(key)
    first = Turn("user", _said(captions[a], instances), tuple(i["reference"] for i in instances), tuple(i["boxes"][a] for i in instances))
    text, boxes = changed(instances, a, b, moved, new, gone, captions)
    second = Turn("user", text, (None,) * len(boxes), tuple(boxes))
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


def _said(text: str, instances: list[dict]) -> str:
    """A caption with `<image_k><bbox_k>` of the instances behind their phrases; those it does not name stand at its end."""
    spans, order = [], []
    taken: list[tuple[int, int]] = []
    for k, instance in enumerate(instances):
        at = _place(text, head(instance["phrase"]), taken)
        if at is not None:
            taken.append(at)
            spans.append(at)
            order.append(k)
    ranks = sorted(range(len(spans)), key=lambda n: spans[n])
    whole = tagged(text, [spans[n] for n in ranks])
    for place in range(len(ranks), 0, -1):  # the n-th mark of the text is the instance whose phrase stands there
        whole = whole.replace(f"<image_{place}><bbox_{place}>", f"\0{order[ranks[place - 1]]}\0")
    for k in order:
        whole = whole.replace(f"\0{k}\0", f"<image_{k + 1}><bbox_{k + 1}>")
    rest = [f"{instances[k]['phrase']} <image_{k + 1}><bbox_{k + 1}>" for k in range(len(instances)) if k not in order]
    return whole + ("" if not rest else " " + ", ".join(rest))


def _place(text: str, name: str, taken: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Where a name stands in a text as words of its own, and no other instance has taken it."""
    lower, at = text.lower(), 0
    while name and (at := lower.find(name, at)) >= 0:
        end = at + len(name)
        free = all(end <= start or at >= stop for start, stop in taken)
        if free and not (lower[at - 1 : at].isalnum() or lower[end : end + 1].isalnum()):
            return at, end
        at = end
    return None


def recaption(samples: Sequence[Sample], o: Options) -> list[Sample]:
    """Laion-COCO-Recaption: a short and a long caption of the picture that each sample draws."""
    pictures = [s.turns[-1].drawn for s in samples]
    if any(p is None for p in pictures):
        raise ValueError("this sample draws no picture")
    arrays = [np.asarray(p) for p in pictures]
    said = [models.model("captioner", spec, o.precision, o.batch).captions(arrays) for spec in (o.captioner, o.longer)]
    out = []
    for sample, p, short, long in zip(samples, arrays, *said):
        if not short or not long:
            raise ValueError("a captioner said nothing")
        turns = tasks.text_to_picture(sample.key, short, p, rng(sample.key), long).turns
        out.append(Sample("text-to-picture", turns, sample.key, "laion-coco-recaption"))
    return out


def corners(b: Box) -> list[float]:
    return [b.x, b.y, b.width, b.height]


def iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    shared = max(wide, 0) * max(high, 0)
    return shared / (a.width * a.height + b.width * b.height - shared)
