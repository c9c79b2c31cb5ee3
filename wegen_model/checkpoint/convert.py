"""Public checkpoints into a model folder (`convert`), and a part of a model back into a public layout (`export`).

Tensors pass one by one from the source into new safetensors of at most 5 GiB; they are written beside the target and replace it
when all are there (resumable_write.py). The source is never touched. Tables: formats/; checks before anything is written: plan.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import locks
from ..chat.tokenizer import special_tokens
from ..config import ModelConfig, check_kind
from ..fileio import atomic
from ..generation.decoder_presets import describe
from ..progress import ProgressEvent
from ..runtime import Runtime
from .file_layouts import origins
from .key_maps import exports
from .model_folder import write_config
from .model_paths import WEIGHT_FILES, CheckpointError, check_target, read_json
from .plan import Plan, plan, skeleton  # noqa: F401 skeleton: where others look for it
from .report import Report, summarise
from .resumable_write import SHARD, Staging, shard_index, shards
from .scan import EXTRA, PARTS, Scan, scan
from .tensor_file import Spec, write_file
from .tensors import LazyTensor, disassemble


def convert(
    source: str | Path,
    target: str | Path,
    parts: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    config: str | Path | dict | None = None,
    runtime: Runtime | None = None,
    whole: bool = False,
    initialise: bool = False,
    shard: int = SHARD,
    quantize: str = "",
) -> Report:
    """Write a model folder from a public release (any subset of it), one of its files, or another model folder.

    Args:
        parts: which of vision, language, projectors, unet, vae, tokenizer; None takes all that are there.
        dtype: precision of the floating-point weights; None keeps the source's, and quantized blocks (GGUF) as stored.
        config: a config.json, whole or in part, or its content: for sizes that no preset has. Heads and eps cannot be read from weights.
        whole: read older PyTorch pickles into memory.
        initialise: begin training from a stock SDXL UNet or LLaMA-2 (initialise.py).
        shard: bytes of the largest file.
        quantize: one of config.QUANTIZATIONS: quantizes the matrices of tower and language model (models/quantization.py), tensor by tensor.
    Returns:
        what was written, what is missing and what was dropped and why.
    Raises:
        CheckpointError: with the file, the tensor and what to do; the target is then as it was. After an interruption the same call goes
            on behind the files that were finished. Busy: another process writes this target.
    """
    runtime = runtime or Runtime()
    found, target = scan(source, whole), Path(target).expanduser()
    wanted = _choose(found, parts)
    planned = plan(found, config, wanted, dtype, initialise, blocks=check_kind(quantize))
    words = found.tokenizer if "tokenizer" in wanted else None
    check_target(target, {*planned.parts, "tokenizer"} if words else set(planned.parts), Path(source).expanduser())
    if words is not None:
        added = _added_tokens(words, planned.config)
    files = {part: shards(WEIGHT_FILES[part], tensors, shard) for part, tensors in planned.parts.items()}
    report = Report(
        target,
        "WeGen model folder",
        preset=planned.config.name,
        space=planned.config.features.space,
        tower=planned.config.features.tower,
        dropped=dict(found.dropped),
        notes=planned.notes,
        scheduler=planned.config.scheduler.get("_class_name", "") if "unet" in planned.parts else "",
        decoder=describe(planned.config) if "unet" in planned.parts else "",
    )
    total, done = sum(len(tensors) for tensors in planned.parts.values()), itertools.count(1)
    with locks.held(target.resolve().with_name(f".{target.resolve().name}.lock"), f"convert {source}"):
        work = Staging(target, _fingerprint(found, planned, files))
        try:
            work.room(
                {name: sum(planned.parts[part][key][0].bytes for key in keys) for part in files for name, keys in files[part].items()}
            )
            for part, tensors in planned.parts.items():
                for name, keys in files[part].items():
                    work.write(
                        name,
                        {key: tensors[key] for key in keys},
                        lambda key: runtime.tick(ProgressEvent("convert", next(done), total, text=key)),
                    )
                if len(files[part]) > 1:
                    names = {Path(name).name: keys for name, keys in files[part].items()}
                    (work.files / f"{WEIGHT_FILES[part]}.safetensors.index.json").write_text(shard_index(names, tensors))
                report.parts.append(summarise(part, list(files[part]), [spec for spec, _ in tensors.values()]))
            work.files.mkdir(parents=True, exist_ok=True)
            write_config(work.files, planned.config)
            if words is not None:
                shutil.copy(words, work.files / words.name)
                (work.files / "added_tokens.json").write_text(json.dumps(added, indent=1) + "\n")
                report.tokenizer = words.name
            work.finish()
        except OSError as error:
            raise CheckpointError(
                f"{target}: could not be written ({error.strerror or error}). What was there before is unchanged.{work.left()}"
            ) from error
        except BaseException:
            left = work.left()
            if left:
                runtime.warn(f"{target}: not finished.{left}")
            raise
    report.missing = [p for p in (*PARTS, "tokenizer") if p not in planned.parts and not (p == "tokenizer" and report.tokenizer)]
    return report


def _choose(found: Scan, parts: Sequence[str] | None) -> set[str]:
    known = (*PARTS, *EXTRA, "tokenizer")
    there = set(found.parts) | ({"tokenizer"} if found.tokenizer else set())
    if parts is None:
        return there
    for part in parts:
        if part not in known:
            raise CheckpointError(f"part {part!r} is not one of {', '.join(known)}.")
        if part not in there:
            raise CheckpointError(
                f"{found.path}: no {part} there; it holds {', '.join(p for p in known if p in there)}. "
                f"Its usual source: {origins().get(part, 'a model folder')}."
            )
    return set(parts) | ({"layout"} & there if "unet" in parts else set())


def _fingerprint(found: Scan, planned: Plan, files: dict[str, dict[str, list[str]]]) -> str:
    """What identifies this work: the source's files as they are now, and every tensor to be written."""
    sources = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in found.sources]
    tensors = {
        name: [(key, spec.shape, str(spec.dtype), spec.kind) for key in keys for spec in (planned.parts[part][key][0],)]
        for part, names in files.items()
        for name, keys in names.items()
    }
    return json.dumps([sources, tensors, dataclasses.asdict(planned.config)], sort_keys=True, default=str)


