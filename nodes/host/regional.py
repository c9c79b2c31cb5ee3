"""Regional attention (wegen_model/models/regional_attention.py) as a patch of ComfyUI's own MODEL.

A wrapper of the diffusion model lengthens the conditioning once a call, behind everything that batches and repeats conditionings; a
replacement of attn2 attends with the bias, after to_q, to_k and to_v, so that LoRA and streamed weights apply. Patches that are lists
(attn2_patch, attn2_output_patch), wrappers and optimized_attention_override go on working beside it; another replacement of attn2, of
which ComfyUI keeps one a block, is refused. Imported only inside ComfyUI. Source: ComfyUI's BasicTransformerBlock and calc_cond_batch.
"""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.attention import optimized_attention_masked
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...wegen_model.models.regional_attention import WHERE, AttentionBias, RegionalAttention, level
from .sampling import WeGenModel

KEY = "wegen_regional_attention"
BESIDE = (
    f"{WHERE}: another node (IP-Adapter, for example) replaces the same cross-attention of this MODEL, and ComfyUI keeps one replacement a block. "
    "Use one of the two."
)


class RegionalPatch:
    """Wrapper and replacement, of one MODEL; copies of the MODEL share it."""

    def __init__(self, bias: AttentionBias):
        self.bias = bias

    def __deepcopy__(self, memo: dict) -> RegionalPatch:
        return self  # ComfyUI copies a MODEL's options, and a bound method's object with them

    def wrap(self, executor: Any, x: Tensor, timesteps: Tensor, context: Tensor, y=None, control=None, transformer_options=None, **kwargs):
        """Around the UNet: refuses what would make the bias wrong, then lengthens the context."""
        options = dict(transformer_options or {})
        if not all(is_ours(p) for p in options.get("patches_replace", {}).get("attn2", {}).values()):
            raise ValueError(BESIDE)
        chunks = [kind == 0 for kind in options.get("cond_or_uncond", [0])]  # 0 is positive
        bias = self.bias.at((x.shape[-2], x.shape[-1]), len(x) // len(chunks), chunks)
        return executor(x, timesteps, bias.lengthen(context), y, control, {**options, KEY: bias}, **kwargs)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        """In place of attn2: (r,p,c), (r,n+m,c), (r,n+m,c) -> (r,p,c)."""
        bias: AttentionBias = options[KEY]
        size = options["activations_shape"][-2:] if "activations_shape" in options else level(bias.latent, q.shape[1])
        mask = bias.mask((size[0], size[1]), q).expand(len(q), -1, -1, -1)
        return optimized_attention_masked(
            q, k, v, options["n_heads"], mask, attn_precision=options["attn_precision"], transformer_options=options
        )

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        return self.attend(q, k, v, options)

    def set_new_condition(self, *_: Any, **__: Any) -> None:
        """What IP-Adapter calls on a replacement that it finds."""
        raise ValueError(BESIDE)


def is_ours(patch: Any) -> bool:
    return isinstance(patch, RegionalPatch)


def patched(model: Any, regional: RegionalAttention) -> Any:
    """A copy of a MODEL with the bias; as it is where the bias is off. An earlier bias of ours gives way.

    Raises:
        ValueError: no WeGen decoder, whose tokens have no places; or another node's replacement of attn2.
    """
    if not isinstance(getattr(model, "model", None), WeGenModel):
        raise ValueError(
            f"{WHERE}: this MODEL is no WeGen decoder. Its tokens (words, as a rule) lie on no grid, so they have no places. Connect the MODEL of "
            "«Decoder to MODEL + VAE», or of «Load Diffusion Model» with a WeGen decoder."
        )
    held = model.model_options.get("transformer_options", {}).get("patches_replace", {}).get("attn2", {})
    if not all(is_ours(p) for p in held.values()):
        raise ValueError(BESIDE)
    out = model.clone()
    out.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, KEY)
    for key in held:
        del out.model_options["transformer_options"]["patches_replace"]["attn2"][key]
    if regional.off:
        return out
    patch = RegionalPatch(AttentionBias(regional, model.model.model_config.decoder.grid))
    out.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, patch.wrap)
    unet = model.model.diffusion_model
    for name, count in (("input", len(unet.input_blocks)), ("middle", 1), ("output", len(unet.output_blocks))):
        for number in range(count):
            out.set_model_attn2_replace(patch, name, number)
    return out
