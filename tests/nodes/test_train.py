"""WeGen Train Decoder and Decoder LoRA, headless, on the tiny model: in inference mode, as ComfyUI runs nodes."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.nodes.load import WeGenLoadModel
from wegen.nodes.train import WeGenDecoderLora, WeGenTrainDecoder
from wegen.tests.support import tiny_model
from wegen.wegen_model.data.image_folder import read_picture
from wegen.wegen_model.runtime import Cancelled


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a model and three pictures (and a damaged one)."""
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "tiny")
    pictures = tmp_path / "input" / "art"
    pictures.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (30, 40, 3), np.uint8)).save(pictures / f"{i}.png")
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8no")
    return tmp_path


def load(place):
    return WeGenLoadModel().load(str(place / "tiny"))[0]


def train(model, **changes):
    options = dict(folder="art", name="look", steps=12, learning_rate=1e-2, rank=2, batch=2, preview_every=6)
    with torch.inference_mode():
        return WeGenTrainDecoder().train(model, **(options | changes))


def test_a_lora_is_trained_written_and_used(place):
    model, ticks = load(place), []
    pass_on = model.runtime.tick
    model.runtime.tick = lambda event: (ticks.append((event.label, event.step, event.total, event.preview)), pass_on(event))
    made = train(model)
    decoder, name, samples = made["result"]
    assert name == "look.safetensors" and (place / "models" / "loras" / name).is_file()
    assert samples.shape == (6, 32, 32, 3) and float(samples.min()) >= 0
    assert "3 pictures, 12 steps" in made["ui"]["text"][0] and "broken.jpg cannot be read" in made["ui"]["text"][1]
    assert [(i, n) for what, i, n, _ in ticks if what == "visual-decoding"] == [(i, 12) for i in range(1, 13)]
    shown = next(preview() for what, i, _, preview in ticks if what == "visual-decoding" and i == 6)
    assert shown.shape == (32, 32, 3)
    with torch.inference_mode():
        pictures = [read_picture(place / "input" / "art" / f"{i}.png") for i in range(3)]
        features = model.encode(torch.stack([torch.from_numpy(p.copy()).float() / 255 for p in pictures]))
        plain, now = model.painter.decode(features), decoder.decode(features)
        assert (plain - now).abs().mean() > 1e-3
        assert (samples[3:] - now).abs().mean() < 2e-3  # what was shown is what the file gives
        (again,) = WeGenDecoderLora().apply(model, name, 1.0)
        assert torch.equal(again.decode(features), now)


def test_cancelling_keeps_the_work_and_the_same_run_goes_on(place):
    whole = load(place)
    expected = (place / "models" / "loras" / train(whole, name="whole")["result"][1]).read_bytes()
    model = load(place)
    pass_on = model.runtime.tick

    def cancel(event):
        if (event.label, event.step) == ("visual-decoding", 7):
            raise Cancelled
        pass_on(event)

    model.runtime.tick = cancel
    with pytest.raises(Cancelled):
        train(model, name="whole2")
    assert not (place / "models" / "loras" / "whole2.safetensors").exists()
    model.runtime.tick = pass_on
    train(model, name="whole2")
    from wegen.wegen_model.models.lora import read_lora

    one, two = (read_lora(place / "models" / "loras" / f"{n}.safetensors") for n in ("whole", "whole2"))
    assert expected and all(torch.equal(one[k], two[k]) for k in one)


def test_another_run_never_overwrites_a_lora(place):
    model = load(place)
    names = [train(model, steps=10, preview_every=0, seed=seed)["result"][1] for seed in (0, 1, 0)]
    assert names == ["look.safetensors", "look_2.safetensors", "look.safetensors"]


@pytest.mark.parametrize(
    "changes, error",
    [
        (dict(folder="nowhere"), "folder: there is no folder 'nowhere' in input. .* Found: art"),
        (dict(folder=""), "there is no folder ''"),
        (dict(folder="../tiny"), "there is no folder"),
        (dict(name="../../x"), "name: '../../x' is no file name"),
        (dict(name=" "), "is no file name"),
    ],
)
def test_what_is_answered(place, changes, error):
    with pytest.raises(ValueError, match=error):
        train(load(place), **changes)
    assert not (place / "models").exists()


def test_a_picture_that_is_cut_off_behind_its_header_is_left_out_by_name(place):
    folder = place / "input" / "art"
    for k in (0, 1):
        Image.effect_noise((64, 64), 60).convert("RGB").save(folder / f"{k}.jpg")
        data = (folder / f"{k}.jpg").read_bytes()
        (folder / f"{k}.jpg").write_bytes(data[: len(data) * 2 // 3])
    made = train(load(place), steps=2, preview_every=0)
    assert made["ui"]["text"][0].startswith("look.safetensors: 3 pictures") and "1.jpg cannot be read and was left out" in str(made["ui"])
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="none of the 2 pictures can be read"):
        train(load(place), steps=2, preview_every=0)


def test_an_empty_folder_and_a_missing_lora(place):
    os.mkdir(place / "input" / "empty")
    with pytest.raises(ValueError, match="no picture that can be read"):
        train(load(place), folder="empty")
    with pytest.raises(ValueError, match="lora: there is no 'nothing.safetensors' in models/loras. Found: none"):
        WeGenDecoderLora().apply(load(place), "nothing.safetensors")
