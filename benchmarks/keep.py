"""What stays of a picture when it is edited, with the miniature: `python -m wegen.benchmarks.keep [--edits 8] [--pictures 3] [--seeds 1]`.

Each row stands beside the same edits without keeping, in the same run: the ratio is what counts. About 8 minutes on one core as it is.

    boxes         the changed boxes as mask: pixels that differ outside, the step across the mask's edge, PSNR inside
    backgrounds   a new background, the thing kept by its own outline: how far the picture is from the truth along that outline
    found masks   WeGenDecoder.change_mask against what truly changed: AUC, recall, area wrongly in it; pictures with it and without
    ten edits     things added and removed on the right, one after another: what is left of the thing on the left

Needs the miniature's art and judge (wegen_model/mini/README.md). Steps and errors in 1/255, PSNR in dB.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from ..wegen_model.chat.conversation import Box, Conversation, Reference
from ..wegen_model.edit_pipeline import edit
from ..wegen_model.generation import change_mask, keep
from ..wegen_model.mini.evaluate.measure import Bench
from ..wegen_model.mini.evaluate.measure_changes import edited
from ..wegen_model.mini.evaluate.metrics import DRAWN_STYLES, background_of, crop, offered, psnr
from ..wegen_model.mini.tasks import Sample, sample
from ..wegen_model.mini.world.art import load_art
from ..wegen_model.mini.world.concepts import NAMES
from ..wegen_model.mini.world.scenes import LEFT, RIGHT, Item, Scene, mask, pair
from ..wegen_model.pipeline import WeGen

KINDS = ("add", "background", "move", "paint", "remove", "replace")
CHANGED = 12  # of 255: a pixel of the truth that differs by more was changed
Rows = dict[str, list[float]]


def kind_of(before: Scene, after: Scene) -> str:
    gone, new = ([i for i in a.items if i not in b.items] for a, b in ((before, after), (after, before)))
    if before.background != after.background:
        return "background"
    if not new:
        return "remove"
    if not gone:
        return "add"
    return "paint" if new[0].tint else "replace" if gone[0].box == new[0].box else "move"


def edits(seed: int, each: int) -> Iterator[tuple[str, Sample]]:
    """As many of every kind, in turn, on seeds of their own."""
    left, number = dict.fromkeys(KINDS, each), 5_000_000 + 100_000 * seed
    while any(left.values()):
        one = sample(number, {"edit": 1})
        number += 1
        kind = kind_of(one.shown, one.drawn)
        if left[kind]:
            left[kind] -= 1
            yield kind, one


def differs(image: Tensor, original: Tensor, outside: Tensor) -> float:
    """Pixels outside whose bytes differ, as Save Image writes them: cut off, not rounded."""
    a, b = ((255 * x[0]).clamp(0, 255).byte() for x in (image, original))
    return float((a != b).any(-1)[outside].sum())


def steps(image: Tensor, inside: Tensor) -> tuple[float, float]:
    """Mean step between neighbours across the mask's edge, and between neighbours inside it."""
    across, within = [], []
    for axis in (0, 1):
        change = image[0].diff(dim=axis).abs().mean(-1) * 255
        one, other = inside.narrow(axis, 0, inside.shape[axis] - 1), inside.narrow(axis, 1, inside.shape[axis] - 1)
        across.append(change[one != other])
        within.append(change[one & other])
    return torch.cat(across).mean().item(), torch.cat(within).mean().item()


def auc(score: Tensor, truth: Tensor) -> float:
    """The chance that a changed pixel scores above an unchanged one; ties count half."""
    _, place, count = torch.unique(score.flatten().double(), return_inverse=True, return_counts=True)
    rank = (count.cumsum(0).double() - (count.double() - 1) / 2)[place]
    truth = truth.flatten()
    yes, no = int(truth.sum()), int((~truth).sum())
    return ((rank[truth].sum() - yes * (yes + 1) / 2) / (yes * no)).item() if yes and no else float("nan")


