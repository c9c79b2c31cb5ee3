"""The networks of the paper: EVA-CLIP tower, LLaMA body, projectors, box embedding, pointer, SDXL-shaped decoder; LoRA and quantization."""
