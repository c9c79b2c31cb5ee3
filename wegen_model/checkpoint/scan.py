"""What is in a file or folder, for `convert`: each part's target keys and the tensors that make them, from headers alone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import model_folder as own
from .file_layouts import folder_format, llama_config, locate, roots, shards_of
from .formats import format_of
from .formats.public_format import CONFIGS, EVERYTHING, WEIGHTS, PublicFormat
from .key_map import KeyMap, KeyRule
from .key_maps import OWN, detect, key_maps
from .model_paths import CheckpointError, read_json
from .tensor_file import Spec, TensorFile, open_file
from .unsupported import refuse_unsupported

PARTS = tuple(part for part in EVERYTHING if part != "tokenizer")
EXTRA = ("layout",)  # parts of some models only; their absence is nothing to report
DECODER_FOLDER = "WeGen decoder folder"  # of ours, without tower and language model
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True)
class Piece:
    """One tensor of a source and its target in a component."""

    file: TensorFile
    key: str
    rule: KeyRule

    @property
    def spec(self) -> Spec:
        return self.file.specs[self.key]


@dataclass
class Scan:
    """What `convert` needs: for each part its target keys and the pieces that make them; configurations; the tokenizer."""

    path: Path
    kind: str  # in reports
    format: PublicFormat | None = None  # None: of our own, or a mixture
    parts: dict[str, dict[str, list[Piece]]] = field(default_factory=dict)
    dropped: Counter = field(default_factory=Counter)  # why -> how many keys
    files: dict[str, list[str]] = field(default_factory=dict)  # part -> names of the files that hold it
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # unet, vae, scheduler, language
    model: Any = None  # ModelConfig of a folder of ours
    tokenizer: Path | None = None  # the file
    notes: list[str] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)  # every file that was opened

    @property
    def needs(self) -> tuple[str, ...]:
        """What a whole folder of this kind holds."""
        if self.kind == DECODER_FOLDER:
            return ("unet", "vae")
        return self.format.needs if self.format else EVERYTHING

    def dimensions(self, part: str) -> dict[str, int]:
        """The configuration fields that a component's shapes determine."""
        shapes = {target: pieces[0].spec.shape for target, pieces in self.parts[part].items()}
        try:
            return _DIMENSIONS[part](shapes)
        except (KeyError, IndexError) as error:
            raise CheckpointError(
                f"{self.path}: the {part} lacks {error}, which every model of this kind has. Is the file complete?"
            ) from error


