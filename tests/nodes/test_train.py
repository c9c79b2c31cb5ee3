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
from wegen.wegen_model.models.lora import read_lora
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
    decoder, name, samples, tensors, loss, strips = made["result"]
    assert strips.shape == (2, 32, 32, 3) and len(loss["loss"]) == 3  # at steps 6 and 12; logged at 5, 10 and 12
    assert sorted(tensors) == sorted(read_lora(place / "models" / "loras" / name))  # what ComfyUI's Save LoRA writes is the same file
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


def test_buckets_paint_pictures_in_their_own_shape(place):
    """Wide, high and square pictures: each is trained in its shape, and every step's pictures are of one."""
    from wegen.wegen_model.train import finetune

    assert finetune.bucket(480, 640, 1024, 64) == (896, 1216 - 32) or finetune.bucket(480, 640, 1024, 64) == (896, 1152)
    assert finetune.bucket(100, 1000, 1024, 64) == (704, 1472)  # at most 2:1
    rows, columns = finetune.bucket(300, 200, 1024, 64)
    assert rows > columns and abs(rows * columns / 1024**2 - 1) < 0.1
    folder = place / "input" / "shapes"
    folder.mkdir()
    for i, size in enumerate([(80, 40), (84, 40), (40, 40), (40, 80)]):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(folder / f"{i}.png")
    seen, own = [], finetune.InGraphDecoderTask.micro_batch

    def look(self, *args):
        batch = own(self, *args)
        seen.append((tuple(batch.latents.shape[-2:]), batch.size_ids[0].tolist()))
        return batch

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(finetune.InGraphDecoderTask, "micro_batch", look)
        made = train(load(place), folder="shapes", aspect="buckets", preview_count=2)
    assert {shape for shape, _ in seen} == {(8, 24), (16, 16), (24, 8)}
    assert all(ids == [2 * h, 2 * w, 0, 0, 2 * h, 2 * w] for (h, w), ids in seen)
    assert made["result"][2].shape == (4, 16, 48, 3)  # the two wide ones, and their paintings
    assert made["result"][5].shape == (2, 16, 96, 3)
    assert made["result"][1] == "look.safetensors" and train(load(place), folder="shapes")["result"][1] == "look_2.safetensors"


def test_alpha_steps_that_are_kept_and_a_folder_from_the_list(place):
    made = train(load(place), folder="nowhere", choose_folder="art", alpha=1.0, save_every=5, preview_every=0)
    loras = place / "models" / "loras"
    assert sorted(p.name for p in loras.iterdir()) == ["look-000005.safetensors", "look-000010.safetensors", "look.safetensors"]
    whole = read_lora(loras / made["result"][1])
    assert {float(v) for k, v in whole.items() if k.endswith(".alpha")} == {1.0}
    early = read_lora(loras / "look-000005.safetensors")
    assert any(not torch.equal(early[k], whole[k]) for k in whole)
    assert "art" in WeGenTrainDecoder.INPUT_TYPES()["optional"]["choose_folder"][0]


def test_captions_are_what_the_model_writes_on_them(place, monkeypatch):
    from wegen.wegen_model.train import finetune

    (place / "input" / "art" / "1.txt").write_text("a red fox")
    monkeypatch.setattr(finetune, "FARTHEST", 1e9)  # random weights draw no fox
    given, whole = [], finetune.finetune
    monkeypatch.setattr(finetune, "finetune", lambda *args, **more: given.append((args[2], more["written"])) or whole(*args, **more))
    train(load(place), captions=True, preview_every=0)
    tokens, written = given[0]
    assert list(written) == [1] and written[1].shape == tokens[1].shape and not torch.equal(written[1], tokens[1])
    monkeypatch.setattr(finetune, "FARTHEST", 0.0)
    assert "captions: the model draws no picture" in str(train(load(place), captions=True, preview_every=0)["ui"])


def test_a_photo_is_let_go_once_it_is_seen(place):
    """Of large photos what stays in memory is what is painted."""
    from wegen.wegen_model.data.image_folder import PictureFolder
    from wegen.wegen_model.train.finetune import encode_pictures

    Image.new("RGB", (3000, 2000), "teal").save(place / "input" / "art" / "9.jpg")
    paths, pictures, tokens = encode_pictures(load(place), PictureFolder(place / "input" / "art"), 32, buckets=False)
    assert [p.name for p in paths] == ["0.png", "1.png", "2.png", "9.jpg"] and len(tokens) == 4
    assert {p.shape for p in pictures} == {(32, 32, 3)} and all(p.base is None or p.base.nbytes == p.nbytes for p in pictures)


def test_a_subject_is_trained_written_and_used(place, monkeypatch):
    """WeGen Train Subject and WeGen Model LoRA, from a folder and from pictures of other nodes."""
    from wegen.nodes.subject import WeGenModelLora, WeGenTrainSubject
    from wegen.wegen_model.train import subject

    monkeypatch.setattr(subject, "REHEARSED", 8)
    monkeypatch.setattr(subject, "PATTERNS", 2)
    options = dict(steps=10, rank=2, learning_rate=1e-2, preview_every=0)
    with torch.inference_mode():
        made = WeGenTrainSubject().train(load(place), "art", "mochi", **options)
        model, name, samples, loss = made["result"]
        assert name == "mochi.safetensors" and samples.shape == (5, 32, 32, 3) and len(loss["loss"]) == 2
        assert "«mochi» from 3 pictures, 10 steps" in made["ui"]["text"][0] and "broken.jpg cannot be read" in str(made["ui"])
        assert model.subjects == ("mochi",)
        assert WeGenModelLora().apply(load(place), name, 0.5)[0].loras[0][1] == 0.5
        again = WeGenTrainSubject().train(load(place), "nowhere", "mochi", images=torch.rand(1, 40, 40, 3), **options)
        assert again["result"][1] == "mochi_2.safetensors"
        with pytest.raises(ValueError, match="there is no folder 'nowhere'"):
            WeGenTrainSubject().train(load(place), "nowhere", "mochi", **options)
