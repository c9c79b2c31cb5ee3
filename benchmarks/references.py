"""Identity against the number of references (Figure 5 of arXiv 2503.01115), with a second look and without: `python -m wegen.benchmarks.references`.

    written    what the model writes, as it is          shuffled   a second look at another scene's references in the same boxes: the control
    second     a second look at the references          true       features of the scene itself: the bound

Drawings that the miniature was never trained on, in boxes, one to five. Judge: share of things that are the nearest of the gallery (metrics.py);
IoU: overlap with the truth; PSNR in dB. `gap` is true - written of the judge, and how much of it the second look leaves. Needs the judge and the
drawn world, as `wegen mini eval` does. With --out, sheets (truth, written, collage, second look, shuffled, true) and figure5.png.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

SCENES = {1: 20, 2: 16, 3: 12, 4: 8, 5: 8}  # number of references -> scenes a seed
WAYS = ("written", "second", "shuffled", "true")
INK = {"written": (46, 134, 222), "second": (235, 94, 40), "shuffled": (150, 150, 150), "true": (39, 174, 96)}


def scenes(bench, count: int, number: int) -> list:
    """(scene, references) of so many scenes, as `wegen mini eval` draws them."""
    from wegen.wegen_model.chat.conversation import Box, Reference
    from wegen.wegen_model.mini.evaluate.measure import PLAIN, small_boxes
    from wegen.wegen_model.mini.evaluate.metrics import DRAWN_STYLES
    from wegen.wegen_model.mini.tasks.sampling import free_boxes
    from wegen.wegen_model.mini.world.concepts import COLOURS, HELD_OUT_DRAWINGS, HELD_OUT_NAMES
    from wegen.wegen_model.mini.world.scenes import Item, Scene, canonical

    pool = [(d, s) for d in (*HELD_OUT_DRAWINGS, *HELD_OUT_NAMES) for s in DRAWN_STYLES]
    out = []
    for _ in range(number):
        things = [pool[i] for i in bench.rng.choice(len(pool), count, replace=False)]
        boxes = free_boxes(bench.draw, count) if count < 4 else small_boxes(bench.draw, count)
        colour = PLAIN[bench.rng.integers(4)]
        others = [c for c in COLOURS if c != colour]
        shown = (bench.truth(canonical(t[0], others[bench.rng.integers(15)], t[1]))[None] for t in things)
        references = tuple(Reference(picture, box=Box(*box)) for picture, box in zip(shown, boxes))
        out.append((Scene(colour, tuple(Item(*t, b) for t, b in zip(things, boxes))), references))
    return out


def measure(bench, count: int, number: int, strength: float) -> tuple[dict[str, dict[str, float]], list]:
    """({way: {judge, iou, psnr}}, sheet rows)."""
    import torch
    from wegen.wegen_model.mini.evaluate.metrics import crop, held_out, iou, psnr
    from wegen.wegen_model.second_look import look_again

    made = scenes(bench, count, number)
    tags = " and ".join(f"<image_{k}><bbox_{k}>" for k in range(1, count + 1))
    written = [bench.write(f"{tags} on a {scene.background} background", references) for scene, references in made]
    first = bench.paint(written)
    second, shuffled, collages = [], [], []
    for k, ((_, references), features) in enumerate(zip(made, written)):
        look = look_again(bench.model.encode, features, first[k : k + 1], references, strength)
        second.append(look.features)
        collages.append(look.collage[0])
        wrong = tuple(replace(r, picture=other.picture) for r, other in zip(references, made[(k + 1) % len(made)][1]))
        shuffled.append(look_again(bench.model.encode, features, first[k : k + 1], wrong, strength).features)
    truth = torch.stack([bench.truth(scene) for scene, _ in made])
    pictures = dict(
        zip(WAYS, (first, bench.paint(second), bench.paint(shuffled), bench.paint([bench.model.encode(t[None]) for t in truth])))
    )
    rows: dict[str, dict[str, float]] = {}
    for way, images in pictures.items():
        named = [
            bench.judge.name(crop(image, i.box)[None], scene.background, held_out(i))[0] == (i.concept, i.style)
            for (scene, _), image in zip(made, images)
            for i in scene.items
        ]
        rows[way] = {
            "judge": fmean(named),
            "iou": fmean(iou(image, scene, bench.art) for (scene, _), image in zip(made, images)),
            "psnr": fmean(psnr(image, t) for image, t in zip(images, truth)),
        }
    return rows, [truth, first, torch.stack(collages), *(pictures[w] for w in WAYS[1:])]


def figure(rows: dict[int, dict[str, float]]):
    """The judge against the number of references, as a picture."""
    from PIL import Image, ImageDraw
    from wegen.wegen_model.chat.boxes import _font

    width, height, left, top = 640, 420, 70, 40
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    across = lambda count: left + (count - 1) * (width - left - 150) / 4  # noqa: E731
    up = lambda value: top + (1 - value) * (height - top - 60)  # noqa: E731
    for value in (0, 0.25, 0.5, 0.75, 1):
        draw.line((left, up(value), width - 130, up(value)), (225, 225, 225))
        draw.text((left - 44, up(value) - 9), f"{value:.2f}", "black", _font(15))
    for count in rows:
        draw.text((across(count) - 4, height - 52), str(count), "black", _font(15))
    draw.text((left, height - 28), "references", "black", _font(15))
    draw.text((left, 8), "judge: share of references that are recognised", "black", _font(15))
    for k, way in enumerate(WAYS):
        points = [(across(count), up(row[way])) for count, row in rows.items()]
        draw.line(points, INK[way], 3)
        for x, y in points:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), INK[way])
        draw.text((width - 112, top + 24 * k), way, INK[way], _font(16))
    return image


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m wegen.benchmarks.references", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="wegen-mini")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scenes", type=float, default=1.0, help="times the scenes of each number of references (default: 1)")
    parser.add_argument("--strength", type=float, default=1.0, help="of the second look (default: 1)")
    parser.add_argument("--out", type=Path, help="folder for sheets and figure5.png")
    args = parser.parse_args(arguments)
    import numpy as np
    import torch
    from PIL import Image
    from wegen.wegen_model.mini.evaluate.measure import Bench
    from wegen.wegen_model.mini.evaluate.metrics import DRAWN_STYLES
    from wegen.wegen_model.mini.tasks.sampling import Rng
    from wegen.wegen_model.mini.world.art import load_art
    from wegen.wegen_model.pipeline import WeGen

    bench = Bench(WeGen.load(args.model), load_art(DRAWN_STYLES))
    found: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for seed in range(args.seeds):
        bench.seed, bench.rng, bench.draw = seed, np.random.default_rng(seed), Rng(f"eval:{seed}")
        for count, number in SCENES.items():
            rows, sheet = measure(bench, count, max(2, round(number * args.scenes)), args.strength)
            for way, values in rows.items():
                for name, value in values.items():
                    found[count, way, name].append(value)
            if args.out and not seed:
                args.out.mkdir(parents=True, exist_ok=True)
                tall = torch.cat([torch.cat(list(row[:8]), 1) for row in sheet])
                Image.fromarray((tall.clamp(0, 1) * 255).round().byte().numpy()).save(args.out / f"references_{count}.png")
    mean = {key: fmean(values) for key, values in found.items()}
    out = sys.stdout.write
    out(f"{'references':<12}" + "".join(f"{way:>20}" for way in WAYS) + "     gap   left by the second look\n")
    for count in SCENES:
        out(f"{count:<12}")
        for way in WAYS:
            out(f"{mean[count, way, 'judge']:>8.2f}/{mean[count, way, 'iou']:.3f}/{mean[count, way, 'psnr']:.1f}")
        gap = mean[count, "true", "judge"] - mean[count, "written", "judge"]
        left = mean[count, "true", "judge"] - mean[count, "second", "judge"]
        out(f"{gap:>8.2f}   {left:.2f}" + (f" ({left / gap:.0%})\n" if gap > 0 else "\n"))
    if args.out:
        figure({count: {way: mean[count, way, "judge"] for way in WAYS} for count in SCENES}).save(args.out / "figure5.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
