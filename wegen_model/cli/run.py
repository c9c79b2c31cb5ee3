"""`wegen run`: a workflow JSON, or a picture that carries one, without ComfyUI."""

from __future__ import annotations

from pathlib import Path

from .loras import add_lora, on_loaders
from .output import say

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def add(sub) -> None:
    run = sub.add_parser("run", help="run a workflow JSON (or a picture that carries one) without ComfyUI")
    run.add_argument("workflow", help="workflow JSON in UI or API format, or a PNG saved by ComfyUI or by this command")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.WIDGET=VALUE",
        help="change a widget; NODE: id, title or type, also of a subgraph for the widgets that it shows",
    )
    run.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="NODE=FILE",
        help="your own picture in place of an example's; NODE may be left out where there is one",
    )
    run.add_argument("--seed", type=int, help="set every seed of the workflow, and choose in {a|b} by it")
    run.add_argument("--out", default="output", help="folder for pictures (default: output)")
    add_lora(run)
    run.add_argument("--input", default=None, help="folder that Load Image looks in (default: beside the workflow)")


def run(args) -> int:
    from .. import workflow

    out = Path(args.out)
    if out.suffix.lower() in PICTURES and not out.is_dir():
        raise ValueError(
            f"--out {args.out}: is a folder, in which pictures are named by their Save Image; give a folder, such as --out output."
        )
    nodes = on_loaders(args.nodes(), args.lora)
    return workflow.run_command(args.workflow, args.set, args.seed, args.out, args.input, nodes, say, images=args.image, names=args.names())
