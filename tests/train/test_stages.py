"""The three stages on a tiny model: what is trained, what is shown, and what each batch may lack."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from wegen.tests.support import tiny_model
from wegen.wegen_model.data.model_inputs import look
from wegen.wegen_model.data.sample import Sample, Turn
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.flops import estimate
from wegen.wegen_model.train.losses import drop_conditions
from wegen.wegen_model.train.modules import load
from wegen.wegen_model.train.presets import PRESETS
from wegen.wegen_model.train.sample_images import SampleImages
from wegen.wegen_model.train.stages import make_task
from wegen.wegen_model.train.stages.language import inputs_of
from wegen.wegen_model.train.trainer import train

CPU = Runtime("cpu")
MINI = PRESETS["mini"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def drawing(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (20, 24, 3), np.uint8)


def talk_of(*kinds: str) -> list[Sample]:
    made = {
        "draw": (Turn("user", "a fox"), Turn("assistant", "", drawn=drawing(1))),
        "rewrite": (Turn("user", "a fox"), Turn("assistant", "A red fox in the snow.", drawn=drawing(2))),
        "edit": (Turn("user", "make <image_1> blue", (drawing(3),), (None,)), Turn("assistant", "", drawn=drawing(4))),
        "see": (Turn("user", "what is <image_1>?", (drawing(5),), (None,)), Turn("assistant", "a fox")),
        "text": (Turn("user", "hello"), Turn("assistant", "hi there")),
    }
    return [Sample("editing", made[kind], f"{kind}-{i}") for i, kind in enumerate(kinds)]


class Fixed:
    """A source: the same samples in pieces."""

    def __init__(self, samples):
        self.all = samples

    def samples(self, step, part, parts, count):
        return self.all[part * count : (part + 1) * count]


def make(folder, name: str, samples, **changes):
    s = dataclasses.replace(MINI[name], **({"steps": 20, "batch": len(samples), "unconditional": 0.0, "parallel": 0.0} | changes))
    components = load(folder, name)
    task = make_task(name, components, Fixed(samples), s)
    task.prepare(torch.device("cpu"))
    return task, components


SHARES = {"words": 1.0, "written": 1.0, "pictures": 1.0}


def gradients(task) -> dict[str, bool]:
    """Parameter -> does one step's gradient reach it?"""
    task.loss(task.micro_batch(0, 0, 1), torch.Generator().manual_seed(0), SHARES)["loss"].backward()
    return {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in task.model.named_parameters() if p.requires_grad}


def untouched(components, *modules: str) -> list[str]:
    whole = {
        "tower": components.tower,
        "unet": components.decoder.unet,
        "vae": components.decoder.vae,
        "language": components.writer.language if components.writer else None,
    }
    return [f"{m}.{name}" for m in modules for name, p in whole[m].named_parameters() if p.grad is not None or p.requires_grad]


# what each stage trains: its modules, and how many of their tensors one step reaches
REACH = {
    "visual-decoding": ({"unet"}, ["tower", "vae"]),
    "stage-1": ({"language", "projectors"}, ["tower", "vae", "unet"]),
    "stage-2": ({"language", "projectors"}, ["tower", "vae", "unet"]),
}


@pytest.mark.parametrize("name", REACH)
def test_gradients_reach_exactly_what_the_stage_trains(folder, name):
    trained, frozen = REACH[name]
    task, components = make(folder, name, talk_of("draw", "edit", "see"), condition_dropout=0.0)
    reached = gradients(task)
    assert {key.split(".")[0] for key in reached} == trained
    lacking = [key for key, good in reached.items() if not good]
    assert lacking == [], "no gradient"
    assert untouched(components, *frozen) == []


@pytest.mark.parametrize(
    "name, trained, frozen",
    [("visual-decoding", "layers", ["tower", "vae", "unet"]), ("stage-1", "adapters", ["tower", "vae", "unet", "language"])],
)
def test_with_lora_only_adapters_and_projectors_are_trained(folder, name, trained, frozen):
    task, components = make(folder, name, talk_of("draw", "edit"), lora=4, condition_dropout=0.0)
    reached = gradients(task)
    assert {key.split(".")[0] for key in reached} == {trained} | ({"projectors"} if name == "stage-1" else set())
    # B starts at zero, so the first gradient reaches B alone
    assert all(good == (not key.endswith("down")) for key, good in reached.items())
    assert untouched(components, *frozen) == []


