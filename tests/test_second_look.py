"""A second look at references: what is laid where, what is mixed, and what is refused."""

import dataclasses

import pytest
import torch
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model import second_look
from wegen.wegen_model.chat.conversation import Box, Reference
from wegen.wegen_model.pipeline import WeGen

BLUE, RED, GREEN = torch.tensor([0.1, 0.2, 0.8]), torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.7, 0.2])
LEFT, RIGHT = Box(0, 0.25, 0.5, 0.5), Box(0.5, 0.25, 0.5, 0.5)


def thing(colour, ground=BLUE):
    """(1,60,60,3): a square of a colour on plain ground."""
    out = ground.expand(1, 60, 60, 3).clone()
    out[:, 20:40, 20:40] = colour
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return WeGen.load(tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def written(model, rows=1):
    return model.features(torch.randn(rows, 64, 32, generator=torch.Generator().manual_seed(0)))


def near(part, colour):
    return float((part - colour).abs().amax(-1).max())


def test_references_lie_in_their_boxes_without_their_ground():
    paper = torch.ones(1, 96, 64, 3) * 0.5  # higher than wide
    out = second_look.collage(paper, (Reference(thing(RED), box=LEFT), Reference(thing(GREEN), box=RIGHT)))
    assert out.shape == paper.shape
    assert near(out[0, 40:56, 8:24], RED) < 0.01 and near(out[0, 40:56, 40:56], GREEN) < 0.01
    assert near(out[0, :20], torch.tensor(0.5)) < 1e-6 and near(out[0, 76:], torch.tensor(0.5)) < 1e-6
    rows, columns = ((out[0] - RED).abs().amax(-1) < 0.1).nonzero(as_tuple=True)
    assert abs(int(rows.max() - rows.min()) - int(columns.max() - columns.min())) <= 1, "a square stays square"


def test_of_boxes_that_overlap_the_later_is_on_top():
    small = Box(0.25, 0.25, 0.5, 0.5)
    for first, last in ((RED, GREEN), (GREEN, RED)):
        both = (Reference(thing(first), box=Box(0, 0, 1, 1)), Reference(thing(last), box=small))
        assert near(second_look.collage(torch.ones(1, 64, 64, 3), both)[0, 28:36, 28:36], last) < 0.01


def test_a_box_on_plain_ground_is_cleared_and_another_is_not():
    plain = torch.ones(1, 64, 64, 3) * 0.5
    plain[:, 20:44, 2:14] = GREEN  # what was written there, wider than what is laid
    narrow = torch.ones(1, 60, 60, 3)
    narrow[:, 10:50, 28:32] = RED
    out = second_look.collage(plain, (Reference(narrow, box=LEFT),))
    assert near(out[0, :, 2:12], torch.tensor(0.5)) < 1e-6
    photo = picture(64, 64)
    assert torch.equal(second_look.collage(photo, (Reference(narrow, box=LEFT),))[0, :, :12], photo[0, :, :12])


def test_only_cells_more_than_half_inside_a_box_change(model):
    features, box = written(model), Box(0.25, 0.25, 3.4 / 8, 3.6 / 8)  # 3 columns and a bit, 4 rows all but a bit
    made = second_look.look_again(model.encode, features, torch.ones(1, 32, 32, 3), (Reference(thing(RED), box=box),))
    changed = (made.features.tokens != features.tokens).any(-1).reshape(8, 8)
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[2:6, 2:5] = True
    assert torch.equal(changed, wanted)
    assert torch.equal(made.features.tokens[0][wanted.reshape(-1)], model.encode(made.collage).tokens[0][wanted.reshape(-1)])


def test_strength_runs_from_written_to_seen(model):
    features, references = written(model), (Reference(thing(RED), box=LEFT),)
    look = lambda s: second_look.look_again(model.encode, features, torch.ones(1, 32, 32, 3), references, s).features.tokens  # noqa: E731
    assert torch.equal(look(0.0), features.tokens)
    assert torch.allclose(look(0.5), (look(0.0) + look(1.0)) / 2, atol=1e-6)


def test_each_row_of_a_batch_is_looked_at_by_itself(model):
    features, references = written(model, 2), (Reference(thing(RED), box=LEFT),)
    paintings = picture(32, 32, batch=2)
    both = second_look.look_again(model.encode, features, paintings, references)
    alone = [second_look.look_again(model.encode, features[k : k + 1], paintings[k : k + 1], references) for k in (0, 1)]
    assert torch.allclose(both.features.tokens, torch.cat([a.features.tokens for a in alone]), atol=1e-5)
    assert not torch.allclose(both.features.tokens[0, 20], both.features.tokens[1, 20], atol=1e-3)


def test_painted_twice_and_off_is_equal_to_the_bit(model):
    features, references = written(model), (Reference(thing(RED), box=LEFT),)
    plain = model.decode(features, seed=3)
    assert torch.equal(second_look.paint_twice(model, features, references, strength=0.0, seed=3).image, plain)
    assert torch.equal(second_look.paint_twice(model, features, references, last_steps=0.0, seed=3).image, plain)
    twice = second_look.paint_twice(model, features, references, seed=3)
    assert torch.equal(twice.image, model.decode(twice.features, seed=3)) and not torch.equal(twice.image, plain)
    late = second_look.paint_twice(model, features, references, last_steps=0.4, seed=3)
    assert not torch.equal(late.image, plain) and not torch.equal(late.image, twice.image)


def test_late_features_take_over_for_the_last_steps(model):
    a, b = written(model), model.features(torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(9)))
    paint = lambda f, **o: model.decode(f, steps=4, **o)  # noqa: E731
    assert torch.equal(paint(a, late=(b, 0.0)), paint(a)) and torch.equal(paint(a, late=(b, 1.0)), paint(b))
    seen = []
    decoder = model.painter._load()
    denoise = decoder.denoise
    decoder.denoise = lambda x, t, tokens, *rest: (seen.append(tokens[0]), denoise(x, t, tokens, *rest))[1]
    try:
        paint(a, late=(b, 0.25), guidance_scale=2.0)
    finally:
        del decoder.denoise
    assert [torch.equal(t, b.tokens[0]) for t in seen] == [False, False, False, True]
    assert all(torch.equal(t, a.tokens[0]) for t in seen[:3])
    with pytest.raises(ValueError, match="late_features: 2 rows for 1 of features"):
        paint(a, late=(written(model, 2), 0.5))
    with pytest.raises(ValueError, match="last_steps is 1.5: it must be between 0 and 1"):
        paint(a, late=(b, 1.5))


