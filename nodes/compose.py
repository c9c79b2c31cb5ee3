"""Bbox Compose: up to five pictures and their places -> references, with a prompt whose tags are checked."""

from __future__ import annotations

from . import host, ui_messages
from .sockets import CATEGORY, REFERENCES, SIDE, image_sockets, mask_sockets, pictures, tell_numbers


class WeGenBboxCompose:
    """References with boxes: which picture goes where in the picture to be made."""

    DESCRIPTION = (
        "Gives each reference picture its place in the picture to be made. Connect references and prompt to WeGen Chat; "
        "chain several for more references."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["bbox", "bounding box", "layout", "compose", "regional", "references", "place", "region"]
    SEARCH_ALIASES += ["ip adapter", "try on", "virtual try on", "subject", "consistency", "character consistency"]
    RETURN_TYPES = (REFERENCES, "STRING", "BOUNDING_BOX", "IMAGE", "MASK", "IMAGE", "ARRAY")
    RETURN_NAMES = ("references", "prompt", "boxes", "preview", "masks", "plan", "elements")
    OUTPUT_TOOLTIPS = (
        "The references in order, for WeGen Chat or another Bbox Compose.",
        "The prompt; its tags were checked against the references.",
        "All boxes in pixels of the canvas.",
        "The canvas with each picture in its box, outlined and numbered.",
        "One mask a box at canvas size, white inside (one black mask where there are no boxes).",
        "What the miniature is shown: each picture cut out and laid in its box on white, outlined, with its number and label.",
        "The boxes with their labels as ComfyUI's layout prompts take them: [top, left, bottom, right] in thousandths.",
    )
    FUNCTION = "compose"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "prompt": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "dynamicPrompts": True,
                        "tooltip": (
                            "The message for WeGen Chat. <image_1> stands for the first reference, <bbox_1> for its box; a box without a "
                            "tag follows its picture. Without tags the references are simply shown first."
                        ),
                    },
                ),
                "box_text": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "advanced": True,
                        "tooltip": (
                            "One line for each image socket, in order: x y width height as fractions of the canvas (x, y: the top-left corner), "
                            "for example 0.1 0.2 0.4 0.5. An empty line: no box. A line without a picture is a place alone. JSON works too. "
                            "Ignored while boxes is connected. The canvas starts from here."
                        ),
                    },
                ),
                "bbox_format": (
                    ["xywh", "xyxy"],
                    {
                        "default": "xywh",
                        "advanced": True,
                        "tooltip": (
                            "How bare numbers are read: xywh is x, y, width, height; xyxy is left, top, right, bottom (some BBOX nodes)."
                        ),
                    },
                ),
                "width": (
                    "INT",
                    {
                        **SIDE,
                        "tooltip": (
                            "Width of the canvas in pixels: boxes in pixels are measured by it, masks and the preview take its shape."
                        ),
                    },
                ),
                "height": ("INT", {**SIDE, "tooltip": "Height of the canvas in pixels."}),
            },
            "optional": {
                "canvas": (
                    "STRING",
                    {
                        "default": "",
                        "widgetType": "WEGEN_BOXES",
                        "tooltip": (
                            "The boxes that you draw (JSON, fractions of the canvas). They start from boxes or box_text, and count until what "
                            "comes in there changes."
                        ),
                    },
                ),
                "references": (REFERENCES, {"tooltip": "References to continue: they come first, and keep their boxes."}),
                "boxes": (
                    "BOUNDING_BOX,BBOX,ARRAY",
                    {
                        "tooltip": (
                            "Boxes from another node, in the order of the image sockets. Pixels of the canvas, or fractions where all numbers "
                            "are below 2; or elements (ARRAY). Of several frames, the first."
                        )
                    },
                ),
                **image_sockets(),
                **mask_sockets(),
                "background": (
                    "IMAGE",
                    {"tooltip": "A picture to draw the boxes on, stretched over canvas and preview. The model is not shown it."},
                ),
            },
        }

    def compose(
        self,
        prompt="",
        box_text="",
        bbox_format="xywh",
        width=1024,
        height=1024,
        canvas="",
        references=(),
        boxes=None,
        background=None,
        **images,
    ):
        from ..wegen_model.chat import box_forms
        from ..wegen_model.chat import boxes as library
        from ..wegen_model.chat.canvas_state import choose, digest, parse_placement

        run = host.runtime()  # no model here: only for what the host shows
        with host.watch(run) as notes:
            chained = tuple(references or ())
            slots = pictures(images, run.warn)
            if boxes is not None:
                places = box_forms.normalise_boxes(boxes, width, height, bbox_format)
                if box_text.strip():
                    run.warn("box_text is ignored while boxes is connected.")
            else:
                places = box_forms.parse_boxes(box_text, width, height, bbox_format)
            drawn, arrived = parse_placement(canvas), places
            if drawn.ignored:
                run.warn("Left out: " + "; ".join(drawn.ignored) + ".")
            places, own = choose(drawn, arrived)
            named = () if boxes is None else box_forms.given_labels(boxes)
            labels = drawn.labels if own else named
            tell_numbers(prompt, chained, library.join(slots, places), run.warn)
            made = library.compose(slots, places, prompt, chained, width, height, labels, background)
            canvas_news = {
                "arrived": [
                    None
                    if b is None
                    else {"x": b.x, "y": b.y, "width": b.width, "height": b.height, "label": (named[k : k + 1] or ("",))[0]}
                    for k, b in enumerate(arrived)
                ],
                "seen": digest(arrived),
                "first": len(chained) + 1,
                "pictures": [ui_messages.save_thumb(slot and slot.picture, str(k)) for k, slot in enumerate(slots, 1)],
                "background": ui_messages.save_thumb(background, "background", 1024),
            }
            answer = (made.references, made.prompt, made.boxes, made.preview, made.masks, made.plan, made.elements)
            return host.shown(answer, notes, ui={"wegen_boxes": [canvas_news]})