def _layers(shapes: dict, stem: str) -> int:
    numbers = [int(m[1]) for key in shapes if (m := re.match(stem + r"\.(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def _unet(shapes: dict) -> dict[str, int]:
    cross = next((s[1] for key, s in sorted(shapes.items()) if key.endswith("attn2.to_k.weight")), 0)
    return {
        "cross_attention_dim": cross,
        "in_channels": shapes["conv_in.weight"][1],
        "projection_class_embeddings_input_dim": shapes["add_embedding.linear_1.weight"][1]
        if "add_embedding.linear_1.weight" in shapes
        else 0,
    }


_DIMENSIONS = {
    "vision": lambda s: {
        "patch_size": s["patch_embed.proj.weight"][-1],
        "width": s["cls_token"][-1],
        "layers": _layers(s, "blocks"),
        "mlp_width": s["blocks.0.mlp.fc1.weight"][0],
    },
    "language": lambda s: {
        "vocab_size": s["model.embed_tokens.weight"][0],
        "width": s["model.embed_tokens.weight"][1],
        "layers": _layers(s, r"model\.layers"),
        "mlp_width": s["model.layers.0.mlp.gate_proj.weight"][0],
    },
    "projectors": lambda s: {"width": s["input_resampler.proj.weight"][1], "language_width": s["input_resampler.proj.weight"][0]},
    "unet": _unet,
    "vae": lambda s: {"latent_channels": s["decoder.conv_in.weight"][1], "first_width": s.get("decoder.conv_out.weight", (0, 0))[1]},
    "layout": lambda s: {"width": s["proj.weight"][1]},
}


def scan(path: str | Path, whole: bool = False) -> Scan:
    """Find the parts of a public release (any subset), of a file, a diffusers or Hugging Face folder, or of a model folder of ours.

    Args:
        whole: read older PyTorch pickles into memory.
    Raises:
        CheckpointError: nothing recognised, damaged files, another model's, or keys that no key map knows.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder.")
    if path.is_file():
        return _file(path, whole)
    if (path / "config.json").is_file() and "format_version" in read_json(path / "config.json"):
        return _own_folder(path)
    for root in roots():
        found = _folder(path / root, whole)
        if found.parts:
            return found
    single = [p for p in sorted(path.iterdir()) if p.suffix in SUFFIXES]
    if len(single) == 1:
        return scan(single[0], whole)
    raise CheckpointError(
        f"{path}: no WeGen weights found. Expected a model folder with config.json, a diffusers or Hugging Face folder, "
        "or (any of) the public release's EVA-CLIP/visual.pt, pytorch_model.bin, stage1_final/unet, vae."
        + (f" It holds {', '.join(p.name for p in single[:6])}: name one of them." if single else "")
    )


def _file(path: Path, whole: bool) -> Scan:
    found = Scan(path, "file")
    key_map = _add(found, shards_of(path), whole=whole)
    found.kind, found.format = key_map.name, format_of(key_map)
    beside = path.parent / "config.json"
    part = next((p for p in ("unet", "vae") if p in found.parts), None)
    if part and len(found.parts) == 1 and beside.is_file() and "_class_name" in (values := read_json(beside)):
        found.configs[part] = values  # a diffusers UNet or VAE beside its configuration
    if "language" in found.parts and (told := llama_config(beside)):
        found.configs["language"] = told
    if "language" in found.parts:
        found.tokenizer = next((path.parent / n for n in ("tokenizer.model", "tokenizer.json") if (path.parent / n).is_file()), None)
    return found


def _own_folder(path: Path) -> Scan:
    found = Scan(path, "WeGen model folder", model=own.read_config(path))
    for part in own.parts(path):
        _add(found, own.files(path, part), OWN[part])
    if not {"vision", "language", "projectors"} & set(found.parts):
        found.kind = DECODER_FOLDER
    found.configs = {name: getattr(found.model, name) for name in ("unet", "vae", "scheduler") if getattr(found.model, name)}
    found.tokenizer = next((path / n for n in ("tokenizer.json", "tokenizer.model") if (path / n).is_file()), None)
    return found


def _folder(path: Path, whole: bool) -> Scan:
    found = Scan(path, *folder_format(path))
    for role in WEIGHTS:
        file = locate(path, role)
        if file is not None and file.is_file() and not {file, *shards_of(file)} & set(found.sources):
            _add(found, shards_of(file), whole=whole)
    for part in CONFIGS:
        file = locate(path, part, configs=True)
        if file is not None and part in (*found.parts, "scheduler"):
            found.configs[part] = read_json(file)
    beside = path / "config.json"
    if beside.is_file() and (values := read_json(beside)).get("_class_name"):  # a diffusers folder by itself
        found.configs |= {part: values for part in ("unet", "vae") if part in found.parts and part not in found.configs}
    if "language" in found.parts and (told := llama_config(beside)):
        found.configs["language"] = told
    found.tokenizer = locate(path, "tokenizer") if {"language", "projectors", "vision"} & set(found.parts) else None
    return found


def _add(found: Scan, paths: list[Path], key_map: KeyMap | None = None, whole: bool = False) -> KeyMap:
    """Take from a file, or from the shards of one, the parts that no earlier file offered. `key_map`: when it is known already."""
    name = paths[0].relative_to(found.path).as_posix() if paths[0] != found.path and found.path.is_dir() else paths[0].name
    files = [open_file(path, whole) for path in paths]
    owner: dict[str, TensorFile] = {}
    for file in files:
        twice = sorted(set(file.specs) & set(owner))
        if twice:
            raise CheckpointError(f"{file.path}: {twice[0]} is in {owner[twice[0]].path.name} too. Are the shards of one model?")
        owner |= dict.fromkeys(file.specs, file)
    found.sources += paths
    specs = {key: file.specs[key] for key, file in owner.items()}
    refuse_unsupported(paths[0], specs)
    key_map = key_map or detect(specs)
    if key_map is None:
        raise CheckpointError(
            f"{paths[0]}: not a layout that is known here. Its {len(specs)} tensors begin with "
            f"{', '.join(list(specs)[:4])}. Known: {', '.join(known.name for known in key_maps())}."
        )
    routed, unknown = key_map.route(specs)
    if unknown:
        more = f", and {len(unknown) - 6} more" if len(unknown) > 6 else ""
        raise CheckpointError(
            f"{paths[0]}: {len(unknown)} of {len(specs)} tensors do not belong to the layout «{key_map.name}»: "
            f"{', '.join(unknown[:6])}{more}. Is it another model's file?"
        )
    taken = set(found.parts)
    for key, target, rule in routed:
        if rule.part is None:
            found.dropped[rule.why] += 1
        elif rule.part in taken:
            found.dropped[f"{rule.part} comes from {found.files[rule.part][0]}"] += 1
        else:
            found.parts.setdefault(rule.part, {}).setdefault(target, []).append(Piece(owner[key], key, rule))
            names = found.files.setdefault(rule.part, [])
            shown = name.replace(paths[0].name, owner[key].path.name)
            if shown not in names:
                names.append(shown)
    for file in files:
        if file.language and "language" not in taken:
            found.configs["language"] = file.language
    return key_map