def _added_tokens(file: Path, config: ModelConfig) -> dict[str, int]:
    """The table of WeGen's tokens beside a tokenizer file; without one it is the public table."""
    added = file.with_name("added_tokens.json")
    if added.is_file():
        table = read_json(added)
    elif config.language.vocab_size == 32330:
        table = special_tokens(32000)
    else:
        raise CheckpointError(
            f"{file.parent}: no added_tokens.json beside {file.name}, and the vocabulary of {config.language.vocab_size} "
            "is not the public 32330, so the special tokens' ids are not known."
        )
    if max(table.values()) >= config.language.vocab_size:
        raise CheckpointError(f"{added}: ids up to {max(table.values())}, but the language model has {config.language.vocab_size}.")
    return table


# --- the other way ------------------------------------------------------------------------------------------------


def public(planned: Plan, layout: str) -> tuple[dict[str, LazyTensor], list[str]]:
    """The parts of a plan in a public layout's names: its tensors, and the parts that the layout has no place for."""
    known = exports()
    if layout not in known:
        raise CheckpointError(f"layout {layout!r} is not one of {', '.join(known)}.")
    tensors: dict[str, LazyTensor] = {}
    without = []
    for part, ours in planned.parts.items():
        try:
            keys = known[layout].export_keys(part, list(ours))
        except KeyError:
            without.append(part)
            continue
        tensors |= {key: disassemble(key, target, rule, ours[target], planned.config) for key, target, rule in keys}
    return tensors, without


def export(
    source: str | Path,
    target: str | Path,
    layout: str,
    parts: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    runtime: Runtime | None = None,
    whole: bool = False,
) -> Report:
    """Write one safetensors file in a public layout (a name of key_maps.exports()) from a model folder or whatever `convert` reads.

    Raises:
        CheckpointError: no part that the layout has a place for; the file exists; the layout cannot hold what is there.
    """
    runtime = runtime or Runtime()
    found, target = scan(source, whole), Path(target).expanduser()
    if target.exists():
        raise CheckpointError(f"{target} exists; nothing is overwritten. Name another file.")
    planned = plan(found, None, _choose(found, parts) - {"tokenizer"}, dtype, blocks=None)
    tensors, without = public(planned, layout)
    if parts and without or not tensors:
        raise CheckpointError(f"the layout {layout} («{exports()[layout].name}») has no place for {', '.join(without)}.")
    done = itertools.count(1)
    try:
        with atomic(target) as part_file:
            write_file(part_file, tensors, lambda key: runtime.tick(ProgressEvent("export", next(done), len(tensors), text=key)))
    except OSError as error:
        raise CheckpointError(f"{target}: could not be written ({error.strerror or error}).") from error
    specs: list[Spec] = [spec for spec, _ in tensors.values()]
    written = ", ".join(part for part in planned.parts if part not in without)
    return Report(
        target,
        f"{exports()[layout].name}: {written}",
        parts=[summarise("all", [target.name], specs)],
        notes=[f"no place in this layout: {', '.join(without)}"] if without else [],
    )
