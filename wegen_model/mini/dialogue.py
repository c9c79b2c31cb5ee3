"""`stage-1` of the miniature: the language model learns to read, answer and draw, on cached features of its scenes.

n features (64) · c feature width · d model width

Against exposure error (each feature is fed back to the writer), what is fed back in training is the true feature, the true
one with noise, the model's own prediction from a first pass, or nothing at all (`parallel` writing from placeholders).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..chat import prompt
from ..chat.conversation import Box, Conversation, Reference, Turn
from ..chat.tokenizer import Tokenizer
from ..config import ModelConfig
from ..data.collate import Plan, collate, embed, language_loss, predictions, unconditional
from ..features import Features
from ..train.losses import feature_losses
from ..train.modules import LanguageModule
from ..train.trainer import Recipe, Stage
from .stages import grid_code
from .tasks import Sample
from .world.pictures import Pool


def init_writer(writer: LanguageModule, tokenizer: Tokenizer, mean: Tensor, std: Tensor) -> None:
    """Scaled normal weights; placeholders and locations start as sines of where they are, in the same coordinates."""
    config = writer.language.config
    d = config.width
    for name, p in writer.language.named_parameters():
        if p.ndim == 2:
            quiet = (2 * config.layers) ** -0.5 if "o_proj" in name or "down_proj" in name else 1
            nn.init.normal_(p, std=0.8 * quiet * p.shape[1] ** -0.5)
    nn.init.normal_(writer.language.lm_head.weight, std=0.02)
    table = writer.language.model.embed_tokens.weight
    nn.init.normal_(table, std=0.5)
    with torch.no_grad():
        side = writer.projectors.config.grid[0]
        n = side * side
        code = grid_code(side, d // 2) * 0.7
        table[tokenizer.image_first : tokenizer.image_first + n, : d // 2] = code
        at = torch.arange(224) / 224
        waves = torch.pi / 2 * at[:, None] * (torch.arange(d // 8) + 1.0)[None] * side / (d // 8)
        line = torch.cat([waves.sin(), waves.cos()], -1) * 0.7  # the coordinates of grid_code, for rows and for columns
        table[tokenizer.loc_first : tokenizer.loc_first + 224, : d // 2] = torch.cat([line, line], -1)
        writer.projectors.mean.copy_(mean)
        writer.projectors.std.copy_(std)
    nn.init.normal_(writer.projectors.input_resampler.proj.weight, std=0.5 * mean.numel() ** -0.5)
    nn.init.normal_(writer.projectors.output_resampler.proj.weight, std=0.5 * d**-0.5)
    if writer.projectors.config.pointer:
        nn.init.zeros_(writer.projectors.pointer.change.weight)  # what is pointed at begins unchanged
        for block in writer.projectors.pointer.blocks:
            nn.init.zeros_(block.down.weight)
    if writer.projectors.regions is not None:  # and boxes begin untold
        nn.init.zeros_(writer.projectors.regions.outer.weight)
        nn.init.zeros_(writer.projectors.regions.number.weight)


def conversation(sample: Sample, index: dict, features: Features | None = None) -> tuple[Conversation, list[int]]:
    """A sample as a conversation of blank features, and the rows of its pictures in the order of the prompt."""
    blank = features or Features(torch.zeros(1, 64, 1), (8, 8), "", "")
    turns, rows = [], []
    for turn in sample.turns:
        references = tuple(
            Reference(features=blank if r.scene is not None else None, box=Box(*r.box) if r.box else None) for r in turn.references
        )
        made = Turn(turn.role, turn.text, references, pictures=(blank,) if turn.picture is not None else ())
        tags = [k for kind, k in made.tags() if kind == "image"]
        first = [k for k, r in enumerate(turn.references, 1) if r.scene is not None and k not in tags]
        rows += [index[turn.references[k - 1].scene] for k in (*first, *tags)]
        if turn.picture is not None:
            rows.append(index[turn.picture])
        turns.append(made)
    return Conversation(tuple(turns)), rows


def plans(pool: Pool, tokenizer: Tokenizer, positions: int, samples: list[Sample] | None = None) -> list[Plan]:
    """The plans of a pool's samples, or of some of them."""
    out = []
    for sample in pool.samples if samples is None else samples:
        talk, _ = conversation(sample, pool.index)
        laid = prompt.layout(talk, tokenizer, positions, 64, end=True)
        turns = [(sample.turns[slot.turn], slot.reference) for slot in laid.slots]
        out.append(Plan.of(laid, [pool.index[turn.picture if k is None else turn.references[k].scene] for turn, k in turns]))
    return out


@dataclass(frozen=True)
class Options:
    """What the writer's training feeds back, and how the losses weigh."""

    tokens: int = 1100  # of a batch
    truth: float = 0.5  # share of pictures fed the truth, with noise of 0 … `noise`; the rest is fed nothing (`parallel`)
    own_batches: float = 0.5  # share of batches with a first pass, whose predictions are fed …
    own: float = 0.65  # … to this share of their pictures
    noise: float = 0.6
    own_from: float = 0.12  # the share of training after which that begins
    blank_share: float = 0.04  # unconditional samples
    language: float = 0.4
    spread: float = 6.0  # of locations in answers, see language_loss
    cosine: float = 0.5
    focus: tuple[tuple[str, float], ...] = ()  # (task, factor): how much more often than its share a task is trained


