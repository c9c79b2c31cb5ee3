"""`--lora FILE[:STRENGTH]` of commands that draw: adapters (models/lora.py) on their model."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_lora(parser) -> None:
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:STRENGTH]",
        help="a LoRA that WeGen wrote, of a subject or of the decoder (may be given several times)",
    )


def with_loras(model: Any, loras: list[str]) -> Any:
    """A `WeGen` with adapters.

    Raises:
        ValueError: a strength that is no number, no such file, or one for another model.
    """
    for text in loras:
        file, _, tail = text.rpartition(":")
        if not file or Path(text).exists():  # no strength; a colon of the path itself
            file, tail = text, "1"
        try:
            strength = float(tail)
        except ValueError:
            raise ValueError(f"--lora {text}: {tail!r} is no strength. Write FILE, or FILE:0.8.") from None
        model = model.with_lora(file, strength)
    return model


def on_loaders(nodes: dict[str, type], loras: list[str]) -> dict[str, type]:
    """The node classes, with Load WeGen Model giving its model with adapters: `wegen run --lora`."""
    if not loras:
        return nodes

    base: Any = nodes["WeGenLoadModel"]

    def load(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = base.load(self, *args, **kwargs)
        result = answer["result"] if isinstance(answer, dict) else answer
        result = (with_loras(result[0], loras), *result[1:])
        return {**answer, "result": result} if isinstance(answer, dict) else result

    loader = type(base.__name__, (base,), {"load": load})
    return nodes | {"WeGenLoadModel": loader}
