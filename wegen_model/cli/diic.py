"""`wegen data diic` and `wegen data recaption`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

HELP = {
    "cut": "scenedetect's content threshold",
    "shortest": "seconds of a shot, at least",
    "every": "seconds between the frames looked at",
    "motion": "share of the picture that must change between frames",
    "frames": "frames of a shot, at most",
    "side": "longest side, pixels",
    "captioner": "plain, transformers:ID[#PROMPT], wegen:FOLDER[#PROMPT] or things:FOLDER",
    "longer": "captioner of the long caption (recaption)",
    "phrases": "plain, or spacy:PIPELINE",
    "detector": "plain, transformers:ID (Grounding DINO, OWL-ViT), wegen:FOLDER or things:FOLDER",
    "tracker": "plain, or transformers:ID of SAM 2",
    "embedder": "plain, transformers:ID (DINOv2, CLIP) or wegen:FOLDER",
    "score": "least score of a detection",
    "overlap": "boxes that overlap more are one thing",
    "instances": "instances of a frame, at most",
    "smallest": "share of the picture that an instance must cover",
    "same": "identity window: at least this alike is the same thing",
    "copy": "identity window: more than this alike is a copy",
}


def add(todo) -> None:
    from ..diic.options import Options

    for name, text, what in (
        ("diic", "videos -> samples whose instances persist", "a video, or a folder of them"),
        ("recaption", "shards of pictures -> a short and a long caption each", "folder of shards"),
    ):
        p = todo.add_parser(name, help=text)
        p.add_argument("source", help=what)
        p.add_argument("out", help="folder to write; a stopped run goes on there")
        p.add_argument("--engine", choices=("here", "ray"), default="here", help="where to work: this process, or Ray Data")
        p.add_argument("--workers", type=int, default=0, help="with ray: actors (default: one a GPU, or one a CPU)")
        for f in fields(Options):
            if name == "diic" and f.name == "longer" or name == "recaption" and f.name not in ("captioner", "longer", "side"):
                continue
            p.add_argument(f"--{f.name}", type=type(f.default), default=f.default, help=f"{HELP[f.name]} (default: {f.default})")


def run(args: argparse.Namespace) -> int:
    from ..data import shards
    from ..diic import run as engine
    from ..diic import statistics
    from ..diic.options import Options
    from ..runtime import Runtime

    options = Options(**{f.name: getattr(args, f.name) for f in fields(Options) if hasattr(args, f.name)})
    source, out, runtime = Path(args.source), Path(args.out), Runtime("cpu", progress=sys.stderr.isatty())
    if args.what == "diic":
        told = engine.diic(source, out, options, args.engine, runtime, args.workers)
        folder, numbers, mark = out / f"{len(engine.ORDER)}-pair", statistics.diic_numbers, "diic.json"
        made = numbers(out)
    else:
        inputs = [source / name for name in shards.counts(source)]
        told = {"recaption": engine.run("recaption", inputs, out, options, args.engine, runtime, args.workers)}
        folder, mark = out, "recaption.json"
        made = statistics.recaption_numbers(out)
    shards.write_text(folder / mark, json.dumps(made, indent=1))
    for step, skips in told.items():
        if skips.total:
            sys.stdout.write(f"{step}: {skips.text()}\n")
    sys.stdout.write(statistics.text(made) + f"\n{folder}\n")
    return 0
