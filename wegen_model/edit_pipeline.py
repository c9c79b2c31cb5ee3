"""An edit of which the rest stays, with all three parts together: where it may change, features kept outside, pixels kept outside.

    a mask or box, or (without one) written once freely, painted beside the original, and compared   generation/change_mask.py
    written again with the original's features in every cell that the mask leaves alone              generate.write_features, `keep`
    painted into the original                                                                        generation/keep.py

A box holds through any number of edits. A found mask holds what the writing leaves alone, and no more: what it damages is in the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .chat.conversation import Conversation
from .features import Features
from .generation import change_mask, keep
from .generation.feature_ops import cell_shares
from .pipeline import WeGen
from .validation import check_images

TOUCHED = 0.25  # share of a cell that the mask must cover for its feature to be written anew


@dataclass(frozen=True)
class Edited:
    """`image` (n,H,W,3) in 0..1, one for each seed, of the original's size where `whole` is False; `mask` (1,H,W), 0 where they are the
    original to the bit."""

    image: Tensor
    mask: Tensor
    features: Features
    conversation: Conversation
    whole: bool = False


def edit(
    model: WeGen,
    conversation: Conversation,
    original: Tensor,
    mask: Tensor | None = None,
    *,
    guidance: float = 1.0,
    seed: int | Sequence[int] = 0,
    mask_seed: int | None = None,
    feather: float = keep.FEATHER,
    grow: float = change_mask.GROW,
    mode: str = "paint",
    keep_features: bool = True,
    trim_oldest: bool = False,
    where: str = "Edit in Box",
    **options,
) -> Edited:
    """Draw the picture that the last turn opened into the picture that it changes.

    Args:
        conversation: its last turn opened a picture (`WeGen.chat`, picture "always"), and `original` was shown in it.
        original: (1,H,W,3) in 0..1, of any size. mask: (m,h,w), 1 where it may change; None finds it, in `mode` of
            `WeGenDecoder.change_mask`, which takes a second writing and two more paintings (a few UNet calls in mode "probe").
        guidance: over features, as of `WeGen.draw`. seed: of the noise; several paint the one edit as often, each as it would be alone.
        mask_seed: of the noise by which a mask is found; None takes the (first) seed. feather: as of `WeGenDecoder.decode`.
        grow: percent of the shorter side around what a found mask holds. keep_features: off writes everything anew, as `draw` does.
        options: of `WeGenDecoder.decode`.
    Returns:
        Edited; `whole` where a found mask takes the whole rim, as a new background does: then nothing was kept, and the person is told.
    Raises:
        ValueError: as `draw` and `decode`; more than one original.
    """
    original = check_images(original, f"{where}, image")
    if len(original) != 1:
        raise ValueError(f"{where}: image holds {len(original)} pictures: one is edited at a time. Pick one with «Image From Batch».")
    before = model.encode(original, where=f"{where}, image")
    written: Features | None = None
    seeds = [seed] if isinstance(seed, int) else list(seed)

    def paint(features: Features, **more) -> Tensor:
        return _painted(model, seeds, features, **{**options, **more})

    draw = partial(model.draw, conversation, guidance=guidance, trim_oldest=trim_oldest)
    if mask is None:
        written, talk = draw()
        mask = model.painter.change_mask(
            before, written, mode=mode, original=original, seed=seeds[0] if mask_seed is None else mask_seed, grow=grow, **options
        )
        if change_mask.is_whole(mask):
            model.runtime.warn("Nearly everything changes, as with a new background or a new picture: nothing of the original was kept.")
            return Edited(paint(written), torch.ones_like(mask), written, talk, True)
    stays = keep.kept(original, mask, 1, where=where, warn=model.runtime.warn)
    cells = cell_shares(_at_least(stays.mask, before.grid), before.grid)[0] < TOUCHED
    if keep_features or written is None:
        written, talk = draw(keep=(before, cells.float()) if keep_features and cells.any() else None)
    image = paint(written, original=original, mask=stays.mask, feather=feather)
    return Edited(image, stays.mask, written, talk)


def _painted(model: WeGen, seeds: list[int], features: Features, **options) -> Tensor:
    """(n,H,W,3): one picture's features painted from the noise of each seed, as one batch."""
    return model.decode(features.repeat(len(seeds)), seed=seeds if len(seeds) > 1 else seeds[0], **options)


def _at_least(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask (b,H,W) with at least one pixel for each cell of a grid."""
    return mask if mask.shape[-2] >= grid[0] and mask.shape[-1] >= grid[1] else keep.fit(mask, grid)
