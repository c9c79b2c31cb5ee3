"""Edits of which the rest stays: pixels, features and the mask together."""

import pytest
import torch
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model.chat.conversation import Conversation, Reference
from wegen.wegen_model.edit_pipeline import TOUCHED, edit
from wegen.wegen_model.generation import change_mask
from wegen.wegen_model.pipeline import WeGen


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return WeGen.load(tiny_model(tmp_path_factory.mktemp("edit") / "tiny"))


def asked(model, original):
    return model.chat(Conversation().user("<image_1> a hat", (Reference(picture=original),)), picture="always", max_tokens=4)


def box(height, width):
    mask = torch.zeros(1, height, width)
    mask[:, : height // 2, : width // 2] = 1
    return mask


@pytest.mark.parametrize("size", [(32, 32), (90, 61), (4, 4)])
def test_with_a_mask_pixels_and_features_outside_are_the_originals(model, size):
    original, mask = picture(size[1], size[0]), box(*size)
    made = edit(model, asked(model, original), original, mask, seed=2)
    outside = mask[0] == 0
    assert made.image.shape == original.shape and torch.equal(made.image[0][outside], original[0][outside])
    before = model.encode(original).tokens[0].reshape(8, 8, -1)
    written = made.features.tokens[0].reshape(8, 8, -1)
    assert torch.equal(written[4:], before[4:]) and torch.equal(written[:, 4:], before[:, 4:])
    assert not (written[:4, :4] == before[:4, :4]).all(-1).any()
    assert made.conversation.turns[-1].pictures == (made.features,) and not made.whole


def test_a_cell_is_written_anew_from_a_share_of_it_on(model):
    original = picture(800, 800)
    before = model.encode(original).tokens[0]
    for part, kept in ((TOUCHED * 0.9, True), (TOUCHED * 1.1, False)):
        mask = torch.zeros(1, 800, 800)
        mask[:, :100, : round(100 * part)] = 1
        made = edit(model, asked(model, original), original, mask)
        assert torch.equal(made.features.tokens[0, 0], before[0]) is kept
        assert torch.equal(made.features.tokens[0, 1:], before[1:])


def test_features_may_be_written_anew_and_only_pixels_kept(model):
    original, mask = picture(40, 40), box(40, 40)
    talk = asked(model, original)
    made = edit(model, talk, original, mask, keep_features=False)
    assert torch.equal(made.features.tokens, model.draw(talk)[0].tokens)
    assert torch.equal(made.image[0][mask[0] == 0], original[0][mask[0] == 0])


@pytest.mark.parametrize("mode", ["paint", "probe"])
def test_without_a_mask_it_is_found(model, monkeypatch, mode):
    """By what the pipeline is given: the free writing against the original, the same seed, the same options."""
    original, seen = picture(40, 30), {}
    talk = asked(model, original)

    def find(before, after, **options):
        seen.update(options, before=before, after=after)
        return box(32, 32)

    monkeypatch.setattr(model.painter, "change_mask", find)
    made = edit(model, talk, original, seed=7, mode=mode, steps=2)
    assert seen["mode"] == mode and seen["seed"] == 7 and seen["steps"] == 2
    assert torch.equal(seen["before"].tokens, model.encode(original).tokens)
    assert torch.equal(seen["after"].tokens, model.draw(talk)[0].tokens)
    outside = made.mask[0] == 0
    assert 0.6 < outside.float().mean() < 0.8 and torch.equal(made.image[0][outside], original[0][outside])


def test_a_whole_new_picture_keeps_nothing_and_says_so(model, monkeypatch):
    original, told = picture(40, 40), []
    talk = asked(model, original)
    monkeypatch.setattr(model.painter, "change_mask", lambda *a, **k: torch.ones(1, 32, 32))
    monkeypatch.setattr(model.runtime, "warn", told.append)
    made = edit(model, talk, original, seed=3)
    assert made.whole and torch.equal(made.image, model.decode(model.draw(talk)[0], seed=3)) and "nothing of the original" in told[0]
    assert change_mask.is_whole(made.mask)


def test_one_picture_at_a_time(model):
    with pytest.raises(ValueError, match="Edit in Box: image holds 2 pictures"):
        edit(model, asked(model, picture()), picture(batch=2))


@pytest.mark.parametrize("given", [True, False])
def test_variations_of_an_edit_keep_the_same_rest(model, monkeypatch, given):
    """One writing and one mask, found with the first seed or the one that is named; each picture as with its own seed."""
    original, mask, found = picture(40, 40), box(40, 40), []
    monkeypatch.setattr(model.painter, "change_mask", lambda *a, **k: found.append(k["seed"]) or mask)
    talk, place = asked(model, original), mask if given else None
    made = edit(model, talk, original, place, seed=[5, 9, 5])
    assert (
        made.image.shape == (3, 40, 40, 3) and torch.equal(made.image[0], made.image[2]) and not torch.equal(made.image[0], made.image[1])
    )
    assert all(torch.equal(row[mask[0] == 0], original[0][mask[0] == 0]) for row in made.image)
    alone = edit(model, talk, original, place, seed=9, mask_seed=5).image
    assert torch.allclose(alone[0], made.image[1], atol=1e-4) and found == ([] if given else [5, 5])
