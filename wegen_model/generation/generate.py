"""Two loops over the language model: words until the turn ends or opens a picture, and the n features of a picture.

b prompts · r rows (b, or 2b with guidance, in the order of guidance.py) · l prompt tokens · n features · c feature width · d model width

Source: the public WeGen code (`LlamaForCausalLMVAR.greedy_search`) with its defects mended: features x0..x(n-1) are read where
they were trained to be (at <img>, <img_0> … ), guided features are what is returned, a picture starts its unconditional row anew.
`readout="released"` gives what the public code returns instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..chat.prompt import Prompt, parse
from ..chat.tokenizer import Tokenizer
from ..features import mosaic
from ..models.guidance import guide
from ..models.llama import Cache, Language
from ..models.pointer import Shown
from ..models.projectors import Projectors
from ..models.prompt_embedding import embed_prompts
from ..progress import ProgressEvent
from ..runtime import Runtime, check_result

CELL = 16  # pixels of a feature in previews


@dataclass
class Model:
    """The components that generate, resident for the duration of a call."""

    language: Language
    projectors: Projectors
    tokenizer: Tokenizer
    device: torch.device
    dtype: torch.dtype

    def feature_embeds(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Input embeddings (…,n,d) of raw features (…,n,c) in slots first, first+1, …"""
        embeds = self.projectors.read(tokens.to(self.device, torch.float32), self.dtype)
        if self.projectors.config.slot_embedding:
            embeds = embeds + self.slots(first, tokens.shape[-2])
        return embeds

    def slots(self, first: int, count: int) -> Tensor:
        """Embeddings (count,d) of the placeholders <img_first> …"""
        ids = torch.arange(first, first + count, device=self.device) + self.tokenizer.image_first
        return self.language.embed(ids)

    def embeds(self, prompts: Sequence[Prompt]) -> Tensor:
        """(b,l,d) input embeddings of prompts, padded on the right. A prompt that ends in <img> gets the embedding of the boxes asked for."""
        length = max(map(len, prompts))
        ids = torch.tensor([[*p.ids, *[0] * (length - len(p))] for p in prompts], device=self.device)
        place = [(row, slot.start) for row, p in enumerate(prompts) for slot in p.slots]
        features = [f.tokens.to(self.device, torch.float32) for p in prompts for f in p.features]
        x = embed_prompts(
            self.language,
            self.projectors,
            ids,
            torch.tensor(place, device=self.device).view(-1, 2),
            self.projectors.normalise(torch.cat(features)).to(self.dtype) if features else torch.empty(0),
            boxes=[(row, at, number) for row, p in enumerate(prompts) for at, number in p.boxes],
            regions=[slot.boxes for p in prompts for slot in p.slots],
        )
        told = self.told(prompts)
        if told is not None:
            for row, p in enumerate(prompts):
                if p.ids[-1] == self.tokenizer.image_start:
                    x[row, len(p) - 1] += told[row, 0]
        return x

    def told(self, prompts: Sequence[Prompt]) -> Tensor | None:
        """(b,n,d) box embeddings for the slots of the pictures to be written; None where no box is asked for."""
        if self.projectors.regions is None or not any(p.asked for p in prompts):
            return None
        return self.projectors.regions([p.asked for p in prompts], self.device).to(self.dtype)

    def shown(self, prompts: Sequence[Prompt], rows: int) -> Shown | None:
        """The prompts' pictures, for models with a pointer; they belong to the first rows, the others have none."""
        if not self.projectors.config.pointer:
            return None
        pictures = [[self.projectors.normalise(f.tokens[0].to(self.device, torch.float32)) for f in p.features] for p in prompts]
        return Shown.of([*pictures, *([[]] * (rows - len(prompts)))], torch.empty(0, device=self.device))

    def opening(self) -> Tensor:
        """(1,1,d) <img>, with which an unconditional row begins."""
        return self.language.embed(torch.tensor([[self.tokenizer.image_start]], device=self.device))

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
    refuses: bool = False,
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
        refuses: words with which the model ends its turn are its answer (ModelConfig.refuses): "always" opens no picture after them.
            It does after a description that max_tokens cut off, and after no words at all.
    Returns:
        the new ids (without </s>; ending in <img> when a picture was opened), and whether one was opened.
    """
    t = model.tokenizer
    generator = torch.Generator().manual_seed(seed)
    cache = model.cache(1, len(prompt) + max_tokens + 1)
    hidden = model.language(model.embeds([prompt]), cache, runtime=runtime)[:, -1]
    size = model.language.config.vocab_size
    banned = torch.zeros(size, dtype=torch.bool)
    banned[[i for name, i in t.special.items() if i < size and name.startswith(("<img_", "</img", "<patch", "</patch"))]] = True
    if picture == "never":
        banned[t.image_start] = True
    banned[min(t.size, size) :] = True
    out: list[int] = []
    for step in range(max_tokens):
        logits = model.language.logits(hidden)[0].float().cpu()
        check_result(logits, "scores of words", language=model.language, projectors=model.projectors)
        logits = logits.masked_fill(banned, -torch.inf)
        if rewrite and not out:
            logits[[t.image_start, t.eos]] = -torch.inf
        token = choose(logits, temperature, top_p, generator)
        if token == t.eos:
            if refuses and parse(out, t)[0]:
                return out, False
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
    prompt: Prompt | Sequence[Prompt],
    *,
    guidance: float = 1.0,
    mode: str = "autoregressive",
    readout: str = "aligned",
    keep: tuple[Tensor, Tensor] | None = None,
    runtime: Runtime | None = None,
) -> Tensor:
    """Write the n features of a picture after a prompt that ends in <img>: P(x|c) = prod p(x_i | x_<i, c), paper eq. 1.

    Args:
        prompt: one, or several of any lengths, whose pictures are written side by side, each as it would be alone.
        guidance: unconditional + guidance * (conditional - unconditional), on the features; 1 is off. A prompt's unconditional
            row is <img> and its features so far, from position 0.
        mode: "autoregressive", or "parallel": all at once from placeholders (the supplement's comparison).
        readout: "aligned" x0..x(n-1); "released" what the public code returns: x1..xn, unguided.
        keep: (tokens (n,c), mask (n,) bool), or (b,n,c) and (b,n): kept cells are fed back and returned as they are.
    Returns:
        (n,c) raw features of one prompt, (b,n,c) of several; float32 on the CPU.
    Raises:
        NotANumber: NaN or infinity in them.
    """
    prompts = [prompt] if isinstance(prompt, Prompt) else list(prompt)
    if any(p.ids[-1] != model.tokenizer.image_start for p in prompts):
        raise ValueError("the prompt must end in <img>.")
    if mode == "parallel":
        out = _parallel(model, prompts, guidance, runtime or Runtime())
    else:
        out = _autoregressive(model, prompts, guidance, readout == "released", keep, runtime or Runtime())
    check_result(out, "features", projectors=model.projectors, language=model.language)
    return out[0] if isinstance(prompt, Prompt) else out


def _autoregressive(
    model: Model, prompts: list[Prompt], guidance: float, released: bool, keep: tuple[Tensor, Tensor] | None, runtime: Runtime
) -> Tensor:
    """(b,n,c) features, one after another. Each row has its own positions; those after the end of its prompt are overwritten as it goes."""
    projectors, b, n = model.projectors, len(prompts), model.projectors.config.count
    rows = b if guidance == 1 else 2 * b
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    cache = model.cache(rows, int(lengths.max()) + n)
    hidden = model.language(model.embeds(prompts), cache.rows(0, b), runtime=runtime)
    hidden = hidden[torch.arange(b, device=model.device), lengths - 1][:, None]
    if rows > b:
        hidden = torch.cat([hidden, model.language(model.opening().expand(b, -1, -1), cache.rows(b, rows))])
    start = torch.cat([lengths, torch.ones_like(lengths)])[:rows, None]
    shown, told = model.shown(prompts, rows), model.told(prompts)
    if keep is not None:
        kept, mask = (value.to(model.device).expand(b, *value.shape[-rank:]) for value, rank in zip(keep, (2, 1)))
    fed: list[Tensor] = []  # on the CPU, (b,c) each
    after: list[Tensor] = []

    for i in range(n):
        raw = projectors.denormalise(guide(projectors.predict(hidden, shown and shown.slots(i, 1)).float(), guidance))
        if keep is not None:
            raw = torch.where(mask[:, i, None, None], kept[:, i : i + 1].to(raw), raw)
        fed.append(raw[:, 0].float().cpu())
        if i + 1 < n or released:
            embeds = model.feature_embeds(raw, first=i).to(model.dtype)
            conditional = embeds if told is None or i + 1 == n else embeds + told[:, i + 1 : i + 2]
            hidden = model.language(conditional if rows == b else torch.cat([conditional, embeds]), cache, start + i)
        if released:
            there = model.shown(prompts, b) if i + 1 < n else None
            after.append(projectors.write(hidden[:b], there and there.slots(i + 1, 1))[:, 0].float().cpu())
        runtime.tick(written([x[0] for x in fed], n, projectors.config.grid))
    out = torch.stack(after if released else fed, 1)
    return out if keep is None else torch.where(mask.cpu()[..., None], kept.cpu().float(), out)


def written(fed: list[Tensor], n: int, grid: tuple[int, int]) -> ProgressEvent:
    """The progress event after k of n features (c,): their colours, and a picture of the grid so far."""
    k = len(fed)
    return ProgressEvent(
        "write_features",
        k,
        n,
        cells=lambda: mosaic(torch.stack(fed[:k]), grid).reshape(-1, 3)[:k],
        preview=lambda: mosaic(torch.stack(fed[:k]), grid, CELL),
    )


def _parallel(model: Model, prompts: list[Prompt], guidance: float, runtime: Runtime) -> Tensor:
    """(b,n,c) features, all at once from the placeholders behind <img>."""
    projectors, b, n = model.projectors, len(prompts), model.projectors.config.count
    slots, told = model.slots(0, n - 1), model.told(prompts)
    embeds = model.embeds(prompts)
    rows = [
        torch.cat([embeds[row, : len(p)], slots if told is None else slots + told[row, 1:]]) for row, p in enumerate(prompts)
    ]  # padded on the right, where causal attention never looks
    hidden = model.language(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), runtime=runtime)
    at = torch.tensor([len(p) - 1 for p in prompts], device=model.device)[:, None] + torch.arange(n, device=model.device)
    hidden = hidden[torch.arange(b, device=model.device)[:, None], at]
    x = projectors.predict(hidden, model.shown(prompts, b)).float()
    if guidance != 1:  # from placeholders, unconditional rows are all alike
        alone = model.language(torch.cat([model.opening(), slots[None]], 1), runtime=runtime)
        x = torch.cat([x, projectors.predict(alone).float().expand(b, -1, -1)])
    runtime.tick(ProgressEvent("write_features", n, n))
    return projectors.denormalise(guide(x, guidance)).float().cpu()
