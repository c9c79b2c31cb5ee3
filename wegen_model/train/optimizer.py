"""The optimiser of a run: AdamW, or AdamW with moments in 8 bits; groups of parameters with rates of their own; and what must agree
when a run goes on from a checkpoint, whose optimiser brings the values that it was saved with.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import torch
from torch import Tensor, nn

from .settings import Settings

_log = logging.getLogger("wegen")
_OF_GROUPS = ("betas", "eps", "weight_decay")


def make_optimizer(groups: list[list[nn.Parameter]], s: Settings, device: torch.device) -> torch.optim.Optimizer:
    """Over groups of parameters, none of them empty; `device`: where they will be.

    Raises:
        ValueError: no package for 8-bit moments is installed; it says which would do.
    """
    values: dict[str, Any] = dict(lr=s.learning_rate, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)
    parameters: Any = groups[0] if len(groups) == 1 else [{"params": group} for group in groups]
    if s.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **values)
    packages = ["torchao.optim"] if device.type == "cpu" else ["bitsandbytes.optim", "torchao.optim"]
    for name in packages:
        try:
            return importlib.import_module(name).AdamW8bit(parameters, **values)
        except ImportError:
            continue
    needed = " or ".join(name.partition(".")[0] for name in packages)
    raise ValueError(
        f"optimizer adamw8bit needs {needed}, which is not installed: pip install {needed.split()[0]}, or choose --set optimizer=adamw."
    )


def set_rates(optimizer: Any, rates: list[float]) -> None:
    """The learning rate of each group."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):  # torchao's
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def resume(optimizer: Any, s: Settings, ema: dict, allowed: frozenset[str], where: str) -> dict:
    """Give the optimiser of a checkpoint this run's betas, eps and weight decay; the averaged weights to go on with.

    Args:
        ema: the checkpoint's averaged weights. allowed: names that may differ from the checkpoint's. where: the folder, for messages.
    Raises:
        ValueError: the checkpoint has other values that may not change; each is named.
    """
    saved = optimizer.param_groups[0]
    other = {name: saved[name] for name in _OF_GROUPS if _plain(saved[name]) != _plain(getattr(s, name))}
    if bool(ema) != bool(s.ema):
        other["ema"] = "on" if ema else "off"
    if refused := [name for name in other if name not in allowed]:
        told = "; ".join(f"{name} was {other[name]}, and is {getattr(s, name)}" for name in refused)
        raise ValueError(
            f"{where} began with other settings: {told}. Give those that it began with, or allow it: "
            f"{' '.join(f'--change {name}={_text(getattr(s, name))}' for name in refused)}, or name another --folder."
        )
    if "ema" in other:
        _log.warning(
            "%s: %s", where, "averaging begins here." if s.ema else "the averaged weights are given up; the trained ones are exported."
        )
    for group in optimizer.param_groups:
        group.update({name: getattr(s, name) for name in _OF_GROUPS})
    return ema if s.ema else {}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> str:
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
