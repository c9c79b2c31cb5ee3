"""Samples a second that reading gives, beside what a training step consumes: `python -m wegen.benchmarks.data [STEP_SECONDS]`.

Writes shards of drawn pictures at the size asked for, then makes of them what a stage of wegen-7b shows the model: JPEG decoding,
degradation, ids, the tower's 448 pixels and the decoder's 1024.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from wegen.tests.support import byte_tokenizer
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.config import PRESETS
from wegen.wegen_model.data import shards, tasks
from wegen.wegen_model.data.image_folder import Mixed
from wegen.wegen_model.data.items import Item
from wegen.wegen_model.data.mixture import Mixture, Source
from wegen.wegen_model.data.model_inputs import ModelInputs, look, model_inputs


def picture(i: int, side: int) -> np.ndarray:
    """Smooth colour with a little noise: compresses about as a photograph does."""
    rng = np.random.default_rng(i)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(7 * rng.random() * x + 9 * rng.random() * y + 6 * rng.random()) for _ in range(3)]
    return (np.stack(waves, -1) * 90 + 128 + rng.normal(0, 6, (side, side, 3))).clip(0, 255).astype(np.uint8)


def one(i: int, side: int):
    rng, p = np.random.default_rng(i), picture(i, side)
    if i % 2:
        return tasks.text_to_picture(str(i), "a picture of waves " * 4, p, rng)
    return tasks.editing(str(i), p, [("make the waves higher", picture(i + 1, side))], rng)


class Steps(torch.utils.data.Dataset):
    """Step -> one micro-batch, with the tower's pixels."""

    def __init__(self, source: Mixed, tokenizer: Tokenizer, batch: int, size: int | None):
        self.source, self.tokenizer, self.batch, self.size = source, tokenizer, batch, size

    def __getitem__(self, step: int) -> ModelInputs:
        config, samples = PRESETS["wegen-7b"], self.source.samples(step, 0, 1, self.batch)
        made = model_inputs(samples, config, self.tokenizer, np.random.default_rng(step), size=self.size)
        made.tower_pixels = look(made.pictures, config)
        return made


def same(value: ModelInputs) -> ModelInputs:
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step_seconds", type=float, nargs="?", help="measured seconds of a training step of --batch samples a GPU")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--side", type=int, default=768, help="pixels of the stored pictures")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        shards.write([Item(str(i), lambda i=i: one(i, args.side)) for i in range(args.count)], folder, per_shard=32)
        size = sum(p.stat().st_size for p in Path(folder).glob("*.tar")) / args.count / 1e3
        print(f"{args.count} samples written in {time.perf_counter() - start:.1f} s, {size:.0f} kB each")
        tokenizer = Tokenizer.load(byte_tokenizer(Path(folder) / "tokenizer"))
        for name, pixels in (("for the tower alone", None), ("with the decoder's 1024 pixels", 1024)):
            made = Steps(Mixed(Mixture([Source(Path(folder), batch=args.batch)]), args.batch), tokenizer, args.batch, pixels)
            for workers in args.workers:
                order = range(args.steps + 2)
                steps = iter(torch.utils.data.DataLoader(made, batch_size=None, sampler=order, num_workers=workers, collate_fn=same))
                next(steps)
                begin, cpu, n, pictures = time.perf_counter(), time.process_time(), 0, 0
                for step in steps:
                    n, pictures = n + len(step.keys), pictures + len(step.pictures)
                took, busy = time.perf_counter() - begin, time.process_time() - cpu
                line = f"{name}, {workers} workers: {n / took:7.1f} samples/s, {pictures / took:7.1f} pictures/s"
                if not workers:
                    line += f"; {n / busy:.1f} samples/s of a core's own time"
                    core = n / busy
                print(line)
            if args.step_seconds:
                need = args.batch / args.step_seconds
                print(
                    f"  a step of {args.batch} samples in {args.step_seconds:g} s consumes {need:.1f} samples/s a GPU: "
                    f"{need / core:.2f} cores a GPU"
                )


if __name__ == "__main__":
    main()
