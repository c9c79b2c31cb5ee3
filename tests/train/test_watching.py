"""What a run shows of itself and what is asked of it on the way: bar, rates, held-out loss, trackers, caches, optimiser, the hub's folder."""

import dataclasses
import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.tests.cli.test_train import train
from wegen.tests.support import tiny_model
from wegen.tests.train.test_checkpoint import Toy, run
from wegen.tests.train.test_stages import Fixed, make, talk_of
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.data.image_folder import PictureFolder
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.encoders import EncodedPictures
from wegen.wegen_model.train.held_out import HeldOut
from wegen.wegen_model.train.modules import load
from wegen.wegen_model.train.optimizer import make_optimizer
from wegen.wegen_model.train.presets import PRESETS
from wegen.wegen_model.train.stages import make_task
from wegen.wegen_model.train.trainer import train as loop

CPU = Runtime("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """tiny/ a model, pictures/ six captioned pictures."""
    place = tmp_path_factory.mktemp("watching")
    tiny_model(place / "tiny")
    (place / "pictures").mkdir()
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(place / "pictures" / f"{i}.png")
        (place / "pictures" / f"{i}.txt").write_text("a fox")
    return place


@pytest.fixture(scope="module")
def folder(place):
    return place / "tiny"


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(task) -> torch.Tensor:
    return torch.cat([v.detach().flatten() for v in task.model.state_dict().values()])


def test_the_bar_tells_loss_and_rate(tmp_path):
    class Watching(Runtime):
        said: list = []

        def tick(self, event):
            self.said.append((event.step, event.text))

    run(Toy(steps=3), tmp_path, Watching("cpu"), alone=True)
    rows = {row["step"]: row for row in log(tmp_path)}
    for step, text in Watching.said:
        assert text == f"loss {rows[step]['loss']:.4g}, rate {rows[step]['learning_rate']:.3g}"
    assert rows[1]["learning_rate"] == pytest.approx(0.005) and rows[1]["rate"] == 0.5  # half of the peak in the first of two warm-up steps


def test_projectors_learn_at_a_rate_of_their_own(folder, tmp_path):
    samples = talk_of("draw", "edit")
    made = {}
    for scale in (1.0, 1e-6):
        task, _ = make(folder, "stage-1", samples, steps=2, warmup=1, log_every=1, projector_lr_scale=scale, weight_decay=0.0)
        before = {k: v.clone() for k, v in task.model.state_dict().items()}
        loop(task, tmp_path / str(scale), CPU, alone=True)
        moved = {k: float((v - before[k]).abs().max()) for k, v in task.model.state_dict().items() if v.is_floating_point()}
        made[scale] = [max(v for k, v in moved.items() if k.startswith(part)) for part in ("language.", "projectors.")]
    assert made[1.0][1] > 1e-4 and made[1e-6][1] < 1e-8 and made[1e-6][0] == pytest.approx(made[1.0][0], rel=0.1)
    row = log(tmp_path / "1e-06")[0]
    assert row["learning_rate_projectors"] == pytest.approx(1e-6 * row["learning_rate"])


@pytest.mark.parametrize("stage", ["visual-decoding", "stage-1"])
def test_alpha_scales_the_adapter_apart_from_its_rank(folder, stage):
    task, _ = make(folder, stage, talk_of("draw"), lora=4, lora_alpha=8.0)
    adapters = task.model if stage == "visual-decoding" else task.model.adapters
    layer = next(iter(adapters.layers.values()))
    assert layer.down.shape[0] == 4 and layer.scale == 2.0
    assert {float(v) for k, v in adapters.tensors().items() if k.endswith(".alpha")} == {8.0}


def test_the_held_out_loss_is_that_of_its_data_and_changes_nothing(folder, tmp_path):
    other = talk_of("rewrite", "edit", "see")
    plain, _ = make(folder, "stage-1", talk_of("draw", "see"), steps=4, warmup=1, log_every=1)
    loop(plain, tmp_path / "plain", CPU, alone=True)
    task, _ = make(folder, "stage-1", talk_of("draw", "see"), steps=4, warmup=1, log_every=1, batch=2)

    class Every(Fixed):  # its samples again and again
        def samples(self, step, part, parts, count):
            return [self.all[(step * parts * count + part * count + i) % len(self.all)] for i in range(count)]

    loop(task, tmp_path / "held", CPU, alone=True, held_out=HeldOut(Every(other), 2))
    assert torch.equal(weights(plain), weights(task))
    rows = [row for row in log(tmp_path / "held") if "held_out_loss" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row[k] > 0 for row in rows for k in ("held_out_loss", "held_out_words", "held_out_mse", "held_out_diffusion"))
    # by hand: the mean over all words of the 64 samples
    task.source, shares = Every(other), {"words": 1.0, "written": 1.0, "pictures": 1.0}
    total = count = 0.0
    with torch.no_grad():
        for step in range(32):
            batch = task.micro_batch(step, 0, 1)
            out = task.loss(batch, torch.Generator().manual_seed((task.settings.seed * 1_000_003 + step) * 4_099), shares)
            total, count = total + float(out["words"]), count + 1
    assert rows[-1]["held_out_words"] == pytest.approx(total / count, rel=1e-4)


def test_a_share_is_held_out_of_a_folder(place, tmp_path, capsys):
    source = PictureFolder(place / "pictures")
    aside = source.hold_out(0.3)
    assert len(aside) + len(source) == 6 and not set(aside.files) & set(source.files) and len(aside) >= 1
    again = PictureFolder(place / "pictures")
    assert again.hold_out(0.3).files == aside.files and again.identity() == source.identity() != aside.identity()
    assert train(place, "visual-decoding", "--folder", str(tmp_path / "a"), "--held-out", "0.3", "--held-out-every", "2") == 0
    rows = [row for row in log(tmp_path / "a") if "held_out_loss" in row]
    assert [row["step"] for row in rows] == [2, 3] and all(np.isfinite(row["held_out_loss"]) for row in rows)
    capsys.readouterr()
    for more, told in (
        (["--held-out", "2"], "--held-out 2 of 6 pictures: write a share between 0 and 1"),
        (["--held-out", "nowhere"], "--held-out nowhere: there is no such folder or file"),
        (["--held-out", str(place / "pictures")], "is what is trained on. Name other data"),
        (["--held-out", "0.1", "--held-out-every", "-1"], "--held-out-every is -1: it cannot be negative"),
        (
            ["--held-out", "0.1", "--data", "mini:talks,samples=20", "--model", "wegen-mini"],
            "a share can be held out of a folder of pictures only",
        ),
    ):
        assert train(place, "visual-decoding", "--folder", str(tmp_path / "b"), *more) == 2
        assert told in capsys.readouterr().err


class Recorder:
    """A tracker as accelerate's are."""

    requires_logging_directory = False
    name = "wandb"
    made: list = []

    def __init__(self, run_name, **more):
        self.values, self.images, self.config, self.more = [], [], None, more
        Recorder.made.append(self)

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None):
        self.values.append((step, values))

    def log_images(self, values, step=None):
        self.images.append((step, values))

    def finish(self):
        self.values.append(("end", {}))


