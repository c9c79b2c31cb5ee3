"""Checkpoints survive what happens to runs: kills at random moments, a full disk, a batch that is no number."""

import json
import multiprocessing
import random
import signal
import sys
import time

import pytest
import torch
from torch import nn
from torch.nn import Linear
from wegen.wegen_model.runtime import Cancelled, NotANumber, Runtime
from wegen.wegen_model.train import checkpoint
from wegen.wegen_model.train.settings import Settings
from wegen.wegen_model.train.trainer import NotFinite, Trained, TrainingTask, train

CPU = Runtime("cpu")


class Toy(TrainingTask):
    """A model whose checkpoint takes as long to write as a step takes, so that kills fall into both."""

    def __init__(
        self, steps: int = 40, pause: float = 0.0, save_every: int = 1, keep_every: int = 0, poison: int = -1, width: int = 64, name="toy"
    ):
        torch.manual_seed(0)
        s = Settings(
            steps,
            16,
            1e-2,
            eps=1e-8,
            weight_decay=0.0,
            warmup=2,
            min_lr_ratio=0.05,
            clip=1.0,
            precision="no",
            ema=0.9,
            save_every=save_every,
            keep_every=keep_every,
            log_every=1,
            seed=5,
        )
        super().__init__(name, nn.Sequential(Linear(4, width), nn.Tanh(), Linear(width, 1)), s)
        self.poison, self.pause = poison, pause

    def micro_batch(self, step, index, count):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step * 100 + index))
        return x * float("nan") if step == self.poison else x

    def loss(self, x, generator, share):
        time.sleep(self.pause)
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        return {"loss": (self.model(x) - x.sum(1, keepdim=True)).square().mean() * share["rows"]}

    def items(self, batch):
        return {"rows": float(len(batch))}


def run(task: TrainingTask, folder, runtime, **options) -> Trained:
    return train(task, folder, runtime, **{"accumulate": 2} | options)


def weights(made: Trained) -> torch.Tensor:
    return torch.cat([v.flatten() for v in (*made.task.model.state_dict().values(), *made.ema.values())])


def child(folder) -> None:
    torch.set_num_threads(1)
    run(Toy(pause=0.004, width=4_000), folder, CPU, alone=True)


def killed(folder, kills: int, seed: int) -> list[int]:
    """The steps that were on the disk when a running process was killed, `kills` times; then the run is left to end."""
    rng, fork, reached = random.Random(seed), multiprocessing.get_context("fork"), []
    for _ in range(kills):
        process = fork.Process(target=child, args=(folder,))
        process.start()
        time.sleep(rng.uniform(0.02, 0.35))
        process.kill()
        process.join()
        reached.append(checkpoint.step_of(folder / "checkpoint"))
    return reached


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_no_trace(tmp_path, kills):
    whole = run(Toy(width=4_000), tmp_path / "whole", CPU, alone=True)
    reached = killed(tmp_path / "killed", kills, seed=kills)
    again = run(Toy(width=4_000), tmp_path / "killed", CPU, alone=True)
    assert any(0 < step < 40 for step in reached), f"no kill fell into the run: {reached}"
    assert reached == sorted(reached)  # nothing that was on the disk was lost
    assert torch.equal(weights(whole), weights(again))
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 41))  # lines of steps that were run again are there once


def full_disk(folder) -> None:
    import resource

    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # every file ends after 2 kB, as on a full disk
    try:
        run(Toy(), folder, CPU, alone=True)
    except checkpoint.SaveFailed as error:
        (folder / "said.txt").write_text(str(error))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are a thing of Unix")
def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    for _ in range(5):
        run(Toy(), tmp_path, CPU, alone=True, stop_after=0.0)
    before = torch.load(tmp_path / "checkpoint" / "weights.pt", weights_only=True)
    process = multiprocessing.get_context("fork").Process(target=full_disk, args=(tmp_path,))
    process.start()
    process.join()
    said = (tmp_path / "said.txt").read_text()
    assert said.startswith("toy: the checkpoint of step 6 could not be written to") and "GB are free there" in said
    assert "The checkpoint of step 5 in" in said and "is intact. Make room, then start again" in said
    after = torch.load(tmp_path / "checkpoint" / "weights.pt", weights_only=True)
    assert all(torch.equal(before["model"][k], after["model"][k]) for k in before["model"])
    assert not (tmp_path / "checkpoint.new").exists()
    whole = run(Toy(), tmp_path.with_name("whole"), CPU, alone=True)
    assert torch.equal(weights(whole), weights(run(Toy(), tmp_path, CPU, alone=True)))


def test_old_checkpoints_are_kept_by_rule(tmp_path):
    run(Toy(steps=11, save_every=2, keep_every=4), tmp_path, CPU, alone=True)
    assert sorted(p.name for p in tmp_path.glob("checkpoint*")) == ["checkpoint", "checkpoint-000004", "checkpoint-000008"]
    assert checkpoint.step_of(tmp_path / "checkpoint-000004") == 4 and checkpoint.step_of(tmp_path / "checkpoint") == 11


