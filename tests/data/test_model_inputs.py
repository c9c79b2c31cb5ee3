"""What a model is shown of samples: one place decides it, and it is what people's pictures go through too."""

import dataclasses

import numpy as np
import pytest
import torch
from wegen.wegen_model.chat.conversation import Box, Conversation, Reference
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.checkpoint.model_folder import read_config
from wegen.wegen_model.data.model_inputs import KeyedPicture, ShownPicture, look, model_inputs, target_pixels
from wegen.wegen_model.data.sample import Sample, Turn
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.train.encoders import EncodedPictures, tower_features
from wegen.wegen_model.train.modules import load
from wegen.wegen_model.train.presets import PRESETS
from wegen.wegen_model.train.stages import make_task


def picture(seed: int = 0) -> np.ndarray:
    """A coloured thing on white, wider than high."""
    out = np.full((60, 100, 3), 255, np.uint8)
    out[20:50, 30:80] = np.random.default_rng(seed).integers(0, 200, (30, 50, 3), np.uint8)
    return out


BOX = Box(0.5, 0.25, 0.5, 0.5)
ASKED = Turn("user", "put <image_1> at <bbox_1>", (picture(),), (BOX,))


def test_a_boxed_reference_is_shown_in_training_as_the_pipeline_shows_it():
    components = load("wegen-mini", "stage-1", decoder=False)
    sample = Sample("subject", (ASKED, Turn("assistant", "", drawn=picture(1))), "one")
    shown = model_inputs([sample], components.config, components.need_tokenizer(), np.random.default_rng(0))
    trained = tower_features(components, look(shown.pictures, components.config))[0]
    model = WeGen.load("wegen-mini")
    talk = Conversation().user(ASKED.text, (Reference(torch.from_numpy(picture())[None].float() / 255, box=BOX),))
    used = model.encode_references(talk).turns[0].references[0].features.tokens[0]
    assert (trained - used).abs().max() < 0.02 * used.std()  # the pipeline does not round to 8 bits on the way
    whole = model.encode(torch.from_numpy(picture())[None].float() / 255).tokens[0]
    assert (whole - used).abs().max() > used.std()  # and laying it matters


def test_a_picture_without_a_box_keeps_its_proportions_in_training_as_in_the_pipeline():
    components = load("wegen-mini", "stage-1", decoder=False)
    asked = Turn("user", "<image_1> on red", (picture(),), (None,))
    sample = Sample("subject", (asked, Turn("assistant", "", drawn=picture(1))), "one")
    shown = model_inputs([sample], components.config, components.need_tokenizer(), np.random.default_rng(0), size=64)
    assert (shown.target_pixels[0, :10] == 255).all() and (shown.target_pixels[0, 30, 20] < 210).any(), "painted with bars too"
    trained = tower_features(components, look(shown.pictures, components.config))[0]
    model, image = WeGen.load("wegen-mini"), torch.from_numpy(picture())[None].float() / 255
    used = model.encode_references(Conversation().user(asked.text, (Reference(image),))).turns[0].references[0].features.tokens[0]
    assert (trained - used).abs().max() < 0.02 * used.std()
    assert (model.encode(image).tokens[0] - used).abs().max() > used.std()
    with pytest.raises(ValueError, match="turn 1, image_1: the picture is transparent everywhere"):
        model.encode_references(Conversation().user(asked.text, (Reference(torch.zeros(1, 8, 8, 4)),)))


