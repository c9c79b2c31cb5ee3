"""Written features in bulk: what the writer really produces, for many samples at once.

b samples of one length · n features · c feature width
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..data.collate import Plan, collate, embed, shown_before
from ..models.llama import Cache
from ..runtime import Runtime
from .dialogue import LanguageModule, plans
from .world.pictures import Pool


@torch.no_grad()
def write(writer: LanguageModule, config: ModelConfig, batch_plans: list[Plan], features: Tensor, parallel: bool) -> Tensor:
    """(b,n,c) raw features of the last picture of each plan; the plans must place it at the same position."""
    n = config.features.count
    start = batch_plans[0].pictures[-1][0]
    if any(p.pictures[-1][0] != start for p in batch_plans):
        raise ValueError("plans of one call must open their last picture at the same position.")
    cut = [replace(p, ids=p.ids[: start + n], trained=p.trained[: start + n]) for p in batch_plans]
    batch = collate(cut)
    b = len(cut)
    known = writer.projectors.normalise(features[batch.rows].float())
    last = torch.zeros(len(batch.rows), dtype=torch.bool)
    last[torch.tensor([len(p.pictures) for p in cut]).cumsum(0) - 1] = True
    shown = shown_before(batch, known, last) if writer.projectors.config.pointer else None
    x = embed(writer.language, writer.projectors, batch, known, last)
    if parallel:
        hidden = writer.language(x[:, : start + n - 1])[:, -n:]
        return writer.projectors.write(hidden, shown)
    cache = Cache.empty(config.language, b, start + n, x.device, x.dtype)
    hidden = writer.language(x[:, :start], cache)[:, -1:]
    out = []
    for i in range(n):
        guess = writer.projectors.predict(hidden, shown and shown.slots(i, 1))
        out.append(guess)
        if i + 1 < n:
            fed = x[:, start + i : start + i + 1] + writer.projectors.input_resampler(guess)
            hidden = writer.language(fed, cache, torch.full((b, 1), start + i))
    return writer.projectors.denormalise(torch.cat(out, 1))


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
