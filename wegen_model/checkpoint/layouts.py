"""Public checkpoint layouts as tables: which key goes where, what is joined, what is dropped and why.

A row's key pattern may hold holes: {n} a number, {leaf} weight or bias, {rest} anything; the target uses the same holes. The first
row that fits a key wins; a key that no row fits is an error that names it. Nothing is guessed: a part's converted keys and shapes
are checked against the module that will hold them.

Sources: the public WeGen code's state dicts (agent `llm.*`, `input_resampler.*`, `adapter.*`), EVA-CLIP's and Emu2's towers,
diffusers.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

HOLES = {"n": r"\d+", "leaf": "weight|bias", "rest": ".+", "side": "encoder|decoder"}


@dataclass(frozen=True)
class Row:
    """One line of a layout."""

    pattern: str  # key in the public file
    part: str | None  # part of our folder; None: dropped
    target: str = ""  # key there; empty: the same
    how: str = "copy"  # "copy"; "positions": brought to the tower's grid; "q", "v": thirds of a fused bias, the k third is zero
    why: str = ""  # of a dropped key

    def match(self, key: str) -> str | None:
        """The target's key, or None when the pattern does not fit."""
        found = _compile(self.pattern).fullmatch(key)
        return (self.target or self.pattern).format(**found.groupdict()) if found else None


@dataclass(frozen=True)
class Layout:
    """A kind of file. `marks`: keys that tell it from others, one of which must be there; `prefixes` that may precede them."""

    name: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...]
    prefixes: tuple[str, ...] = ("",)

    def prefix(self, keys) -> str | None:
        """The prefix with which a mark is among the keys; None: a file of another kind."""
        return next((p for p in self.prefixes if any(p + mark in keys for mark in self.marks)), None)

    def route(self, keys) -> tuple[list[tuple[str, str, Row]], list[str]]:
        """(key, target, row) of every key that a row fits, and the keys that none does."""
        prefix = self.prefix(keys) or ""
        routed, unknown = [], []
        for key in keys:
            bare = key.removeprefix(prefix)
            for row in self.rows:
                target = row.match(bare)
                if target is not None:
                    routed.append((key, target, row))
                    break
            else:
                unknown.append(key)
        return routed, unknown


def _compile(pattern: str, cache: dict[str, re.Pattern] = {}) -> re.Pattern:  # noqa: B006 a cache by design
    if pattern not in cache:
        pieces = re.split(r"\{(\w+)\}", pattern)
        cache[pattern] = re.compile("".join(f"(?P<{p}>{HOLES[p]})" if i % 2 else re.escape(p) for i, p in enumerate(pieces)))
    return cache[pattern]


