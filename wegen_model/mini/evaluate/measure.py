"""`wegen mini eval`: what a miniature reaches, measured through the same pipeline that people use.

Every picture is written and painted by the model alone (nothing is teacher-forced), on seeds, layouts and combinations of thing and
colour that training never saw. Rows are means over the seeds, with the spread between them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...chat.conversation import Box, Conversation, Reference, Turn
from ...features import Features
from ...pipeline import WeGen
from ...train.modules import load_decoder
from ..pictures import to_float
from ..tasks import Sample, sample
from ..tasks.sampling import Rng, free_boxes
from ..world.art import Art, load_art
from ..world.concepts import COLOURS, DEFAULT_STYLE, HELD_OUT_DRAWINGS, HELD_OUT_NAMES, NAMES, OFFERED_STYLES, held_out_combination
from ..world.scenes import Item, Scene, canonical, pair, render
from . import measure_changes, measure_talks
from .metrics import DRAWN_STYLES, Judge, Key, background_of, crop, held_out, iou, offered, psnr, seams

PLAIN = ("white", "blue", "yellow", "green")  # backgrounds of the tests with large galleries


class Bench:
    """The model, the judge, and the rows so far: measure -> one value a seed."""

    def __init__(self, model: WeGen, art: Art, size: int = 4):
        self.model, self.art, self.size = model, art, size
        self.judge = Judge(art)
        self.rows: dict[str, list[float]] = defaultdict(list)
        self.cases: dict[str, list[bool]] = defaultdict(list)  # "style concept" -> right or wrong, text to one thing
        self.sheets: dict[str, list[Tensor]] = {}

    # -- the model at work -------------------------------------------------------------------------------------

    def truth(self, scene: Scene) -> Tensor:
        return to_float(render(scene, self.art)[None])[0]

    def write(self, text: str, references: tuple[Reference, ...] = (), mode: str = "autoregressive") -> Features:
        talk = self.model.chat(Conversation().user(text, references), picture="always", max_tokens=40)
        return self.model.draw(talk, mode=mode)[0]

    def follow(self, one: Sample) -> Features:
        """The last picture of a sample, the model's own pictures standing in its earlier turns."""
        talk = Conversation()
        for turn in one.turns[::2]:
            shown = tuple(
                Reference(self.truth(r.scene)[None] if r.scene else None, box=Box(*r.box) if r.box else None) for r in turn.references
            )
            talk = self.model.draw(self.model.chat(talk.user(turn.text, shown), picture="always", max_tokens=40))[1]
        return talk.turns[-1].written(-1)

    def paint(self, features: list[Features]) -> Tensor:
        batches = [features[i : i + 16] for i in range(0, len(features), 16)]
        return torch.cat([self.model.decode(replace(b[0], tokens=torch.cat([f.tokens for f in b])), seed=self.seed) for b in batches])

    @torch.no_grad()
    def through_vae(self, images: Tensor) -> Tensor:
        decoder = load_decoder(self.model.folder, self.model.config)
        parts = [decoder.to_pixels(decoder.to_latents((some * 2 - 1).movedim(-1, 1))) for some in images.split(16)]
        return (torch.cat(parts).movedim(1, -1) / 2 + 0.5).clamp(0, 1)

    def error(self, scenes: list[Scene], features: list[Features]) -> float:
        """Squared error of written features against encoded ones, 1 being the error of always writing the mean."""
        true = self.model.encode(torch.stack([self.truth(s) for s in scenes])).tokens
        made = torch.cat([f.tokens for f in features])
        return ((made - true).square().mean() / (true - true.mean((0, 1))).square().mean()).item()

    # -- what is recorded --------------------------------------------------------------------------------------

    def add(self, name: str, values) -> None:
        self.rows[name].append(float(np.mean(values)))

    def score(self, name: str, scenes: list[Scene], images: Tensor, keys: Callable[[Item], tuple[Key, ...]]) -> list[list[bool]]:
        """Top-1 of every item, background, mask overlap; a sheet of wanted above made."""
        right = []
        for scene, image in zip(scenes, images):
            right.append(
                [self.judge.name(crop(image, i.box)[None], scene.background, keys(i))[0] == (i.concept, i.style) for i in scene.items]
            )
        self.add(f"{name}: judge top-1", [r for row in right for r in row])
        if len(scenes[0].items) > 1:
            self.add(f"{name}: all right", [all(row) for row in right])
        self.add(f"{name}: background", [background_of(i) == s.background for s, i in zip(scenes, images)])
        self.add(f"{name}: mask IoU", [iou(i, s, self.art) for s, i in zip(scenes, images)])
        self.sheet(name, [self.truth(s) for s in scenes], images)
        return right

    def sheet(self, name: str, wanted: list[Tensor], made: Tensor) -> None:
        self.sheets.setdefault(name, [torch.stack(list(wanted)), made])

    # -- the tables --------------------------------------------------------------------------------------------

    def run(self, seed: int) -> None:
        self.seed, self.rng, self.draw = seed, np.random.default_rng(seed), Rng(f"eval:{seed}")
        for part in (self.reconstruction, self.text, self.two, self.references, self.words, self.where):
            part()
        for table in (*measure_changes.TABLES, *measure_talks.TABLES):
            table(self)

    def colour(self, thing: str, held_out: bool = True) -> str:
        options = [c for c in COLOURS if held_out_combination(thing, c) == held_out] or list(COLOURS)
        return options[self.rng.integers(len(options))]

    def reconstruction(self) -> None:
        named = [canonical(n, self.colour(n), s) for s in OFFERED_STYLES for n in NAMES]
        unnamed = [
            canonical(d, PLAIN[self.rng.integers(4)], DRAWN_STYLES[k % len(DRAWN_STYLES)])
            for k, d in enumerate(self.rng.permutation(HELD_OUT_DRAWINGS)[:32].tolist())
        ]
        for name, scenes, keys in (("named things", named, offered), ("drawings never trained on", unnamed, held_out)):
            images = torch.stack([self.truth(s) for s in scenes])
            self.score(f"real pictures, {name} (upper bound)", scenes, images, keys)
            made = self.model.decode(self.model.encode(images), seed=self.seed)
            self.score(f"reconstruction, {name}", scenes, made, keys)
            self.add(f"reconstruction, {name}: PSNR", [psnr(a, b) for a, b in zip(images, made)])
            self.add(f"reconstruction, {name}: PSNR of the VAE alone", [psnr(a, b) for a, b in zip(images, self.through_vae(images))])

    def text(self) -> None:
        for style in OFFERED_STYLES:
            count, named = (self.size, "") if style == DEFAULT_STYLE else (max(1, self.size // 2), f", {style} style")
            scenes = [canonical(n, self.colour(n, held_out=k % 2 == 1), style) for n in NAMES for k in range(count)]
            for mode in ("autoregressive", "parallel") if style == DEFAULT_STYLE else ("autoregressive",):
                made = [self.write(f"a {s.items[0].concept} on a {s.background} background{named}", mode=mode) for s in scenes]
                name = f"text to picture, {style}, {mode}"
                right = self.score(name, scenes, self.paint(made), offered)
                self.add(f"{name}: feature error", self.error(scenes, made))
                if mode == "autoregressive":
                    for row, scene in zip(right, scenes):
                        self.cases[f"{style} {scene.items[0].concept}"] += row

    def two(self) -> None:
        pairs = [tuple(self.rng.permutation(NAMES)[:2].tolist()) for _ in range(6 * self.size)]
        scenes = [pair(a, b, self.colour(a)) for a, b in pairs]
        texts = [f"a {a} on the left and a {b} on the right, {s.background} background" for (a, b), s in zip(pairs, scenes)]
        for mode in ("autoregressive", "parallel"):
            made = [self.write(text, mode=mode) for text in texts]
            images, name = self.paint(made), f"two things by words, {mode}"
            right = self.score(name, scenes, images, offered)
            self.add(f"{name}: feature error", self.error(scenes, made))
            self.add(f"{name}: seams at cell borders", [seams(i) / seams(self.truth(s)) for i, s in zip(images, scenes)])
            if mode == "autoregressive":
                order = [self.swapped(i, s) for i, s, r in zip(images, scenes, right) if not all(r)]
                self.add(f"{name}: order right", [True] * (len(scenes) - len(order)) + [not o for o in order])

    def swapped(self, image: Tensor, scene: Scene) -> bool:
        """Are the two things there, each in the other's place?"""
        seen = [self.judge.name(crop(image, i.box)[None], scene.background, offered(i))[0][0] for i in scene.items]
        return seen == [i.concept for i in reversed(scene.items)]

    def references(self) -> None:
        """Held-out drawings into boxes, on the colour that the text asks for; the control judges them against each other's references."""
        pool = [(d, s) for d in (*HELD_OUT_DRAWINGS, *HELD_OUT_NAMES) for s in DRAWN_STYLES]
        for count in (1, 2, 3, 4, 5):
            scenes, made, control = [], [], []
            for _ in range({1: 6, 2: 5, 3: 4}.get(count, 2) * self.size):
                things: list[Key] = [pool[i] for i in self.rng.choice(len(pool), count, replace=False)]
                boxes = free_boxes(self.draw, count) if count < 4 else small_boxes(self.draw, count)
                colour = PLAIN[self.rng.integers(4)]
                scene = Scene(colour, tuple(Item(*t, b) for t, b in zip(things, boxes)))
                others = [c for c in COLOURS if c != colour]
                shown = tuple(
                    Reference(self.truth(canonical(t[0], others[self.rng.integers(15)], t[1]))[None], box=Box(*b))
                    for t, b in zip(things, boxes)
                )
                tags = " and ".join(f"<image_{k}><bbox_{k}>" for k in range(1, count + 1))
                scenes.append(scene)
                made.append(self.write(f"{tags} on a {colour} background", shown))
                control.append(Scene(colour, tuple(Item(*t, b) for t, b in zip((*things[1:], pool[self.rng.integers(len(pool))]), boxes))))
            images, name = self.paint(made), f"{count} held-out reference{'s' if count > 1 else ''} in boxes"
            self.score(name, scenes, images, held_out)
            self.add(f"{name}: feature error", self.error(scenes, made))
            truth = torch.stack([self.truth(s) for s in scenes])
            for bound, drawn in (("real pictures", truth), ("reconstruction", self.paint([self.model.encode(t[None]) for t in truth]))):
                self.score(f"{bound}, {name} (upper bound)", scenes, drawn, held_out)
            if 1 < count < 4:
                wrong = [
                    self.judge.name(crop(i, x.box)[None], c.background, held_out(x))[0] == (x.concept, x.style)
                    for i, c in zip(images, control)
                    for x in c.items
                ]
                self.add(f"{name}: control, references shuffled", wrong)

    def ask(self, text: str, scene: Scene) -> Turn:
        shown = (Reference(self.truth(scene)[None]),)
        return self.model.chat(Conversation().user(text, shown), picture="never", max_tokens=24).turns[-1]

    def words(self) -> None:
        thing, style, colour, caption, count = [], [], [], [], []
        for n in NAMES:
            for s in OFFERED_STYLES:
                scene = canonical(n, self.colour(n), s)
                said = self.ask("<image_1> what is this?", scene).text.replace(",", "").split()
                thing.append(n in said)
                style.append(s in said)
                colour.append(self.ask("<image_1> what colour is the background?", scene).text == scene.background)
        for _ in range(6 * self.size):
            a, b = self.rng.permutation(NAMES)[:2].tolist()
            scene = pair(a, b, self.colour(a))
            said = self.ask("<image_1> describe the picture", scene).text.split()
            caption.append(a in said and b in said and scene.background in said)
            count.append(self.ask("<image_1> how many things?", scene).text == "two")
        for name, values in (("thing", thing), ("style", style), ("background", colour)):
            self.add(f"naming: {name}", values)
        self.add("caption of two things: wholly right", caption)
        self.add("counting two things", count)

    def where(self) -> None:
        seen, tries = [], (sample(900_000 + self.seed * 1000 + i, {"where": 1}, "heldout") for i in range(8 * self.size))
        for one in tries:
            wanted = one.turns[1].references[0].box
            boxes = [r.box for r in self.ask(one.turns[0].text, one.shown).references if r.box]
            seen.append(bool(boxes) and box_iou((boxes[0].x, boxes[0].y, boxes[0].width, boxes[0].height), wanted) > 0.5)
        self.add("where is …: box IoU over .5", seen)


def small_boxes(draw: Rng, count: int) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes of three cells in the cells of a 2x3 grid: room for four or five."""
    spots = draw.sample([(x, y) for x in (0, 2.5, 5) for y in (0.5, 4.5)], count)
    return tuple((x / 8, y / 8, 3 / 8, 3 / 8) for x, y in spots)


def box_iou(a, b) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def evaluate(model: str, out: str | Path, seeds: int = 3, size: int = 4, art: Art | None = None) -> str:
    """Measure a model folder; writes results.json and a PNG sheet a task to `out`, and returns the table as Markdown."""
    from PIL import Image

    bench = Bench(WeGen.load(model), art or load_art(DRAWN_STYLES), size)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        bench.run(seed)
    good = {style: [n for n in NAMES if np.mean(bench.cases[f"{style} {n}"]) >= 0.8] for style in OFFERED_STYLES}
    rows = {name: (float(np.mean(values)), float(np.std(values))) for name, values in bench.rows.items()}
    (out / "results.json").write_text(json.dumps({"model": model, "seeds": seeds, "size": size, "good": good, "rows": rows}, indent=1))
    for name, (wanted, made) in bench.sheets.items():
        Image.fromarray(picture_sheet(wanted, made)).save(out / (name.split(" (")[0].replace(" ", "_").replace(",", "") + ".png"))
    lines = ["| measure | mean | spread |", "|---|---|---|"] + [f"| {name} | {a:.3g} | {b:.2g} |" for name, (a, b) in rows.items()]
    lines += ["", *(f"Good in {style}: {len(names)} of {len(NAMES)}: {', '.join(names)}" for style, names in good.items())]
    return "\n".join(lines)


def picture_sheet(wanted: Tensor, made: Tensor, columns: int = 12) -> np.ndarray:
    """(h,w,3) uint8: rows of wanted pictures, each above what was made of it."""
    height, width = made.shape[1:3]
    lines = []
    for i in range(0, len(made), columns):
        for row in (wanted, made):
            line = torch.ones(height + 2, columns * (width + 2), 3)
            for k, image in enumerate(row[i : i + columns]):
                line[:height, k * (width + 2) : k * (width + 2) + width] = image
            lines.append(line)
    return (torch.cat(lines) * 255).round().byte().numpy()
