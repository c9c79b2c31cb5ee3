"""Written features in bulk: what the writer really produces, for many samples at once.

b samples · n features · c feature width
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from ..chat.prompt import Prompt, Slot
from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..data.collate import Plan
from ..features import Features
from ..generation import generate
from ..runtime import Runtime
from .dialogue import LanguageModule, plans
from .world.pictures import Pool


@torch.no_grad()
def write(writer: LanguageModule, config: ModelConfig, batch_plans: list[Plan], features: Tensor, parallel: bool) -> Tensor:
    """(b,n,c) raw features of the last picture of each plan."""
    prompts = []
    for one in batch_plans:
        *known, (start, _, _) = one.pictures
        slots = [Slot(at, written, 0, None, boxes=asked) for (at, _, written), asked in zip(known, one.regions)]
        shown = [Features(features[[row]].float(), config.features.grid, "", "") for _, row, _ in known]
        boxes, asked = [box for box in one.boxes if box[0] < start], one.regions[-1]
        prompts.append(Prompt(config.features.count, one.ids[:start], one.trained[:start], slots, [], boxes, asked, shown))
    start, ids = batch_plans[0].pictures[-1][0], batch_plans[0].ids
    known_ids = SimpleNamespace(image_start=ids[start - 1], image_first=ids[start])  # all that writing features asks of a tokenizer
    first = next(writer.parameters())
    model = generate.Model(writer.language, writer.projectors, known_ids, first.device, first.dtype)
    return generate.write_features(model, prompts, mode="parallel" if parallel else "autoregressive")


def grouped(all_plans: list[Plan], picks: list[int], size: int) -> list[list[int]]:
    """Picks whose last picture is written, in groups that open it at the same position."""
    by: dict[int, list[int]] = {}
    for i in picks:
        if all_plans[i].pictures and all_plans[i].pictures[-1][2]:
            by.setdefault(all_plans[i].pictures[-1][0], []).append(i)
    return [g[i : i + size] for g in by.values() for i in range(0, len(g), size)]


def roll(
    writer: LanguageModule,
    config: ModelConfig,
    tokenizer: Tokenizer,
    pool: Pool,
    features: Tensor,
    count: int,
    runtime: Runtime | None = None,
    size: int = 32,
) -> tuple[Tensor, list[int]]:
    """Features written for the first `count` samples, two thirds autoregressively, and the rows they aim at."""
    everything = plans(pool, tokenizer, config.language.positions)
    tokens, rows = [], []
    groups = grouped(everything, list(range(min(count, len(everything)))), size)
    for k, group in enumerate(groups):
        tokens.append(write(writer, config, [everything[i] for i in group], features, parallel=k % 3 == 2).half())
        rows += [everything[i].pictures[-1][1] for i in group]
        if runtime:
            runtime.tick(k + 1, len(groups), "rollout")
    return torch.cat(tokens), rows
