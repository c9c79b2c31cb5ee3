"""WeGen Chat Panel: a whole conversation in one node. Its transcript is a value of the workflow; each run answers the last message."""

from __future__ import annotations

from dataclasses import replace

from . import host, ui_messages
from .sockets import CATEGORY, CHAT, FEATURES, GUIDANCE, MAX_TOKENS, MODEL, PICTURE, TEMPERATURE


class WeGenChatPanel:
    """Chat, AR Feature Decode and SDXL Feature Decoder for the last message of a transcript."""

    DESCRIPTION = (
        "Talk with WeGen in the node or in the sidebar: write, attach pictures, edit, branch, ask again. The conversation is "
        "saved with the workflow; the finished picture goes on through image."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "chat",
        "conversation",
        "wegen chat",
        "assistant",
        "talk",
        "multi turn",
        "panel",
        "sidebar",
        "vlm",
        "describe",
        "instruct",
    ]
    RETURN_TYPES = ("IMAGE", FEATURES, CHAT, "STRING")
    RETURN_NAMES = ("image", "features", "chat", "reply")
    OUTPUT_TOOLTIPS = (
        "The picture of the last answer, or its variations. An answer without a picture gives none: what is connected here is then skipped.",
        "The features of that picture. An answer without a picture gives none.",
        "The conversation with the last answer, for another WeGen Chat.",
        "The last answer as text.",
    )
    FUNCTION = "answer"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "The model to talk with. It answers, draws and paints with its own decoder."}),
                "picture": PICTURE,
                "rewrite": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": ("Prompt self-rewriting: the model first describes the picture in its own words and then draws that."),
                    },
                ),
                "temperature": ("FLOAT", {**TEMPERATURE, "tooltip": ("How freely words are chosen. 0 always takes the likeliest.")}),
                "guidance": (
                    "FLOAT",
                    {**GUIDANCE, "tooltip": ("How much the features lean towards the conversation. 1 is off and fastest.")},
                ),
                "max_tokens": ("INT", {**MAX_TOKENS, "tooltip": "The longest answer, in tokens."}),
                "trim_oldest": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "advanced": True,
                        "tooltip": (
                            "When the conversation has grown too long for the model: forget its oldest exchanges instead of stopping."
                        ),
                    },
                ),
                "transcript": (
                    "STRING",
                    {
                        "default": "",
                        "widgetType": "WEGEN_CHAT_PANEL",
                        "tooltip": (
                            "The conversation, as the panel writes it (JSON, pictures by file). Each answer has its own seed in here. Plain text "
                            "is read as one message, for runs without a browser."
                        ),
                    },
                ),
            },
            "optional": {
                "keep_rest": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "label_on": "what you did not touch stays",
                        "label_off": "pictures are painted anew",
                        "tooltip": (
                            "On: an edit of the picture in your message (or of the last answer) repaints only what changes; the rest stays to the "
                            "last bit. New pictures and whole new backgrounds are painted anew all the same. "
                            "About two and a half times the time (measured on the miniature)."
                        ),
                    },
                ),
                "variations": (
                    "INT",
                    {
                        "default": 1,
                        "min": 1,
                        "max": 8,
                        "tooltip": (
                            "Pictures of each answer, from seeds one after another, side by side as its versions; the conversation is read and the "
                            "features are written once. Choose one, and the next run gives that one alone."
                        ),
                    },
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def answer(
        self,
        model,
        picture="auto",
        rewrite=False,
        temperature=0.0,
        guidance=1.0,
        max_tokens=128,
        trim_oldest=True,
        transcript="",
        keep_rest=False,
        variations=1,
        prompt=None,
        extra_pnginfo=None,
    ):
        from ..wegen_model import edit_pipeline
        from ..wegen_model.chat.chat_state import parse_transcript
        from ..wegen_model.chat.commands import CommandError

        host.check_later()
        script = parse_transcript(transcript)
        with host.watch(model.runtime, ui_messages.chat_progress(script.id)) as notes:
            if script.ignored:
                model.runtime.warn("The transcript was read without " + "; ".join(script.ignored) + ".")
            files = {}  # id of a loaded picture -> (its file, itself), id of its features -> the same: to show it again by its file

            def load(file, where):
                picture = ui_messages.load_picture(file, where)
                files[id(picture)] = file, picture
                return picture

            def encode(picture):
                features = model.encode(picture, where="WeGen Chat Panel, an earlier picture")
                files[id(features)] = files[id(picture)]
                return features

            talk = script.conversation(load, encode, commands=model.config.memory > 0)
            image = features = file = None
            words = script.seed if script.first is None else script.first  # one of several pictures was chosen: it alone
            seeds = [(script.seed + k) % 2**64 for k in range(variations if script.first is None else 1)]
            try:
                talk = model.chat(
                    talk,
                    picture=picture,
                    rewrite=rewrite,
                    temperature=temperature,
                    seed=words,
                    max_tokens=max_tokens,
                    trim_oldest=trim_oldest,
                )
                features = talk.shown_again
            except CommandError as error:  # such as a picture that was never drawn: an answer, like any other
                talk = replace(talk.taken_back(), notice=str(error).capitalize())
            if features is not None:
                file, image = files[id(features)]
            shown_before = script.original if keep_rest else None
            if talk.open_image and shown_before is not None and talk.turns[-2].text == script.turns[-1].text:  # no command such as «again»
                options = {"guidance": guidance, "seed": seeds, "mask_seed": words, "trim_oldest": trim_oldest}
                made = edit_pipeline.edit(model, talk, ui_messages.load_picture(*shown_before), where="WeGen Chat Panel", **options)
                image, features, talk = made.image, made.features, made.conversation
            elif talk.open_image:
                features, talk = model.draw(talk, guidance=guidance, trim_oldest=trim_oldest)
                image = model.decode(features.repeat(len(seeds)), seed=seeds if len(seeds) > 1 else seeds[0])
            if image is not None and file is None:
                saved = [ui_messages.save_picture(row[None], "wegen/chat", prompt, extra_pnginfo) for row in image]
            else:
                saved, seeds = [file], seeds[:1]
            boxes = () if talk.notice else talk.last.references
            message = {
                "turn": script.id,
                "text": talk.reply,
                "notes": list(notes),
                "boxes": [{"x": r.box.x, "y": r.box.y, "width": r.box.width, "height": r.box.height} for r in boxes],
                "cells": ui_messages.colours(features)[0] if features is not None else [],
            }
            talk = replace(talk, model=model)
            messages = [
                {**message, "seed": _exact(seed), "pictures": [one] if one else [], **({} if seed == words else {"first": _exact(words)})}
                for seed, one in zip(seeds, saved, strict=True)
            ]
            result = tuple(host.nothing() if value is None else value for value in (image, features)) + (talk, talk.reply)
            shown = [] if host.inside_comfyui() else [talk.reply or "(a picture)"]
            return {"ui": {"wegen_chat": messages, **({"text": shown} if shown else {})}, "result": result}


def _exact(seed: int) -> int | str:
    """As JavaScript reads it without rounding."""
    return seed if seed < 2**53 else str(seed)
