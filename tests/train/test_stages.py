"""The three stages on a tiny model: what is trained, what is shown, and what each batch may lack."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from wegen.tests.support import tiny_model
from wegen.wegen_model.data.sample import Sample, Turn
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.flops import estimate
from wegen.wegen_model.train.losses import drop_conditions
from wegen.wegen_model.train.modules import load
from wegen.wegen_model.train.sample_images import sheet
from wegen.wegen_model.train.settings import PRESETS
from wegen.wegen_model.train.stages.decoder import decoding_stage
from wegen.wegen_model.train.stages.language import make_talk, writing_stage
from wegen.wegen_model.train.trainer import run

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


def make(folder, name: str, samples, parts_per_step: int = 1, **changes):
    s = dataclasses.replace(MINI[name], **({"steps": 20, "batch": len(samples), "unconditional": 0.0, "parallel": 0.0} | changes))
    parts = load(folder, name)
    build = decoding_stage if name == "visual-decoding" else lambda *a, **k: writing_stage(name, *a, **k)
    stage = build(parts, Fixed(samples), s, parts_per_step, parts_per_step)
    stage.place(torch.device("cpu"))
    return stage, parts


def gradients(stage) -> dict[str, bool]:
    """Parameter -> does one step's gradient reach it?"""
    piece = stage.piece(0, 0, 1)
    stage.loss(piece, torch.Generator().manual_seed(0), {"words": 1.0, "written": 1.0, "pictures": 1.0})["loss"].backward()
    return {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in stage.model.named_parameters() if p.requires_grad}


