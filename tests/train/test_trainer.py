"""The training loop: an interrupted run gives the weights of an uninterrupted one, and a bad loss loses nothing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn
from torch.nn import Linear
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.settings import Settings, learning_rate_factor
from wegen.wegen_model.train.trainer import NotFinite, Trained, TrainingTask, finished, train

SETTINGS = Settings(
    12,
    16,
    1e-2,
    eps=1e-8,
    weight_decay=0.0,
    warmup=2,
    min_lr_ratio=0.05,
    clip=1.0,
    precision="no",
    ema=0.9,
    save_every=3,
    log_every=2,
    seed=5,
)


class Toy(TrainingTask):
    def __init__(self, poison: int = -1, pause: float = 0.0, settings: Settings = SETTINGS):
        torch.manual_seed(0)
        super().__init__("toy", nn.Sequential(Linear(4, 8), nn.Tanh(), Linear(8, 1)), settings)
        self.poison, self.pause, self.seen = poison, pause, []

    def micro_batch(self, step, index, count):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return x * float("nan") if step == self.poison else x

    def loss(self, x, generator, share):
        time.sleep(self.pause)
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        value = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
        return {"loss": value, "extra": value.detach() * 2}

    def sample(self, step, folder):
        self.seen.append(self.model[0].weight.detach().clone())


def weights(made: Trained) -> torch.Tensor:
    return torch.cat([v.flatten() for v in (*made.task.model.state_dict().values(), *made.ema.values())])


def test_resuming_gives_the_weights_of_an_uninterrupted_run(tmp_path):
    whole = train(Toy(), tmp_path / "whole", Runtime("cpu"))
    for _ in range(20):  # stops after every step
        train(Toy(), tmp_path / "parts", Runtime("cpu"), stop_after=0.0)
    parts = train(Toy(), tmp_path / "parts", Runtime("cpu"))
    assert torch.equal(weights(whole), weights(parts))
    assert finished(tmp_path / "parts", SETTINGS.steps)


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    whole = train(Toy(), tmp_path / "whole", Runtime("cpu"))
    train(Toy(), tmp_path / "cut", Runtime("cpu"), stop_after=0.0)
    os.replace(tmp_path / "cut" / "checkpoint", tmp_path / "cut" / "checkpoint.old")
    cut = train(Toy(), tmp_path / "cut", Runtime("cpu"))
    assert torch.equal(weights(whole), weights(cut))


def test_a_killed_process_resumes_to_the_same_weights(tmp_path):
    whole = train(Toy(), tmp_path / "whole", Runtime("cpu"))
    code = textwrap.dedent(f"""
        import sys, importlib.util
        spec = importlib.util.spec_from_file_location("case", {__file__!r}); case = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(case)
        from wegen.wegen_model.runtime import Runtime
        case.train(case.Toy(pause=0.15), {str(tmp_path / "killed")!r}, Runtime("cpu"))
    """)
    process = subprocess.Popen([sys.executable, "-c", code])
    state = tmp_path / "killed" / "checkpoint" / "state.json"
    deadline = time.time() + 60
    while not state.is_file() and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(state.read_text())["step"] < SETTINGS.steps  # it was killed on the way
    again = train(Toy(), tmp_path / "killed", Runtime("cpu"))
    assert torch.equal(weights(whole), weights(again))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(NotFinite, match="at step 7"):
        train(Toy(poison=7), tmp_path, Runtime("cpu"))
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 6


def test_averaged_weights_follow_their_formula_and_are_what_is_shipped(tmp_path):
    """e <- d e + (1-d) w with d = min(ema, (1+t)/(10+t)): early steps are forgotten fast, later ones with the decay asked for."""
    task = Toy()
    made = train(task, tmp_path, Runtime("cpu"), sample_every=1)
    expected = task.seen[0]
    for t, weight in enumerate(task.seen[1:], 2):
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight
    assert len(task.seen) == 12 and torch.allclose(made.weights()["0.weight"], expected, atol=1e-6)
    assert not torch.allclose(made.weights()["0.weight"], task.model[0].weight, atol=1e-3)
    without = train(Toy(settings=dataclasses.replace(SETTINGS, ema=0.0)), tmp_path / "none", Runtime("cpu"))
    assert torch.equal(without.weights()["0.weight"], without.task.model[0].weight) and not without.ema


def test_the_log_averages_each_value(tmp_path):
    train(Toy(), tmp_path, Runtime("cpu"))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [2, 4, 6, 8, 10, 12]
    assert all(r["extra"] == pytest.approx(2 * r["loss"], abs=1e-4) for r in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_rate_warms_up_and_falls_to_its_floor():
    s = dataclasses.replace(SETTINGS, steps=100, warmup=10, min_lr_ratio=0.1)
    rates = [learning_rate_factor(s, i) for i in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=1e-3)