def test_a_kept_checkpoint_can_be_gone_back_to(tmp_path):
    whole = run(Toy(steps=11, save_every=2, keep_every=4), tmp_path, CPU, alone=True)
    (tmp_path / "checkpoint").rename(tmp_path.with_name("moved"))
    assert torch.equal(weights(whole), weights(run(Toy(steps=11, save_every=2, keep_every=4), tmp_path, CPU, alone=True)))


def test_a_batch_that_is_no_number_is_saved(tmp_path):
    with pytest.raises(NotFinite, match=r"the loss is nan at step 7; its batch is in .*not-finite-step7-part0.pt"):
        run(Toy(poison=7), tmp_path, CPU, alone=True)
    saved = torch.load(tmp_path / "not-finite-step7-part0.pt", weights_only=True)
    assert saved["step"] == 7 and saved["batch"].shape == (8, 4) and saved["batch"].isnan().all()
    assert checkpoint.step_of(tmp_path / "checkpoint") == 7


@pytest.mark.parametrize("error", [OSError("disk full"), NotANumber("The VAE made a picture with NaN")])
def test_sample_pictures_that_fail_cost_themselves(tmp_path, caplog, error):
    def images(step, folder):
        raise error

    task = Toy()
    task.images = images
    made = run(task, tmp_path, CPU, alone=True, sample_every=5)
    assert made.finished and f"({error}); training goes on" in caplog.text


def test_cancelling_keeps_what_was_learned(tmp_path):
    class Impatient(Runtime):
        def tick(self, event):
            if event.step == 9:
                raise Cancelled

    with pytest.raises(Cancelled):
        run(Toy(save_every=100), tmp_path, Impatient("cpu"), alone=True)
    assert checkpoint.step_of(tmp_path / "checkpoint") == 9
    whole = run(Toy(), tmp_path.with_name("whole"), CPU, alone=True)
    assert torch.equal(weights(whole), weights(run(Toy(), tmp_path, CPU, alone=True)))


def test_another_kind_of_run_is_refused(tmp_path):
    run(Toy(steps=2), tmp_path, CPU, alone=True)
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    (tmp_path / "checkpoint" / "state.json").write_text(json.dumps(state | {"kind": "sharded"}))
    with pytest.raises(ValueError, match="was written by a FSDP run, and this is a single-device or DDP run"):
        run(Toy(), tmp_path, CPU, alone=True)


def cut_off(place) -> None:
    path = place / "weights.pt"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    "harm, said",
    [
        (lambda place: (place / "state.json").write_text('{"step": 2, "sta'), "is damaged: its state.json cannot be read"),
        (lambda place: (place / "state.json").unlink(), "is damaged: its state.json cannot be read"),
        (lambda place: (place / "weights.pt").unlink(), "is damaged"),
        (cut_off, "is damaged"),
        (lambda place: (place / "weights.pt").write_bytes(b""), "is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_an_earlier_one_named(tmp_path, harm, said):
    run(Toy(steps=5, save_every=2, keep_every=2), tmp_path, CPU, alone=True)
    harm(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=said) as told:
        run(Toy(steps=6), tmp_path, CPU, alone=True)
    assert "checkpoint-000004 is taken when checkpoint/ is moved away" in str(told.value)


def test_a_checkpoint_of_another_stage_or_model_is_refused(tmp_path):
    run(Toy(steps=3), tmp_path, CPU, alone=True)
    with pytest.raises(ValueError, match="does not fit this run: it is damaged, or was begun with other settings .lora, model"):
        run(Toy(width=32), tmp_path, CPU, alone=True)
    with pytest.raises(ValueError, match="is of a run of toy, and this is stage-2. Name another --folder"):
        run(Toy(name="stage-2"), tmp_path, CPU, alone=True)
    assert checkpoint.step_of(tmp_path / "checkpoint") == 3


def test_the_driver_of_the_graph_and_accelerate_give_the_same_weights(tmp_path):
    one = run(Toy(steps=6), tmp_path / "alone", CPU, alone=True)
    other = run(Toy(steps=6), tmp_path / "accelerate", CPU)
    assert torch.allclose(weights(one), weights(other), atol=1e-7)


def test_worker_processes_change_nothing(tmp_path):
    one = run(Toy(steps=6), tmp_path / "none", CPU, alone=True)
    other = run(Toy(steps=6), tmp_path / "two", CPU, alone=True, workers=2)
    assert torch.equal(weights(one), weights(other))


def test_tensorboard_gets_the_same_numbers(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is optional")
    run(Toy(steps=4), tmp_path, CPU, alone=True, tensorboard=True)
    board = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e.value for e in board.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])