def untouched(parts, *modules: str) -> list[str]:
    whole = {
        "tower": parts.tower,
        "unet": parts.decoder.unet,
        "vae": parts.decoder.vae,
        "language": parts.writer.language if parts.writer else None,
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
    stage, parts = make(folder, name, talk_of("draw", "edit", "see"), drop=0.0)
    reached = gradients(stage)
    assert {key.split(".")[0] for key in reached} == trained
    lacking = [key for key, good in reached.items() if not good]
    assert lacking == [], "no gradient"
    assert untouched(parts, *frozen) == []


@pytest.mark.parametrize(
    "name, trained, frozen",
    [("visual-decoding", "layers", ["tower", "vae", "unet"]), ("stage-1", "adapters", ["tower", "vae", "unet", "language"])],
)
def test_with_lora_only_adapters_and_projectors_are_trained(folder, name, trained, frozen):
    stage, parts = make(folder, name, talk_of("draw", "edit"), lora=4, drop=0.0)
    reached = gradients(stage)
    assert {key.split(".")[0] for key in reached} == {trained} | ({"projectors"} if name == "stage-1" else set())
    # B starts at zero, so the first gradient reaches B alone
    assert all(good == (not key.endswith("down")) for key, good in reached.items())
    assert untouched(parts, *frozen) == []


@pytest.mark.parametrize("kinds", [("text", "text"), ("see", "see"), ("text", "see"), ("draw",)])
def test_batches_without_drawn_pictures_or_without_any(folder, kinds):
    stage, _ = make(folder, "stage-1", talk_of(*kinds))
    piece = stage.piece(0, 0, 1)
    out = stage.loss(piece, torch.Generator().manual_seed(0), {"words": 1.0, "written": 1.0})
    out["loss"].backward()
    assert torch.isfinite(out["loss"]) and out["words"] > 0
    assert (out["mse"] > 0) == (out["diffusion"] > 0) == ("draw" in kinds)
    # other processes may have pictures: every parameter has a gradient, zero where there is nothing to learn
    assert [name for name, p in stage.model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_the_loss_is_the_weighted_sum_of_its_parts(folder):
    samples, generator = talk_of("draw", "see"), lambda: torch.Generator().manual_seed(3)
    shares = {"words": 1.0, "written": 1.0}
    weights = dict(language_weight=0.5, mse_weight=2.0, cosine_weight=3.0, diffusion_weight=0.25)
    stage, _ = make(folder, "stage-1", samples, **weights)
    out = stage.loss(stage.piece(0, 0, 1), generator(), shares)
    expected = 0.5 * out["words"] + 2 * out["mse"] + 3 * out["cosine"] + 0.25 * out["diffusion"]
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_pieces_give_the_loss_and_the_weights_of_the_whole_batch(folder, tmp_path):
    """However unevenly words and pictures lie: means run over all items of all pieces."""
    samples = talk_of("draw", "rewrite", "see", "text")
    results = []
    for pieces in (1, 2, 4):
        stage, _ = make(folder, "stage-1", samples, pieces, steps=3, warmup=1, log_every=1, diffusion_weight=0.0)
        run(stage, tmp_path / str(pieces), CPU, alone=True)
        results.append(torch.cat([p.detach().flatten() for p in stage.model.parameters()]))
    assert torch.allclose(results[0], results[1], atol=2e-5) and torch.allclose(results[0], results[2], atol=2e-5)


def test_what_is_shown_of_a_conversation(folder):
    _, parts = make(folder, "stage-1", talk_of("draw"))
    t, n = parts.tokenizer, parts.config.features.count
    s = dataclasses.replace(MINI["stage-1"], unconditional=1.0, parallel=1.0, rewrite=1.0)
    talk = make_talk(parts, talk_of("rewrite", "edit", "text"), s, np.random.default_rng(0))
    assert talk.batch.ids.shape[0] == 5  # two written pictures bring <img> and their features along
    for row in (3, 4):
        assert talk.batch.ids[row, : n + 2].tolist() == [t.image_start, *range(t.image_first, t.image_first + n), t.image_end]
        assert (talk.batch.labels[row] == -100).all()
    assert len(talk.seen) == 5 and talk.batch.written.tolist() == [True, False, True, True, True]
    assert talk.blank.tolist() == [True, False, True, True, True] and len(talk.painted) == 4
    assert torch.equal(talk.seen[0], talk.seen[3]) and torch.equal(talk.seen[2], talk.seen[4])
    words = t.decode([i for i in talk.batch.labels[0].tolist() if i >= 0 and i < 259])
    assert "red fox in the snow" in words
    bare = make_talk(parts, talk_of("rewrite"), dataclasses.replace(s, rewrite=0.0, unconditional=0.0), np.random.default_rng(0))
    assert "snow" not in t.decode([i for i in bare.batch.ids[0].tolist() if i < 259])
    assert t.image_start in bare.batch.labels[0].tolist()  # opening the picture is still learned


def test_parallel_writing_never_sees_the_picture(folder):
    """Blank pictures are predicted from placeholders: their own pixels change the target, never the prediction."""

    def guesses(seed, parallel):
        samples = [Sample("editing", (Turn("user", "a fox"), Turn("assistant", "", drawn=drawing(seed))), "one")]
        stage, parts = make(folder, "stage-1", samples, parallel=parallel, diffusion_weight=0.0)
        from wegen.wegen_model.data.collate import embed, predictions
        from wegen.wegen_model.train.stages.decoder import tower_tokens

        talk = stage.piece(0, 0, 1)
        true = tower_tokens(parts, talk.seen)
        language, projectors = parts.writer.language, parts.writer.projectors
        hidden = language(embed(language, projectors, talk.batch, true, talk.blank))
        return predictions(projectors, hidden, talk.batch, parts.config.features.count)

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
    parts = load("wegen-mini", "stage-1")
    s = dataclasses.replace(MINI["stage-1"], steps=20, batch=2, warmup=2, log_every=1, learning_rate=1e-3, unconditional=0, parallel=0)
    seen = []
    stage = writing_stage("stage-1", parts, Fixed(samples), s, 1)
    inner = stage.loss

    def loss(*args):
        out = inner(*args)
        seen.append({k: float(v.detach()) for k, v in out.items()})
        return out

    stage.loss = loss
    run(stage, tmp_path, CPU)
    assert seen[-1]["mse"] < 0.5 * seen[0]["mse"] and seen[-1]["cosine"] < 0.5 * seen[0]["cosine"]
    assert seen[0]["diffusion"] > 0 and seen[-1]["loss"] < seen[0]["loss"]


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("name", REACH)
def test_a_run_counts_the_work_that_the_estimate_foretells(folder, name, lora):
    stage, parts = make(folder, name, talk_of("edit"), lora=lora)
    work = stage.work(stage.piece(0, 0, 1))
    s = dataclasses.replace(MINI[name], steps=1, batch=1, lora=lora)
    told = estimate(parts.config, name, s, 1, 1e12, 1.0, tokens=int(work.get("tokens", 0)), written=1, pictures=2)
    assert work["flops"] == pytest.approx(float(re.search(r"= (\S+) FLOP", told)[1]), rel=0.005)


def test_talk_without_pictures_is_left_out_of_painting_and_of_sample_sheets(folder):
    stage, parts = make(folder, "visual-decoding", talk_of("text", "draw"))
    piece = stage.piece(0, 0, 1)
    assert len(piece.painted) == 1 and piece.skipped == {"sample text-0": "it has no picture to paint"}
    stage, _ = make(folder, "visual-decoding", talk_of("text"))
    with pytest.raises(ValueError, match="learns from pictures, and none of a batch of the data has one .text-0.. Name sources with pict"):
        stage.piece(0, 0, 1)
    with pytest.raises(ValueError, match="--sample-every: none of the first samples of --data draws a picture"):
        sheet(parts, Fixed(talk_of("text", "see")), "stage-1")
    assert sheet(parts, Fixed(talk_of("text", "edit", "draw")), "stage-1")
