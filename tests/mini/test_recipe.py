"""The miniature's recipe at its smallest: every stage runs through the one trainer, resumes, and exports a folder that sees, talks, draws."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from wegen.wegen_model.chat.conversation import Conversation, Reference
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.model_folder import read_config, read_tensors
from wegen.wegen_model.data.sample import Sample, Turn
from wegen.wegen_model.mini import recipe
from wegen.wegen_model.mini.dataset import DrawnWorld, WorldOptions, held_out, open_dataset
from wegen.wegen_model.mini.recipe import SIZES, train
from wegen.wegen_model.mini.world.art import Art
from wegen.wegen_model.mini.world.concepts import CONCEPTS, DRAWINGS, TRAINED_STYLES
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.modules import load
from wegen.wegen_model.train.own_pictures import own_latents, write
from wegen.wegen_model.train.sample_images import SampleImages

CPU = Runtime("cpu")


@pytest.fixture(scope="module")
def art() -> Art:
    sprites = {}
    for i, concept in enumerate((*(c.name for c in CONCEPTS), *DRAWINGS)):
        sprite = np.zeros((64, 64, 4), np.uint8)
        sprite[5 + i % 40 : 60, 2:62] = (6 * i % 256, 255 - 6 * i % 256, 100, 255)
        sprites |= {(concept, style): sprite for style in TRAINED_STYLES}
    return Art(sprites)


@pytest.fixture(scope="module")
def work(tmp_path_factory, art):
    folder = tmp_path_factory.mktemp("mini")
    assert train(folder, "test", runtime=CPU, art=art) == folder / "wegen-mini"
    return folder


@pytest.fixture(scope="module")
def model(work) -> WeGen:
    return WeGen.load(work / "wegen-mini", runtime=CPU)


def world(art, model, **options) -> DrawnWorld:
    return DrawnWorld(WorldOptions(**{"samples": 60, "frees": 20, "tokens": 300} | options), art, model.tokenizer, model.config)


def test_the_exported_folder_sees_talks_and_draws(model):
    picture = torch.rand(1, 40, 60, 3)
    talk = model.chat(Conversation().user("<image_1> on a red background", (Reference(picture),)), picture="always", max_tokens=8)
    features, talk = model.draw(talk, guidance=1.5)
    assert not talk.open_image and talk.turns[-1].pictures[0] is features
    image = model.decode(features, steps=2)
    assert image.shape == (1, 128, 128, 3) and 0 <= image.min() and image.max() <= 1
    assert "@" in model.config.features.space == model.config.decoder.space and model.config.vae["scaling_factor"] != 1
    assert len(model.config.decoder.latent_rgb) == model.config.vae["latent_channels"] + 1 and model.config.concepts


def test_every_stage_changes_what_it_trains_and_nothing_else(work):
    trained = {
        "tower": {"vision", "projectors"},  # of the projectors the mean and scale alone
        "vae": {"vae", "layout"},
        "visual-decoding": {"unet", "layout"},
        "stage-1": {"language", "projectors"},
        "stage-2": {"language", "projectors"},
        "sharpen": {"unet", "layout"},
        "vae-decoder": {"vae"},
    }
    assert list(trained) == [stage.name for stage in SIZES["test"]]
    before = {part: read_tensors(model_folder.files(work / "start", part)[0]) for part in model_folder.WEIGHT_FILES}
    for name, parts in trained.items():
        after = {part: read_tensors(model_folder.files(work / name / "model", part)[0]) for part in model_folder.WEIGHT_FILES}
        changed = {part for part in after if any(not torch.equal(v, before[part][k]) for k, v in after[part].items())}
        assert changed == parts, name
        if name == "tower":
            assert {k for k, v in after["projectors"].items() if not torch.equal(v, before["projectors"][k])} == {"mean", "std"}
        if name == "vae-decoder":
            assert all(k.startswith("decoder.") for k, v in after["vae"].items() if not torch.equal(v, before["vae"][k]))
        before = after


def test_a_finished_stage_is_not_run_again(work, art):
    logs = {p: p.read_text() for p in work.glob("*/log.jsonl")}
    assert len(logs) == 7
    train(work, "test", runtime=CPU, art=art, target=work.with_name("again"))
    assert {p: p.read_text() for p in work.glob("*/log.jsonl")} == logs


def test_a_stopped_recipe_goes_on_to_the_same_weights(work, art, tmp_path, monkeypatch):
    """Stopped after each step of the first stages that it has not run yet."""
    some = {"test": tuple(s for s in SIZES["test"] if s.name in ("tower", "vae"))}
    monkeypatch.setattr(recipe, "SIZES", some)
    while train(tmp_path / "parts", "test", runtime=CPU, art=art, stop_after=0.0) is None:
        pass
    for part, name in (("vision", "tower"), ("vae", "vae")):
        one, parts = (read_tensors(model_folder.files(f / name / "model", part)[0]) for f in (work, tmp_path / "parts"))
        assert all(torch.equal(one[k], parts[k]) for k in one)


def test_a_further_recipe_goes_on_from_a_start(work, art, model, tmp_path, monkeypatch):
    """It paints latents of the same scale, and trains no tower, VAE or UNet of its own first."""
    monkeypatch.setattr(recipe, "SIZES", {"test": tuple(s for s in SIZES["test"] if s.name in ("tower", "stage-2", "vae-decoder"))})
    made = train(tmp_path, "test", runtime=CPU, art=art, start=model.folder)
    assert not (tmp_path / "tower").exists() and (tmp_path / "stage-2").is_dir()
    assert read_config(made).vae["scaling_factor"] == model.config.vae["scaling_factor"]
    for part in ("vision", "unet"):
        assert model_folder.files(made, part)[0].read_bytes() == model_folder.files(model.folder, part)[0].read_bytes()


def test_the_vae_decoder_learns_what_the_unet_paints(work, art, model):
    """Latents painted in the UNet's own way, in the scale of the kept ones, half under written and half under true features."""
    start = work / "sharpen" / "model"
    components = load(start, "vae-decoder", language=True)
    s = dataclasses.replace(SIZES["test"][-1].settings, own_count=8)
    source = world(art, model)
    own = own_latents(components, source, s, torch.device("cpu"), None)
    half = len(own.latents) // 2
    assert half and torch.equal(own.wanted[:half], own.wanted[half:]) and own.latents.isfinite().all()
    again = own_latents(load(start, "vae-decoder", language=True), source, s, torch.device("cpu"), None)
    assert torch.equal(again.latents, own.latents)
    vae = components.need_decoder().vae
    vae.register_to_config(scaling_factor=2 * vae.config.scaling_factor)
    rescaled = own_latents(components, source, s, torch.device("cpu"), None)
    assert torch.allclose(rescaled.latents.float() * 2, own.latents.float(), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize(
    "size, only, said", [("huge", (), "cpu, further, test"), ("further", (), "--start"), ("test", ("sharp",), "sharpen")]
)
def test_a_size_that_cannot_begin_says_what_to_give(tmp_path, size, only, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path / "work", size, only)
    assert not (tmp_path / "work").exists()


def test_a_stage_or_an_export_before_its_time_is_refused(tmp_path, art):
    for only in (("export",), ("stage-1",)):
        with pytest.raises(FileNotFoundError, match="the stage «tower» has not run yet"):
            train(tmp_path, "test", only, runtime=CPU, art=art)
    with pytest.raises(ValueError, match="was begun with .*name another --folder"):
        train(tmp_path, "test", ("export",), runtime=CPU, art=art, seed=3)


def test_weights_shipped_fit_in_the_repository(model):
    size = sum(f.stat().st_size for f in model.folder.rglob("*") if f.is_file())
    assert size < 40e6


@pytest.mark.parametrize("mode", ["autoregressive", "parallel"])
def test_what_training_writes_is_what_people_get(mode):
    """`own_pictures.write` (training, sample pictures) and the pipeline are one algorithm, references in boxes included."""
    from wegen.wegen_model.chat.conversation import Box

    pixels = np.full((50, 60, 3), 255, np.uint8)
    pixels[10:40, 20:50] = (200, 80, 10)
    box = Box(0.25, 0.25, 0.5, 0.5)
    asked = Turn("user", "<image_1><bbox_1> on a green background", (pixels,), (box,))
    components = load("wegen-mini", "stage-1", decoder=False)
    sample = Sample("references", (asked, Turn("assistant", "", drawn=pixels)), "one")
    made = write(components, [sample], torch.device("cpu"), mode)[0]
    model = WeGen.load("wegen-mini")
    shown = (torch.from_numpy(pixels).float() / 255)[None]
    talk = model.chat(Conversation().user(asked.text, (Reference(shown, box=box),)), picture="always")
    assert talk.last.text == ""
    used = model.draw(talk, mode=mode)[0].tokens[0]
    assert (made - used).abs().max() < 0.05 * used.std()  # training rounds laid references to 8 bits


def test_sample_pictures_report_rolled_out_errors_and_write_a_sheet(work, art, model, tmp_path):
    components = load(work / "stage-2" / "model", "stage-2")
    samples = held_out(world(art, model), each=1)
    assert len({s.task for s in samples}) > 8
    some = [s for s in samples if s.task in ("text", "edit")]
    numbers = SampleImages(components, some, "stage-2", measured=True)(7, tmp_path)
    assert set(numbers) == {"rolled", "rolled_parallel", "rolled_text", "rolled_edit"} and all(v > 0 for v in numbers.values())
    assert (tmp_path / "samples" / "000007.png").stat().st_size > 1000


def test_batches_of_the_drawn_world_are_pure_and_of_one_task(art, model):
    one, other = world(art, model), world(art, model)
    asked = [(step, index) for step in range(4) for index in range(2)]
    first = {at: [s.key for s in one.samples(*at, 2, 4)] for at in asked}
    assert {at: [s.key for s in other.samples(*at, 2, 4)] for at in reversed(asked)} == first and len({str(v) for v in first.values()}) > 4
    assert all(len({s.task for s in one.samples(*at, 2, 4)}) == 1 for at in asked)
    pictures = DrawnWorld(one.options, art, model.tokenizer, model.config, pictures=True)
    some = pictures.samples(0, 0, 1, 8)
    assert sorted(s.task for s in some) == ["reconstruction"] * 4 + ["text-to-picture"] * 4 and "background" in some[0].turns[0].text
    assert np.asarray(some[-1].turns[-1].drawn).shape == (128, 128, 3)
    for count in (2, 4, 8):  # however a step is cut, each micro-batch has its share
        parts = [[s.key for s in pictures.samples(3, index, count, 8 // count)] for index in range(count)]
        assert [len(part) for part in parts] == [8 // count] * count
        assert [key for part in parts for key in part] == [s.key for s in pictures.samples(3, 0, 1, 8)]


@pytest.mark.parametrize("text", ["mini:sample=3", "mini:samples=few", "mini:mix=hard", "mini:talk"])
def test_options_of_the_drawn_world_are_checked(text, art):
    with pytest.raises(ValueError, match="--data mini"):
        open_dataset(text, 0, "wegen-mini", art)


def test_the_drawn_world_is_opened_by_name(art):
    source = open_dataset("mini:pictures,samples=9,frees=4,seed=3", 0, "wegen-mini", art)
    assert source.pictures and source.options == WorldOptions(samples=9, frees=4, seed=3)
    assert Tokenizer.load(model_folder.resolve("wegen-mini")).hash == source.tokenizer.hash


@pytest.mark.slow
def test_training_again_from_nothing_gives_the_same_weights(work, art, tmp_path):
    made = train(tmp_path, "test", runtime=CPU, art=art)
    files = sorted(p.relative_to(work / "wegen-mini") for p in (work / "wegen-mini").rglob("*.safetensors"))
    assert len(files) == 6
    for name in files:
        one, other = read_tensors(made / name), read_tensors(work / "wegen-mini" / name)
        assert all(torch.equal(one[k], other[k]) for k in one), name
    assert json.loads((made / "config.json").read_text()) == json.loads((work / "wegen-mini" / "config.json").read_text())