def _buckets(tasks: list[str], lengths: np.ndarray, focus: dict[str, float], size: int = 400) -> tuple[list[np.ndarray], np.ndarray]:
    """Samples of one task and alike in length, and how likely each bucket is."""
    buckets, weights = [], []
    for task in sorted(set(tasks)):
        mine = np.array([i for i, t in enumerate(tasks) if t == task])
        mine = mine[np.argsort(lengths[mine], kind="stable")]
        for i in range(0, len(mine), size):
            buckets.append(mine[i : i + size])
            weights.append(len(buckets[-1]) * focus.get(task, 1.0))
    return buckets, np.array(weights) / sum(weights)


def dialogue_stage(
    config: ModelConfig,
    pool: Pool,
    features: Bank,
    tokenizer: Tokenizer,
    recipe: Recipe,
    options: Options = Options(),
    sample=None,
    sample_every: int = 0,
) -> Stage:
    """LM, MSE and cosine losses over the features (m,n,c) of the pool's pictures, raw."""
    writer = LanguageModule(config)
    n = config.features.count
    scenes = features[: min(600, len(pool.scenes))].float()
    mean = scenes.mean((0, 1))
    std = (scenes - mean).square().mean().sqrt().expand_as(mean)  # one scale: strong directions count more
    init_writer(writer, tokenizer, mean, std)
    everything = plans(pool, tokenizer, config.language.positions)
    drawn = [p.pictures[-1][1] for p in everything if p.pictures and p.pictures[-1][2]]
    lengths = np.array([len(p.ids) for p in everything])
    buckets, weights = _buckets([s.task for s in pool.samples], lengths, dict(options.focus))

    def make(step: int):
        rng = np.random.default_rng((recipe.seed, 7, step))
        bucket = buckets[rng.choice(len(buckets), p=weights)]
        count = min(len(bucket), max(3, int(options.tokens / lengths[bucket].max())))
        picked = [everything[i] for i in rng.choice(bucket, count, replace=False)]
        if rng.random() < options.blank_share * 4:
            picked += [unconditional(tokenizer, drawn[rng.integers(len(drawn))], n) for _ in range(max(1, count // 4))]
        return collate(picked), step

    def loss(data, generator):
        batch, step = data
        true = writer.projectors.normalise(features[batch.rows].float())
        m = len(batch.rows)
        fed, blank = true.clone(), torch.zeros(m, dtype=torch.bool)
        if m:
            draw, two_pass = torch.rand(m, generator=generator), torch.rand((), generator=generator) < options.own_batches
            own = batch.written & (torch.rand(m, generator=generator) < options.own) & two_pass
            own &= torch.tensor(step > options.own_from * recipe.steps)
            final = torch.ones(m, dtype=torch.bool)  # earlier pictures of a conversation are there to be read
            final[:-1] = batch.place[1:, 0] != batch.place[:-1, 0]
            truth = ~own & ((draw < options.truth) | ~final)
            blank = batch.written & ~own & ~truth
            level = options.noise * torch.rand(m, 1, 1, generator=generator)
            noisy = true + level * torch.randn(true.shape, generator=generator)
            fed = torch.where((batch.written & truth)[:, None, None], noisy, fed)
            if own.any():
                with torch.no_grad():  # a first pass from noisy truth or from nothing gives the predictions that are fed
                    first = torch.where(own[:, None, None], true + 0.5 * torch.randn(true.shape, generator=generator), fed)
                    hollow = blank | (own & (torch.rand(m, generator=generator) < 0.5))
                    hidden = writer.language(embed(writer.language, writer.projectors, batch, first, hollow))
                    guess = predictions(writer.projectors, hidden, batch, n, true)
                    whole = fed.clone()
                    whole[batch.written] = guess
                    fed = torch.where(own[:, None, None], whole, fed)
        hidden = writer.language(embed(writer.language, writer.projectors, batch, fed, blank))
        words = language_loss(writer.language, hidden, batch, tokenizer.loc_first, options.spread)
        out = {"loss": options.language * words, "words": words.detach()}
        if batch.written.any():
            guess, goal = predictions(writer.projectors, hidden, batch, n, true), true[batch.written]
            mse, cosine = feature_losses(guess, goal)
            out["loss"] = out["loss"] + mse + options.cosine * cosine
            out |= {"mse": mse.detach(), "cosine": cosine.detach()}
            for name, which in (("parallel", blank), ("truth", truth & batch.written)):
                if which.any():
                    picked = which[batch.written]
                    out[name] = (guess.detach()[picked] - goal[picked]).square().mean()
        return out

    return Stage("stage-1", writer, make, loss, recipe, sample, sample_every)


class Bank:
    """Features of a pool's pictures, each rendered and encoded when it is first asked for: `bank[rows]` is (m,n,c) float16."""

    def __init__(self, tower: nn.Module, config: ModelConfig, pool: Pool):
        self.tower, self.config, self.pool = tower, config, pool
        self.known = torch.zeros(len(pool), dtype=torch.bool)
        self.table = torch.empty(len(pool), config.features.count, config.features.width, dtype=torch.float16)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows) -> Tensor:
        rows = torch.arange(len(self))[rows] if isinstance(rows, slice) else torch.as_tensor(rows, dtype=torch.long)
        new = rows[~self.known[rows]].unique()
        for some in new.split(64) if len(new) else ():
            pictures = np.stack([self.pool.picture(int(i)) for i in some])
            self.table[some] = encode_pictures(self.tower, self.config, pictures)
            self.known[some] = True
        return self.table[rows]


@torch.no_grad()
def encode_pictures(tower: nn.Module, config: ModelConfig, pictures: np.ndarray) -> Tensor:
    """(b,n,c) float16 features of uint8 pictures."""
    from ..models.eva_clip import prepare
    from .stages import to_float

    return tower(prepare(to_float(pictures), config.vision)).half()
