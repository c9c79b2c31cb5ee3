"""What a precision costs: the features a model writes with quantized weights against those of its 16-bit weights.

`measure` writes `precision.json` beside the weights; `verdict` is what Load WeGen Model says of it. Continuous features are fed back
64 times, so an error in the weights grows: no precision is recommended that was not measured on the weights at hand.

    features   mean cosine of the n written features, over all prompts       worst   the same of the worst prompt
    centred    the cosine after the mean feature is taken off both: stricter, since all features share a large mean
    tower      mean cosine of the n features that the tower sees in the pictures
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import fileio
from ..chat.conversation import Conversation, Reference
from ..checkpoint import model_folder
from ..models.quantization import MADE
from ..pipeline import WeGen
from ..runtime import Runtime

FILE = "precision.json"
PARTS = ("vision", "language")
LEAST = {"8 bits": 0.995, "4 bits": 0.98}  # a cosine below is warned about
BITS = {"FP8": "8 bits", "Q8_0": "8 bits", "Q6_K": "8 bits", "Q4_0": "4 bits", "Q4_K": "4 bits"}
STORED = "as stored"
VARIANTS = ("bfloat16", "float16", *(kind.lower() for kind in MADE))
WORDS = 64  # longest reply, in tokens
PROMPTS = (
    "a red apple on a wooden table",
    "a dog that runs through tall grass",
    "a lighthouse in a storm at night",
    "a portrait of an old man with a grey beard",
    "a bowl of ramen seen from above",
    "a city street in the rain",
)


def stored_kinds(folder: str | Path) -> set[str]:
    """Kinds of the blocks in which tower and language model lie; from headers alone.

    Raises:
        CheckpointError: a damaged file, or one of several is not there.
    """
    return {kind for part in PARTS for path in model_folder.files(folder, part) for kind in model_folder.stored_kinds(path).values()}


def weights_id(folder: str | Path) -> str:
    """Tells these weights from others without reading all of them: sizes, beginnings and ends of the files."""
    value = hashlib.sha256()
    for path in (path for part in (*PARTS, "projectors") for path in model_folder.files(folder, part)):
        size = path.stat().st_size
        value.update(f"{path.name} {size}".encode())
        with path.open("rb") as f:
            value.update(f.read(2**20))
            f.seek(max(0, size - 2**20))
            value.update(f.read())
    return value.hexdigest()[:16]


# --- measuring ----------------------------------------------------------------------------------------------------


def prompts_for(model: WeGen, count: int) -> list[str]:
    """A small model's own things, evenly from its list; else fixed ones."""
    things = [f"a {name}" for name in model.config.concepts] or list(PROMPTS)
    return things[:: max(1, len(things) // count)][:count]


def measure(
    folder: str | Path,
    *,
    against: str | Path | None = None,
    variants: Sequence[str] = (),
    prompts: Sequence[str] = (),
    count: int = 6,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Compare, and write `precision.json` into the folder.

    Each prompt is answered once by the reference, at temperature 0; every variant then writes the picture that this reply opened. The
    pictures that the reference paints of them (seed: the prompt's number) are what the towers see, and what a second half of the
    prompts, «PROMPT <image_1>», shows.

    Args:
        against: the folder of the 16-bit weights, when `folder` itself is quantized.
        variants: of VARIANTS; none takes all, or the folder as stored when it is quantized.
        count: of prompts, when none are given. dtype: of the reference's arithmetic; None is float32 on a CPU, else bfloat16.
    Raises:
        ValueError: no reference; an unknown variant.
    """
    folder = model_folder.resolve(folder)
    kinds = stored_kinds(folder)
    if kinds and against is None:
        raise ValueError(
            f"{folder}: its weights are quantized ({', '.join(sorted(kinds))}), so there is nothing to compare with. Name the "
            "folder of the 16-bit weights that it was made from: --against FOLDER."
        )
    source = model_folder.resolve(against) if against is not None else folder
    if stored_kinds(source):
        raise ValueError(f"{source}: its weights are quantized themselves. Name a folder of 16-bit weights.")
    chosen = list(variants) or ([STORED] if kinds else list(VARIANTS))
    unknown = [v for v in chosen if v not in (*VARIANTS, STORED)]
    if unknown:
        raise ValueError(f"precision {unknown[0]!r} is not one of {', '.join(VARIANTS)}.")
    say("reference")
    model = WeGen.load(source, runtime=Runtime(device, dtype))
    model.config = replace(model.config, refuses=False)  # what is measured is the features of a picture, wanted or not
    wide = model.runtime.dtype
    talks, pictures = _ask(model, list(prompts) or prompts_for(model, count))
    expected, row = _run(model, talks, pictures)
    result: dict[str, Any] = {
        "weights": weights_id(folder),
        "reference": {
            "model": model.config.name,
            "arithmetic": str(wide).removeprefix("torch."),
            "device": str(model.runtime.device),
            **row,
        },
        "prompts": [talk.turns[0].text for talk in talks],
        "variants": {},
    }
    mean = expected[0].flatten(0, 1).mean(0)
    del model
    for name in chosen:
        gc.collect()
        say(name)
        narrow = getattr(torch, name) if name in ("bfloat16", "float16") else wide
        run = Runtime(device, narrow, blocks=name if name.upper() in MADE else "")
        got, row = _run(WeGen.load(folder, runtime=run), talks, pictures)
        cosine = F.cosine_similarity(got[0], expected[0], -1).mean(1)
        centred = F.cosine_similarity(got[0] - mean, expected[0] - mean, -1)
        seen = F.cosine_similarity(got[1], expected[1], -1) if len(pictures) else torch.ones(1)
        result["variants"][name] = {
            "features": _short(cosine.mean()),
            "worst": _short(cosine.min()),
            "centred": _short(centred.mean()),
            "tower": _short(seen.mean()),
            **row,
        } | ({"kinds": sorted(kinds)} if name == STORED else {})
    fileio.write_text(folder / FILE, json.dumps(result, indent=1) + "\n")
    return result


def _short(value: Tensor) -> float:
    return round(float(value), 6)


def _ask(model: WeGen, prompts: list[str]) -> tuple[list[Conversation], list[Tensor]]:
    """The conversations that wait for their picture, and the pictures."""
    talks, pictures = [], []
    for i, words in enumerate(prompts):
        talks.append(model.chat(Conversation().user(words), picture="always", max_tokens=WORDS))
        pictures.append(model.decode(model.draw(talks[-1])[0], seed=i))
    for words, shown in zip(prompts, pictures):
        talk = model.chat(Conversation().user(f"{words} <image_1>", (Reference(shown),)), picture="always", max_tokens=WORDS)
        turns = [replace(t, references=tuple(replace(r, features=None) for r in t.references)) for t in talk.turns]
        talks.append(replace(talk, turns=tuple(turns)))  # each variant looks with its own tower
    return talks, pictures


def _run(model: WeGen, talks: list[Conversation], pictures: list[Tensor]) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    """Features written (talks,n,c) and seen (pictures,n,c); bytes of the parts, seconds a picture's features took."""
    seen = torch.cat([model.encode(picture).tokens for picture in pictures])
    written = [model.draw(talks[0])[0].tokens]
    begun = time.perf_counter()  # the first one warmed up
    written += [model.draw(talk)[0].tokens for talk in talks[1:]]
    seconds = (time.perf_counter() - begun) / (len(talks) - 1)
    sizes = {f"{part}_bytes": sum(p.nbytes for p in model.component(part).module.parameters()) for part in PARTS}
    return (torch.cat(written), seen), sizes | {"seconds": round(seconds, 3)}


def table(result: dict[str, Any]) -> str:
    """For the command line."""
    rows = [("reference", result["reference"]), *result["variants"].items()]
    heads = (("features", 9), ("worst", 9), ("centred", 9), ("tower", 9), ("tower MB", 10), ("language MB", 13), ("s/picture", 11))
    lines = [" " * 10 + "".join(f"{head:>{width}}" for head, width in heads)]
    for name, row in rows:
        numbers = "".join(f"{row[key]:>9.5f}" if key in row else " " * 9 for key in ("features", "worst", "centred", "tower"))
        sizes = f"{row['vision_bytes'] / 1e6:>10.2f}{row['language_bytes'] / 1e6:>13.2f}"
        lines.append(f"{name:<10}{numbers}{sizes}{row['seconds']:>11.3f}")
    at = result["reference"]
    lines.append(f"reference: {at['model']}, weights as stored, {at['arithmetic']} arithmetic, on {at['device']}")
    return "\n".join(lines)


# --- reading ------------------------------------------------------------------------------------------------------


def verdict(folder: str | Path, blocks: str = "") -> tuple[str, str]:
    """What is known of a folder as it is loaded: (text, warning), empty where there is nothing to say.

    `blocks`: the kind that it is quantized to while it is read; what is quantized already stays as it is.
    """
    try:
        kinds = stored_kinds(folder)
    except model_folder.CheckpointError:  # told where the weights are read
        return "", ""
    name, kinds = (STORED, kinds) if kinds else (blocks.lower(), {blocks.upper()} if blocks else set())
    if not kinds:
        return "", ""
    label = f"{name} ({', '.join(sorted(kinds))})" if name == STORED else name
    try:
        found = json.loads((Path(folder) / FILE).read_text())
        row = found["variants"][name] if found["weights"] == weights_id(folder) else None
        cosine, tower = (float(row["features"]), float(row["tower"])) if row else (None, None)
    except (OSError, ValueError, KeyError, TypeError):
        cosine = None
    if cosine is None:
        against = " --against FOLDER_OF_16_BITS" if name == STORED else ""
        return f"{label}: not measured on these weights yet. `wegen bench precision FOLDER{against}` does it.", ""
    bits = min((BITS.get(kind, "4 bits") for kind in kinds))
    text = f"{label}: cosine of the written features to those of 16 bits {cosine:.4f}, of the seen ones {tower:.4f}."
    if cosine >= LEAST[bits]:
        return text, ""
    return text, (
        f"{label}: the features' cosine to those of 16 bits is {cosine:.4f}, below the {LEAST[bits]} expected of {bits}: "
        "pictures will differ. Choose a wider precision where memory allows."
    )