@pytest.fixture
def trackers(monkeypatch):
    tracking = pytest.importorskip("accelerate.tracking")
    known = dict(tracking.LOGGER_TYPE_TO_CLASS)
    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", known)
    Recorder.made = []
    return known


def test_a_tracker_gets_settings_numbers_and_pictures(place, tmp_path, trackers):
    trackers["wandb"] = Recorder
    for _ in range(2):  # the second time it goes on
        assert train(place, "stage-1", "--folder", str(tmp_path), "--track", "wandb", "--sample-every", "3", "--stop-after", "0") == 0
    one, two = Recorder.made
    assert one.config["learning_rate"] == 3e-4 and one.config["betas"] == [0.9, 0.95]
    assert [step for step, _ in one.values] == [1, "end"] and one.values[0][1]["loss"] > 0
    assert one.more["id"] == two.more["id"] and two.more["resume"] == "allow"
    assert train(place, "stage-1", "--folder", str(tmp_path), "--track", "wandb", "--sample-every", "3") == 0
    ((step, images),) = Recorder.made[2].images
    assert step == 3 and images["samples"][0].shape[2] == 3


@pytest.mark.parametrize("when", ["start", "log"])
def test_a_tracker_that_is_offline_costs_words(place, tmp_path, trackers, caplog, when):
    def offline(self, *values, **more):
        raise ConnectionError("Network is unreachable")

    trackers["wandb"] = type("Offline", (Recorder,), {when: offline})
    assert train(place, "stage-1", "--folder", str(tmp_path), "--track", "wandb") == 0
    told = {"start": "--track wandb could not be started", "log": "--track wandb failed"}[when]
    assert f"{told} (Network is unreachable); training goes on without it" in caplog.text
    assert (tmp_path / "model").is_dir() and caplog.text.count("Network") == 1


