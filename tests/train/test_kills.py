"""`wegen train` killed at twenty random moments, from before it has loaded to within a save, ends as if it had never been touched.

test_checkpoint.py does the same in seconds, with a toy in place of a stage.
"""

import multiprocessing
import random
import time

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.cli.test_train import train
from wegen.tests.support import tiny_model
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.train.checkpoint import step_of

STEPS = 400  # a step is a hundredth of a second: the kills must be over before the run is
MORE = ("--set", f"steps={STEPS}", "--set", "save_every=1", "--set", "ema=0.9", "--set", "batch=2", "--micro", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """tiny/ a model, pictures/ three captioned pictures."""
    place = tmp_path_factory.mktemp("kills")
    tiny_model(place / "tiny")
    (place / "pictures").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(place / "pictures" / f"{i}.png")
        (place / "pictures" / f"{i}.txt").write_text("a fox " * (i + 1))
    return place


def child(place, stage: str, folder) -> None:
    torch.set_num_threads(1)
    train(place, stage, "--folder", str(folder), *MORE)


def on_disk(folder) -> int:
    """The step of the last checkpoint, which is `.old` for a moment."""
    return max(step_of(folder / name) for name in ("checkpoint", "checkpoint.old"))


@pytest.mark.slow
@pytest.mark.parametrize("stage, part", [("stage-1", "language"), ("visual-decoding", "unet")])
def test_twenty_kills_of_a_real_stage(place, tmp_path, stage, part):
    fork, rng = multiprocessing.get_context("fork"), random.Random(7)
    begun = time.perf_counter()
    assert train(place, stage, "--folder", str(tmp_path / "first"), *MORE, "--stop-after", "0") == 0
    first = time.perf_counter() - begun  # loading, one step, one save
    killed, reached = tmp_path / "killed", [0]
    for k in range(20):
        process = fork.Process(target=child, args=(place, stage, killed))
        process.start()
        if k % 4 == 0:
            time.sleep(first * rng.uniform(0.1, 1.0))  # while it loads
        else:
            wanted, deadline = reached[-1] + rng.randint(1, 2), time.perf_counter() + 60
            while on_disk(killed) < wanted and time.perf_counter() < deadline:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.15))  # anywhere in the steps and saves that follow
        process.kill()
        process.join()
        reached.append(on_disk(killed))
    print(f"\n{stage}: the steps on the disk at each kill: {reached}")
    assert reached == sorted(reached), "a checkpoint was lost"
    assert reached[-1] < STEPS and len(set(reached)) > 10, "the kills did not fall into the run"
    for name in ("killed", "whole"):
        assert train(place, stage, "--folder", str(tmp_path / name), *MORE) == 0
    whole, killed = (torch.load(tmp_path / name / "checkpoint" / "weights.pt", weights_only=True) for name in ("whole", "killed"))
    for kind in ("model", "ema"):
        assert whole[kind].keys() == killed[kind].keys() and len(whole[kind]) > 5
        assert all(torch.equal(whole[kind][key], killed[kind][key]) for key in whole[kind])
    for key, moments in whole["optimiser"]["state"].items():
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(killed["optimiser"]["state"][key][k])) for k, v in moments.items())
    a, b = (model_folder.read_tensors(model_folder.files(tmp_path / name / "model", part)[0]) for name in ("whole", "killed"))
    assert all(torch.equal(a[key], b[key]) for key in a)