def test_the_tower_sees_the_squashed_picture_and_the_decoder_paints_it_squashed_or_its_middle(tiny):
    config = read_config(tiny)
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255
    pixels = ShownPicture(wide).pixels(config)[0].movedim(0, -1) * torch.tensor(config.vision.std) + torch.tensor(config.vision.mean)
    assert pixels[:, 0].max() < 0.1 and pixels[config.vision.image_size // 2, config.vision.image_size // 2].min() > 0.9
    squashed, middle = target_pixels(wide, 16), target_pixels(wide, 16, crop=True)
    assert squashed[:, 0].max() < 20 and squashed[8, 8].min() > 240 and middle.min() > 240


def test_size_numbers_are_those_of_the_picture_that_is_painted(tiny):
    sample = Sample("editing", (Turn("user", "a fox"), Turn("assistant", "", drawn=picture())), "one")
    config, tokenizer, rng = read_config(tiny), Tokenizer.load(tiny), np.random.default_rng(0)
    shown = model_inputs([sample], config, tokenizer, rng, size=64)
    assert shown.size_ids.tolist() == [[64, 64, 0, 0, 64, 64]] and shown.target_pixels.shape == (1, 64, 64, 3)
    assert model_inputs([sample], config, tokenizer, rng, size=64, time_ids_kind="zeros").size_ids.tolist() == [[0] * 6]
    assert model_inputs([sample], config, tokenizer, rng).target_pixels is None


def test_a_sample_too_long_for_the_model_is_left_out_and_named(tiny):
    config = read_config(tiny)
    config = dataclasses.replace(config, language=dataclasses.replace(config.language, positions=200))
    samples = [Sample("understanding", (Turn("user", "who? " * n), Turn("assistant", "me.")), f"k{n}") for n in (1, 200)]
    shown = model_inputs(samples, config, Tokenizer.load(tiny), np.random.default_rng(0))
    assert shown.keys == ["k1"] and "tokens" in shown.skipped["sample k200"]
    with pytest.raises(ValueError, match="no sample of the batch can be shown to the model.*k200"):
        model_inputs(samples[1:], config, Tokenizer.load(tiny), np.random.default_rng(0))


def test_pictures_with_a_key_are_encoded_once(tiny):
    made = []

    def keyed(name: str, seed: int) -> ShownPicture:
        return ShownPicture(KeyedPicture(name, lambda: made.append(name) or picture(seed)))

    components = load(tiny, "visual-decoding")
    encoded = EncodedPictures(components, 32, torch.float32)
    first = encoded.features([keyed("a", 1), ShownPicture(picture(2)), keyed("b", 3), keyed("a", 1)])
    again = encoded.features([keyed("b", 3), keyed("a", 1)])
    assert made == ["a", "b"] and torch.equal(again, first[[2, 3]]) and torch.equal(first[0], first[3])
    plain = tower_features(components, look([ShownPicture(picture(s)) for s in (1, 2, 3)], components.config))
    assert torch.allclose(first[:3], plain, atol=1e-5)
    assert encoded.latents([keyed("a", 1)]).shape[0] == 1 and made == ["a", "b", "a"]


def test_a_stage_with_known_features_has_the_loss_of_one_without(tiny):
    class One:
        def samples(self, step, index, count, each):
            turns = (Turn("user", "a fox"), Turn("assistant", "", drawn=KeyedPicture("a", picture)))
            return [Sample("text-to-picture", turns, "one")]

    losses = []
    for cache in (False, True):
        s = dataclasses.replace(PRESETS["mini"]["stage-1"], batch=1, cache=cache, diffusion_weight=0.0)
        task = make_task("stage-1", load(tiny, "stage-1", decoder=False), One(), s)
        task.prepare(torch.device("cpu"))
        shares = {"words": 1.0, "written": 1.0}
        losses.append(task.loss(task.micro_batch(0, 0, 1), torch.Generator().manual_seed(0), shares)["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # kept as float16


def test_training_sees_the_exchanges_that_a_prompt_carries():
    components = load("wegen-mini", "stage-1", decoder=False)
    assert components.config.memory == 1
    turns = tuple(t for k in range(3) for t in (Turn("user", f"on {k}"), Turn("assistant", "", drawn=picture(k))))
    shown = [
        model_inputs([Sample("editing", part, "x")], components.config, components.need_tokenizer(), np.random.default_rng(0))
        for part in (turns, turns[2:])
    ]
    assert len(shown[0].pictures) == 2 and torch.equal(shown[0].batch.ids, shown[1].batch.ids)
