"""Captions whose phrases have boxes: GrIT.

zzliang/GRIT (github.com/microsoft/unilm, kosmos-2/README.md): parquet with url, caption, noun_chunks, ref_exps (each [start, end,
x0, y0, x1, y1, score]: span in the caption, corners in
fractions); img2dataset with --save_additional_columns '["id","noun_chunks","ref_exps",…]' makes NNNNN.tar with KEY.jpg, .txt, .json.
Checked against: docs/data.md. Not run on the real files. What a phrase points at is cut out and shown, with the box as its place in
the picture to be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...chat.conversation import Box
from ...fileio import parse_json
from .. import tasks
from ..items import Item, Skips
from ..sample import Sample
from .containers import members
from .files import box, cut, rng, words

SHOWN, SMALL, LARGE, SURE = 5, 0.02, 0.8, 0.5  # phrases at most; shares of the picture; score


def grit(folder: Path, task: str, skips: Skips) -> Iterator[Item]:
    for member in members(folder, skips):

        def make(member=member) -> Sample:
            name, values = member.name, member.values()
            chunks = values["noun_chunks"]
            chunks = parse_json(chunks, f"{name}.json, noun_chunks") if isinstance(chunks, str) else chunks
            p, caption = member.image(), words(values["caption"], "its caption")
            kept: dict[tuple[int, int], Box] = {}
            for start, end, *corners, score in sorted(filter(_whole, chunks), key=lambda c: -c[6]):
                b, span = box(*corners), (int(start), int(end))
                if b is None or score < SURE or not SMALL <= b.width * b.height <= LARGE or not caption[slice(*span)].strip():
                    continue
                if all(span[1] <= a or span[0] >= e for a, e in kept) and len(kept) < SHOWN:
                    kept[span] = b
            if not kept:
                raise ValueError("no phrase with a box that is neither tiny nor the whole picture")
            spans = sorted(kept)
            boxes = [kept[s] for s in spans]
            return tasks.subject(name, tagged(caption, spans), [cut(p, b) for b in boxes], boxes, p, rng(name))

        yield Item(member.name, make)


def _whole(chunk: object) -> bool:
    """Whether a phrase's place is what it must be: seven numbers."""
    return isinstance(chunk, list) and len(chunk) == 7 and all(isinstance(v, (int, float)) for v in chunk)


def tagged(caption: str, spans: Sequence[tuple[int, int]], boxes: Sequence[Box | None] | None = None) -> str:
    """The caption with `<image_k><bbox_k>` behind its k-th span; no `<bbox_k>` where boxes[k-1] is None."""
    text, at = [], 0
    for k, (_, end) in enumerate(spans, 1):
        mark = f"<image_{k}>" + (f"<bbox_{k}>" if boxes is None or boxes[k - 1] is not None else "")
        text += [tasks.clean(caption[at:end]), mark]
        at = end
    whole = " ".join(t for t in (*text, tasks.clean(caption[at:])) if t)
    return whole.replace(" ,", ",").replace(" .", ".")
