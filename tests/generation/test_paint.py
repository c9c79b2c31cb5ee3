"""Painting: one function, by which the decoder's own settings hold wherever features become pictures."""

import dataclasses

import pytest
import torch
from wegen.tests.support import tiny_config, tiny_model
from wegen.wegen_model.generation import paint
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.modules import Components
from wegen.wegen_model.train.sample_images import paint as sample_sheet


@pytest.fixture(scope="module")
def wegen(tmp_path_factory):
    """Its decoder is guided against a blank picture."""
    decoder = dataclasses.replace(tiny_config().decoder, negative="blank", time_ids="trained")
    return WeGen.load(tiny_model(tmp_path_factory.mktemp("paint") / "m", decoder=decoder), runtime=Runtime("cpu", torch.float32))


@pytest.fixture(scope="module")
def features(wegen):
    return wegen.features(torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0)))


def test_the_pipeline_paints_with_it(wegen, features):
    decoder, blank = wegen.painter._load(), wegen.blank().tokens
    expected = wegen.decode(features, seed=3)
    made = paint.paint(decoder, features.tokens, seed=3, negative=blank)
    assert torch.equal(made, expected) and made.shape == (2, 32, 32, 3)
    latents = paint.latents(decoder, features.tokens, seed=3, negative=blank)
    assert torch.equal(paint.pictures(decoder, latents), expected)
    assert not torch.equal(paint.paint(decoder, features.tokens, seed=3), expected), "zeros are another negative"
    wide = paint.paint(decoder, features.tokens, seed=3, negative=blank, width=48, steps=2, guidance_scale=1.5, time_ids="size")
    assert torch.equal(wide, wegen.decode(features, seed=3, width=48, steps=2, guidance_scale=1.5, time_ids="size"))


def test_sample_sheets_paint_as_people_will(wegen, features):
    """With the decoder's guidance, its blank picture and its size numbers."""
    parts = Components(wegen.config, wegen.component("vision").module, wegen.painter._load())
    assert torch.equal(sample_sheet(parts, features.tokens, steps=3, seed=3), wegen.decode(features, seed=3))
