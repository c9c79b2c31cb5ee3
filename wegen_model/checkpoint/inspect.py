"""What is in a file or folder: read from headers alone, weights untouched. `inspect` tells people; `survey` tells `convert`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import folder as own
from .folder import CheckpointError, read_json
from .layouts import LAYOUTS, ORIGINS, OWN, RELEASE, RELEASE_CONFIGS, ROOTS, TOKENIZERS, Layout, Place, Row, detect
from .storage import NAMES, Spec, TensorFile, open_file

PARTS = ("vision", "language", "projectors", "unet", "vae")
EXTRA = ("layout",)  # parts of some models only; their absence is nothing to report


@dataclass(frozen=True)
class Piece:
    """One tensor of a source on its way to a part."""

    file: TensorFile
    key: str
    row: Row

    @property
    def spec(self) -> Spec:
        return self.file.specs[self.key]


@dataclass
class Survey:
    """What `convert` needs: for each part its target keys and the pieces that make them; configurations; the tokenizer."""

    path: Path
    kind: str
    parts: dict[str, dict[str, list[Piece]]] = field(default_factory=dict)
    dropped: Counter = field(default_factory=Counter)  # why -> how many keys
    files: dict[str, list[str]] = field(default_factory=dict)  # part -> names of the files that hold it
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)  # unet, vae, scheduler
    model: Any = None  # ModelConfig of a folder of ours
    tokenizer: Path | None = None  # the file
    notes: list[str] = field(default_factory=list)

    def dimensions(self, part: str) -> dict[str, int]:
        """What a part's shapes say of its configuration, in the fields' own names."""
        shapes = {target: pieces[0].spec.shape for target, pieces in self.parts[part].items()}
        try:
            return _DIMENSIONS[part](shapes)
        except (KeyError, IndexError) as error:
            raise CheckpointError(f"{self.path}: the {part} lacks {error}, which every model of this kind has. "
                                  "Is the file complete?") from error


def _layers(shapes: dict, stem: str) -> int:
    numbers = [int(m[1]) for key in shapes if (m := re.match(stem + r"\.(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def _unet(shapes: dict) -> dict[str, int]:
    cross = next((s[1] for key, s in sorted(shapes.items()) if key.endswith("attn2.to_k.weight")), 0)
    return {"cross_attention_dim": cross, "in_channels": shapes["conv_in.weight"][1],
            "projection_class_embeddings_input_dim": shapes["add_embedding.linear_1.weight"][1]
            if "add_embedding.linear_1.weight" in shapes else 0}


_DIMENSIONS = {
    "vision": lambda s: {"patch_size": s["patch_embed.proj.weight"][-1], "width": s["cls_token"][-1], "layers": _layers(s, "blocks"),
                         "mlp_width": s["blocks.0.mlp.fc1.weight"][0]},
    "language": lambda s: {"vocab_size": s["model.embed_tokens.weight"][0], "width": s["model.embed_tokens.weight"][1],
                           "layers": _layers(s, r"model\.layers"), "mlp_width": s["model.layers.0.mlp.gate_proj.weight"][0]},
    "projectors": lambda s: {"width": s["input_resampler.proj.weight"][1], "language_width": s["input_resampler.proj.weight"][0]},
    "unet": _unet,
    "vae": lambda s: {"latent_channels": s["decoder.conv_in.weight"][1], "first_width": s.get("decoder.conv_out.weight", (0, 0))[1]},
    "layout": lambda s: {"width": s["proj.weight"][1]},
}


def survey(path: str | Path) -> Survey:
    """Find the parts of a public release (any subset), of one of its files, or of a model folder of ours.

    Raises:
        CheckpointError: nothing recognised, damaged files, or keys that no layout knows.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder.")
    if path.is_file():
        found = Survey(path, "file")
        found.kind = _add(found, path).name
        if (path.parent / "config.json").is_file():  # a diffusers UNet or VAE beside its configuration
            part = next((p for p in ("unet", "vae") if p in found.parts), None)
            if part:
                found.configs[part] = read_json(path.parent / "config.json")
        return found
    if (path / "config.json").is_file() and "format_version" in read_json(path / "config.json"):
        return _own_folder(path)
    for root in ROOTS:
        found = _release(path / root)
        if found.parts:
            return found
    single = [p for p in sorted(path.iterdir()) if p.suffix in (".safetensors", ".bin", ".pt", ".pth")]
    if len(single) == 1:  # a diffusers folder by itself
        return survey(single[0])
    raise CheckpointError(f"{path}: no WeGen weights found. Expected a model folder with config.json, or (any of) the public "
                          f"release's {', '.join(place.globs[0] for place in RELEASE)}.")


def _own_folder(path: Path) -> Survey:
    found = Survey(path, "WeGen model folder", model=own.read_config(path))
    for part in own.parts(path):
        for file in own.files(path, part):
            _add(found, file, OWN[part])
    if not {"vision", "language", "projectors"} & set(found.parts):
        found.kind = "WeGen decoder folder"
    found.configs = {name: getattr(found.model, name) for name in ("unet", "vae", "scheduler") if getattr(found.model, name)}
    found.tokenizer = next((path / n for n in ("tokenizer.json", "tokenizer.model") if (path / n).is_file()), None)
    return found


