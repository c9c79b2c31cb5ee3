"""Decoder presets: the unconditional input, size numbers and guidance of WeGen's, Emu2's and BLIP3-o's inference."""

import dataclasses

import pytest
import torch
from wegen.tests.nodes.conftest import call
from wegen.tests.support import tiny_config, tiny_model
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.checkpoint.formats import inference_presets
from wegen.wegen_model.config import NEGATIVES, TIME_IDS
from wegen.wegen_model.models.eva_clip import prepare
from wegen.wegen_model.pipeline import WeGen, WeGenDecoder
from wegen.wegen_model.runtime import Runtime


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """The tiny model's decoder without its tower."""
    return convert(tiny, tmp_path_factory.mktemp("decoders") / "alone", parts=["unet", "vae"]).path


@pytest.fixture(scope="module")
def model(tiny):
    return WeGen.load(tiny, runtime=Runtime("cpu"))


@pytest.fixture(scope="module")
def features(model):
    return model.features(torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0)))


def test_a_blank_picture_is_zero_once_normalised(model):
    size = model.config.vision.image_size
    picture = torch.tensor(model.config.vision.mean).expand(1, size, size, 3)
    assert prepare(picture, model.config.vision).abs().max() < 1e-6
    zero = model.component("vision").module(torch.zeros(1, 3, size, size))
    assert torch.allclose(model.blank().tokens, zero, atol=1e-5)  # 8x8 patches: pooling passes them through


@pytest.mark.parametrize("name", inference_presets())
def test_a_preset_is_its_four_settings(alone, model, features, name):
    decoder, plain = (WeGenDecoder.load(alone, Runtime("cpu"), preset=p, blank=model.blank) for p in (name, None))
    values = inference_presets()[name].settings()
    assert values["guidance_scale"] == {"wegen": 6, "emu2": 3, "blip3o": 3}[name]
    assert values["negative"] in NEGATIVES and values["time_ids"] in TIME_IDS
    negative = model.blank() if values["negative"] == "blank" else "zeros"
    by_hand = plain.decode(
        features, steps=2, guidance_scale=values["guidance_scale"], negative=negative, time_ids=values["time_ids"], width=48
    )
    assert torch.equal(decoder.decode(features, steps=2, width=48), by_hand)
    other = plain.decode(
        features,
        steps=2,
        guidance_scale=values["guidance_scale"],
        width=48,
        negative="zeros" if values["negative"] == "blank" else model.blank(),
    )
    assert (other - by_hand).abs().max() > 1e-3


def test_size_numbers(alone):
    decoder = WeGenDecoder.load(alone, Runtime("cpu"))._load()
    rows = {kind: decoder.time_ids(24, 40, 2, torch.device("cpu"), kind)[1].tolist() for kind in TIME_IDS}
    assert rows == {"size": [24, 40, 0, 0, 24, 40], "trained": [32, 32, 0, 0, 24, 40], "zeros": [0] * 6}
    with pytest.raises(ValueError, match="time_ids is 'none'; choose size, trained, zeros"):
        decoder.time_ids(8, 8, 1, torch.device("cpu"), "none")


def test_a_folder_with_a_tower_makes_its_own_blank_picture(tmp_path, features, model):
    config = tiny_config()
    folder = tiny_model(tmp_path / "both", decoder=dataclasses.replace(config.decoder, negative="blank"))
    decoder = WeGenDecoder.load(folder, Runtime("cpu"))
    painted = decoder.decode(features, steps=2)
    assert torch.equal(painted, decoder.decode(features, steps=2, negative=WeGen.load(folder).blank()))
    assert torch.equal(painted, WeGen.load(folder).decode(features, steps=2))
    assert not torch.equal(painted, decoder.decode(features, steps=2, negative="zeros"))


def test_what_cannot_be_the_unconditional_input(alone, features):
    decoder = WeGenDecoder.load(alone, Runtime("cpu"), preset="emu2")
    for negative, error in (
        (None, "guided against the features of a blank picture, and its folder has no tower"),
        ("black", "its unconditional input is 'black'; known are zeros, blank"),
        (dataclasses.replace(features, space="other"), "negative_features: the features are of the space 'other'"),
        (dataclasses.replace(features, tokens=features.tokens * torch.nan), "negative_features: 2048 of the features"),
    ):
        with pytest.raises(ValueError, match=error):
            decoder.decode(features, steps=1, negative=negative)
    assert decoder.decode(features, steps=1, guidance_scale=1).isfinite().all()  # nothing to push away from
    with pytest.raises(ValueError, match="decoder preset 'sdxl' is not one of wegen, emu2, blip3o"):
        WeGenDecoder.load(alone, preset="sdxl")


def test_the_nodes_show_and_override_it(alone, tiny, features):
    (decoder,), shown = call("WeGenLoadDecoder", decoder=str(alone))
    assert "inference preset wegen: guidance 2 against zeros, 3 steps of EulerDiscreteScheduler" in shown[0]
    (emu2,), shown = call("WeGenLoadDecoder", decoder=str(alone), preset="emu2")
    assert "inference preset emu2: guidance 3 against the features of a blank picture (all zero once normalised), 50 steps" in shown[0]
    (model,), _ = call("WeGenLoadModel", model=str(tiny))
    few = dict(features=features, use_defaults=False, steps=2)
    with pytest.raises(ValueError, match="Connect the model to negative_features"):
        call("WeGenDecode", decoder=emu2, **few)
    (by_model,), _ = call("WeGenDecode", decoder=emu2, negative_features=model, **few)
    (by_features,), _ = call("WeGenDecode", decoder=emu2, negative_features=model.blank(), **few)
    (zeros,), _ = call("WeGenDecode", decoder=emu2, negative="zeros", negative_features=model, **few)
    (own,), _ = call("WeGenDecode", decoder=model, negative="blank picture", time_ids="trained", **few)
    assert torch.equal(by_model, by_features) and torch.equal(by_model, own) and not torch.equal(by_model, zeros)
    assert torch.equal(zeros, call("WeGenDecode", decoder=decoder, **few)[0][0])
