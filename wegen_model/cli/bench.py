"""`wegen bench`: measurements of a model folder that stay with it."""

from __future__ import annotations

import sys

from ..config import QUANTIZATIONS


def add(sub) -> None:
    """The command's arguments."""
    bench = sub.add_parser("bench", help="measure a model folder: what each precision costs")
    todo = bench.add_subparsers(dest="what", required=True, metavar="WHAT")
    p = todo.add_parser("precision", help="features with quantized weights against those of 16 bits; written to FOLDER/precision.json")
    p.add_argument("model", nargs="?", default="wegen-mini", help="model folder, or wegen-mini (bundled, default)")
    p.add_argument("--against", metavar="FOLDER", help="the 16-bit weights, when the model is quantized")
    p.add_argument(
        "--only", action="append", default=[], metavar="PRECISION", help=f"bfloat16, float16, {', '.join(QUANTIZATIONS)} (several times)"
    )
    p.add_argument("--prompt", action="append", default=[], help="instead of the fixed ones (may be given several times)")
    p.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="arithmetic of the reference (default: the device's)")
    p.add_argument("--device", help="cpu, cuda, … (default: CUDA when there is one)")


def run(args) -> None:
    import torch

    from ..evaluate import precision

    result = precision.measure(
        args.model,
        against=args.against,
        variants=args.only,
        prompts=args.prompt,
        device=args.device,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        say=lambda text: sys.stderr.write(text + "\n"),
    )
    sys.stdout.write(precision.table(result) + "\n")