def _release(path: Path) -> Survey:
    found = Survey(path, "public WeGen release")
    for place in RELEASE:
        file = _locate(path, place)
        if file is not None:
            _add(found, file)
    for place in RELEASE_CONFIGS:
        file = _locate(path, place)
        if file is not None:
            found.configs[place.what] = read_json(file)
    found.tokenizer = _locate(path, TOKENIZERS)
    return found


def _locate(path: Path, place: Place) -> Path | None:
    return next((hit for glob in place.globs for hit in sorted(path.glob(glob)) if hit.is_file()), None)


def _add(found: Survey, path: Path, layout: Layout | None = None) -> Layout:
    """Take from a file the parts that no earlier file offered. `layout`: known already, and the part may span several files."""
    file = open_file(path)
    shards = layout is not None
    layout = layout or detect(file.specs)
    if layout is None:
        raise CheckpointError(f"{path}: not a layout that is known here. Its {len(file.specs)} tensors begin with "
                              f"{', '.join(list(file.specs)[:4])}. Known: {', '.join(known.name for known in LAYOUTS)}.")
    routed, unknown = layout.route(file.specs)
    if unknown:
        more = f", and {len(unknown) - 6} more" if len(unknown) > 6 else ""
        raise CheckpointError(f"{path}: {len(unknown)} of {len(file.specs)} tensors do not belong to the layout «{layout.name}»: "
                              f"{', '.join(unknown[:6])}{more}. Is it another model's file?")
    taken = set() if shards else set(found.parts)
    for key, target, row in routed:
        if row.part is None:
            found.dropped[row.why] += 1
        elif row.part in taken:
            found.dropped[f"{row.part} comes from {found.files[row.part][0]}"] += 1
        else:
            found.parts.setdefault(row.part, {}).setdefault(target, []).append(Piece(file, key, row))
            names = found.files.setdefault(row.part, [])
            name = path.relative_to(found.path).as_posix() if path != found.path else path.name
            if name not in names:
                names.append(name)
    return layout


# --- the report ---------------------------------------------------------------------------------------------------

@dataclass
class Part:
    """One part in a report."""

    name: str
    files: list[str]
    tensors: int
    parameters: int
    precision: str  # "BF16", or "F32 + BF16" from the most to the least

    def line(self) -> str:
        return (f"  {self.name:<11}{self.parameters:>15,} parameters  {self.tensors:>5} tensors  {self.precision:<10} "
                f"{', '.join(self.files)}")


@dataclass
class Report:
    """What a file or folder holds, or what a conversion wrote."""

    path: Path
    kind: str
    parts: list[Part] = field(default_factory=list)
    preset: str = ""  # whose sizes these are
    space: str = ""  # the features' space, empty when it is not known
    tower: str = ""
    tokenizer: str = ""
    scheduler: str = ""
    missing: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)  # why -> tensors
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def text(self) -> str:
        """For the command line."""
        lines = [f"{self.path}: {self.kind}" + (f", sizes of {self.preset}" if self.preset else "")]
        lines += [part.line() for part in self.parts]
        for label, value in (("features", self.space), ("tower", self.tower), ("tokenizer", self.tokenizer),
                             ("scheduler", self.scheduler)):
            if value:
                lines.append(f"  {label:<11}{value}")
        lines += [f"  missing    {name}" + (f" ({ORIGINS[name]})" if name in ORIGINS else "") for name in self.missing]
        lines += [f"  dropped    {count} tensors: {why}" for why, count in self.dropped.items()]
        lines += [f"  note       {note}" for note in self.notes]
        return "\n".join(lines)


def summarise(name: str, files: list[str], specs: list[Spec]) -> Part:
    """Count a part's tensors."""
    sizes: Counter = Counter()
    for spec in specs:
        sizes[NAMES.get(spec.dtype, str(spec.dtype))] += spec.count
    return Part(name, files, len(specs), sum(sizes.values()), " + ".join(kind for kind, _ in sizes.most_common()))


def inspect(path: str | Path) -> Report:
    """Say what a file or folder is and what it lacks, from headers alone.

    Raises:
        CheckpointError: damaged, of unknown layout, or code inside.
    """
    from .convert import plan

    found = survey(path)
    report = Report(Path(path), found.kind, notes=list(found.notes), dropped=dict(found.dropped))
    for name in (*PARTS, *EXTRA):
        if name in found.parts:
            pieces = [piece.spec for group in found.parts[name].values() for piece in group]
            report.parts.append(summarise(name, found.files[name], pieces))
    try:
        config = plan(found).config
    except CheckpointError as error:
        report.notes.append(f"cannot be converted as it is: {error}")
    else:
        report.preset, report.space = config.name, config.features.space
        report.tower = config.features.tower if "vision" in found.parts or found.model else ""
    report.tokenizer = found.tokenizer.name if found.tokenizer else ""
    report.scheduler = found.configs.get("scheduler", {}).get("_class_name", "")
    wanted = ("unet", "vae") if found.kind == "WeGen decoder folder" else (*PARTS, "tokenizer")
    if found.path.is_dir():
        report.missing = [n for n in wanted if n not in found.parts and not (n == "tokenizer" and found.tokenizer)]
    return report
