"""WeGen Chat: a message with pictures -> the conversation with the model's answer."""

from __future__ import annotations

from dataclasses import replace

from . import host
from .sockets import (
    CATEGORY,
    CHAT,
    MAX_TOKENS,
    MODEL,
    PICTURE,
    REFERENCES,
    SEED,
    TEMPERATURE,
    image_sockets,
    mask_sockets,
    pictures,
    tell_numbers,
)

PAGE = 1024  # pixels: the size that reply boxes are given for when there is no picture


class WeGenChat:
    """One turn: you say something, the model answers, in words and perhaps by opening a picture."""

    DESCRIPTION = (
        "Talks with WeGen: asks for a picture, asks about pictures, or refines the last one. The picture itself is drawn by "
        "AR Feature Decode, which follows. For another turn, connect its chat output to the next WeGen Chat. The bundled miniature "
        "remembers one earlier exchange."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["wegen", "chat", "prompt", "ask", "vqa", "text to image", "multimodal", "llm", "caption", "edit"]
    SEARCH_ALIASES += ["vlm", "unified model", "emu", "describe", "instruct", "style transfer", "subject", "consistency", "ip adapter"]
    RETURN_TYPES = (CHAT, "STRING", "BOUNDING_BOX", "BOOLEAN")
    RETURN_NAMES = ("chat", "reply", "boxes", "picture_requested")
    OUTPUT_TOOLTIPS = (
        "The conversation with the answer. Connect it to AR Feature Decode to draw the picture, or to the next WeGen Chat.",
        "What the model answered, as text.",
        "Boxes in the answer, in pixels of the first reference picture (of a 1024x1024 picture when there is none).",
        "Whether the answer opened a picture that AR Feature Decode can draw: for a switch that runs the drawing only then.",
    )
    FUNCTION = "chat"
    OUTPUT_NODE = True  # a question alone is a whole graph: the reply shows on the node

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "The model to talk with. A conversation stays with the model that began it."}),
                "message": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "dynamicPrompts": True,
                        "tooltip": (
                            "What you say. <image_1> stands for the picture at image_1, <bbox_1> for its place in the picture to be made "
                            "(boxes come from Bbox Compose; a box without a tag follows its picture)."
                        ),
                    },
                ),
                "picture": PICTURE,
                "rewrite": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": (
                            "Prompt self-rewriting: the model first describes the picture in its own words and then draws that. With a "
                            "temperature above 0, each seed gives another idea."
                        ),
                    },
                ),
                "temperature": (
                    "FLOAT",
                    {
                        **TEMPERATURE,
                        "tooltip": ("How freely words are chosen. 0 always takes the likeliest; 0.7 is lively; above 1 gets wild."),
                    },
                ),
                "top_p": (
                    "FLOAT",
                    {
                        "default": 0.9,
                        "min": 0.01,
                        "max": 1.0,
                        "step": 0.01,
                        "advanced": True,
                        "tooltip": ("Only the likeliest words that add up to this share are considered. 1 allows all."),
                    },
                ),
                "seed": ("INT", {**SEED, "tooltip": "The same seed gives the same answer. It matters only with a temperature above 0."}),
                "max_tokens": (
                    "INT",
                    {
                        **MAX_TOKENS,
                        "tooltip": (
                            "The longest answer, in tokens (about three quarters of a word each). Room for it is reserved in the conversation."
                        ),
                    },
                ),
                "trim_oldest": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": (
                            "When a conversation has grown too long for the model: forget its oldest exchanges instead of stopping."
                        ),
                    },
                ),
            },
            "optional": {
                "chat": (CHAT, {"tooltip": "The conversation so far, from AR Feature Decode or another WeGen Chat. Empty: a new one."}),
                "references": (
                    REFERENCES,
                    {
                        "tooltip": (
                            "References with boxes, from Bbox Compose. They come first: its image_1 is <image_1>; pictures connected here are "
                            "numbered after them."
                        )
                    },
                ),
                **image_sockets(),
                **mask_sockets(),
            },
        }

    def chat(
        self,
        model,
        message,
        picture="auto",
        rewrite=False,
        temperature=0.0,
        top_p=0.9,
        seed=0,
        max_tokens=128,
        trim_oldest=False,
        chat=None,
        references=(),
        **images,
    ):
        from ..wegen_model.chat.conversation import Conversation

        host.check_later()
        with host.watch(model.runtime) as notes:
            chained = tuple(references or ())
            slots = pictures(images, model.runtime.warn)
            turn = tell_numbers(message, chained, slots, model.runtime.warn)
            conversation = (chat or Conversation()).user(message, turn)
            answer = model.chat(
                conversation,
                picture=picture,
                rewrite=rewrite,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                max_tokens=max_tokens,
                trim_oldest=trim_oldest,
            )
            shown = answer.reply or ("(a picture, to be drawn by AR Feature Decode)" if answer.open_image else "(no words)")
            boxes = [] if answer.notice else reply_boxes(answer.last, turn)
            drawable = answer.open_image or answer.shown_again is not None
            return host.shown((replace(answer, model=model), answer.reply, boxes, drawable), notes, shown)


def reply_boxes(reply, asked) -> list[list[dict]]:
    """The reply's boxes as ComfyUI's BOUNDING_BOX, in pixels of the first picture that was asked about."""
    from ..wegen_model.chat.boxes import native

    picture = next((r.picture for r in asked if r.picture is not None), None)
    height, width = (PAGE, PAGE) if picture is None else picture.shape[1:3]
    return native(reply.references, width, height)