def test_a_tracker_that_is_not_installed_costs_words_and_one_that_is_not_known_is_refused(place, tmp_path, monkeypatch, caplog, capsys):
    for name in ("tensorboard", "torch.utils.tensorboard", "dvclive"):
        monkeypatch.setitem(sys.modules, name, None)
    assert train(place, "stage-1", "--folder", str(tmp_path), "--track", "dvclive", "--tensorboard") == 0
    assert "--track dvclive could not be started (it is not installed" in caplog.text
    assert "--track tensorboard could not be started (it is not installed" in caplog.text
    assert train(place, "stage-1", "--folder", str(tmp_path / "b"), "--track", "wandbb") == 2
    assert "--track wandbb: there is no such tracker. accelerate has " in capsys.readouterr().err


def test_tensorboard_gets_pictures_and_prompts(place, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is optional")
    assert train(place, "stage-1", "--folder", str(tmp_path), "--tensorboard", "--sample-every", "3") == 0
    board = reader.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert "loss" in board.Tags()["scalars"] and board.Tags()["images"] == ["samples"]
    assert b"1. a fox" in board.Tensors("samples requests/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.parametrize("stage", ["tower", "vae", "visual-decoding", "stage-1", "vae-decoder"])
def test_with_a_cache_every_stage_reads_a_picture_once(place, tmp_path, monkeypatch, stage):
    """Of a folder of pictures too. tower and vae keep the pictures themselves, and train to the same weights."""
    row = PRESETS["mini"].get(stage) or PRESETS["miniature"][stage]
    s = dataclasses.replace(row, steps=6, warmup=1, batch=3, own_latents=0.0, diffusion_weight=0.0, precision="no")
    counted: list = []
    from wegen.wegen_model.data import image_folder

    read = image_folder.read_picture
    monkeypatch.setattr(image_folder, "read_picture", lambda path: counted.append(path) or read(path))
    made = {}
    for cache in (False, True):
        counted.clear()
        source = PictureFolder(place / "pictures", keyed=cache)
        torch.manual_seed(0)
        task = make_task(stage, load(place / "tiny", stage), source, dataclasses.replace(s, cache=cache))
        loop(task, tmp_path / str(cache), CPU, alone=True)
        made[cache] = weights(task)
        assert len(counted) == (6 if cache else 18)  # six pictures; six steps of three
    assert torch.equal(made[False], made[True]) or stage in ("visual-decoding", "stage-1", "vae-decoder")  # those keep float16


def test_the_cache_is_bounded(folder, place, caplog):
    components = load(folder, "visual-decoding")
    source = PictureFolder(place / "pictures", keyed=True)
    from wegen.wegen_model.data.model_inputs import ShownPicture

    shown = [ShownPicture(s.turns[-1].drawn) for s in source.samples(0, 0, 1, 6)]
    f = components.config.features
    each = f.count * f.width * 2
    encoded, free = EncodedPictures(components, 32, limit_gb=2.5 * each / 1e9), EncodedPictures(components, 32)
    for _ in range(2):
        assert torch.equal(encoded.features(shown), free.features(shown))
    assert len(encoded.known_features) == 2 and encoded.room.taken == 2 * each
    assert caplog.text.count("The cache is full") == 1


def test_an_8_bit_optimiser_without_its_package_is_told_before_the_work(place, tmp_path, monkeypatch, capsys):
    for name in ("torchao", "torchao.optim", "bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    assert train(place, "stage-1", "--folder", str(tmp_path), "--set", "optimizer=adamw8bit") == 2
    assert (
        "adamw8bit needs torchao, which is not installed: pip install torchao, or choose --set optimizer=adamw" in capsys.readouterr().err
    )
    with pytest.raises(ValueError, match="adamw8bit needs bitsandbytes or torchao"):
        make_optimizer(
            [[torch.nn.Parameter(torch.zeros(2))]],
            dataclasses.replace(PRESETS["mini"]["stage-1"], optimizer="adamw8bit"),
            torch.device("cuda"),
        )


def test_the_8_bit_optimiser_of_a_package_is_given_groups_and_rates(monkeypatch):
    """torchao's takes its rate as a tensor; here a stand-in with that habit. The real one: the slow test below."""

    class AdamW8bit(torch.optim.AdamW):
        def __init__(self, parameters, lr, **more):
            super().__init__(parameters, torch.tensor(lr), **more)

    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.optim", types.SimpleNamespace(AdamW8bit=AdamW8bit))
    task = Toy(steps=3)
    task.settings = dataclasses.replace(task.settings, optimizer="adamw8bit")
    made = make_optimizer([list(task.model.parameters())], task.settings, torch.device("cpu"))
    assert isinstance(made, AdamW8bit)
    from wegen.wegen_model.train.optimizer import set_rates

    set_rates(made, [0.25])
    assert isinstance(made.param_groups[0]["lr"], torch.Tensor) and float(made.param_groups[0]["lr"]) == 0.25


@pytest.mark.slow
def test_torchao_trains_in_8_bits_and_resumes(tmp_path):
    pytest.importorskip("torchao.optim", reason="torchao is optional")

    def toy():
        task = Toy(steps=12, width=512)
        task.settings = dataclasses.replace(task.settings, optimizer="adamw8bit", compile=True)
        return task

    whole = run(toy(), tmp_path / "whole", CPU, alone=True)
    for _ in range(3):
        run(toy(), tmp_path / "parts", CPU, alone=True, stop_after=0.0)
    parts = run(toy(), tmp_path / "parts", CPU, alone=True)
    assert (
        torch.equal(weights(whole.task), weights(parts.task)) and log(tmp_path / "whole")[-1]["loss"] < log(tmp_path / "whole")[0]["loss"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["visual-decoding", "stage-1"])
def test_compiled_blocks_train_to_the_same_weights(place, tmp_path, stage):
    for name, more in (("plain", []), ("compiled", ["--set", "compile=true"])):
        assert train(place, stage, "--folder", str(tmp_path / name), *more) == 0
    part = "unet" if stage == "visual-decoding" else "language"
    a, b = (model_folder.read_tensors(model_folder.files(tmp_path / n / "model", part)[0]) for n in ("plain", "compiled"))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-3) for k in a)


def test_a_finished_run_becomes_a_folder_for_a_hub(place, tmp_path, capsys):
    assert train(place, "stage-1", "--folder", str(tmp_path / "run"), "--set", "lora=2", "--held-out", "0.3") == 0
    assert main(["train", "hub", str(tmp_path / "run"), str(tmp_path / "fox"), "--license", "apache-2.0"]) == 0
    text = (tmp_path / "fox" / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: wegen\n") and "\n# fox\n" in text
    assert "| lora | 2 |" in text and "pictures, " in text and "| step | loss |" in text and "held_out_loss" in text
    assert str(tmp_path) not in text and str(place) not in (tmp_path / "fox" / "README.md").read_text()
    assert json.loads((tmp_path / "fox" / "run.json").read_text())["command"] == "" and (tmp_path / "fox" / "lora.safetensors").is_file()
    assert main(["inspect", str(tmp_path / "fox")]) == 0
    assert main(["train", "hub", str(tmp_path / "run"), str(tmp_path / "fox")]) == 0  # again
    capsys.readouterr()
    assert main(["train", "hub", str(place), str(tmp_path / "x")]) == 2 and "no finished run" in capsys.readouterr().err
