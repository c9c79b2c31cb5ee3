"""The miniature's scenes and effects: what is drawn where. Drawings here are coloured shapes."""

import dataclasses
import random

import numpy as np
import pytest
from wegen.wegen_model.mini.world.art import Art, ArtError
from wegen.wegen_model.mini.world.concepts import COLOURS, CONCEPTS, NAMES
from wegen.wegen_model.mini.world.effects import EFFECTS, apply
from wegen.wegen_model.mini.world.scenes import (
    CENTRE,
    Item,
    Scene,
    boxed,
    canonical,
    grid_box,
    grid_boxes,
    mask,
    overlap,
    pair,
    render,
    tint,
)


@pytest.fixture(scope="module")
def fake_art():
    """Each thing an opaque rectangle of its own colour and shape, inside a transparent rim."""
    sprites = {}
    for i, concept in enumerate(CONCEPTS):
        sprite = np.zeros((256, 256, 4), np.uint8)
        sprite[20 + 3 * i : 240, 10:250] = (6 * i, 255 - 6 * i, 100, 255)
        sprites[concept.name, "noto"] = sprite
    return Art(sprites)


@pytest.mark.parametrize("colour", COLOURS)
def test_background_is_exact(fake_art, colour):
    picture = render(canonical("cat", colour), fake_art)
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == tuple(picture[-1, -1]) == COLOURS[colour]


def test_a_thing_fills_its_box_less_the_margin_and_keeps_its_aspect(fake_art):
    sprite = fake_art.sprite("cat")  # 240 wide, 220 high
    shown = mask(canonical("cat", "red"), 0, fake_art)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    width, height = len(columns), len(rows)
    assert width == round(96 * 0.92) and abs(width / height - 240 / 220) < 0.02
    assert abs((columns[0] + columns[-1]) / 2 - 63.5) <= 0.5 and abs((rows[0] + rows[-1]) / 2 - 63.5) <= 0.5
    picture = render(canonical("cat", "red"), fake_art)
    assert np.abs(picture[64, 64].astype(int) - sprite[128, 128, :3]).max() <= 1
    assert (picture[shown == 0] == COLOURS["red"]).all()


def test_edges_mix_thing_and_background_without_a_dark_rim():
    yy, xx = np.mgrid[:256, :256]
    disc = np.zeros((256, 256, 4), np.uint8)  # transparent black around white: the classic fringe
    disc[(yy - 128) ** 2 + (xx - 128) ** 2 < 110**2] = 255
    art = Art({("ball", "noto"): disc})
    picture = render(canonical("ball", "white"), art)
    assert picture.min() >= 253
    cover = mask(canonical("ball", "white"), 0, art)
    assert ((cover > 0) & (cover < 255)).sum() > 50


def test_pair_is_left_then_right_and_masks_tell_them_apart(fake_art):
    scene = pair("cat", "dog", "blue")
    left, right = mask(scene, 0, fake_art), mask(scene, 1, fake_art)
    assert left[:, :64].any() and not left[:, 64:].any()
    assert right[:, 64:].any() and not right[:, :64].any()


def test_a_later_thing_covers_an_earlier_one(fake_art):
    scene = boxed(["cat", "dog"], [CENTRE, CENTRE], "blue")
    assert tuple(render(scene, fake_art)[64, 64]) == tuple(render(canonical("dog", "blue"), fake_art)[64, 64])
    assert mask(scene, 0, fake_art)[64, 64] == 0 and mask(scene, 1, fake_art)[64, 64] == 255


def test_a_box_that_leaves_the_picture_is_cut(fake_art):
    picture = render(Scene("blue", (Item("cat", "noto", (0.75, 0.75, 0.5, 0.5)),)), fake_art)
    assert tuple(picture[-1, -1]) != COLOURS["blue"] and tuple(picture[0, 0]) == COLOURS["blue"]
    outside = render(Scene("blue", (Item("cat", "noto", (1.5, -2.0, 0.5, 0.5)),)), fake_art)
    assert (outside == COLOURS["blue"]).all()


