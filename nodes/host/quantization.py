"""The layer over quantized weights, inside ComfyUI: it may keep the blocks elsewhere and stream them. Imported only there."""

from __future__ import annotations

import comfy.ops
import torch
from torch import Tensor

from ...wegen_model.models import quantization

_give_back = getattr(comfy.ops, "uncast_bias_weight", None)  # newer versions hand out weights and want to know when they are done with


class QuantizedLinear(quantization.QuantizedLinear, comfy.ops.CastWeightBiasOp):
    """Quantized blocks are moved as bytes by ComfyUI's memory management, and dequantized where they are used."""

    comfy_cast_weights = True

    def forward(self, x: Tensor) -> Tensor:
        where = dict(dtype=torch.uint8, device=x.device, bias_dtype=x.dtype)
        if _give_back is None:
            return self.compute(x, *comfy.ops.cast_bias_weight(self, **where))
        held, bias, stream = comfy.ops.cast_bias_weight(self, offloadable=True, **where)
        out = self.compute(x, held, bias)
        _give_back(self, held, bias, stream)
        return out
