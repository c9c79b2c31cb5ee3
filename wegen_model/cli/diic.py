"""`wegen data diic` and `wegen data recaption`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

HELP = {
    "cut": "scenedetect's content threshold",
    "shortest": "seconds of a shot, at least",
    "every": "seconds between the frames looked at, and between those in which things are followed",
    "motion": "share of the picture that must change between frames, besides what the camera's own motion changes",
    "frames": "frames of a shot, at most",
    "side": "longest side, pixels",
    "unit": "seconds of film that are one unit of work",
    "least": "pixels of a film's shorter side, at least",
    "blur": "frames whose hardest edges are softer are left out: pixels, of 256",
    "text": "share of the picture that lines of text may cover",
    "alike": "frames whose fingerprints differ in no more of 64 bits are the same; -1: keep them",
    "watermark": "drop or keep films with something in the same place over all shots",
    "captioner": "plain, transformers:ID[#PROMPT], wegen:FOLDER[#PROMPT] or things:FOLDER",
    "longer": "captioner of the long caption (recaption)",
    "phrases": "plain, or spacy:PIPELINE",
    "detector": "plain, transformers:ID (Grounding DINO, MM Grounding DINO, OWLv2, SAM 3), wegen:FOLDER or things:FOLDER",
    "tracker": "plain, or transformers:ID of SAM 2, SAM 3 or EdgeTAM",
    "embedder": "plain, transformers:ID (DINOv2, CLIP) or wegen:FOLDER",
    "precision": "of models of transformers: auto (bfloat16 on CUDA), float32, bfloat16 or float16",
    "batch": "pictures of one call of a model",
    "score": "least score of a detection",
    "overlap": "boxes that overlap more are one thing",
    "instances": "instances of a frame, at most",
    "smallest": "share of the picture that an instance must cover",
    "same": "identity window: at least this alike is the same thing",
    "copy": "identity window: more than this alike is a copy",
}
RECAPTION = ("captioner", "longer", "side", "precision", "batch")


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
        p.add_argument("--workers", type=int, default=0, help="with ray: actors of a step (default: what the cluster has room for)")
        p.add_argument("--redo", action="store_true", help="make steps anew that other options made, instead of refusing")
        for f in fields(Options):
            if name == "diic" and f.name == "longer" or name == "recaption" and f.name not in RECAPTION:
                continue
            p.add_argument(f"--{f.name}", type=type(f.default), default=f.default, help=f"{HELP[f.name]} (default: {f.default})")


def run(args: argparse.Namespace) -> int:
    from ..diic import build as engine
    from ..diic import statistics
    from ..diic.options import Options
    from ..diic.units import units
    from ..runtime import Runtime

    options = Options(**{f.name: getattr(args, f.name) for f in fields(Options) if hasattr(args, f.name)})
    source, out, runtime = Path(args.source), Path(args.out), Runtime("cpu", progress=sys.stderr.isatty())
    if args.what == "diic":
        told = engine.diic(source, out, options, args.engine, runtime, args.workers, args.redo)
        folder, mark, made = out / engine.FOLDERS["pair"], "diic.json", statistics.diic_numbers(out)
        for name in engine.unused(out, units(source, options.unit)):
            sys.stdout.write(f"{name}: its film is no longer in {source}; its samples stay until you delete it from each step's folder\n")
    else:
        told = {"recaption": engine.recaption(source, out, options, args.engine, runtime, args.workers, args.redo)}
        folder, mark, made = out, "recaption.json", statistics.recaption_numbers(out)
    engine.write_mark(folder, mark, made)
    for step, skips in told.items():
        if skips.total:
            sys.stdout.write(f"{step}: {skips.text()}\n")
    sys.stdout.write(statistics.text(made) + f"\n{folder}\n")
    return 0
