"""Two processes by the shipped configurations give the loss curve of one, to rounding."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import wegen
from wegen.tests.cli.test_train import train
from wegen.tests.support import tiny_model
from wegen.tests.train import processes
from wegen.tests.train.test_checkpoint import Toy, run
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.cli.train import CONFIGS
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.checkpoint import step_of
from wegen.wegen_model.train.held_out import HeldOut

pytest.importorskip("accelerate", reason="accelerate starts the processes")


def launch(config: str, place, *more: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(CONFIGS / f"{config}.yaml"),
        "--main_process_port",
        "0",
        "-m",
        "wegen.wegen_model",
        "train",
        "stage-1",
        "--preset",
        "mini",
        "--model",
        str(place / "tiny"),
        "--data",
        str(place / "pictures"),
        "--cpu",
        "--set",
        "steps=3",
        "--set",
        "warmup=1",
        "--set",
        "log_every=1",
        "--set",
        "batch=4",
        "--set",
        "ema=0.9",
        "--micro",
        "2",
        *more,
    ]
    root = str(Path(wegen.__file__).resolve().parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def start(folder, environment: dict, pause: float = 0.0) -> list:
    """Two processes that train the toy of test_checkpoint.py together."""

    def job(rank: int) -> None:
        whole = run(Toy(pause=pause), folder, Runtime("cpu"), accumulate=1).weights()
        if rank == 0:
            torch.save(whole, folder / "final.pt")

    return processes.start(job, environment)


def kill_at(both: list, folder, step: int) -> int:
    """Kill both as soon as the checkpoint on the disk is of this step or later; its step."""
    deadline = time.time() + 300
    while step_of(folder / "checkpoint") < step and time.time() < deadline and both[0].is_alive():
        time.sleep(0.01)
    for process in both:
        process.kill()
        process.join()
    return step_of(folder / "checkpoint")


class Rare(Toy):
    """Every second micro-batch has a value of its own, as a batch with a picture that is written in parallel has."""

    def micro_batch(self, step, index, count):
        return super().micro_batch(step, index, count), index

    def loss(self, batch, generator, share):
        x, index = batch
        return super().loss(x, generator, share) | ({"rare": x.abs().sum()} if index % 2 else {})

    def items(self, batch):
        return {"rows": float(len(batch[0]))}


def test_a_value_that_one_process_alone_has_stops_nobody(tmp_path):
    """Two processes that add up lists of unlike lengths wait for each other for ever."""
    more = dict(accumulate=1, held_out=HeldOut(Rare().source, 3))

    def job(rank: int) -> None:
        run(Rare(steps=4), tmp_path / "two", Runtime("cpu"), **more)

    both = processes.start(job, processes.DDP)
    run(Rare(steps=4), tmp_path / "one", Runtime("cpu"), **more | {"accumulate": 2})
    processes.end(both, 120)
    assert json.loads((tmp_path / "two" / "checkpoint" / "state.json").read_text())["processes"] == 2
    one, two = (curve(tmp_path / name) for name in ("one", "two"))
    assert any("rare" in row for row in one) and any("held_out_rare" in row for row in one)
    for mine, other in zip(one, two, strict=True):
        assert mine.keys() == other.keys()
        for key in mine.keys() & {"step", "loss", "rare", "held_out_loss", "held_out_rare"}:
            assert mine[key] == pytest.approx(other[key], rel=1e-4), (key, mine, other)


def test_two_processes_of_a_small_model(tmp_path):
    """DDP over gloo: the loss curve and the weights of one process that takes both pieces; a killed run goes on, with one process too."""
    whole = start(tmp_path / "two", {})
    one = run(Toy(), tmp_path / "one", Runtime("cpu"), alone=True)
    processes.end(whole)
    assert json.loads((tmp_path / "two" / "checkpoint" / "state.json").read_text())["processes"] == 2
    for mine, other in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
    saved = torch.load(tmp_path / "two" / "checkpoint" / "weights.pt", weights_only=True)["model"]
    assert all(torch.allclose(value, saved[key], atol=1e-5) for key, value in one.task.model.state_dict().items())
    assert 5 <= kill_at(start(tmp_path / "cut", {}, pause=0.02), tmp_path / "cut", 5) < 40
    alone = run(Toy(), tmp_path / "cut", Runtime("cpu"), alone=True)
    assert all(torch.allclose(value, alone.task.model.state_dict()[key], atol=1e-5) for key, value in saved.items())


@pytest.mark.slow
def test_weights_in_shards_survive_kills_bit_for_bit(tmp_path):
    """FSDP2 over gloo, two processes: saved in shards, killed twice, resumed from them."""
    processes.end(start(tmp_path / "whole", processes.FSDP2))
    reached = [kill_at(start(tmp_path / "cut", processes.FSDP2, pause=0.02), tmp_path / "cut", step) for step in (4, 12)]
    assert 4 <= reached[0] < reached[1] < 40, reached
    assert (tmp_path / "cut" / "checkpoint" / "shards" / ".metadata").is_file()
    with pytest.raises(ValueError, match="was written by a FSDP run, and this is a single-device or DDP run. Go on with the launch config"):
        run(Toy(), tmp_path / "cut", Runtime("cpu"), alone=True)
    processes.end(start(tmp_path / "cut", processes.FSDP2))
    whole, cut = (torch.load(tmp_path / name / "final.pt", weights_only=True) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    one = run(Toy(), tmp_path / "one", Runtime("cpu"), alone=True).weights()
    assert all(torch.allclose(one[key], cut[key], atol=1e-5) for key in one)


def curve(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config, precision, near", [("one", "no", 2e-4), ("cpu_ddp", "no", 2e-4), ("cpu_fsdp2", "no", 2e-4), ("cpu_fsdp2", "bf16", 5e-2)]
)
def test_two_processes_give_the_curve_of_one(config, precision, near, tmp_path):
    import numpy as np
    from PIL import Image

    tiny_model(tmp_path / "tiny")
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
        (tmp_path / "pictures" / f"{i}.txt").write_text("a fox " * (i + 1))  # uneven lengths
    more = ["--set", f"precision={precision}", "--sample-every", "2"]  # pictures on the way, of weights in shards too
    assert train(tmp_path, "stage-1", "--folder", str(tmp_path / "one"), "--set", "batch=4", "--micro", "2", "--set", "ema=0.9", *more) == 0
    two = tmp_path / "two"
    if config == "cpu_fsdp2":  # and a resume from shards
        done = launch(config, tmp_path, "--folder", str(two), "--stop-after", "0", *more)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (two / "checkpoint" / "shards").is_dir() and not (two / "model").exists()
    done = launch(config, tmp_path, "--folder", str(two), *more)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((two / "checkpoint" / "state.json").read_text())["processes"] == (1 if config == "one" else 2)
    for mine, other in zip(curve(tmp_path / "one"), curve(two), strict=True):
        for key in ("step", "loss", "mse", "cosine", "words", "diffusion", "norm"):
            assert mine[key] == pytest.approx(other[key], rel=near, abs=near / 10), (mine, other)
    for step in (2, 3):
        a, b = (np.array(Image.open(f / "samples" / f"{step:06d}.png"), dtype=float) for f in (tmp_path / "one", two))
        assert a.shape == b.shape and np.abs(a - b).mean() < (0.1 if precision == "no" else 20)  # of 255
    for part in ("language", "projectors"):
        a, b = (model_folder.read_tensors(model_folder.files(f / "model", part)[0]) for f in (tmp_path / "one", two))
        assert all(torch.allclose(a[k], b[k], atol=near) for k in a)