def test_scenes_are_values(fake_art):
    assert canonical("cat", "red") == canonical("cat", "red") and len({canonical("cat", "red"), canonical("cat", "red")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        canonical("cat", "red").background = "blue"
    assert (render(canonical("cat", "red"), fake_art) == render(canonical("cat", "red"), fake_art)).all()


def test_unknown_names_are_said(fake_art):
    with pytest.raises(ValueError, match="mauve.*white"):
        render(canonical("cat", "mauve"), fake_art)
    with pytest.raises(ArtError, match="zebra.*cat"):
        render(canonical("zebra", "red"), fake_art)


@pytest.mark.parametrize("cells", [(3,), (4,), (5,), (4, 4), (3, 5), (3, 3)])
def test_grid_boxes_lie_on_the_grid_and_apart(cells):
    rng = random.Random(0)
    for _ in range(200):
        boxes = grid_boxes(rng, cells)
        assert all((value * 8).is_integer() for box in boxes for value in box)
        assert all(x >= 0 and y >= 0 and x + w <= 1 and y + h <= 1 and w == h for x, y, w, h in boxes)
        assert [box[2] * 8 for box in boxes] == list(cells)
        assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_no_room_is_none_or_an_error():
    assert grid_box(random.Random(0), 4, [(0.25, 0.25, 0.5, 0.5)]) is None
    with pytest.raises(ValueError, match="do not fit"):
        grid_boxes(random.Random(0), (5, 5))


# -- effects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_changes_the_picture_as_its_seed_says(fake_art, name):
    plain = canonical("cat", "orange")
    done = [render(dataclasses.replace(plain, effect=f"{name}:{seed}"), fake_art) for seed in (1, 1, 2)]
    assert done[0].shape == (128, 128, 3) and (done[0] == done[1]).all() and (done[0] != render(plain, fake_art)).any()
    assert (done[0] != done[2]).any() == (name in ("noise", "holes"))


@pytest.mark.parametrize("colour", ["white", "orange"])
def test_a_laid_picture_shows_the_thing_in_its_box_on_white(fake_art, colour):
    """As the pipeline lays what a user shows: what is drawn there, but for the outline."""
    box = (0.5, 0.25, 0.375, 0.5)
    laid = render(Scene(colour, (Item("cat", "noto", CENTRE),), "laid:0.5 0.25 0.375 0.5"), fake_art).astype(int)
    drawn = render(Scene("white", (Item("cat", "noto", box),)), fake_art).astype(int)
    far = np.abs(laid - drawn).max(-1)
    assert (far > 24).mean() < 0.02 and far.mean() < 1.5
    assert (laid[:, :60] == 255).all()


def test_conditions_show_only_lines_and_shapes(fake_art):
    scene = canonical("cat", "orange")
    shape = render(dataclasses.replace(scene, effect="silhouette"), fake_art)
    assert ((shape[..., 0] > 127) == (mask(scene, 0, fake_art) > 127)).all() and set(np.unique(shape)) == {0, 255}
    edges = render(dataclasses.replace(scene, effect="edges"), fake_art)
    assert set(np.unique(edges)) == {0, 255} and 0 < (edges > 0).mean() < 0.2 and not edges[60:68, 60:68].any()


def test_an_unknown_effect_is_named():
    with pytest.raises(ValueError, match="'rain'.*blur"):
        apply("rain:3", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))


def test_tint_keeps_the_shape_and_takes_the_colour(fake_art):
    sprite = fake_art.fitted("cat", "noto", 64, 64)
    painted = tint(sprite, COLOURS["red"])
    assert (painted[..., 3] == sprite[..., 3]).all()
    r, g, b = painted[32, 32, :3].astype(int)
    assert r > g + 50 and r > b + 50


def test_mirrored_and_turned_things_are_drawn():
    sprite = np.full((160, 160, 4), (255, 0, 0, 255), np.uint8)
    sprite[:, 80:] = (0, 0, 255, 255)  # red on the left, blue on the right
    two = Art({(NAMES[0], "noto"): sprite})
    left, right = (64, 40), (64, 88)
    for how, wanted in (
        ({}, ((255, 0, 0), (0, 0, 255))),
        ({"mirrored": True}, ((0, 0, 255), (255, 0, 0))),
        ({"hue": 128}, ((0, 255, 255), (255, 255, 0))),
    ):
        picture = render(Scene("white", (Item(NAMES[0], "noto", CENTRE, **how),)), two)
        for at, colour in zip((left, right), wanted):
            assert np.abs(picture[at].astype(int) - colour).max() < 12, how
