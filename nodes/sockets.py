"""What the nodes share: socket types, the five reference sockets, and their values as references."""

from __future__ import annotations

from ..wegen_model.chat.conversation import Reference, Turn

CATEGORY = "WeGen"
MODEL, DECODER, FEATURES, REFERENCES, CHAT = "WEGEN_MODEL", "WEGEN_DECODER", "WEGEN_FEATURES", "WEGEN_REFERENCES", "WEGEN_CHAT"
SLOTS = tuple(f"image_{k}" for k in range(1, 6))
# options of widgets that several nodes have; each node adds its own tooltip
SEED = {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}
TEMPERATURE = {"default": 0.0, "min": 0.0, "max": 5.0, "step": 0.05}
GUIDANCE = {"default": 1.0, "min": 0.0, "max": 30.0, "step": 0.1}  # over features; 1 is off
MAX_TOKENS = {"default": 128, "min": 1, "max": 4096}
SIDE = {"default": 1024, "min": 8, "max": 8192, "step": 8}  # pixels
FEATHER = {
    "default": 3.0,
    "min": 0.0,
    "max": 50.0,
    "step": 0.1,
    "advanced": True,
    "tooltip": (
        "How far from the mask's edge, inwards, the painting blends into the original, in percent of the shorter side. "
        "3 hides the seam; 0 is a hard edge."
    ),
}
MATCH_COLOURS = {
    "default": False,
    "advanced": True,
    "tooltip": (
        "Tints the painting near the mask's edge with the colours of what stays: a softer seam. Leave it off where the mask's edge is an outline."
    ),
}
PICTURE = (
    ["auto", "always", "never"],
    {
        "default": "auto",
        "tooltip": (
            "May the answer be a picture? auto: as the model decides. always: one is opened after the reply, unless the model says in "
            "words that it cannot. never: words only."
        ),
    },
)


def image_sockets() -> dict:
    """image_1 … image_5, each a picture or features."""
    return {
        name: (
            f"IMAGE,{FEATURES}",
            {
                "tooltip": f"Reference {k}: a picture, or features of one. Say <{name}> in the text where "
                "it is meant; references that no tag names are shown to the model before the text."
            },
        )
        for k, name in enumerate(SLOTS, 1)
    }


def pictures(values: dict, warn) -> list[Reference | None]:
    """One entry a slot up to the last connected one. Of a batch, the first picture is taken, with a warning."""
    out: list[Reference | None] = []
    for name in SLOTS:
        value = values.get(name)
        if value is not None and len(value) > 1:
            warn(
                f"{name} holds {len(value)} pictures: a reference is one, so the first is used. Pick another with «Image From Batch», "
                "or connect them one by one."
            )
        if value is None:
            out.append(None)
        elif hasattr(value, "tokens"):
            out.append(Reference(features=value[:1]))
        else:
            out.append(Reference(picture=value[:1].detach().cpu()))
    while out and out[-1] is None:
        out.pop()
    return out


def tell_numbers(text: str, chained: tuple[Reference, ...], slots: list[Reference | None], warn) -> tuple[Reference, ...]:
    """The turn's references: they count without gaps, after the chained ones. Says so where that is not the slot's own number.

    Raises:
        ValueError: a tag of the text counts slots, and no reference of that number answers it.
    """
    references, numbers = list(chained), {}
    for k, slot in enumerate(slots, 1):
        if slot is None:
            continue
        references.append(slot)
        n = numbers[k] = len(references)
        if n != k:
            what, tag = (f"image_{k}", "image") if slot.has_picture else (f"box {k}", "bbox")
            warn(f"{what} is reference {n} here: write <{tag}_{n}> for it in the text.")
    for kind, k in Turn("user", text).tags():
        if k in numbers and _answers(references[numbers[k] - 1], kind) and not (k <= len(references) and _answers(references[k - 1], kind)):
            what = f"the picture at image_{k}" if kind == "image" else f"box {k}"
            raise ValueError(f"the text says <{kind}_{k}>, but {what} is reference {numbers[k]} here: write <{kind}_{numbers[k]}>.")
    return tuple(references)


def _answers(reference: Reference, kind: str) -> bool:
    return reference.has_picture if kind == "image" else reference.box is not None


def own_decoder(value):
    """What came in at a decoder socket as a `WeGenDecoder`; a model brings its own.

    Raises:
        ValueError: another pack's value, which an untyped reroute let through.
    """
    from ..wegen_model.pipeline import WeGen, WeGenDecoder

    if isinstance(value, WeGen):
        return value.painter
    if not isinstance(value, WeGenDecoder):
        raise ValueError(
            f"decoder: this is no WeGen decoder but a {type(value).__name__} of another node. Connect Load WeGen Decoder or "
            "Load WeGen Model; a MODEL of ComfyUI's own goes to KSampler."
        )
    return value
