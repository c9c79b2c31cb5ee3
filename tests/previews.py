"""Runs every example workflow and writes its preview, the same-named .jpg that ComfyUI's template browser shows.

    python tests/previews.py [--model FOLDER] [--only NAME …] [--out DIR]          or: make previews [MODEL=FOLDER]

A preview is what the workflow's Save and Preview nodes show, in the order of the canvas, with their titles; replies as text.
Workflows with nodes that `wegen run` lacks are run in ComfyUI where WEGEN_COMFYUI names one (tests/comfyui/conftest.py); else their
previews stay as they are, and are named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw
from wegen.nodes import NODE_CLASS_MAPPINGS
from wegen.wegen_model import workflow
from wegen.wegen_model.chat.boxes import _font

WORKFLOWS = Path(__file__).parent.parent / "workflows"
SHOWN = ("SaveImage", "PreviewImage", "PreviewAny")
SIDE, GAP, LINE = 256, 12, 26  # pixels: a picture's side, the space around it, a line of text
BACK, INK = (32, 33, 38), (228, 228, 232)


def with_model(path: Path, model: str | None) -> dict:
    text = path.read_text(encoding="utf8")
    return json.loads(text.replace('"wegen-mini"', json.dumps(model)) if model else text)


def run_headless(ui: dict, folder: Path) -> dict[str, Image.Image | str]:
    """node id -> what it shows."""
    saved = workflow.run(workflow.load_workflow(ui, NODE_CLASS_MAPPINGS), NODE_CLASS_MAPPINGS, out_dir=folder, input_dir=WORKFLOWS)
    return {s.node_id: Image.open(s.path).convert("RGB") if s.kind == "image" else s.text for s in saved if s.kind != "file"}


def run_in_comfyui(ui: dict) -> dict[str, Image.Image | str]:
    """The same through a real ComfyUI; core's nodes are read by the server's own descriptions."""
    from wegen.tests.comfyui.server import ComfyServer

    with ComfyServer.from_environment() as server:
        prompt = workflow.load_workflow(ui, {**server.node_classes(), **NODE_CLASS_MAPPINGS}).prompt
        run = server.queue(prompt)
        if run.status != "success":
            raise SystemExit(run.error)
        folders = {"output": server.outputs, "temp": server.base / "temp"}
        return {
            node: Image.open(folders[i["type"]] / i["subfolder"] / i["filename"]).convert("RGB")
            for node, shown in run.outputs.items()
            for i in shown.get("images", [])[:1]
        }


def tiles(ui: dict, shown: dict[str, Image.Image | str]) -> list[tuple[str, Image.Image | str]]:
    """(title, picture or text) in reading order: groups from left to right, inside a column from top to bottom."""
    nodes = [n for n in ui["nodes"] if n["type"] in SHOWN and str(n["id"]) in shown]
    group = {id(n): next((g["bounding"][0] for g in ui["groups"] if _inside(n, g["bounding"])), n["pos"][0]) for n in nodes}
    nodes.sort(key=lambda n: (group[id(n)], n["pos"][0], n["pos"][1]))
    return [(n.get("title", ""), shown[str(n["id"])]) for n in nodes]


def _inside(node: dict, box: list) -> bool:
    x, y = node["pos"]
    return box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


def sheet(entries: list[tuple[str, Image.Image | str]]) -> Image.Image:
    """All entries in rows of up to four; one alone fills the sheet."""
    if len(entries) == 1 and not isinstance(entries[0][1], str):
        return entries[0][1].resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    columns = len(entries) if len(entries) <= 4 else (len(entries) + 1) // 2
    rows, step = -(-len(entries) // columns), SIDE + GAP
    out = Image.new("RGB", (columns * step + GAP, rows * (step + LINE) + GAP), BACK)
    draw = ImageDraw.Draw(out)
    for k, (title, entry) in enumerate(entries):
        x, y = GAP + k % columns * step, GAP + k // columns * (step + LINE)
        if isinstance(entry, str):
            draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=(46, 48, 56))
            draw.multiline_text((x + 16, y + 16), "\n".join(textwrap.wrap(entry, 19)), INK, _font(22), spacing=8)
        else:
            size = tuple(max(1, round(n * SIDE / max(entry.size))) for n in entry.size)
            out.paste(entry.resize(size, Image.Resampling.LANCZOS), (x, y))
        draw.text((x + 2, y + SIDE + 3), title, INK, _font(16))
    return out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder to run with, in place of the bundled wegen-mini")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these workflows alone")
    parser.add_argument("--out", type=Path, default=WORKFLOWS, help="where the .jpg go (default: beside the workflows)")
    args = parser.parse_args(arguments)
    left = []
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(WORKFLOWS.glob("*.json")):
        if args.only and path.stem not in args.only:
            continue
        ui = with_model(path, args.model and str(Path(args.model).resolve()))
        try:
            with tempfile.TemporaryDirectory() as folder:
                entries = tiles(ui, run_headless(ui, Path(folder)))
        except workflow.ForeignNodesError:
            if not os.environ.get("WEGEN_COMFYUI") or args.model:
                left.append(path.stem)
                continue
            entries = tiles(ui, run_in_comfyui(ui))
        sheet(entries).save(args.out / f"{path.stem}.jpg", quality=90, optimize=True)
        sys.stderr.write(f"{path.stem}: {len(entries)} shown\n")
    if left:
        sys.stderr.write(f"left as they are (they need ComfyUI: set WEGEN_COMFYUI, with the bundled model): {', '.join(left)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