@pytest.mark.parametrize("kinds", [("text", "text"), ("see", "see"), ("text", "see"), ("draw",)])
def test_batches_without_drawn_pictures_or_without_any(folder, kinds):
    task, _ = make(folder, "stage-1", talk_of(*kinds))
    batch = task.micro_batch(0, 0, 1)
    out = task.loss(batch, torch.Generator().manual_seed(0), SHARES)
    out["loss"].backward()
    assert torch.isfinite(out["loss"]) and out["words"] > 0
    assert (out["mse"] > 0) == (out["diffusion"] > 0) == ("draw" in kinds)
    # other processes may have pictures: every parameter has a gradient, zero where there is nothing to learn
    assert [name for name, p in task.model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_loss_is_the_weighted_sum_of_its_parts(folder):
    samples, generator = talk_of("draw", "see"), lambda: torch.Generator().manual_seed(3)
    weights = dict(language_weight=0.5, mse_weight=2.0, cosine_weight=3.0, diffusion_weight=0.25)
    task, _ = make(folder, "stage-1", samples, **weights)
    out = task.loss(task.micro_batch(0, 0, 1), generator(), SHARES)
    expected = 0.5 * out["words"] + 2 * out["mse"] + 3 * out["cosine"] + 0.25 * out["diffusion"]
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_pieces_give_the_loss_and_the_weights_of_the_whole_batch(folder, tmp_path):
    """However unevenly words and pictures lie: means run over all items of all pieces."""
    samples = talk_of("draw", "rewrite", "see", "text")
    results = []
    for pieces in (1, 2, 4):
        task, _ = make(folder, "stage-1", samples, steps=3, warmup=1, log_every=1, diffusion_weight=0.0)
        train(task, tmp_path / str(pieces), CPU, alone=True, accumulate=pieces)
        results.append(torch.cat([p.detach().flatten() for p in task.model.parameters()]))
    assert torch.allclose(results[0], results[1], atol=2e-5) and torch.allclose(results[0], results[2], atol=2e-5)


def test_what_is_shown_of_a_conversation(folder):
    _, components = make(folder, "stage-1", talk_of("draw"))
    t, n = components.tokenizer, components.config.features.count
    s = dataclasses.replace(MINI["stage-1"], unconditional=1.0, parallel=1.0, keep_caption_prob=1.0)
    shown = inputs_of(talk_of("rewrite", "edit", "text"), components.config, t, s, 0, 0)
    assert shown.batch.ids.shape[0] == 5  # two written pictures bring <img> and their features along
    for row in (3, 4):
        assert shown.batch.ids[row, : n + 2].tolist() == [t.image_start, *range(t.image_first, t.image_first + n), t.image_end]
        assert (shown.batch.labels[row] == -100).all()
    assert len(shown.pictures) == 5 and shown.batch.written.tolist() == [True, False, True, True, True]
    assert shown.blank.tolist() == [True, False, True, True, True] and len(shown.target_pixels) == len(shown.size_ids) == 4
    pixels = look(shown.pictures, components.config)
    assert torch.equal(pixels[0], pixels[3]) and torch.equal(pixels[2], pixels[4])
    assert shown.size_ids[0].tolist() == [32, 32, 0, 0, 32, 32]
    words = t.decode([i for i in shown.batch.labels[0].tolist() if i >= 0 and i < 259])
    assert "red fox in the snow" in words
    bare = inputs_of(talk_of("rewrite"), components.config, t, dataclasses.replace(s, keep_caption_prob=0.0, unconditional=0.0), 0, 0)
    assert "snow" not in t.decode([i for i in bare.batch.ids[0].tolist() if i < 259])
    assert t.image_start in bare.batch.labels[0].tolist()  # opening the picture is still learned


def test_parallel_writing_never_sees_the_picture(folder):
    """Blank pictures are predicted from placeholders: their own pixels change the target, never the prediction."""

    def guesses(seed, parallel):
        samples = [Sample("editing", (Turn("user", "a fox"), Turn("assistant", "", drawn=drawing(seed))), "one")]
        task, components = make(folder, "stage-1", samples, parallel=parallel, diffusion_weight=0.0)
        from wegen.wegen_model.data.collate import embed, predictions
        from wegen.wegen_model.train.encoders import tower_features

        shown = task.micro_batch(0, 0, 1).inputs
        true = tower_features(components, shown.tower_pixels)
        language, projectors = components.writer.language, components.writer.projectors
        hidden = language(embed(language, projectors, shown.batch, true, shown.blank))
        return predictions(projectors, hidden, shown.batch, components.config.features.count, true)

    assert torch.equal(guesses(1, 1.0), guesses(2, 1.0))
    assert torch.equal(guesses(1, 0.0)[:, 0], guesses(2, 0.0)[:, 0]) and not torch.equal(guesses(1, 0.0)[:, 1:], guesses(2, 0.0)[:, 1:])


def test_a_tenth_of_the_conditions_is_zeros():
    tokens = torch.ones(4000, 2, 3)
    dropped = drop_conditions(tokens, 0.1, torch.Generator().manual_seed(0)).sum((1, 2)) == 0
    assert 0.08 < dropped.float().mean() < 0.12


def test_the_loss_of_the_miniature_falls_on_the_path_that_trains_wegen_7b(tmp_path):
    """The bundled weights learn pictures that they cannot know yet."""
    samples = [
        Sample("text-to-picture", (Turn("user", f"a cat on a {c} background"), Turn("assistant", "", drawn=p)), c)
        for c, p in (("red", drawing(1)), ("blue", drawing(2)))
    ]
    components = load("wegen-mini", "stage-1")
    s = dataclasses.replace(MINI["stage-1"], steps=20, batch=2, warmup=2, log_every=1, learning_rate=1e-3, unconditional=0, parallel=0)
    train(make_task("stage-1", components, Fixed(samples), s), tmp_path, CPU)
    seen = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert seen[-1]["mse"] < 0.5 * seen[0]["mse"] and seen[-1]["cosine"] < 0.5 * seen[0]["cosine"]
    assert seen[0]["diffusion"] > 0 and seen[-1]["loss"] < seen[0]["loss"]


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("name", REACH)
def test_a_run_counts_the_work_that_the_estimate_foretells(folder, name, lora):
    task, components = make(folder, name, talk_of("edit"), lora=lora)
    work = task.work(task.micro_batch(0, 0, 1))
    s = dataclasses.replace(MINI[name], steps=1, batch=1, lora=lora)
    told = estimate(components.config, name, s, 1, 1e12, 1.0, tokens=int(work.get("tokens", 0)), written=1, pictures=2)
    assert work["flops"] == pytest.approx(float(re.search(r"= (\S+) FLOP", told)[1]), rel=0.005)


def test_talk_without_pictures_is_left_out_of_painting_and_of_sample_sheets(folder):
    task, components = make(folder, "visual-decoding", talk_of("text", "draw"))
    batch = task.micro_batch(0, 0, 1)
    assert len(batch) == 1 and batch.skipped == {"sample text-0": "it has no picture to paint"}
    task, _ = make(folder, "visual-decoding", talk_of("text"))
    with pytest.raises(ValueError, match="learns from pictures, and none of a batch of the data has one .text-0.. Name sources with pict"):
        task.micro_batch(0, 0, 1)
    with pytest.raises(ValueError, match="--sample-every: none of the first samples of --data draws a picture"):
        SampleImages(components, Fixed(talk_of("text", "see")), "stage-1")
    images = SampleImages(components, Fixed(talk_of("text", "edit", "draw")), "stage-1")
    assert {sample.key for sample in images.samples} == {"edit-1", "draw-2"}


@pytest.mark.parametrize(
    "name, change", [("stage-1", {"own_latents": 0.5}), ("visual-decoding", {"feedback_own": 0.5}), ("vae", {"lora": 4})]
)
def test_a_setting_that_a_stage_does_not_read_is_refused(folder, name, change):
    s = dataclasses.replace(MINI["stage-1"], batch=2, **change)
    with pytest.raises(ValueError, match=f"--set {next(iter(change))}=.*: {name} does not read it; it is for"):
        make_task(name, load(folder, name), Fixed([]), s)
