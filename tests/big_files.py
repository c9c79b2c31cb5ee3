"""A release-shaped checkpoint of any size that takes no room: headers and tables as the public files have them, weights as holes.

python -m wegen.tests.big_files FOLDER [PRESET]      writes one, inspects and converts it, prints seconds and peak memory
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import torch
from wegen.wegen_model.checkpoint.convert import skeleton
from wegen.wegen_model.checkpoint.formats.wegen import AGENT
from wegen.wegen_model.config import PRESETS, ModelConfig

# In a process of its own, so that its peak is its own; RSS counts mapped pages too. Imports come first and are told apart.
MEASURED = """
import json, resource, sys, time
from wegen.wegen_model.checkpoint.{module} import {name}
import torch, diffusers.models.unets.unet_2d_condition, diffusers.models.autoencoders.autoencoder_kl
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
{name}(*sys.argv[2:], **json.loads(sys.argv[1]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=time.perf_counter() - start, before=before * 1024, peak=after * 1024)))
"""


def release(folder: Path, config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> Path:
    """EVA-CLIP/visual.pt and pytorch_model.bin (zip), stage1_final/unet (safetensors), all sparse."""
    shapes = {
        part: {k: tuple(v.shape) for k, v in skeleton(part, config).state_dict().items()}
        for part in ("vision", "language", "projectors", "unet", "vae")
    }
    agent = {
        key: shapes[part][target]
        for part in ("language", "projectors", "unet", "vae")
        for key, target, _ in AGENT.export_keys(part, list(shapes[part]))
    }
    for name, table in (("EVA-CLIP/visual.pt", shapes["vision"]), ("pytorch_model.bin", agent)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with torch.serialization.skip_data():  # storages get their place in the file and are not written
            torch.save({k: torch.empty(shape, dtype=dtype) for k, shape in table.items()}, folder / name)
    sparse_safetensors(folder / "stage1_final/unet/diffusion_pytorch_model.bf16.safetensors", shapes["unet"])
    for name, values in (("stage1_final/unet/config.json", config.unet), ("scheduler/scheduler_config.json", config.scheduler)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(values))
    return folder


def sparse_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for key, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + end)


CALLS = {"inspect": "report", "convert": "convert"}  # function -> its module


def measure(name: str, *args: str | Path, **options) -> dict[str, float]:
    """Run inspect or convert of the package in a process of its own: seconds, bytes of its peak, bytes before the call."""
    command = [sys.executable, "-c", MEASURED.format(module=CALLS[name], name=name), json.dumps(options), *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def written_bytes(folder: Path) -> int:
    """What the files below a folder occupy on the disk."""
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())


if __name__ == "__main__":
    root, name = Path(sys.argv[1]), (sys.argv[2:] or ["wegen-7b"])[0]
    source = release(root / "release", PRESETS[name])
    apparent = sum(p.stat().st_size for p in source.rglob("*") if p.is_file())
    sys.stdout.write(f"{apparent / 2**30:.2f} GiB, {written_bytes(source) / 2**20:.1f} MiB on the disk\n")
    for what, args in (("inspect", (source,)), ("convert", (source, root / "model"))):
        start = time.perf_counter()
        got = measure(what, *args)
        sys.stdout.write(
            f"{what}: {got['seconds']:.2f} s (the process {time.perf_counter() - start:.2f} s), peak "
            f"{got['peak'] / 2**30:.3f} GiB, of it {got['before'] / 2**30:.3f} GiB before the call\n"
        )
    largest = max((p for p in (root / "model").rglob("*.safetensors")), key=lambda p: p.stat().st_size)
    sys.stdout.write(f"largest file written: {largest.name}, {largest.stat().st_size / 2**30:.2f} GiB\n")
