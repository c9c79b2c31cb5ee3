"""What a run was made with, kept in each of its checkpoints (`run.json`), and compared when it goes on.

    settings      those that the stage reads        data       where it is, and a hash of its listing, manifest or options
    micro_batches of a step, over all processes     model      its name, and a hash of configuration and weights
    command       as it was typed                   versions   python, torch, this package …; device, processes
    changes       what was changed on the way, and from which step on

A run goes on with what it began with. Another setting, other data or another number of micro-batches is refused, unless it is asked
for by name (`--change NAME=VALUE`): then it is done, logged and recorded. What the weights of a run hang on stays: UNCHANGEABLE.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import model_folder
from ..fileio import JSONError, read_json
from .checkpoint import RECORD, last, step_of
from .settings import READS, Settings

_log = logging.getLogger("wegen")
# what a checkpoint's weights and moments are shaped or scaled by
UNCHANGEABLE = ("model", "lora", "lora_alpha", "optimizer", "projector_lr_scale")
WHOLE, PIECES = 64 << 20, 64  # files up to so many bytes are hashed whole, longer ones in so many pieces of 1 MiB
_ABSENT = object()


@dataclass
class RunRecord:
    """See above. `allowed`: names that may differ from the record of the run that goes on; `changes` fills up with those that did."""

    stage: str
    settings: dict[str, Any]
    micro_batches: int
    data: dict[str, Any]
    model: dict[str, Any]
    command: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    allowed: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, Any]:
        """What is kept: values that JSON gives back as they were."""
        kept = {k: v for k, v in dataclasses.asdict(self).items() if k != "allowed"}
        return json.loads(json.dumps(kept))

    def values(self) -> dict[str, tuple[Any, str]]:
        """What is compared: name -> (value, its words)."""
        return _values(self.as_json())

    def go_on_from(self, folder: Path) -> None:
        """Compare with the run in a work folder, where there is one; nothing is written.

        Raises:
            ValueError: it began with other things; each is named, with what would do.
        """
        place = last(folder)
        if place is None:
            return
        step = step_of(place)
        try:
            before = read_json(place / RECORD)
            known = _values(before)
        except FileNotFoundError:
            _log.warning(
                "%s was begun by a version that kept no record of a run: whether settings, data and model are those that it began with "
                "could not be compared, beyond betas, eps, weight_decay and ema.",
                folder,
            )
            return
        except (JSONError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{place / RECORD} is damaged ({error}). Delete it to go on without comparing, or name another --folder."
            ) from error
        now = self.values()
        self.changes = list(before.get("changes", []))
        other = [name for name in now if name in known and known[name][0] != now[name][0] and known[name][0] is not None]
        refused = [name for name in other if name not in self.allowed or name in UNCHANGEABLE]
        if refused:
            raise ValueError(_refusal(folder, step, {n: (known[n][1], now[n][1]) for n in refused}))
        for name in other:
            _log.warning("%s: from step %d on, %s is %s; it was %s.", folder, step, name, now[name][1], known[name][1])
            self.changes.append({"step": step, "name": name, "from": known[name][1], "to": now[name][1]})
        if strange := sorted(known.keys() - now.keys()):
            _log.warning("%s was begun with %s, which this version does not know.", folder, ", ".join(strange))
        olds = before.get("versions", {})
        if moved := [f"{k} was {olds[k]} and is {v}" for k, v in self.versions.items() if k in olds and olds[k] != v]:
            _log.warning(
                "%s goes on with other versions: %s. Its last bits may differ from a run of one version.", folder, ", ".join(moved)
            )


def make_record(
    stage: str, s: Settings, micro_batches: int, source: Any, model: Path, command: str = "", allowed: frozenset[str] = frozenset()
) -> RunRecord:
    """Of a run that is about to begin or to go on."""
    own = {f.name: getattr(s, f.name) for f in dataclasses.fields(s) if f.name in READS[stage]}
    data = source.identity() if hasattr(source, "identity") else {"what": type(source).__name__, "hash": None}
    return RunRecord(stage, own, micro_batches, data, model_identity(model), command, versions(), allowed=allowed)


def model_identity(folder: Path) -> dict[str, str]:
    """{"what", "hash"} of a model folder: its configuration and weights; of files of gigabytes, pieces all over them."""
    h = hashlib.sha256((folder / "config.json").read_bytes())
    for part in sorted(model_folder.parts(folder)):
        for path in model_folder.files(folder, part):
            size = path.stat().st_size
            h.update(f"{path.relative_to(folder)} {size}".encode())
            with path.open("rb") as file:
                for k in range(PIECES if size > WHOLE else 1):
                    file.seek(k * (size - (1 << 20)) // (PIECES - 1) if size > WHOLE else 0)
                    h.update(file.read(1 << 20 if size > WHOLE else WHOLE))
    return {"what": str(folder), "hash": h.hexdigest()[:16]}


def versions() -> dict[str, Any]:
    """Of what computes. Packages that are not installed are left out."""
    from importlib import metadata

    out: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("wegen", "accelerate", "diffusers"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out


def _values(kept: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    defaults = {f.name: f.default for f in dataclasses.fields(Settings) if f.default is not dataclasses.MISSING}
    settings = {n: v for n, v in defaults.items() if n in READS[kept["stage"]]} | kept["settings"]
    out = {name: (list(v) if isinstance(v, tuple) else v, _word(v)) for name, v in settings.items()}
    out["micro"] = (kept["micro_batches"], f"{kept['micro_batches']} micro-batches a step")
    for name in ("data", "model"):
        what, known = kept[name]["what"], kept[name]["hash"]
        out[name] = (known, f"{what} ({known})")
    return out


def _word(value: Any) -> str:
    return (
        ",".join(f"{v:g}" for v in value) if isinstance(value, (tuple, list)) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _refusal(folder: Path, step: int, other: dict[str, tuple[str, str]]) -> str:
    told = "; ".join(f"{name} was {before}, and is {now}" for name, (before, now) in other.items())
    fixed = [name for name in other if name in UNCHANGEABLE]
    ways = ["Give the command that it began with", "or name another --folder"]
    if fixed:
        ways.insert(1, f"since {', '.join(fixed)} cannot change on the way")
    else:
        words = {name: {"data": "PATH", "micro": "SAMPLES"}.get(name, now) for name, (_, now) in other.items()}
        ways.insert(1, f"or allow it: {' '.join(f'--change {name}={word}' for name, word in words.items())}")
    return f"{folder} goes on from step {step}, and began with other things: {told}. {', '.join(ways)}."
