"""Draws the pictures of help pages and README anew, with the weights as they are: make pictures, or python -m wegen.tests.comfyui.pictures

    js/docs/graph.jpg         text_to_picture after a run        js/docs/chat_panel.png   the end of the conversation
    js/docs/bbox_canvas.png   two pictures in their boxes        js/docs/chat.gif         the conversation while it is held

Environment as in conftest.py: WEGEN_COMFYUI, WEGEN_COMFYUI_PYTHON; Chromium and playwright. `--only graph boxes chat` draws some of them.
"""

import argparse
import io
import json
import sys
import time
from pathlib import Path

from PIL import Image, ImageChops
from wegen.tests.comfyui.browser import Frontend
from wegen.tests.comfyui.editors import PENDING, SET, build, drag, talk
from wegen.tests.comfyui.server import ComfyServer

PACK = Path(__file__).parents[2]
DOCS = PACK / "js" / "docs"
SAID = ("a fox on a teal background", "make the background blue", "add a star on the right")
FRAME, HOLD = 160, 1800  # milliseconds of a frame of the GIF, and of the end of an answer


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def graph(server: ComfyServer, folder: Path) -> None:
    with Frontend(server, vue=True) as page:
        page.load(json.loads((PACK / "workflows" / "text_to_picture.json").read_text(encoding="utf8")))
        finish(page)
        page.fit()
        page.shoot(folder / "graph.png", crop=True)
    picture = Image.open(folder / "graph.png").convert("RGB")
    picture.resize((1400, round(1400 * picture.height / picture.width)), Image.Resampling.LANCZOS).save(DOCS / "graph.jpg", quality=88)


def boxes(server: ComfyServer, folder: Path) -> None:
    with Frontend(server, size=(1500, 1000)) as page:
        one, two, compose, _ = build(
            page,
            [
                ("WeGenExamplePicture", (0, 0)),
                ("WeGenExamplePicture", (0, 160)),
                ("WeGenBboxCompose", (280, 0), (700, 740)),
                ("PreviewImage", (1020, 0), (240, 300)),
            ],
            [(0, 0, 2, "image_1"), (1, 0, 2, "image_2"), (2, 3, 3, "images")],
        )
        for node, name in ((one, "fox_on_beige"), (two, "rocket")):
            page.page.evaluate(SET, [node, "picture", name])
        page.page.evaluate(SET, [compose, "prompt", "<image_1><bbox_1> and <image_2><bbox_2> on a teal background"])
        drag(page, (0.05, 0.3), (0.5, 0.95))
        drag(page, (0.55, 0.05), (0.95, 0.6))
        finish(page)
        page.shoot(folder / "boxes.png", crop=True)
    picture = Image.open(folder / "boxes.png").convert("RGB")
    picture = picture.resize((1000, round(1000 * picture.height / picture.width)), Image.Resampling.LANCZOS)
    picture.quantize(128, dither=Image.Dither.NONE).save(DOCS / "bbox_canvas.png", optimize=True)


def finish(page: Frontend) -> None:
    status = page.run()
    if status != "success":
        raise SystemExit(f"the run ended with {status}: {page.broken()}")


def chat(server: ComfyServer, folder: Path) -> None:
    frames: list[tuple[Image.Image, int]] = []
    with Frontend(server, size=(1000, 1000)) as page:
        node = talk(page)
        panel = page.page.locator(".wegen-chat:visible").first

        def keep(milliseconds: int) -> None:
            picture = opened(panel.screenshot(animations="disabled"))
            if frames and ImageChops.difference(frames[-1][0], picture).getbbox() is None:
                frames[-1] = (picture, max(frames[-1][1], milliseconds))
            else:
                frames.append((picture, milliseconds))

        for said in SAID:
            page.page.locator("textarea.wegen-write:visible").first.fill(said)
            keep(900)
            page.page.keyboard.press("Enter")
            until = time.monotonic() + 600
            while page.page.evaluate(PENDING, node):
                keep(FRAME)
                if time.monotonic() > until:
                    raise SystemExit("no answer within 600 s")
            trouble = page.page.evaluate("id => app.graph.getNodeById(id).wegenSession.trouble", node)
            if trouble:
                raise SystemExit(trouble)
            page.page.evaluate("document.activeElement.blur()")
            page.page.wait_for_timeout(800)  # the picture has come
            keep(HOLD)
    frames[-1][0].save(DOCS / "chat_panel.png", optimize=True)
    palette = Image.new("RGB", (frames[0][0].width * 2, frames[0][0].height))  # one palette for all: the first and the last picture
    for x, (picture, _) in ((0, frames[len(frames) // 3]), (palette.width // 2, frames[-1])):
        palette.paste(picture, (x, 0))
    palette = palette.quantize(128)
    drawn = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture, _ in frames]
    drawn[0].save(DOCS / "chat.gif", save_all=True, append_images=drawn[1:], duration=[t for _, t in frames], loop=0, optimize=True)


DRAW = {"graph": graph, "boxes": boxes, "chat": chat}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=DRAW, default=list(DRAW))
    only = parser.parse_args(arguments).only
    for name in only:
        live = ("--preview-method", "auto") if name == "chat" else ()  # in a still they would stay below the nodes
        with ComfyServer.from_environment(arguments=live) as server:
            DRAW[name](server, server.base / "temp")
        sys.stderr.write(f"{name}: drawn\n")


if __name__ == "__main__":
    main()
