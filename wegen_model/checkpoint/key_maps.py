"""Public checkpoint layouts as tables: which key goes where, what is joined, what is dropped and why. Machinery: rows.py.

Nothing is guessed: a part's converted keys and shapes are checked against the module that will hold them.

Sources: the public WeGen code's state dicts (agent `llm.*`, `input_resampler.*`, `adapter.*`); EVA-CLIP's, Emu2's, BLIP3-o's, timm's
and open_clip's towers; llama.cpp's names; diffusers; the LDM names of single-file VAEs.
"""

from __future__ import annotations

from collections.abc import Collection

from . import ldm
from .key_map import KeyMap, Row, below

# --- EVA-CLIP's vision tower --------------------------------------------------------------------------------------

_HEAD = "features are the raw last block; EVA-CLIP's final norm and head belong to its contrastive training"
_TEXT = "EVA-CLIP's text tower, which WeGen does not use"
_BODY = (
    Row("cls_token", "vision"),
    Row("pos_embed", "vision", how="positions"),
    Row("patch_embed.proj.{leaf}", "vision"),
    Row("blocks.{n}.norm1.{leaf}", "vision"),
    Row("blocks.{n}.norm2.{leaf}", "vision"),
    Row("blocks.{n}.attn.qkv.weight", "vision"),
    Row("blocks.{n}.attn.proj.{leaf}", "vision"),
    Row("blocks.{n}.mlp.fc1.{leaf}", "vision"),
    Row("blocks.{n}.mlp.fc2.{leaf}", "vision"),
    Row("norm.{leaf}", None, why=_HEAD),
    Row("head.{leaf}", None, why=_HEAD),
    Row("rope.{rest}", None, why="rotary tables of another variant; this tower has learned positions"),
)
_BESIDE = (
    Row("text.{rest}", None, why=_TEXT),
    *(
        Row(key, None, why=_TEXT)
        for key in ("transformer.{rest}", "token_embedding.weight", "positional_embedding", "ln_final.{leaf}", "text_projection")
    ),
    Row("logit_scale", None, why="EVA-CLIP's contrastive temperature"),
)
FUSED = (*_BODY, Row("blocks.{n}.attn.qkv.bias", "vision"))
SPLIT = (
    *_BODY,
    Row("blocks.{n}.attn.q_bias", "vision", "blocks.{n}.attn.qkv.bias", "q"),
    Row("blocks.{n}.attn.v_bias", "vision", "blocks.{n}.attn.qkv.bias", "v"),
    Row("blocks.{n}.attn.qkv.bias", "vision", only_read=True),  # beside the other two it is an error that says so
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
)
EVA_CLIP = KeyMap("EVA-CLIP's own file", _HALF, (*SPLIT, *_BESIDE), ("visual.", "module.visual.", "multimodal_encoder.visual."))
OPEN_CLIP = KeyMap("EVA-CLIP in open_clip's names", _HALF, (*SPLIT, *_BESIDE), ("visual.trunk.",))
TIMM = KeyMap("EVA-CLIP tower in timm's names", _HALF, (*SPLIT, *_BESIDE), ("",))

# --- Emu2: its tower and decoder are of use here, its language model is not ----------------------------------------------

_EMU = "Emu2's own language model (LLaMA-33B) and projections to it"
_EMU_REST = (
    Row("project_up.{leaf}", None, why=_EMU),
    Row("project_down.{leaf}", None, why=_EMU),
    Row("decoder.{rest}", None, why=_EMU),
    Row("model.decoder.{rest}", None, why=_EMU),
)
EMU2 = KeyMap(
    "Emu2",
    ("model.visual.blocks.0.attn.qkv.weight", "project_up.weight"),
    (*below("model.visual.", FUSED), *below("visual.", SPLIT), *_EMU_REST),
)

# --- language model, projectors -----------------------------------------------------------------------------------

_ANGLES = "rotary angles are computed from positions"
LLAMA_ROWS = (
    Row("model.layers.{n}.self_attn.rotary_emb.inv_freq", None, why=_ANGLES),
    Row("model.{rest}", "language"),
    Row("lm_head.weight", "language"),
)
GGUF_ROWS = (
    Row("token_embd.weight", "language", "model.embed_tokens.weight"),
    Row("blk.{n}.attn_norm.weight", "language", "model.layers.{n}.input_layernorm.weight"),
    Row("blk.{n}.attn_q.weight", "language", "model.layers.{n}.self_attn.q_proj.weight", "rotary"),
    Row("blk.{n}.attn_k.weight", "language", "model.layers.{n}.self_attn.k_proj.weight", "rotary"),
    Row("blk.{n}.attn_v.weight", "language", "model.layers.{n}.self_attn.v_proj.weight"),
    Row("blk.{n}.attn_output.weight", "language", "model.layers.{n}.self_attn.o_proj.weight"),
    Row("blk.{n}.ffn_norm.weight", "language", "model.layers.{n}.post_attention_layernorm.weight"),
    Row("blk.{n}.ffn_gate.weight", "language", "model.layers.{n}.mlp.gate_proj.weight"),
    Row("blk.{n}.ffn_up.weight", "language", "model.layers.{n}.mlp.up_proj.weight"),
    Row("blk.{n}.ffn_down.weight", "language", "model.layers.{n}.mlp.down_proj.weight"),
    Row("output_norm.weight", "language", "model.norm.weight"),
    Row("output.weight", "language", "lm_head.weight"),
    Row("rope_freqs.weight", None, why=_ANGLES),
    Row("blk.{n}.attn_rot_embd", None, why=_ANGLES),
)
_UNUSED = "never used by the public code's forward pass"
PROJECTOR_ROWS = (
    Row("input_resampler.avgpoolquery.scale", None, why=_UNUSED),
    Row("input_resampler.proj.weight", "projectors"),
    Row("output_resampler.proj.weight", "projectors"),
    Row("mean", "projectors"),  # the miniature's
    Row("std", "projectors"),
    *(
        Row(f"pointer.{leaf}", "projectors")
        for leaf in (
            "query.weight",
            "key.weight",
            "recency.weight",
            "own.weight",
            "own.bias",
            "seen.weight",
            "asked.weight",
            "change.weight",
            "blocks.{n}.{rest}",
        )
    ),
    *(Row(f"regions.{leaf}.weight", "projectors") for leaf in ("number", "inner", "outer")),
)
LLAMA = KeyMap("LLaMA in Hugging Face's names", ("model.embed_tokens.weight",), LLAMA_ROWS)
GGUF = KeyMap("LLaMA in GGUF's names", ("token_embd.weight",), GGUF_ROWS)
PROJECTORS = KeyMap("WeGen projectors", ("input_resampler.proj.weight",), PROJECTOR_ROWS)

