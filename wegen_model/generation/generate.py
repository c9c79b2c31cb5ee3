"""Two loops over the language model: words until the turn ends or opens a picture, and the n features of a picture.

b rows (1, or 2 with guidance: conditional, unconditional) · l prompt tokens · n features · c feature width · d model width

Source: the public WeGen code (`LlamaForCausalLMVAR.greedy_search`) with its defects mended: features x0..x(n-1) are read where
they were trained to be (at <img>, <img_0> … ), guided features are what is returned, a picture starts its unconditional row anew.
`readout="released"` gives what the public code returns instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..chat.prompt import Prompt
from ..chat.tokenizer import Tokenizer
from ..features import Projectors, mosaic
from ..models.box_embedding import IDS
from ..models.llama import Cache, Language
from ..models.pointer import Shown
from ..progress import ProgressEvent
from ..runtime import Runtime

CELL = 16  # pixels of a feature in previews


@dataclass
class Model:
    """The parts that generate, resident for the duration of a call."""

    language: Language
    projectors: Projectors
    tokenizer: Tokenizer
    device: torch.device
    dtype: torch.dtype

    def feature_embeds(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Input embeddings (…,n,d) of raw features (…,n,c) that stand in slots first, first+1, …"""
        embeds = self.projectors.read(tokens.to(self.device, torch.float32), self.dtype)
        if self.projectors.config.slot_embedding:
            embeds = embeds + self.slots(first, tokens.shape[-2])
        return embeds

    def slots(self, first: int, count: int) -> Tensor:
        """Embeddings (count,d) of the placeholders <img_first> …"""
        ids = torch.arange(first, first + count, device=self.device) + self.tokenizer.image_first
        return self.language.embed(ids)

    def embeds(self, prompt: Prompt) -> Tensor:
        """(1,l,d): token embeddings, overwritten by features at their places."""
        x = self.language.embed(torch.tensor([prompt.ids], device=self.device))
        spots = torch.tensor([[a or b for a, b in zip(prompt.read, prompt.written)]], device=self.device)
        if prompt.features:
            tokens = torch.cat([f.tokens for f in prompt.features]).to(self.device)
            x[spots] = self.feature_embeds(tokens).flatten(0, 1).to(x)
        return x if self.projectors.regions is None else self._with_boxes(x, prompt)

    def _with_boxes(self, x: Tensor, prompt: Prompt) -> Tensor:
        """Embeddings (1,l,d), told of the boxes as in training (train/batch.py). A picture that opens at the end is told of, too."""
        regions, n = self.projectors.regions, self.projectors.config.count
        if prompt.boxes:
            codes = regions.numbers([number for _, number in prompt.boxes], self.device)
            for (at, _), code in zip(prompt.boxes, codes):
                x[0, at : at + IDS] += code.to(x)
        spots = [a or b for a, b in zip(prompt.read, prompt.written)]
        starts = [i for i in range(1, len(spots)) if spots[i] and not spots[i - 1]]
        for start, boxes in zip(starts, prompt.regions):
            if boxes:
                x[0, start - 1 : start - 1 + n] += regions([boxes], self.device)[0].to(x)
        if prompt.ids[-1] == self.tokenizer.image_start:
            x[0, -1] += self.region(prompt, 0)[0]
        return x

    def region(self, prompt: Prompt, first: int) -> Tensor:
        """(n-first,d) what the slots from `first` of the picture to come are told of the boxes; zeros (…,1) without."""
        if self.projectors.regions is None or not prompt.asked:
            return torch.zeros(self.projectors.config.count - first, 1, device=self.device, dtype=self.dtype)
        return self.projectors.regions([prompt.asked], self.device)[0, first:].to(self.dtype)

    def shown(self, prompt: Prompt, rows: int) -> Shown | None:
        """The prompt's pictures, which models that point may point at, for the first of the rows; the others have none."""
        if not self.projectors.config.pointer:
            return None
        pictures = [self.projectors.normalise(f.tokens[0].to(self.device, torch.float32)) for f in prompt.features]
        return Shown.of([pictures, *([[]] * (rows - 1))], torch.empty(0, device=self.device))

    def cache(self, rows: int, slots: int) -> Cache:
        return Cache.empty(self.language.config, rows, slots, self.device, self.dtype)


def choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One id from logits (v,): the largest at temperature 0, otherwise sampled from the top_p nucleus, on the CPU."""
    logits = logits.float().cpu()
    if temperature <= 0:
        return int(logits.argmax())
    p, order = (logits / temperature).softmax(-1).sort(descending=True)
    p[(p.cumsum(-1) - p) >= top_p] = 0
    return int(order[torch.multinomial(p, 1, generator=generator)])


def write_text(
    model: Model,
    prompt: Prompt,
    *,
    picture: str,
    rewrite: bool,
    temperature: float,
    top_p: float,
    seed: int,
    max_tokens: int,
    runtime: Runtime,
    show: Callable[[list[int]], str] | None = None,
) -> tuple[list[int], bool]:
    """Run the model until it ends its turn or opens a picture: p(text | c).

    Args:
        picture: "auto" as the model decides, "always" opens one after the reply, "never" forbids it.
        rewrite: the reply must hold words before a picture may open (prompt self-rewriting).
    Returns:
        the new ids (without </s>; ending in <img> when a picture was opened), and whether one was opened.
    """
    t = model.tokenizer
    generator = torch.Generator().manual_seed(seed)
    cache = model.cache(1, len(prompt) + max_tokens + 1)
    hidden = model.language(model.embeds(prompt), cache, runtime=runtime)[:, -1]
    size = model.language.config.vocab_size
    banned = torch.zeros(size, dtype=torch.bool)
    banned[[i for name, i in t.special.items() if i < size and name.startswith(("<img_", "</img", "<patch", "</patch"))]] = True
    if picture == "never":
        banned[t.image_start] = True
    banned[min(t.size, size) :] = True
    out: list[int] = []
    for step in range(max_tokens):
        logits = model.language.logits(hidden)[0].float().cpu().masked_fill(banned, -torch.inf)
        if rewrite and not out:
            logits[[t.image_start, t.eos]] = -torch.inf
        token = choose(logits, temperature, top_p, generator)
        if token == t.eos:
            break
        out.append(token)
        runtime.tick(ProgressEvent("write_text", step + 1, max_tokens, text=show(out) if show else None))
        if token == t.image_start:
            return out, True
        at = torch.tensor([[len(prompt) + step]], device=model.device)
        hidden = model.language(model.language.embed(torch.tensor([[token]], device=model.device)), cache, at)[:, -1]
    if picture == "always":
        return [*out, t.image_start], True
    return out, False


def write_features(
    model: Model,
    prompt: Prompt,
    *,
    guidance: float = 1.0,
    mode: str = "autoregressive",
    readout: str = "aligned",
    keep: tuple[Tensor, Tensor] | None = None,
    runtime: Runtime | None = None,
) -> Tensor:
    """Write the n features of a picture after a prompt that ends in <img>: P(x|c) = prod p(x_i | x_<i, c), paper eq. 1.

    Args:
        guidance: unconditional + guidance * (conditional - unconditional), on the features; 1 is off. The unconditional
            row is <img> and the features so far, from position 0.
        mode: "autoregressive", or "parallel": all at once from placeholders (the supplement's comparison).
        readout: "aligned" x0..x(n-1); "released" what the public code returns: x1..xn, unguided.
        keep: (tokens (n,c), mask (n,) bool): kept cells are fed back and returned as they are.
    Returns:
        (n,c) raw features, float32 on the CPU.
    """
    runtime = runtime or Runtime()
    if prompt.ids[-1] != model.tokenizer.image_start:
        raise ValueError("the prompt must end in <img>.")
    n = model.projectors.config.count
    guided = guidance != 1.0
    if mode == "parallel":
        return _parallel(model, prompt, n, guidance, runtime)
    length = len(prompt)
    cache = model.cache(2 if guided else 1, length + n)
    hidden = [model.language(model.embeds(prompt), cache.row(0), runtime=runtime)[:, -1:]]
    starts = [length]
    if guided:
        opening = model.language.embed(torch.tensor([[model.tokenizer.image_start]], device=model.device))
        hidden.append(model.language(opening, cache.row(1))[:, -1:])
        starts.append(1)
    hidden = torch.cat(hidden)
    shown = model.shown(prompt, len(hidden))
    start = torch.tensor(starts, device=model.device)[:, None]
    told = model.region(prompt, 0)
    fed, after = [], []
    for i in range(n):
        x = guide(model.projectors.predict(hidden, shown and shown.slots(i, 1)).float(), guidance)
        raw = model.projectors.denormalise(x)
        if keep is not None and bool(keep[1][i]):
            raw = keep[0][i].to(raw).expand_as(raw)
        fed.append(raw[0, 0].float().cpu())
        if i + 1 < n or readout == "released":
            embeds = model.feature_embeds(raw, first=i).to(model.dtype)
            rows = embeds.expand(len(hidden), -1, -1)
            if i + 1 < n:  # the unconditional row knows of no boxes
                rows = torch.cat([rows[:1] + told[i + 1], rows[1:]])
            hidden = model.language(rows, cache, start + i)
            there = model.shown(prompt, 1) if i + 1 < n else None
            after.append(model.projectors.write(hidden[:1], there and there.slots(i + 1, 1))[0, 0].float().cpu())
        runtime.tick(written(fed, n, model.projectors.config.grid))
    out = torch.stack(after if readout == "released" else fed)
    if keep is not None:
        out = torch.where(keep[1].cpu()[:, None], keep[0].cpu().float(), out)
    return out


def written(fed: list[Tensor], n: int, grid: tuple[int, int]) -> ProgressEvent:
    """The event of k of n features (c,) that are written: their colours, and a picture of the grid so far."""
    k = len(fed)
    return ProgressEvent(
        "write_features",
        k,
        n,
        cells=lambda: mosaic(torch.stack(fed[:k]), grid).reshape(-1, 3)[:k],
        preview=lambda: mosaic(torch.stack(fed[:k]), grid, CELL),
    )


def guide(x: Tensor, guidance: float) -> Tensor:
    """(2,…) conditional and unconditional rows to one (1,…); a single row passes through."""
    return x if len(x) == 1 else x[1:] + guidance * (x[:1] - x[1:])


def _parallel(model: Model, prompt: Prompt, n: int, guidance: float, runtime: Runtime) -> Tensor:
    slots = model.slots(0, n - 1)[None]
    rows = [torch.cat([model.embeds(prompt), slots + model.region(prompt, 1)], 1)]
    if guidance != 1.0:
        opening = model.language.embed(torch.tensor([[model.tokenizer.image_start]], device=model.device))
        rows.append(torch.cat([opening, slots], 1))
    shown = [model.shown(prompt, 1), None]
    x = torch.cat([model.projectors.predict(model.language(row, runtime=runtime)[:, -n:], s).float() for row, s in zip(rows, shown)])
    runtime.tick(ProgressEvent("write_features", n, n))
    return model.projectors.denormalise(guide(x, guidance))[0].float().cpu()
