"""The key maps of our own model folder and of every public format (formats/): which key goes where, which are joined, which are dropped and why.

Nothing is guessed: a part's converted keys and shapes are checked against the module that will hold them. Machinery: key_map.py.
"""

from __future__ import annotations

from collections.abc import Collection

from . import formats
from .formats.eva_clip import TOWER
from .formats.llama import LLAMA
from .formats.sdxl import UNET, VAE
from .formats.wegen import PUBLIC_PROJECTORS
from .key_map import KeyMap, KeyRule

PROJECTORS = KeyMap(
    "WeGen projectors",
    ("input_resampler.proj.weight",),
    (
        *PUBLIC_PROJECTORS,
        KeyRule("mean", "projectors"),  # from here on the miniature's
        KeyRule("std", "projectors"),
        *(
            KeyRule(f"pointer.{leaf}", "projectors")
            for leaf in (
                "query.weight",
                "key.weight",
                "recency.weight",
                "own.weight",
                "own.bias",
                "seen.weight",
                "asked.weight",
                "change.weight",
                "blocks.{n}.{rest}",
            )
        ),
        *(KeyRule(f"regions.{leaf}.weight", "projectors") for leaf in ("number", "inner", "outer")),
    ),
)
FEATURE_TO_LATENT = KeyMap("WeGen layout map", ("proj.weight",), (KeyRule("{rest}", "layout"),))
# our folder: part -> its key map
OWN = {"vision": TOWER, "language": LLAMA, "projectors": PROJECTORS, "unet": UNET, "vae": VAE, "layout": FEATURE_TO_LATENT}


def key_maps() -> tuple[KeyMap, ...]:
    """All maps; `detect` tries the projectors' first and then the others in this order."""
    return (PROJECTORS, *(m for f in formats.FORMATS for m in f.key_maps), FEATURE_TO_LATENT)


def exports() -> dict[str, KeyMap]:
    """What `wegen convert --layout` can write: name -> map."""
    return {m.export: m for m in key_maps() if m.export}


def detect(keys: Collection[str]) -> KeyMap | None:
    """The key map of a file by its keys. A file with the projectors' marks and other keys beside them is the agent's."""
    keys = set(keys)
    if PROJECTORS.prefix(keys) is not None and not PROJECTORS.route(keys)[1]:
        return PROJECTORS
    return next((m for m in key_maps()[1:] if m.prefix(keys) is not None), None)