# --- decoder ------------------------------------------------------------------------------------------------------

_OLD = "{side}.mid_block.attentions.{n}."  # VAE files from before diffusers 0.17
VAE_ROWS = (
    *(
        Row(_OLD + f"{old}.{{leaf}}", "vae", _OLD + f"{new}.{{leaf}}", "pointwise", only_read=True)
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
    ),
    Row("{rest}", "vae"),
)
UNET_ROWS = (Row("{rest}", "unet"),)
UNET = KeyMap("diffusers UNet", ("time_embedding.linear_1.weight",), UNET_ROWS)
VAE = KeyMap("diffusers VAE", ("decoder.conv_in.weight",), VAE_ROWS)
LDM_UNET = KeyMap("LDM UNet", ("time_embed.0.weight",), ldm.unet_rows, (ldm.UNET_PREFIX, ""))
LDM_VAE = KeyMap("LDM VAE", ("decoder.up.0.block.0.conv1.weight",), ldm.vae_rows)
LDM = KeyMap("SDXL checkpoint in one file", (ldm.VAE_PREFIX + "decoder.conv_in.weight",), ldm.checkpoint_rows)
LAYOUT_MAP = KeyMap("WeGen layout map", ("proj.weight",), (Row("{rest}", "layout"),))
EMU2_GEN = KeyMap(
    "Emu2-Gen in one file",
    ("unet.time_embedding.linear_1.weight", "multimodal_encoder.project_up.weight"),
    (
        *below("multimodal_encoder.visual.", SPLIT),
        *below("multimodal_encoder.", _EMU_REST),
        *below("unet.", UNET_ROWS),
        *below("vae.", VAE_ROWS),
        Row("safety_checker.{rest}", None, why="Emu2's safety checker, which is no part of the decoder"),
    ),
)

# --- the public WeGen release: the agent's state dict ---------------------------------------------------------------

AGENT = KeyMap(
    "WeGen agent",
    ("llm.model.embed_tokens.weight", "input_resampler.proj.weight", "adapter.unet.conv_in.weight"),
    (
        *below("llm.", LLAMA_ROWS),
        *PROJECTOR_ROWS[:3],
        Row("adapter.resampler.scale", None, why=_UNUSED),
        *below("adapter.unet.", UNET_ROWS),
        *below("adapter.vae.", VAE_ROWS),
        *below("adapter.visual_encoder.", FUSED),
    ),
    ("", "module."),
)

# The order in which an unnamed file is tried: what has more beside it before what it holds.
LAYOUTS = (PROJECTORS, AGENT, EMU2_GEN, EMU2, OPEN_CLIP, EVA_CLIP, TIMM, TOWER, LDM, UNET, LDM_UNET, LDM_VAE, VAE, LLAMA, GGUF, LAYOUT_MAP)
OWN = {"vision": TOWER, "language": LLAMA, "projectors": PROJECTORS, "unet": UNET, "vae": VAE, "layout": LAYOUT_MAP}  # our folder
# what `wegen convert --layout` can write
EXPORTS = {
    "wegen": AGENT,
    "eva-tower": TOWER,
    "eva-clip": EVA_CLIP,
    "open_clip": OPEN_CLIP,
    "timm": TIMM,
    "emu2": EMU2,
    "emu2-gen": EMU2_GEN,
    "llama": LLAMA,
    "diffusers-unet": UNET,
    "diffusers-vae": VAE,
    "ldm-unet": LDM_UNET,
    "ldm-vae": LDM_VAE,
}


def detect(keys: Collection[str]) -> KeyMap | None:
    """The layout of a file by its keys. The agent's file also holds the projectors' marks: it is what has more beside them."""
    keys = set(keys)
    if PROJECTORS.prefix(keys) is not None and not PROJECTORS.route(keys)[1]:
        return PROJECTORS
    return next((layout for layout in LAYOUTS[1:] if layout.prefix(keys) is not None), None)
