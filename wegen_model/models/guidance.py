"""Classifier-free guidance, over features as over pictures, and the one order of its rows.

Of b guided things a batch holds 2b rows: the b conditional ones first, then the b unconditional ones in the same order.

Source: Ho and Salimans 2022 (arXiv 2207.12598).
"""

from __future__ import annotations

from torch import Tensor


def guide(rows: Tensor, scale: float) -> Tensor:
    """(2b,…) conditional, then unconditional rows to (b,…): unconditional + scale * (conditional - unconditional). At scale 1 guidance is
    off: there are no unconditional rows, and all pass through."""
    if scale == 1:
        return rows
    conditional, unconditional = rows.chunk(2)
    return unconditional + scale * (conditional - unconditional)
