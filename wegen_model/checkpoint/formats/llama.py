"""LLaMA-2-7B in Hugging Face's names and in llama.cpp's (GGUF), and its tokenizer."""

from __future__ import annotations

from ..key_map import KeyMap, KeyRule
from .public_format import GENERAL, TRANSFORMERS_FILES, FileLayout, PublicFormat

_ANGLES = "rotary angles are computed from positions"
LLAMA_RULES = (
    KeyRule("model.layers.{n}.self_attn.rotary_emb.inv_freq", None, why=_ANGLES),
    KeyRule("model.{rest}", "language"),
    KeyRule("lm_head.weight", "language"),
)
LLAMA = KeyMap("LLaMA in Hugging Face's names", ("model.embed_tokens.weight",), LLAMA_RULES, export="llama")
GGUF = KeyMap(
    "LLaMA in GGUF's names",
    ("token_embd.weight",),
    (
        KeyRule("token_embd.weight", "language", "model.embed_tokens.weight"),
        KeyRule("blk.{n}.attn_norm.weight", "language", "model.layers.{n}.input_layernorm.weight"),
        KeyRule("blk.{n}.attn_q.weight", "language", "model.layers.{n}.self_attn.q_proj.weight", "rotary"),
        KeyRule("blk.{n}.attn_k.weight", "language", "model.layers.{n}.self_attn.k_proj.weight", "rotary"),
        KeyRule("blk.{n}.attn_v.weight", "language", "model.layers.{n}.self_attn.v_proj.weight"),
        KeyRule("blk.{n}.attn_output.weight", "language", "model.layers.{n}.self_attn.o_proj.weight"),
        KeyRule("blk.{n}.ffn_norm.weight", "language", "model.layers.{n}.post_attention_layernorm.weight"),
        KeyRule("blk.{n}.ffn_gate.weight", "language", "model.layers.{n}.mlp.gate_proj.weight"),
        KeyRule("blk.{n}.ffn_up.weight", "language", "model.layers.{n}.mlp.up_proj.weight"),
        KeyRule("blk.{n}.ffn_down.weight", "language", "model.layers.{n}.mlp.down_proj.weight"),
        KeyRule("output_norm.weight", "language", "model.norm.weight"),
        KeyRule("output.weight", "language", "lm_head.weight"),
        KeyRule("rope_freqs.weight", None, why=_ANGLES),
        KeyRule("blk.{n}.attn_rot_embd", None, why=_ANGLES),
    ),
)

FORMATS = (
    PublicFormat(
        "Hugging Face LLaMA",
        title="LLaMA-2-7B",
        origin="Hugging Face `meta-llama/Llama-2-7b-chat-hf`",
        size="12.6 GiB (c)",
        licence="Llama 2 Community License",
        gives="only a **start of training** (`--initialise`)",
        files=(FileLayout("language", TRANSFORMERS_FILES),),
        told_by=("config.json", lambda values: values.get("model_type") == "llama"),
        key_maps=(LLAMA,),
        order=GENERAL,
    ),
    PublicFormat("LLaMA as GGUF", files=(FileLayout("language", ("*.gguf",)),), key_maps=(GGUF,), order=GENERAL),
    PublicFormat(
        "LLaMA-2's tokenizer",
        title="LLaMA-2's tokenizer",
        origin="`tokenizer.model` of `meta-llama/Llama-2-7b-chat-hf`",
        size="0.5 MB",
        licence="Llama 2 Community License",
        gives="the tokenizer, where the release's own is not at hand",
        files=(FileLayout("tokenizer", ("tokenizer/tokenizer.model", "tokenizer.model", "tokenizer.json")),),
        holds={"tokenizer": "tokenizer.model of meta-llama/Llama-2-7b-chat-hf, or the release's pretrained/SEED-X/cvlm_llama2_tokenizer…"},
        order=GENERAL,
    ),
)
