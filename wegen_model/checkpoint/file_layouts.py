"""Where the files of public formats are in a folder, which format a folder has, and what is beside its weights. The tables are in
formats/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from . import formats
from .formats.public_format import EVERYTHING, PublicFormat
from .model_paths import CheckpointError, index_names, read_json

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\..+)")


def locate(path: Path, role: str, configs: bool = False) -> Path | None:
    """The file of a role (of its weights, or of its configuration) in a folder, by the layouts of all formats: the first glob that hits."""
    for known in formats.FORMATS:
        for layout in known.configs if configs else known.files:
            for glob in layout.globs if layout.role == role else ():
                if hit := next((hit for hit in sorted(path.glob(glob)) if hit.is_file() or not hit.suffix), None):
                    return hit
    return None


def folder_format(path: Path) -> tuple[str, PublicFormat | None]:
    """What a folder is called in reports, and its format: by its name, then by its JSON files, then by the files in it."""
    if found := next((f for f in formats.FORMATS if path.resolve().name in f.folder_names), None):
        return found.name, found
    read: dict[Path, dict[str, Any]] = {}

    def says(file: Path) -> dict[str, Any]:
        if file not in read:
            read[file] = read_json(file) if file.is_file() else {}
        return read[file]

    if found := next((f for f in formats.FORMATS if f.told_by and (v := says(path / f.told_by[0])) and f.told_by[1](v)), None):
        return found.name, found
    if says(path / "config.json").get("_class_name"):
        return "folder", None  # a diffusers module of another kind
    found = next((f for f in formats.FORMATS if f.marks and all(any(any(path.glob(glob)) for glob in globs) for globs in f.marks)), None)
    return (found.name, found) if found else ("folder", None)


def roots() -> tuple[str, ...]:
    """Folders that may hold everything: the given one, and subfolders that releases pack their files into."""
    return ("", *(root for f in formats.FORMATS for root in f.roots))


def origins() -> dict[str, str]:
    """Part -> where people usually get it, for messages."""
    return {part: found[0] for part in EVERYTHING if (found := formats.sources(part))}


def shards_of(path: Path) -> list[Path]:
    """All files that belong to one file: itself, the shards of an index, or the siblings of a shard.

    Raises:
        CheckpointError: a shard is not there; the text names all that are missing.
    """
    if path.suffix == ".json":
        listed = read_json(path).get("weight_map")
        names = index_names(listed, path)
    elif found := _SHARD.fullmatch(path.name):
        stem, _, count, suffix = found.groups()
        names = [f"{stem}-{i:05d}-of-{count}{suffix}" for i in range(1, int(count) + 1)]
    else:
        return [path]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path.parent}: {', '.join(missing[:5])} {'are' if len(missing) > 1 else 'is'} not there; the weights are "
            f"in {len(names)} files, and all are needed. Copy or download the rest."
        )
    return [path.parent / name for name in names]


def llama_config(path: Path) -> dict:
    """Fields of a LanguageConfig from a Hugging Face config.json; empty when it is none of a LLaMA.

    Raises:
        CheckpointError: a LLaMA that is built otherwise: grouped heads, scaled rotary positions, biases.
    """
    values = read_json(path) if path.is_file() else {}
    if values.get("model_type") != "llama":
        return {}
    heads = values.get("num_attention_heads", 0)
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"{path}: rope_scaling is {str(rope)[:40]!r}, not an object. Copy or download it again.")
    scaled = rope.get("rope_type", rope.get("type", "default"))
    shared = values.get("num_key_value_heads") or heads
    problems = [f"{shared} key heads for {heads} query heads"] if shared != heads else []
    problems += [f"rotary positions scaled as {scaled!r}"] if scaled != "default" else []
    problems += ["biases in its attention"] if values.get("attention_bias") else []
    if problems:
        raise CheckpointError(
            f"{path}: a LLaMA with {' and '.join(problems)}; WeGen's language model (LLaMA-2-7B) has none of that. This is another model."
        )
    fields = {
        "heads": heads,
        "eps": values.get("rms_norm_eps"),
        "positions": values.get("max_position_embeddings"),
        "rope_theta": values.get("rope_theta", rope.get("rope_theta")),
    }
    return {name: value for name, value in fields.items() if value}