def test_what_cannot_be_laid_is_said(model):
    features, paper, told = written(model), torch.ones(1, 32, 32, 3), []
    look = lambda references, painting=paper: second_look.look_again(model.encode, features, painting, references, 1.0, told.append)  # noqa: E731
    with pytest.raises(ValueError, match="none of the 2 references has both a picture and a box"):
        look((Reference(thing(RED)), Reference(box=LEFT)))
    look((Reference(thing(RED), box=LEFT), Reference(thing(RED)), Reference(features=features, box=RIGHT), Reference(box=RIGHT)))
    assert [t for t in told if "reference 2 has no box" in t] and [t for t in told if "reference 3 has no picture, only features" in t]
    told.clear()
    tiny = look((Reference(thing(RED), box=Box(0, 0, 0.02, 0.02)),))
    assert torch.equal(tiny.features.tokens, features.tokens) and "covers no cell" in told[0]
    six = look(tuple(Reference(thing(RED), box=Box(k / 6, 0, 1 / 6, 1)) for k in range(6)))
    assert ((six.features.tokens != features.tokens).any(-1)).all()
    with pytest.raises(ValueError, match="painting holds 2 pictures for 1 rows of features"):
        look((Reference(thing(RED), box=LEFT),), paper.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="strength is 2: it must be between 0 and 1"):
        second_look.look_again(model.encode, features, paper, (Reference(thing(RED), box=LEFT),), 2)
    with pytest.raises(ValueError, match="painting: it contains NaN"):
        look((Reference(thing(RED), box=LEFT),), paper * float("nan"))
    with pytest.raises(ValueError, match="the features are of the space 'tiny/8x8x32', those of a of 'other'"):
        second_look.look_again(model.encode, dataclasses.replace(features, space="other"), paper, (Reference(thing(RED), box=LEFT),))
