"""`wegen inspect`: what a file or folder is, in words; read from headers alone, weights untouched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..generation.decoder_presets import describe
from .file_layouts import origins
from .model_paths import CheckpointError
from .scan import EXTRA, PARTS, scan
from .tensor_file import Spec


@dataclass
class Part:
    """One part in a report."""

    name: str
    files: list[str]
    tensors: int
    parameters: int
    precision: str  # "BF16", or "F32 + BF16" from the most to the least

    def line(self) -> str:
        return (
            f"  {self.name:<11}{self.parameters:>15,} parameters  {self.tensors:>5} tensors  {self.precision:<10} {', '.join(self.files)}"
        )


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
    decoder: str = ""  # its inference settings
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
        for label, value in (
            ("features", self.space),
            ("tower", self.tower),
            ("tokenizer", self.tokenizer),
            ("scheduler", self.scheduler),
            ("preset", self.decoder),
        ):
            if value:
                lines.append(f"  {label:<11}{value}")
        known = origins()
        lines += [f"  missing    {name}" + (f" ({known[name]})" if name in known else "") for name in self.missing]
        lines += [f"  dropped    {count} tensors: {why}" for why, count in self.dropped.items()]
        lines += [f"  note       {note}" for note in self.notes]
        return "\n".join(lines)


def summarise(name: str, files: list[str], specs: list[Spec]) -> Part:
    """Count a part's tensors."""
    sizes: Counter = Counter()
    for spec in specs:
        sizes[spec.name] += spec.count
    return Part(name, files, len(specs), sum(sizes.values()), " + ".join(kind for kind, _ in sizes.most_common()))


def inspect(path: str | Path, whole: bool = False, verify: bool = False) -> Report:
    """Say what a file or folder is and what it lacks, from headers alone.

    Args:
        whole: read older PyTorch pickles into memory.
        verify: read every weight file of a model folder and compare it with the hashes that `wegen convert` wrote.
    Raises:
        CheckpointError: damaged, another model's, of unknown layout, or code inside.
    """
    from .plan import plan
    from .resumable_write import verify as compare

    found = scan(path, whole)
    report = Report(Path(path), found.kind, notes=list(found.notes), dropped=dict(found.dropped))
    for name in (*PARTS, *EXTRA):
        if name in found.parts:
            pieces = [piece.spec for group in found.parts[name].values() for piece in group]
            report.parts.append(summarise(name, found.files[name], pieces))
    try:
        planned = plan(found, quick=True)
    except CheckpointError as error:
        report.notes.append(f"cannot be converted as it is: {error}")
    else:
        config = planned.config
        report.preset, report.space = config.name, config.features.space
        report.decoder = describe(config) if "unet" in found.parts else ""
        report.tower = config.features.tower if "vision" in found.parts or found.model else ""
        report.notes += [note for note in planned.notes if note not in report.notes and "positions were" in note]
    report.tokenizer = found.tokenizer.name if found.tokenizer else ""
    report.scheduler = found.configs.get("scheduler", {}).get("_class_name", "")
    if found.path.is_dir():
        report.missing = [n for n in found.needs if n not in found.parts and not (n == "tokenizer" and found.tokenizer)]
    if verify:
        changed = compare(Path(path))
        report.notes.append(f"changed since the conversion: {', '.join(changed)}" if changed else "every file is as it was written")
    return report
