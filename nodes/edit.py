"""Edit in Box: one instruction on one picture, of which the rest stays to the bit."""

from __future__ import annotations

from dataclasses import replace

from . import host, ui_messages
from .keep import MASK_MODE
from .sockets import CATEGORY, CHAT, FEATHER, FEATURES, GUIDANCE, MODEL, SEED


class WeGenEditInBox:
    """WeGen Chat, AR Feature Decode, WeGen Change Mask and SDXL Feature Decoder for one edit."""

    DESCRIPTION = (
        "Changes one thing in a picture and leaves the rest alone: where it may change is your box or mask, or found by itself; "
        "outside, the features are kept while writing and every pixel is the original's. Chain several for edit after edit."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "edit",
        "edit in box",
        "inpaint",
        "instruct edit",
        "local edit",
        "change",
        "replace",
        "remove object",
        "keep the rest",
    ]
    RETURN_TYPES = ("IMAGE", "MASK", FEATURES, CHAT, "IMAGE")
    RETURN_NAMES = ("image", "mask", "features", "chat", "preview")
    OUTPUT_TOOLTIPS = (
        "The edited picture, of the original's size. Black in the mask means: the original to the last bit.",
        "Where the picture was painted anew.",
        "The features that were painted.",
        "The conversation with the edit in it, for WeGen Chat.",
        "The original with all that stays darkened. For Preview Image.",
    )
    FUNCTION = "edit"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": (MODEL, {"tooltip": "The model that edits and paints."}),
                "image": ("IMAGE", {"tooltip": "The picture to edit, of any size. One picture."}),
                "message": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "dynamicPrompts": True,
                        "tooltip": (
                            "What to change. <image_1> is the picture, <bbox_2> the box, <image_2> the picture at image_2: "
                            "«<image_1> paint the hat red», «<image_1> add a star at <bbox_2>»."
                        ),
                    },
                ),
                "seed": ("INT", {**SEED, "tooltip": "The noise that painting starts from."}),
                "guidance": ("FLOAT", {**GUIDANCE, "tooltip": "How much the features lean towards the message. 1 is off and fastest."}),
                "mode": MASK_MODE,
                "feather": ("FLOAT", FEATHER),
                "keep_features": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": (
                            "On: the features outside are the original's own, so that nothing is lost over many edits. Off: all are written anew, "
                            "and only the pixels are kept."
                        ),
                    },
                ),
            },
            "optional": {
                "boxes": (
                    "BOUNDING_BOX,BBOX",
                    {"tooltip": "Where it may change, in pixels of the picture (or fractions). Several count together. From Bbox Compose."},
                ),
                "mask": ("MASK", {"tooltip": "Where it may change: white. Together with boxes, both count."}),
                "image_2": (
                    "IMAGE",
                    {"tooltip": "A picture of what is to be put in: <image_2> in the message. It goes into the first box."},
                ),
            },
        }

    def edit(
        self,
        model,
        image,
        message="",
        seed=0,
        guidance=1.0,
        mode="paint",
        feather=3.0,
        keep_features=True,
        boxes=None,
        mask=None,
        image_2=None,
    ):
        from ..wegen_model import edit_pipeline
        from ..wegen_model.chat.box_forms import normalise_boxes
        from ..wegen_model.chat.boxes import masks
        from ..wegen_model.chat.conversation import Conversation, Reference
        from ..wegen_model.generation.change_mask import overlay
        from ..wegen_model.generation.keep import fit

        with host.watch(model.runtime, ui_messages.grid_progress()) as notes:
            height, width = image.shape[1:3]
            places = [box for box in normalise_boxes(boxes, width, height) if box] if boxes is not None else []
            if places:
                drawn = masks([Reference(box=box) for box in places], width, height).amax(0, keepdim=True)
                mask = (
                    drawn
                    if mask is None
                    else drawn.maximum(fit(mask.detach().float().cpu().reshape(-1, *mask.shape[-2:]), (height, width)))
                )
            named = [Reference(box=box) for box in places] if "<bbox_" in message.lower() or image_2 is not None else []
            if image_2 is not None:
                named = [Reference(picture=image_2[:1].detach().cpu(), box=places[0] if places else None), *named[1:]]
            talk = Conversation().user(message, (Reference(picture=image[:1].detach().cpu()), *named))
            talk = model.chat(talk, picture="always", max_tokens=64)
            made = edit_pipeline.edit(
                model, talk, image, mask, guidance=guidance, seed=seed, feather=feather, mode=mode, keep_features=keep_features
            )
            text = f"{float((made.mask > 0).float().mean()):.0%} of the picture was painted anew."
            preview = overlay(made.mask, image[..., :3].detach().float().cpu())
            answer = (made.image, made.mask, made.features, replace(made.conversation, model=model), preview)
            return host.shown(answer, notes, text, ui={"wegen_features": ui_messages.colours(made.features)})
