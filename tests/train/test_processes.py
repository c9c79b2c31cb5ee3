"""Every stage of every preset, by two real processes over gloo, is what one process makes of the same micro-batches, to rounding.

The data is uneven on purpose: one process may have no words, no picture to write, no box or no caption where the other has.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
from wegen.tests.support import tiny_model
from wegen.tests.train import processes
from wegen.wegen_model.box import Box
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.data.sample import Sample, Turn
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.presets import PRESETS
from wegen.wegen_model.train.run import run_stage
from wegen.wegen_model.train.stages import tower, vae

pytest.importorskip("accelerate", reason="accelerate joins the processes")
NEAR = 3e-4
TRAINED = {"tower": "vision", "vae": "vae", "visual-decoding": "unet", "stage-1": "language", "stage-2": "language", "vae-decoder": "vae"}


class Uneven:
    """Samples of every kind, in an order that gives two processes different ones."""

    def __init__(self, pictures: bool):
        draw = [np.random.default_rng(i).integers(0, 255, (40, 48, 3), np.uint8) for i in range(8)]
        box = Box(0.1, 0.2, 0.5, 0.5)
        turns = [
            (Turn("user", "a red fox"), Turn("assistant", "", drawn=draw[0])),
            (Turn("user", "what is <image_1>?", (draw[1],), (None,)), Turn("assistant", "a fox and a cat")),
            (Turn("user", "put <image_1> at <bbox_1>", (draw[2],), (box,)), Turn("assistant", "here", drawn=draw[3])),
            (Turn("user", "hello"), Turn("assistant", "hi there")),
            (Turn("user", "make <image_1> blue", (draw[4],), (None,)), Turn("assistant", "", drawn=draw[5])),
            (Turn("user", "where is the fox in <image_1>?", (draw[6],), (None,)), Turn("assistant", "<bbox_1>", (None,), (box,))),
        ]
        tasks = ["text-to-picture", "understanding", "subject", "understanding", "editing", "understanding"]
        some = [Sample(task, t, str(i)) for i, (task, t) in enumerate(zip(tasks, turns))]
        shown = [s for s in some if any(t.drawn is not None or t.pictures for t in s.turns)]
        self.all = shown if pictures else some

    def samples(self, step: int, part: int, parts: int, count: int) -> list[Sample]:
        first = step * parts * count + part * count
        return [self.all[(first + i) % len(self.all)] for i in range(count)]

    def identity(self) -> dict[str, str]:
        return {"what": "uneven samples", "hash": str(len(self.all))}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def curve(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def cases() -> list:
    out = []
    for preset, stages in PRESETS.items():
        for stage in stages:
            models = ("tiny",) if preset in ("paper", "release") else ("wegen-mini",) if preset == "further" else ("tiny", "wegen-mini")
            out += [pytest.param(preset, stage, model, id=f"{preset}-{stage}-{model}") for model in models]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("preset, stage, model", cases())
def test_two_processes_train_as_one(preset, stage, model, kind, tiny, tmp_path, monkeypatch):
    for name in ("MEASURED", "FITTED", "SHOWN"):  # what the export of a VAE and a tower is fitted to
        monkeypatch.setattr(vae, name, 16)
    monkeypatch.setattr(tower, "MEASURED", 16)
    more = dict(steps=3, warmup=1, batch=4, log_every=1, save_every=2, precision="no", own_count=8)
    s = dataclasses.replace(PRESETS[preset][stage], **more)
    if stage in ("stage-1", "stage-2") and s.feedback_own:
        s = dataclasses.replace(s, feedback_own_from=0.0)  # the second pass takes part in these few steps
    folder = tiny if model == "tiny" else model_folder.resolve(model)
    source = Uneven(pictures=stage not in ("stage-1", "stage-2"))

    def job(rank: int) -> None:
        run_stage(stage, s, folder, source, tmp_path / "two", runtime=Runtime("cpu"), processes=2, main=rank == 0)

    both = processes.start(job, processes.DDP if kind == "ddp" else processes.FSDP2_LAYERS)
    run_stage(stage, s, folder, source, tmp_path / "one", runtime=Runtime("cpu"), accumulate=2)
    processes.end(both)
    state = json.loads((tmp_path / "two" / "checkpoint" / "state.json").read_text())
    assert state["processes"] == 2 and state["kind"] == {"ddp": "whole", "fsdp2": "sharded"}[kind]
    worst = 0.0
    for mine, other in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        for key in mine.keys() & {"loss", "mse", "cosine", "words", "diffusion", "norm", "contrast", "psnr"}:
            assert mine[key] == pytest.approx(other[key], rel=NEAR, abs=NEAR / 10), (key, mine, other)
            worst = max(worst, abs(mine[key] - other[key]) / max(abs(mine[key]), 0.1))
    a, b = (model_folder.read_tensors(model_folder.files(tmp_path / n / "model", TRAINED[stage])[0]) for n in ("one", "two"))
    begun = model_folder.read_tensors(model_folder.files(folder, TRAINED[stage])[0])
    assert any(not torch.equal(a[k], begun[k]) for k in a), "nothing was learned"
    away = max(float((a[k].float() - b[k].float()).abs().max()) for k in a)
    print(f"\n{preset} {stage} {model} {kind}: largest relative difference of the log {worst:.1e}, of a weight {away:.1e}")
    assert away < 2e-3