def one_edit(bench: Bench, kind: str, one: Sample, rows: Rows, pooled: dict[str, list[Tensor]], sheet: list[Tensor]) -> None:
    model, seed = bench.model, bench.seed
    before, after = bench.truth(one.shown)[None], bench.truth(one.drawn)[None]
    written = bench.follow(one)
    free = model.decode(written, seed=seed)
    _, right, outside = edited(bench, one.shown, one.drawn, free[0])
    if kind == "background":
        backgrounds(bench, one, before, after, written, free, rows)
    else:
        boxes = (~outside).float()[None]
        pasted = keep.kept(before, boxes, 1, feather=0.0).composite(free)
        ways = {"not kept": free, "pasted": pasted, "kept": model.decode(written, seed=seed, original=before, mask=boxes)}
        ways["kept, match_colours"] = model.decode(written, seed=seed, original=before, mask=boxes, match_colours=True)
        for way, image in ways.items():
            across, within = steps(image, ~outside)
            rows[f"boxes, {way}: pixels that differ outside"].append(differs(image, before, outside))
            rows[f"boxes, {way}: step across the edge"].append(across)
            rows[f"boxes, {way}: across <= max(inside, 1)"].append(across <= max(within, 1))
            rows[f"boxes, {way}: PSNR inside"].append(psnr(image[0][~outside], after[0][~outside]))
    truth = (before - after).abs().amax(-1) * 255 > CHANGED
    score = change_mask.compare(model.decode(model.encode(before), seed=seed), free)
    pooled["score"].append(score)
    pooled["truth"].append(truth)
    found = change_mask.mask_of(score, (score.shape[1], score.shape[2]))
    whole = change_mask.is_whole(found)
    rows[f"found masks, {'background' if kind == 'background' else 'all else'}: taken for whole"].append(whole)
    with_mask = free if whole else model.decode(written, seed=seed, original=before, mask=found)
    talk = Conversation().user(one.turns[0].text, tuple(shown(bench, one)))
    full = edit(model, model.chat(talk, picture="always", max_tokens=40), before, seed=seed)
    for group in ("all", kind):
        rows[f"found masks, {group}: AUC"].append(auc(score, truth))
        rows[f"found masks, {group}: recall"].append(float((found > 0)[truth].float().mean()))
        rows[f"found masks, {group}: area wrongly in it"].append(float((found > 0)[~truth].float().mean()))
    for way, image in (("without", free), ("with a found mask", with_mask), ("with it and kept features", full.image)):
        rows[f"edits {way}: right"].append(edited(bench, one.shown, one.drawn, image[0])[1])
        rows[f"edits {way}: PSNR of the whole"].append(psnr(image, after))
    rows["edits with it and kept features: pixels that differ outside"].append(
        0 if full.whole else differs(full.image, before, full.mask[0] == 0)
    )
    sheet.append(torch.cat([before[0], after[0], free[0], change_mask.overlay(found, before)[0], with_mask[0], full.image[0]], 1))


def shown(bench: Bench, one: Sample) -> Iterator[Reference]:
    for r in one.turns[0].references:
        yield Reference(bench.truth(r.scene)[None] if r.scene else None, box=Box(*r.box) if r.box else None)


def backgrounds(bench: Bench, one: Sample, before: Tensor, after: Tensor, written, free: Tensor, rows: Rows) -> None:
    """The first thing and all others kept by their own alpha: the error along their outlines, 2 pixels to each side."""
    alpha = torch.from_numpy(np.max([mask(one.drawn, i, bench.art) for i in range(len(one.drawn.items))], 0).astype(np.float32) / 255)
    thing = (alpha > 0.5).float()[None]
    outline = (keep.widen(thing, 2) - keep.widen(thing, -2))[0] > 0
    ways = {"nothing kept": free}
    settings = (("alpha > 0 kept", (alpha == 0).float(), 0.0, 0.0), ("alpha = 1 kept", (alpha < 1).float(), 0.0, 0.0))
    settings += (("the same, grow 1, feather 1.5", 1 - alpha, 1.0, 1.5),)
    for name, open_, grow, feather in settings:
        ways[name] = bench.model.decode(written, seed=bench.seed, original=before, mask=open_[None], grow=grow, feather=feather)
    for way, image in ways.items():
        rows[f"backgrounds, {way}: outline error"].append(float((image - after)[0][outline].abs().mean() * 255))
        rows[f"backgrounds, {way}: PSNR of the whole"].append(psnr(image, after))


WAYS = ("no keeping", "found mask", "found mask, kept features", "box, kept features")


