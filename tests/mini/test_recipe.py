"""The miniature's recipe at its smallest: every stage runs, resumes, and exports a folder that sees, talks and draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.conversation import Conversation, Reference
from wegen.wegen_model.generation import generate
from wegen.wegen_model.mini.dialogue import conversation, plans
from wegen.wegen_model.mini.recipe import STAGES, Workshop, train
from wegen.wegen_model.mini.rollout import grouped, write
from wegen.wegen_model.mini.watch import Watch
from wegen.wegen_model.mini.world.art import Art
from wegen.wegen_model.mini.world.concepts import CONCEPTS, DRAWINGS, TRAINED_STYLES
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.modules import load_decoder


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    sprites = {}
    for i, concept in enumerate((*(c.name for c in CONCEPTS), *DRAWINGS)):
        sprite = np.zeros((64, 64, 4), np.uint8)
        sprite[5 + i % 40 : 60, 2:62] = (6 * i % 256, 255 - 6 * i % 256, 100, 255)
        sprites |= {(concept, style): sprite for style in TRAINED_STYLES}
    shop = Workshop(tmp_path_factory.mktemp("mini"), "test", Runtime("cpu"), art=Art(sprites))
    for name in STAGES[:-1]:
        shop.train(name)
    return shop


@pytest.fixture(scope="module")
def model(shop):
    return WeGen.load(shop.export(shop.folder / "out"), runtime=Runtime("cpu"))


def test_the_exported_folder_sees_talks_and_draws(model):
    picture = torch.rand(1, 40, 60, 3)
    talk = model.chat(Conversation().user("<image_1> on a red background", (Reference(picture),)), picture="always", max_tokens=8)
    features, talk = model.draw(talk, guidance=1.5)
    assert not talk.open_image and talk.turns[-1].pictures[0] is features
    image = model.decode(features, steps=2)
    assert image.shape == (1, 128, 128, 3) and 0 <= image.min() and image.max() <= 1


def test_a_finished_stage_is_not_run_again(shop):
    before = (shop.folder / "vae" / "log.jsonl").read_text()
    shop.train("vae")
    assert (shop.folder / "vae" / "log.jsonl").read_text() == before


def test_a_further_recipe_paints_latents_of_the_same_scale(shop, model, tmp_path):
    """A UNet that goes on from a miniature sees what that miniature's VAE gives, scaled once; also from the kept file."""
    further = Workshop(tmp_path, "test", Runtime("cpu"), art=shop.art, start=model.folder)
    for _ in "fresh", "kept":
        decoder, latents = further.decoder()
        assert decoder.vae.config.scaling_factor == model.config.vae["scaling_factor"] != 1
        pixels = torch.from_numpy(further.pool.pictures[:2]).float().movedim(-1, 1) / 127.5 - 1
        assert torch.allclose(decoder.to_latents(pixels), latents[:2].float(), atol=5e-3, rtol=5e-3)


def test_the_vae_decoder_goes_on_alone_under_the_latents_it_had(shop, model):
    before, after = shop.weights("vae"), shop.weights("vae-decoder")
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("decoder.") for key in changed)
    shipped = load_decoder(model.folder, model.config).vae.state_dict()
    assert all(torch.equal(shipped[key], value.half().float()) for key, value in after.items())


def test_the_vae_decoder_learns_what_the_unet_paints(shop):
    """Latents painted in the UNet's own way, in the space of the kept ones, half under written and half under true features."""
    decoder, kept = shop.decoder()
    latents, rows = shop.painted(decoder)
    half = len(rows) // 2
    assert half and rows[:half] == rows[half:] and latents.shape[1:] == kept.shape[1:] and latents.isfinite().all()
    kept_at = shop.folder / f"painted-{shop.pool.digest}.pt"
    kept_at.unlink()
    again, _ = shop.painted(shop.decoder()[0])
    assert torch.equal(again, latents)
    rescaled = shop.decoder()[0]
    rescaled.vae.register_to_config(scaling_factor=2 * decoder.vae.config.scaling_factor)
    kept_at.unlink()
    assert torch.allclose(shop.painted(rescaled)[0].float() * 2, latents.float(), rtol=1e-2, atol=1e-2)
    kept_at.unlink()


@pytest.mark.parametrize("size, said", [("huge", "cpu, further, test"), ("further", "--start")])
def test_a_size_that_cannot_begin_says_what_to_give(tmp_path, size, said):
    with pytest.raises(ValueError, match=said):
        train(tmp_path / "work", size)
    assert not (tmp_path / "work").exists()


def test_weights_shipped_fit_in_the_repository(model):
    size = sum(f.stat().st_size for f in model.folder.rglob("*") if f.is_file())
    assert size < 40e6


@pytest.mark.parametrize("task", ["text", "edit", "boxes"])
@pytest.mark.parametrize("parallel", [False, True])
def test_bulk_writing_equals_the_pipeline(shop, parallel, task):
    """`rollout.write` (training, evaluation) and `generate.write_features` (people) are one algorithm."""
    writer, everything = shop.writer(), plans(shop.pool, shop.tokenizer, 1024)
    at = next(i for i, s in enumerate(shop.pool.samples) if s.task == task)
    bulk = write(writer, shop.config, [everything[at]], shop.features, parallel)[0]
    talk, rows = conversation(shop.pool.samples[at], shop.pool.index)
    talk = shown(talk, shop.features[rows].float())
    talk = replace(talk, turns=(talk.turns[0], replace(talk.turns[1], pictures=(), open_image=True)))
    model = generate.Model(writer.language, writer.projectors, shop.tokenizer, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        one = generate.write_features(model, prompt.build(talk, shop.tokenizer, 1024), mode="parallel" if parallel else "autoregressive")
    assert torch.allclose(bulk, one, atol=1e-4)


def shown(talk, tokens):
    """The conversation with the features of what its user shows."""
    references = tuple(
        replace(r, features=replace(r.features, tokens=t[None])) if r.features else r for r, t in zip(talk.turns[0].references, tokens)
    )
    return replace(talk, turns=(replace(talk.turns[0], references=references), talk.turns[1]))


def test_watching_reports_rolled_out_errors_and_writes_a_sheet(shop, tmp_path):
    watch = Watch(shop.tower, shop.decoder()[0], shop.config, shop.tokenizer, shop.art, each=1, tasks=("text", "name"))
    numbers = watch(shop.writer(), 7, tmp_path)
    assert set(numbers) == {"rolled", "rolled_parallel", "rolled_text"} and all(v > 0 for v in numbers.values())
    assert (tmp_path / "sample-000007.png").stat().st_size > 1000


def test_grouped_keeps_only_samples_that_draw(shop):
    everything = plans(shop.pool, shop.tokenizer, 1024)
    groups = grouped(everything, list(range(len(everything))), 8)
    drawn = {i for i, s in enumerate(shop.pool.samples) if s.turns[-1].picture is not None}
    assert {i for g in groups for i in g} == drawn
    assert all(len({everything[i].pictures[-1][0] for i in g}) == 1 for g in groups)


@pytest.mark.slow
def test_training_again_from_nothing_gives_the_same_weights(shop, model, tmp_path):
    again = Workshop(tmp_path, "test", Runtime("cpu"), art=shop.art)
    for name in STAGES[:-1]:
        again.train(name)
    made = again.export(tmp_path / "out")
    files = sorted(p.relative_to(model.folder) for p in model.folder.rglob("*.safetensors"))
    assert len(files) == 6
    for name in files:
        assert (made / name).read_bytes() == (model.folder / name).read_bytes(), name
