"""EVA-CLIP's vision tower, EVA02-CLIP-E/14+: its own file, timm's and open_clip's names, and the bare tower that the WeGen release, Emu2
and BLIP3-o made of it.

Sources: the public code's and EVA-CLIP's, timm's and open_clip's state dicts.
"""

from __future__ import annotations

from ..key_map import KeyMap, KeyRule
from .public_format import GENERAL, FileLayout, PublicFormat

_HEAD = "features are the raw last block; EVA-CLIP's final norm and head belong to its contrastive training"
_TEXT = "EVA-CLIP's text tower, which WeGen does not use"
_BODY = (
    KeyRule("cls_token", "vision"),
    KeyRule("pos_embed", "vision", how="positions"),
    KeyRule("patch_embed.proj.{leaf}", "vision"),
    KeyRule("blocks.{n}.norm1.{leaf}", "vision"),
    KeyRule("blocks.{n}.norm2.{leaf}", "vision"),
    KeyRule("blocks.{n}.attn.qkv.weight", "vision"),
    KeyRule("blocks.{n}.attn.proj.{leaf}", "vision"),
    KeyRule("blocks.{n}.mlp.fc1.{leaf}", "vision"),
    KeyRule("blocks.{n}.mlp.fc2.{leaf}", "vision"),
    KeyRule("norm.{leaf}", None, why=_HEAD),
    KeyRule("head.{leaf}", None, why=_HEAD),
    KeyRule("rope.{rest}", None, why="rotary tables of another variant; this tower has learned positions"),
)
_BESIDE = (
    KeyRule("text.{rest}", None, why=_TEXT),
    *(
        KeyRule(key, None, why=_TEXT)
        for key in ("transformer.{rest}", "token_embedding.weight", "positional_embedding", "ln_final.{leaf}", "text_projection")
    ),
    KeyRule("logit_scale", None, why="EVA-CLIP's contrastive temperature"),
)
FUSED = (*_BODY, KeyRule("blocks.{n}.attn.qkv.bias", "vision"))
SPLIT = (
    *_BODY,
    KeyRule("blocks.{n}.attn.q_bias", "vision", "blocks.{n}.attn.qkv.bias", "q"),
    KeyRule("blocks.{n}.attn.v_bias", "vision", "blocks.{n}.attn.qkv.bias", "v"),
    KeyRule("blocks.{n}.attn.qkv.bias", "vision", only_read=True),  # beside the other two it is an error that says so
)
_HALF = tuple(f"blocks.{n}.attn.{x}_bias" for n in (0, 1) for x in "qv")

TOWER = KeyMap(
    "EVA-CLIP tower",
    ("blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"),
    (*FUSED, *_BESIDE),
    (
        "",
        "visual.",
        "module.visual.",
        "model.visual.",
        "model.",
        "vision_tower.",
        "multimodal_encoder.visual.",
        "multimodal_encoder.model.visual.",
    ),
    export="eva-tower",
)
EVA_CLIP = KeyMap(
    "EVA-CLIP's own file", _HALF, (*SPLIT, *_BESIDE), ("visual.", "module.visual.", "multimodal_encoder.visual."), export="eva-clip"
)
OPEN_CLIP = KeyMap("EVA-CLIP in open_clip's names", _HALF, (*SPLIT, *_BESIDE), ("visual.trunk.",), export="open_clip")
TIMM = KeyMap("EVA-CLIP tower in timm's names", _HALF, (*SPLIT, *_BESIDE), export="timm")

FORMATS = (
    PublicFormat(
        "EVA-CLIP's own file",
        title="EVA-CLIP's own file",
        origin="Hugging Face `QuanSun/EVA-CLIP`: `EVA02_CLIP_E_psz14_plus_s9B.pt`",
        size="10.1 GB, with a text tower that is dropped",
        licence="MIT",
        gives="a tower **trained at 224 pixels**: see below",
        files=(FileLayout("tower", ("EVA02_CLIP_E*.pt",)),),
        key_maps=(EVA_CLIP,),
        holds={"vision": "EVA02_CLIP_E_psz14_plus_s9B.pt"},
        order=GENERAL,
    ),
    PublicFormat(
        "EVA-CLIP in timm's or open_clip's names",
        title="the same in timm's or open_clip's names",
        origin="Hugging Face `timm/eva02_enormous_patch14_plus_clip_224.laion2b_s9b_b144k`",
        size="8.1 GiB (c), 10.1 GB with the text tower",
        licence="MIT",
        gives="as above",
        key_maps=(OPEN_CLIP, TIMM),
        order=GENERAL,
    ),
    PublicFormat("EVA-CLIP tower", key_maps=(TOWER,), order=GENERAL),
)
