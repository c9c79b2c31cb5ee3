"""A finished run as a folder that can be put on a model hub: the model, the adapter where there is one, and a card. Nothing is uploaded.

OUT/README.md         the card: what it is, what it was made with, its losses, and what a reader must know before using it
OUT/config.json …     the trained model folder as `wegen train` wrote it
OUT/lora.safetensors  the adapter alone
OUT/run.json          the run's record
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from ..checkpoint import model_folder
from ..fileio import read_json, write_text
from ..saving import writing
from .checkpoint import RECORD, last, step_of
from .settings import READS, Settings

ROWS = 12  # lines of the log that the card shows


def export_for_hub(run: str | Path, target: str | Path, licence: str = "other", name: str = "") -> Path:
    """Write the folder `target` of the finished run in the work folder `run`.

    Args:
        licence: as the hub writes it; the licences of the start's parts bind whoever publishes. name: of the card; default: of the target.
    Raises:
        ValueError, CheckpointError: the run has no model yet, or the target holds something else.
    """
    run, target = Path(run), Path(target)
    model, place = run / "model", last(run)
    if place is None or not (model / "config.json").is_file():
        raise ValueError(f"{run}: no finished run: it has no model/. `wegen train` writes it at the end; with --target it is elsewhere.")
    record = read_json(place / RECORD) if (place / RECORD).is_file() else {}
    model_folder.check_target(target, {*model_folder.WEIGHT_FILES, "tokenizer"}, model)
    with writing("the folder for a hub", target, "The run is kept."), model_folder.replacing(target) as new:
        shutil.copytree(model, new, dirs_exist_ok=True)
        if (run / "lora.safetensors").is_file():
            shutil.copy2(run / "lora.safetensors", new)
        if record:
            write_text(new / RECORD, json.dumps(record | {"command": ""}, indent=1))  # a command holds its writer's paths
        write_text(
            new / "README.md", card(name or target.name, record, step_of(place), _log(run), licence, (new / "lora.safetensors").is_file())
        )
    return target


def card(name: str, record: dict[str, Any], step: int, log: list[dict], licence: str, adapter: bool) -> str:
    """The card's text, its first lines in the form that hubs read."""
    start = Path(record.get("model", {}).get("what", "")).name or "unknown"
    lines = ["---", f"license: {licence}", "library_name: wegen", "pipeline_tag: any-to-any", f"base_model: {start}"]
    lines += ["tags:", "- wegen", "- image-generation", "- image-to-text", *(["- lora"] if adapter else []), "---", "", f"# {name}", ""]
    stage = record.get("stage", "an unknown stage")
    lines += [
        f"Made from `{start}` by {step:,} steps of WeGen's stage `{stage}` (arXiv 2503.01115). Load it with `WeGen.load`, in ComfyUI with"
    ]
    lines += ["**Load WeGen Model**, or look at it with `wegen inspect`."]
    lines += ["`lora.safetensors` is what was trained, alone; it is merged into the weights beside it." if adapter else "", ""]
    if record:
        lines += ["## What it was made with", "", "| | |", "|---|---|"]
        lines += [f"| data | {_short_data(record['data'])} |", f"| micro-batches a step | {record['micro_batches']} |"]
        defaults = {f: getattr(Settings, f, None) for f in READS[stage]}
        lines += [f"| {k} | {v} |" for k, v in record["settings"].items() if v != defaults.get(k) or k in ("optimizer", "precision")]
        lines += [f"| {k} | {v} |" for k, v in record["versions"].items()]
        lines += [
            f"| changed at step {c['step']} | {c['name']}: {c['from']} to {c['to']} |" for c in record["changes"] if c["name"] != "data"
        ]
        lines += [""]
    if log:
        names = [k for k in ("loss", "words", "mse", "cosine", "diffusion", "held_out_loss") if any(k in row for row in log)]
        shown = [row for row in log if "loss" in row or "held_out_loss" in row]
        shown = shown[:: max(1, len(shown) // ROWS)] + shown[-1:]
        lines += ["## Losses", "", f"| step | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        lines += [f"| {row['step']} | {' | '.join(f'{row[k]:.4g}' if k in row else '' for k in names)} |" for row in shown]
        lines += [""]
    lines += [
        "## To fill in",
        "",
        "What it is for and what it is not for; what was looked at; the licences of data and of the start's parts.",
    ]
    return "\n".join(lines) + "\n"


def _short_data(data: dict[str, Any]) -> str:
    """Without the folders above it."""
    what, more = str(data["what"]).partition(", ")[::2]
    return f"{Path(what).name or what}{more and ', ' + more} ({data['hash']})"


def _log(run: Path) -> list[dict]:
    rows = []
    for line in (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").is_file() else ():
        with contextlib.suppress(ValueError):  # half a line: the run was killed while it wrote
            rows.append(json.loads(line))
    return rows
