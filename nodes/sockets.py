"""What the nodes share: socket types, the five reference sockets, and their values as references."""

from __future__ import annotations

from ..wegen_model.chat.conversation import Reference, Turn

CATEGORY = "WeGen"
MODEL, DECODER, FEATURES, REFERENCES, CHAT = "WEGEN_MODEL", "WEGEN_DECODER", "WEGEN_FEATURES", "WEGEN_REFERENCES", "WEGEN_CHAT"
LOSS = "LOSS_MAP"  # ComfyUI's: {"loss": [numbers]}, for its Plot Loss Graph
SLOTS = tuple(f"image_{k}" for k in range(1, 6))
MASKS = tuple(f"mask_{k}" for k in range(1, 6))
# options of widgets that several nodes have; each node adds its own tooltip
SEED = {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}
TEMPERATURE = {"default": 0.0, "min": 0.0, "max": 5.0, "step": 0.05}
GUIDANCE = {"default": 1.0, "min": 0.0, "max": 30.0, "step": 0.1}  # over features; 1 is off
MAX_TOKENS = {"default": 128, "min": 1, "max": 4096, "advanced": True}
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


def mask_sockets() -> dict:
    """mask_1 … mask_5, white where the picture of that number is cut away. They come last: workflows store sockets in order."""
    return {
        name: (
            "MASK",
            {
                "tooltip": f"Cuts image_{k} out: white is left away, as in the MASK of Load Image (its transparency). A mask that is white "
                "on the subject goes through Invert Mask first."
            },
        )
        for k, name in enumerate(MASKS, 1)
    }


def pictures(values: dict, warn) -> list[Reference | None]:
    """One entry a slot up to the last connected one. Of a batch, the first picture is taken, with a warning; a mask becomes its opacity.

    Raises:
        ValueError: a mask, or a picture's own transparency, that leaves nothing of the picture.
    """
    from ..wegen_model.validation import check_reference

    out: list[Reference | None] = []
    for name in SLOTS:
        value = values.get(name)
        if value is not None and len(value) > 1:
            warn(
                f"{name} holds {len(value)} pictures: a reference is one, so the first is used. Pick another with «Image From Batch», "
                "or connect them one by one."
            )
        mask = values.get(name.replace("image", "mask"))
        if mask is not None and (value is None or hasattr(value, "tokens")):
            what = "nothing is" if value is None else "features are"
            warn(f"{name.replace('image', 'mask')} is ignored: {what} connected at {name}, and a mask cuts out a picture.")
        if value is None:
            out.append(None)
        elif hasattr(value, "tokens"):
            out.append(Reference(features=value[:1]))
        else:
            picture = value[:1].detach().cpu()
            if picture.shape[-1] == 4:
                check_reference(picture, name)
            out.append(Reference(picture=picture if mask is None else cut_by_mask(picture, mask, name.replace("image", "mask"), warn)))
    while out and out[-1] is None:
        out.pop()
    return out


def cut_by_mask(picture, mask, where: str, warn):
    """A picture (1,h,w,1|3|4) with a mask (h,w) or (b,h,w), 1 where it is left away, as its opacity: (1,h,w,4), or the picture as it was
    when the mask leaves nothing away (as that of Load Image for a picture without transparency, of 64 x 64).

    Raises:
        ValueError: no mask, NaN, or one that leaves nothing of the picture.
    """
    import torch

    from ..wegen_model.images import resize_float

    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 3) or 0 in mask.shape:
        shape = tuple(getattr(mask, "shape", ())) or type(mask).__name__
        raise ValueError(f"{where}: {shape} is no mask. Connect a MASK output (batch, height, width).")
    mask = mask.detach().float().cpu().reshape(-1, *mask.shape[-2:])
    if len(mask) > 1:
        warn(f"{where} holds {len(mask)} masks: the first is used.")
    mask = mask[:1]
    if not torch.isfinite(mask).all():
        raise ValueError(f"{where}: it contains NaN or infinite values. Connect another mask.")
    if mask.max() <= 0:
        return picture
    (rows, columns), (height, width) = mask.shape[1:], picture.shape[1:3]
    if abs(rows * width - columns * height) > max(rows, columns) * 0.02 * min(height, width):
        warn(f"{where} is {columns}x{rows} and its picture {width}x{height}: of another shape, so it is stretched over the picture.")
    opacity = 1 - resize_float(mask[None], (height, width))[0].clamp(0, 1)[..., None]
    if picture.shape[-1] == 4:
        opacity = opacity * picture[..., 3:]
    if opacity.max() < 0.02:
        raise ValueError(
            f"{where}: it is white everywhere, so nothing of the picture is left. White is left away, as in the MASK of Load Image; "
            "put Invert Mask before it if it is meant the other way round."
        )
    colours = picture.expand(*picture.shape[:3], 3) if picture.shape[-1] == 1 else picture[..., :3]
    return torch.cat([colours.float(), opacity], -1)


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
