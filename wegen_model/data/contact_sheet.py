"""A contact sheet of a stage's own batches: what is read and what is learned, pictures as the tower is shown them, boxes as written.

Each row: the pictures in the order of the prompt (blue frame: read; green frame: to be painted); boxes at the places that their numbers
(in 224ths) give, on the picture to be painted or, in an answer, on the picture asked about; and the prompt, in grey what is read, in
green what the language-model loss counts. A picture to be painted is shown at the size at which the stage paints it. Everything is taken
from the batch (model_inputs.py), not from the samples.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..box import BOX_IDS, LOCATIONS, Box
from ..chat.boxes import COLOURS, _font, edges
from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..fileio import atomic
from .model_inputs import ModelInputs

SIDE, GAP, LINE, WIDE = 144, 8, 16, 1180  # pixels: a thumbnail, between things, a line of text, the sheet
READ, LEARNED, BACK = (176, 180, 190), (120, 230, 140), (24, 26, 32)
FRAMES = {False: (90, 140, 250), True: (70, 210, 110)}


@dataclass
class Run:
    """A stretch of a prompt: text, a box (with its number among the prompt's boxes) or a picture (row)."""

    text: str
    trained: bool
    box: Box | None = None
    row: int | None = None


def runs(ids: list[int], trained: list[bool], places: dict[int, int], t: Tokenizer, n: int) -> list[Run]:
    """What ids say. `places`: first feature's position -> row of the picture; n features a picture."""
    out: list[Run] = []
    words: list[int] = []
    special = {
        t.bos: "<s>",
        t.eos: "</s>",
        t.image_start: "<img>",
        t.image_end: "</img>",
        t.box_start: "<box_start>",
        t.box_end: "<box_end>",
    }

    def flush(learned: bool) -> None:
        if words:
            out.append(Run(t.decode(words), learned))
            words.clear()

    i = 0
    while i < len(ids):
        if i and trained[i] != trained[i - 1]:
            flush(trained[i - 1])
        inside = [v - t.loc_first for v in ids[i + 1 : i + 5]]
        if i in places:
            flush(trained[i - 1])
            out.append(Run(f"[picture {places[i] + 1}: {n} features]", trained[i], row=places[i]))
            i += n
        elif ids[i] == t.box_start and len(inside) == 4 and all(0 <= v < LOCATIONS for v in inside):
            flush(trained[i])
            x, y, w, h = inside
            out.append(Run(f"[box {x} {y} {w} {h}]", trained[i], box=Box.from_locations((x, y, w, h))))
            i += BOX_IDS
        elif ids[i] in special:
            flush(trained[i])
            out.append(Run(special[ids[i]], trained[i]))
            i += 1
        else:
            words.append(ids[i])
            i += 1
    flush(trained[-1] if trained else False)
    return out


def rows(step: ModelInputs, t: Tokenizer, n: int) -> list[list[Run]]:
    """The runs of each sample of a step; picture rows count within the step."""
    batch, out = step.batch, []
    for s in range(len(batch.ids)):
        places = {int(start): m for m, (owner, start) in enumerate(batch.place.tolist()) if owner == s}
        ids, labels = batch.ids[s].tolist(), batch.labels[s].tolist()
        end = _length(ids, t)
        out.append(runs(ids[:end], [v != -100 for v in labels[:end]], places, t, n))
    return out


def sheet(steps: list[ModelInputs], config: ModelConfig, t: Tokenizer) -> Image.Image:
    """The contact sheet of all samples of some batches."""
    strips = [_strip(step, config, s, row) for step in steps for s, row in enumerate(rows(step, t, config.features.count))]
    out = Image.new("RGB", (WIDE, sum(s.height for s in strips) + GAP), BACK)
    top = GAP
    for strip in strips:
        out.paste(strip, (0, top))
        top += strip.height
    return out


def thumbnail(step: ModelInputs, config: ModelConfig, m: int) -> np.ndarray:
    """(h,w,3) uint8 of picture m: what the decoder is to paint, where that is known, or what the tower is shown."""
    if step.target_pixels is not None and bool(step.batch.written[m]):
        return step.target_pixels[int(step.batch.written[:m].sum())].numpy()
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.vision.mean, config.vision.std))
    return ((step.pictures[m].pixels(config)[0] * std + mean) * 255).round().clamp(0, 255).byte().movedim(0, -1).numpy()


