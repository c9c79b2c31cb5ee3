"""A first layer that starts out copying: each slot of the picture to be written looks at the same slot of what it was shown.

t tokens · d model width · c feature width · n slots · e dimensions of a head that turn slowly (rotary pairs of low frequency)

Copying from references is learned late from random weights (thousands of updates at a standstill); this is only an initialisation,
the layer is an ordinary one and goes on learning. Queries and keys carry a code of their slot in the slow dimensions, values the
normalised feature, the output what the feature head reads as that feature. Where nothing was shown, the first token is looked at.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokenizer import Tokenizer
from ..train.batch import Plan, collate, embed
from .dialogue import Bank, Writer, plans
from .pictures import Pool

SLOW = 8  # rotary pairs a head that turn by less than a third of a radian over a conversation
STRENGTH = 30.0  # logit of the right slot; the first token has 0.6 of it
LOUDNESS = 0.1  # of what is copied, so that layers that were trained without it are not drowned
EXAMPLES = 60  # conversations a task
TEACHERS = ("references", "subject", "edit", "restore")  # tasks that show a picture and draw one


@torch.enable_grad()
def slot_codes(n: int, e: int, seed: int = 0) -> Tensor:
    """(n+1,e) unit vectors as far apart as a short descent finds; the last is the first token's."""
    codes = F.normalize(torch.randn(n + 1, e, generator=torch.Generator().manual_seed(seed)), dim=-1).requires_grad_()
    optimiser = torch.optim.Adam([codes], 0.02)
    for _ in range(500):
        unit = F.normalize(codes, dim=-1)
        likeness = unit @ unit.T - 2 * torch.eye(n + 1)
        loss = (likeness * 20).logsumexp((0, 1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return F.normalize(codes.detach(), dim=-1)


@torch.no_grad()
def gather(writer: Writer, examples: list[Plan], features: Bank, n: int) -> tuple[Tensor, ...]:
    """Inputs (t,d) of the tokens that ask (one before each written slot), their slots, of the slots that were read, theirs, and of first
    tokens and words; features (t,c) of the slots that were read."""
    asking, asked, reading, read, other, seen, first = [], [], [], [], [], [], []
    for i in range(0, len(examples), 16):
        batch = collate(examples[i : i + 16])
        true = writer.projectors.normalise(features[batch.rows].float())
        x = embed(writer.language, writer.projectors, batch, true)
        spots = torch.zeros(batch.ids.shape, dtype=torch.bool)
        for (b, start), written, f in zip(batch.place.tolist(), batch.written.tolist(), true):
            spots[b, start : start + n] = True
            if written:
                asking.append(x[b, start - 1 : start + n - 1])
                asked.append(torch.arange(n))
            else:
                reading.append(x[b, start : start + n])
                read.append(torch.arange(n))
                seen.append(f)
        first.append(x[:, 0])
        other.append(x[:, 1:][~spots[:, 1:]])
    return tuple(torch.cat(v) for v in (asking, asked, reading, read, first, other, seen))


@torch.no_grad()
def init_copier(writer: Writer, pool: Pool, tokenizer: Tokenizer, features: Bank, strength: float = STRENGTH,
                ridge: float = 1e-3) -> None:
    """Initialise the writer's first layer by least squares on some of the pool's conversations that show and draw."""
    config, n = writer.language.config, writer.projectors.config.count
    some = [s for task in TEACHERS for s in islice((s for s in pool.samples if s.task == task), EXAMPLES)]
    width = config.width // config.heads
    layer = writer.language.model.layers[0]
    asking, asked, reading, read, first, other, seen = gather(writer, plans(pool, tokenizer, config.positions, some), features, n)
    norm = lambda x: x * x.square().mean(-1, keepdim=True).add(config.eps).rsqrt()  # noqa: E731
    codes = slot_codes(n, 2 * SLOW)

    def solve(x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.solve(x.T @ x + ridge * len(x) * torch.eye(x.shape[1]), x.T @ y).T

    q = solve(norm(asking), codes[asked] + 0.6 * codes[n])
    keys = torch.cat([norm(reading), norm(first).repeat(20, 1), norm(other)])
    goals = torch.cat([codes[read], codes[n].expand(20 * len(first), -1), torch.zeros(len(other), 2 * SLOW)])
    k = solve(keys, goals)
    value = solve(torch.cat([norm(reading), norm(first).repeat(20, 1)]), torch.cat([seen, seen.new_zeros(20 * len(first), seen.shape[1])]))
    slow = torch.cat([torch.arange(width // 2 - SLOW, width // 2), torch.arange(width - SLOW, width)])
    heads = -(-seen.shape[1] // width)  # as many heads as the features need
    attention = layer.self_attn
    attention.o_proj.weight.zero_()
    for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
        weight[: heads * width].zero_()  # heads that are left over start as they are, silent
    out = torch.linalg.pinv(writer.projectors.output_resampler.proj.weight)  # (d,c): what the feature head reads as a feature
    for h in range(heads):
        rows = h * width + slow
        attention.q_proj.weight[rows] = q * (strength * width**0.5)
        attention.k_proj.weight[rows] = k
        part = slice(h * width, min((h + 1) * width, seen.shape[1]))
        attention.v_proj.weight[h * width : h * width + part.stop - part.start] = value[part]
        attention.o_proj.weight[:, h * width : h * width + part.stop - part.start] = LOUDNESS * out[:, part]
    layer.mlp.down_proj.weight.zero_()
    layer.input_layernorm.weight.fill_(1)
