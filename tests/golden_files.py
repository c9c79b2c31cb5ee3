"""The golden tensors of the public WeGen code: unpacking and reading them. See golden/official_tiny/README.md."""

import lzma
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

STORED = Path(__file__).parent / "golden" / "official_tiny"


def unpack(folder: Path) -> Path:
    """The release's layout as it was: three files unpacked, and the UNet and VAE folders' weights taken out of the agent's state dict.

    (Both folders were written from those same tensors, the UNet's in bf16 and the agent's a wider copy of it.)
    """
    for path in STORED.rglob("*"):
        if path.is_file():
            to = folder / path.relative_to(STORED)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".xz":
                to.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
            else:
                shutil.copy(path, to)
    agent = torch.load(folder / "checkpoint/pytorch_model.bin", weights_only=True, mmap=True)
    for prefix, place, dtype in (
        ("adapter.unet.", "stage1_final/unet/diffusion_pytorch_model.bf16", torch.bfloat16),
        ("adapter.vae.", "vae/diffusion_pytorch_model", torch.float32),
    ):
        state = {k.removeprefix(prefix): v.to(dtype).contiguous() for k, v in agent.items() if k.startswith(prefix)}
        save_file(state, folder / "checkpoint" / (place + ".safetensors"), {"format": "pt"})
    return folder


def key_list(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a full-size part of the public code."""
    text = lzma.decompress((STORED.parent / "state_dict_keys" / f"{name}.txt.xz").read_bytes()).decode()
    lines = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {key: tuple(int(n) for n in shape.strip("[]").split(",") if n.strip()) for key, shape in lines}


def load(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "golden.safetensors")
