"""Box embeddings for the slots that a box covers: which box, and where in it, for each feature of a picture to be written.

b boxes · n slots (rows x columns, row-major) · d model width · f values for a slot's position in a box

    code_i = sum_k overlap_ki (number_k + outer(silu(inner(where_ki))))        added where slot i is predicted
    number_k                                                                   added to the ids of box k in the prompt

Source: grounded generation with box embeddings (GLIGEN, Li et al. 2023, arXiv 2301.07093: Fourier features of boxes through an MLP),
here per slot instead of per token of the caption. An option of small models, which learn late to compute places from location ids
(the miniature); the public checkpoints do without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ..box import Box

MOST = 8  # boxes of a turn that are numbered; later ones share the last number
HIDDEN = 128
WHERE = 44


def overlaps(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """(b,n) share of each slot's cell that boxes (b,4: x, y, width, height as fractions) cover."""
    rows, columns = grid
    sides = []
    for cells, low, length in ((rows, boxes[:, 1], boxes[:, 3]), (columns, boxes[:, 0], boxes[:, 2])):
        first = torch.arange(cells, device=boxes.device) / cells
        inside = torch.minimum(first + 1 / cells, (low + length)[:, None]) - torch.maximum(first, low[:, None])
        sides.append(inside.clamp(min=0) * cells)
    return (sides[0][:, :, None] * sides[1][:, None]).flatten(1)


def where(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """(b,n,f): overlap, and Fourier features of the slot's centre in the box's own units, in units of its shorter side, and of its size."""
    rows, columns = grid
    y, x = torch.meshgrid(*((torch.arange(cells, device=boxes.device) + 0.5) / cells for cells in grid), indexing="ij")
    at = torch.stack([x.flatten(), y.flatten()], -1)  # (n,2)
    size = boxes[:, None, 2:].clamp(min=1e-3)
    from_middle = at - (boxes[:, None, :2] + boxes[:, None, 2:] / 2)
    inner, scaled = from_middle / size, from_middle / size.amin(-1, keepdim=True)
    out = [overlaps(boxes, grid)[..., None], torch.ones(len(boxes), rows * columns, 1, device=boxes.device)]
    for value, octaves in ((inner, 4), (scaled.clamp(-2, 2), 4), (size.expand_as(inner), 2)):
        angles = torch.pi * value[..., None] * torch.arange(1, octaves + 1, device=boxes.device)
        out += [angles.sin().flatten(2), angles.cos().flatten(2)]
    return torch.cat([*out, size.expand_as(inner)], -1)


class Regions(nn.Module):
    def __init__(self, width: int, grid: tuple[int, int], ops: Any = nn):
        super().__init__()
        self.grid = grid
        self.number = ops.Embedding(MOST, width)
        self.inner = ops.Linear(WHERE, HIDDEN, bias=False)
        self.outer = ops.Linear(HIDDEN, width, bias=False)

    def numbers(self, of: Sequence[int], device: torch.device) -> Tensor:
        """(b,d) of boxes' numbers in their turn, from 0."""
        return self.number(torch.tensor(of, device=device).clamp(max=MOST - 1))

    def forward(self, pictures: Sequence[Sequence[Box]], device: torch.device) -> Tensor:
        """(m,n,d) codes of pictures to be written, from the boxes of the turn that asks for each."""
        n = self.grid[0] * self.grid[1]
        flat = [(m, k, (b.x, b.y, b.width, b.height)) for m, boxes in enumerate(pictures) for k, b in enumerate(boxes)]
        if not flat:
            return torch.zeros(len(pictures), n, 1, device=device)
        boxes = torch.tensor([b for _, _, b in flat], device=device, dtype=torch.float32)
        told = where(boxes, self.grid).to(self.inner.weight.dtype)
        code = self.outer(F.silu(self.inner(told))) + self.numbers([k for _, k, _ in flat], device)[:, None]
        code = code * told[..., :1]
        out = torch.zeros(len(pictures), n, code.shape[-1], device=device, dtype=code.dtype)
        return out.index_add(0, torch.tensor([m for m, _, _ in flat], device=device), code)