def _strip(step: ModelInputs, config: ModelConfig, s: int, row: list[Run]) -> Image.Image:
    font = _font(12)
    pictures = [r.row for r in row if r.row is not None]
    written = [m for m in pictures if bool(step.batch.written[m])]
    columns = max(1, (WIDE // 2 - GAP) // (SIDE + GAP))
    left = GAP + min(max(len(pictures), 1), columns) * (SIDE + GAP)
    wrap = (WIDE - left - GAP) // 7
    pieces = ((piece, r.trained) for r in row for piece in textwrap.wrap(" ".join(r.text.split()), wrap))
    packed = _pack([(piece, LEARNED if trained else READ) for piece, trained in pieces], wrap)
    deep = -(-len(pictures) // columns) * (SIDE + GAP)
    strip = Image.new("RGB", (WIDE, max(deep, (len(packed) + 1) * LINE) + GAP), BACK)
    draw = ImageDraw.Draw(strip)
    boxes = [(r, r.box) for r in row if r.box is not None]
    for at, m in enumerate(pictures):
        x, y = GAP + at % columns * (SIDE + GAP), at // columns * (SIDE + GAP)
        frame = FRAMES[bool(step.batch.written[m])]
        strip.paste(Image.fromarray(thumbnail(step, config, m)).resize((SIDE - 4, SIDE - 4)), (x + 2, y + 2))
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=frame, width=2)
        for k, (r, box) in enumerate(boxes):
            target = _target(row, r, pictures, written)
            if m == target:
                a, b, c, d = edges(box, SIDE - 4, SIDE - 4)
                colour = COLOURS[k % len(COLOURS)]
                draw.rectangle((x + 2 + a, y + 2 + b, x + 1 + c, y + 1 + d), outline=colour, width=2)
                draw.text((x + 5 + a, y + 3 + b), str(k + 1), fill=colour, font=font)
    tokens = int((step.batch.labels[s] != -100).sum())
    head = f"{step.tasks[s]} · {step.sources[s]} · {step.keys[s]} · {len(pictures)} pictures, {tokens} tokens learned"
    draw.text((left, 0), head[:wrap], fill=(255, 255, 255), font=font)
    for number, line in enumerate(packed, 1):
        across = float(left)
        for words, colour in line:
            draw.text((across, number * LINE), words, fill=colour, font=font)
            across += draw.textlength(words + " ", font=font)
    return strip


def _pack(text: list[tuple[str, tuple[int, int, int]]], wrap: int) -> list[list[tuple[str, tuple[int, int, int]]]]:
    """Pieces of text broken into lines of at most `wrap` letters."""
    out: list[list] = [[]]
    used = 0
    for words, colour in text:
        if used and used + len(words) + 1 > wrap:
            out.append([])
            used = 0
        out[-1].append((words, colour))
        used += len(words) + 1
    return out


def _target(row: list[Run], box: Run, pictures: list[int], written: list[int]) -> int | None:
    """The picture in which a box is a place: the next one painted after it; in an answer without one, the last one shown before it."""
    at = next(i for i, r in enumerate(row) if r is box)
    later = [r.row for r in row[at:] if r.row in written]
    earlier = [r.row for r in row[:at] if r.row is not None]
    if box.trained:
        return earlier[-1] if earlier else None
    return later[0] if later else (pictures[-1] if pictures else None)


def _length(ids: list[int], t: Tokenizer) -> int:
    """Tokens before the padding."""
    return ids.index(t.eos) + 1 if t.eos in ids else len(ids)


def table(steps: list[ModelInputs], t: Tokenizer) -> str:
    """A table of the batches: samples, pictures and tokens by source, and everything that was skipped."""
    seen = Counter(pair for step in steps for pair in zip(step.sources, step.tasks))
    lengths = [_length(row, t) for step in steps for row in step.batch.ids.tolist()]
    pictures, painted = (sum(int(v) for v in some) for some in zip(*((len(s.pictures), s.batch.written.sum()) for s in steps)))
    pad = 1 - sum(lengths) / max(1, sum(step.batch.ids.numel() for step in steps))
    lines = [f"{count:5d} samples of {source}, {task}" for (source, task), count in sorted(seen.items())]
    lines.append(
        f"{len(lengths)} samples, {np.mean(lengths):.0f} tokens each, {100 * pad:.0f} % padding, {pictures} pictures, {painted} of them painted"
    )
    for ids in {tuple(row) for step in steps if step.size_ids is not None for row in step.size_ids.tolist()}:
        lines.append(f"size numbers of the painted ones: {', '.join(map(str, ids))}")
    skipped = Counter(f"{name}: {why}" for step in steps for name, why in step.skipped.items())
    lines += [f"skipped: {text}" + (f" ({n} times)" if n > 1 else "") for text, n in skipped.most_common()]
    return "\n".join(lines)


def save(image: Image.Image, path: Path) -> None:
    with atomic(path) as part:
        image.save(part, "PNG")