def _below(prefix: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(dataclasses.replace(r, pattern=prefix + r.pattern, target=r.target or r.pattern) for r in rows)


# --- EVA-CLIP's vision tower --------------------------------------------------------------------------------------

_HEAD = "features are the raw last block; EVA-CLIP's final norm and head belong to its contrastive training"
TOWER_ROWS = (
    Row("cls_token", "vision"),
    Row("pos_embed", "vision", how="positions"),
    Row("patch_embed.proj.{leaf}", "vision"),
    Row("blocks.{n}.norm1.{leaf}", "vision"),
    Row("blocks.{n}.norm2.{leaf}", "vision"),
    Row("blocks.{n}.attn.qkv.{leaf}", "vision"),
    Row("blocks.{n}.attn.q_bias", "vision", "blocks.{n}.attn.qkv.bias", "q"),
    Row("blocks.{n}.attn.v_bias", "vision", "blocks.{n}.attn.qkv.bias", "v"),
    Row("blocks.{n}.attn.proj.{leaf}", "vision"),
    Row("blocks.{n}.mlp.fc1.{leaf}", "vision"),
    Row("blocks.{n}.mlp.fc2.{leaf}", "vision"),
    Row("norm.{leaf}", None, why=_HEAD),
    Row("head.{leaf}", None, why=_HEAD),
    Row("rope.{rest}", None, why="rotary tables of another variant; this tower has learned positions"),
    Row("text.{rest}", None, why="EVA-CLIP's text tower, which WeGen does not use"),
    Row("logit_scale", None, why="EVA-CLIP's contrastive temperature"),
)
TOWER = Layout("EVA-CLIP tower", ("blocks.0.attn.qkv.weight",), TOWER_ROWS,
               ("", "visual.", "module.visual.", "model.visual.", "multimodal_encoder.visual.", "multimodal_encoder.model.visual."))

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
PROJECTOR_ROWS = (
    Row("input_resampler.avgpoolquery.scale", None, why="never used by the public code's forward pass"),
    Row("input_resampler.proj.weight", "projectors"),
    Row("output_resampler.proj.weight", "projectors"),
    Row("mean", "projectors"),  # the miniature's
    Row("std", "projectors"),
)
LLAMA = Layout("LLaMA in Hugging Face's names", ("model.embed_tokens.weight",), LLAMA_ROWS)
GGUF = Layout("LLaMA in GGUF's names", ("token_embd.weight",), GGUF_ROWS)
PROJECTORS = Layout("WeGen projectors", ("input_resampler.proj.weight",), PROJECTOR_ROWS)

# --- decoder ------------------------------------------------------------------------------------------------------

_OLD = "{side}.mid_block.attentions.{n}."  # VAE files from before diffusers 0.17
VAE_ROWS = (
    Row(_OLD + "query.{leaf}", "vae", _OLD + "to_q.{leaf}"),
    Row(_OLD + "key.{leaf}", "vae", _OLD + "to_k.{leaf}"),
    Row(_OLD + "value.{leaf}", "vae", _OLD + "to_v.{leaf}"),
    Row(_OLD + "proj_attn.{leaf}", "vae", _OLD + "to_out.0.{leaf}"),
    Row("{rest}", "vae"),
)
UNET_ROWS = (Row("{rest}", "unet"),)
UNET = Layout("diffusers UNet", ("time_embedding.linear_1.weight",), UNET_ROWS)
VAE = Layout("diffusers VAE", ("decoder.conv_in.weight",), VAE_ROWS)
LAYOUT_MAP = Layout("WeGen layout map", ("proj.weight",), (Row("{rest}", "layout"),))

# --- the public WeGen release: the agent's state dict ---------------------------------------------------------------

AGENT = Layout(
    "WeGen agent", ("llm.model.embed_tokens.weight", "input_resampler.proj.weight", "adapter.unet.conv_in.weight"),
    (
        *_below("llm.", LLAMA_ROWS),
        *PROJECTOR_ROWS[:3],
        Row("adapter.resampler.scale", None, why=PROJECTOR_ROWS[0].why),
        *_below("adapter.unet.", UNET_ROWS),
        *_below("adapter.vae.", VAE_ROWS),
        *_below("adapter.visual_encoder.", TOWER_ROWS),
    ),
    ("", "module."),
)

LAYOUTS = (PROJECTORS, AGENT, TOWER, UNET, VAE, LLAMA, LAYOUT_MAP)  # the order in which an unnamed file is tried
OWN = {"vision": TOWER, "language": LLAMA, "projectors": PROJECTORS, "unet": UNET, "vae": VAE, "layout": LAYOUT_MAP}  # our folder


def detect(keys) -> Layout | None:
    """The layout of a file by its keys. The agent's file also holds the projectors' marks: it is what has more beside them."""
    keys = set(keys)
    if PROJECTORS.prefix(keys) is not None and not PROJECTORS.route(keys)[1]:
        return PROJECTORS
    return next((layout for layout in LAYOUTS[1:] if layout.prefix(keys) is not None), None)


# --- folders ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Place:
    """Where a folder layout keeps something: the first glob that finds a file or folder counts."""

    what: str
    globs: tuple[str, ...]
    origin: str = ""  # where people get it, for messages


_SDXL = "pretrained/stable-diffusion-xl-base-1.0"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.*.safetensors", "diffusion_pytorch_model*.bin")


def _in(folders: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for folder in folders for name in names)


# Files that hold weights, in the order of precedence: the first that offers a part gives the whole part. The agent's UNet thus
# overrides stage1_final/unet, as in the public loader, and visual.pt overrides a tower saved inside the agent.
RELEASE = (
    Place("tower", ("EVA-CLIP/visual.pt", "pretrained/EVA-CLIP/visual.pt", "visual.pt", "EVA-CLIP/*.safetensors"),
          "EVA-CLIP/visual.pt of the public WeGen release"),
    Place("agent", ("pytorch_model.bin", "pytorch_model_merged.bin", "stage2_final/*/pytorch_model_merged.bin"),
          "pytorch_model.bin of the public WeGen release"),
    Place("unet", _in(("stage1_final/unet", "unet"), _WEIGHTS), "stage1_final/unet of the public WeGen release"),
    Place("vae", _in(("vae", f"{_SDXL}/vae"), _WEIGHTS), "vae/ of stabilityai/stable-diffusion-xl-base-1.0"),
)
RELEASE_CONFIGS = (
    Place("unet", ("stage1_final/unet/config.json", "unet/config.json")),
    Place("vae", ("vae/config.json", f"{_SDXL}/vae/config.json")),
    Place("scheduler", ("scheduler/scheduler_config.json", f"{_SDXL}/scheduler/scheduler_config.json")),
)
TOKENIZERS = Place(
    "tokenizer",
    ("tokenizer/tokenizer.model", "*tokenizer*/tokenizer.model", "pretrained/SEED-X/*tokenizer*/tokenizer.model", "tokenizer.model",
     "pretrained/*tokenizer*/tokenizer.model", "pretrained/meta-llama/*/tokenizer.model", "tokenizer.json"),
    "tokenizer.model of meta-llama/Llama-2-7b-chat-hf, or the release's pretrained/SEED-X/cvlm_llama2_tokenizer…")
ORIGINS = {"vision": RELEASE[0].origin, "language": RELEASE[1].origin, "projectors": RELEASE[1].origin, "unet": RELEASE[2].origin,
           "vae": RELEASE[3].origin, "tokenizer": TOKENIZERS.origin}
ROOTS = ("", "wegen_mllm_ckpt/")  # the release's own folder may be given, or the one around it
