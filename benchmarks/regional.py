"""What regional attention costs: `python -m wegen.benchmarks.regional`. Ratios against the same call without it, measured in turns.

attention    cross-attention of one level of the full-size UNet, random weights, 2 rows (guided), on this machine's device
UNet         a whole guided call of the bundled miniature's
"""

from __future__ import annotations

import sys
import time
from functools import partial
from statistics import median

RUNS = 3
LEVELS = ((640, 10, 64), (1280, 20, 32))  # width, heads, side in cells, of 1024-pixel pictures: SDXL's two levels with attention


def ratio(plain, biased, runs: int = RUNS) -> tuple[float, float]:
    """Median seconds of both, in turns."""
    taken: list[list[float]] = [[], []]
    for i in range(runs + 1):
        for side, call in enumerate((plain, biased)):
            begun = time.perf_counter()
            call()
            if i:
                taken[side].append(time.perf_counter() - begun)
    return median(taken[0]), median(taken[1])


def main() -> None:
    import torch
    from diffusers.models.attention_processor import Attention
    from wegen.wegen_model.box import Box
    from wegen.wegen_model.features import Features
    from wegen.wegen_model.models.regional_attention import AttentionBias, BiasedProcessor, RegionalAttention, biased
    from wegen.wegen_model.pipeline import WeGen

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32

    def kinds(width: int) -> dict[str, RegionalAttention]:
        features = Features(torch.randn(1, 64, width), (8, 8), "", "")
        boxes = (Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5))
        return {"locality": RegionalAttention(0.7), "and 32 tokens of two references": RegionalAttention(0.7, features, boxes)}

    def attend(attention, processor, x, context) -> None:
        attention.processor = processor
        attention(x, encoder_hidden_states=context)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def paint(decoder, bias, latents, tokens, ids) -> None:
        with biased(decoder.unet, bias):
            decoder.denoise(latents, torch.tensor(500), tokens, tokens.mean(1), ids)

    out = sys.stdout.write
    with torch.inference_mode():
        for width, heads, side in LEVELS:
            attention = Attention(width, cross_attention_dim=1792, heads=heads, dim_head=width // heads).to(device, dtype)
            x = torch.randn(2, side * side, width, device=device, dtype=dtype)
            context = torch.randn(2, 64, 1792, device=device, dtype=dtype)
            own = attention.processor
            for name, regional in kinds(1792).items():
                processor = BiasedProcessor(own, AttentionBias(regional, (8, 8), (128, 128)))
                plain, slow = ratio(partial(attend, attention, own, x, context), partial(attend, attention, processor, x, context))
                out(
                    f"attention, {width} wide, {side}x{side}, {name:<32}{plain * 1e3:8.2f} ms -> {slow * 1e3:8.2f} ms   {slow / plain:.2f}x\n"
                )
        decoder = WeGen.load("wegen-mini").painter._load()
        tokens, latents = torch.randn(2, 64, 192), torch.randn(2, 16, 16, 16)
        ids = decoder.time_ids(128, 128, 2, latents.device)
        for name, regional in kinds(192).items():
            bias = AttentionBias(regional, (8, 8), (16, 16))
            plain, slow = ratio(
                partial(paint, decoder, None, latents, tokens, ids), partial(paint, decoder, bias, latents, tokens, ids), 15
            )
            out(f"UNet of wegen-mini, {name:<43}{plain * 1e3:8.2f} ms -> {slow * 1e3:8.2f} ms   {slow / plain:.2f}x\n")


if __name__ == "__main__":
    main()