def ten_edits(bench: Bench, number: int, rows: Rows, sheet: list[Tensor]) -> None:
    """Remove and add in turn on the right; the thing on the left is never named."""
    left, right, *others = bench.rng.permutation(NAMES).tolist()
    start = pair(left, right, bench.colour(left, False))
    for way in WAYS:
        image, there, strip = bench.truth(start)[None], right, [bench.truth(start)]
        first, obeyed = image, []
        for step in range(10):
            message = f"<image_1> remove the {there}" if step % 2 == 0 else f"<image_1> add a {others[step // 2]} at <bbox_2>"
            place = () if step % 2 == 0 else (Reference(box=Box(*RIGHT)),)
            talk = bench.model.chat(Conversation().user(message, (Reference(image), *place)), picture="always", max_tokens=40)
            if way == "no keeping":
                image = bench.model.decode(bench.model.draw(talk)[0], seed=step)
            else:
                box = None if way.startswith("found") else half()
                image = edit(bench.model, talk, image, box, seed=step, keep_features="features" in way).image
            seen = crop(image[0], RIGHT)
            if step % 2 == 0:
                obeyed.append(bool((seen - first[0, 2, 2]).abs().mean() < 0.08))
            else:
                there = others[step // 2]
                obeyed.append(bench.judge.name(seen[None], start.background, offered(Item(there, "noto", RIGHT)))[0][0] == there)
            strip.append(image[0])
        outside = half()[0] == 0
        rows[f"ten edits, {way}: left thing, PSNR to the start"].append(psnr(image[0][outside], first[0][outside]))
        rows[f"ten edits, {way}: its pixels that differ, share"].append(differs(image, first, outside) / int(outside.sum()))
        named = bench.judge.name(crop(image[0], LEFT)[None], start.background, offered(start.items[0]))[0][0]
        rows[f"ten edits, {way}: left thing recognised"].append(named == left)
        rows[f"ten edits, {way}: steps obeyed"].append(mean(obeyed))
        rows[f"ten edits, {way}: background"].append(background_of(image[0]) == start.background)
        sheet.append(torch.cat(strip, 1))


def half() -> Tensor:
    out = torch.zeros(1, 128, 128)
    out[..., 64:] = 1
    return out


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(prog="python -m wegen.benchmarks.keep", description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=8, help="of each of the six kinds, for each seed")
    parser.add_argument("--pictures", type=int, default=3, help="that are edited ten times in each of four ways, for each seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sheets", help="a folder for the pictures: before, truth, free, place found, with it, with kept features")
    args = parser.parse_args()
    try:
        bench = Bench(WeGen.load(), load_art(DRAWN_STYLES))
    except RuntimeError as error:  # no judge, or no art
        sys.exit(f"benchmarks.keep: {error}")
    bench.model.runtime.warn = lambda _: None  # whole backgrounds are counted
    by_seed: dict[str, list[float]] = defaultdict(list)
    for seed in range(args.seeds):
        bench.seed, bench.rng = seed, np.random.default_rng(seed)
        rows: Rows = defaultdict(list)
        pooled: dict[str, list[Tensor]] = defaultdict(list)
        sheets: dict[str, list[Tensor]] = {"edits": [], "ten_edits": []}
        with torch.inference_mode():
            for kind, one in edits(seed, args.edits):
                one_edit(bench, kind, one, rows, pooled, sheets["edits"])
            for number in range(args.pictures):
                ten_edits(bench, number, rows, sheets["ten_edits"])
        if pooled:
            rows["found masks, all: AUC of all pixels together"].append(auc(torch.cat(pooled["score"]), torch.cat(pooled["truth"])))
        for name, values in rows.items():
            by_seed[name].append(float(np.nanmean(values)))
        for name, strips in sheets.items():
            if args.sheets and strips:
                pixels = (torch.cat(strips, 0).clamp(0, 1) * 255).round().byte().numpy()
                Image.fromarray(pixels).save(f"{args.sheets}/{name}_{seed}.png")
    for name, values in sorted(by_seed.items()):
        sys.stdout.write(f"{name:<78}{np.mean(values):9.3f}  spread {np.std(values):.3f}\n")


if __name__ == "__main__":
    main()
