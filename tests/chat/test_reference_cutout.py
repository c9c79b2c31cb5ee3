"""Reference pictures laid in their boxes."""

import pytest
import torch
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.chat.reference_cutout import border, paste_subject

BLUE, RED = torch.tensor([0.1, 0.2, 0.8]), torch.tensor([0.9, 0.1, 0.1])


def picture(h=100, w=100, top=20, left=40, height=30, width=15):
    out = BLUE.expand(h, w, 3).clone()
    out[top : top + height, left : left + width] = RED
    return out


def found(canvas):
    rows, columns = ((canvas - RED).abs().amax(-1) < 0.3).nonzero(as_tuple=True)
    return rows.min().item(), rows.max().item() + 1, columns.min().item(), columns.max().item() + 1


@pytest.mark.parametrize("box", [Box(0, 0, 0.5, 0.5), Box(0.5, 0.25, 0.5, 0.5), Box(0.25, 0.6, 0.3, 0.4), Box(0, 0, 1, 1)])
def test_the_subject_fills_its_box_less_the_margin_and_keeps_its_aspect(box):
    canvas = paste_subject(picture(), box, 128)
    top, bottom, left, right = found(canvas)
    assert canvas.shape == (128, 128, 3)
    assert abs((top + bottom) / 2 - box.centre[1] * 128) <= 1 and abs((left + right) / 2 - box.centre[0] * 128) <= 1
    scale = min(box.height / 30, box.width / 15) * 128 * 0.92
    assert abs(bottom - top - 30 * scale) <= 2 and abs(right - left - 15 * scale) <= 2


def test_around_the_subject_and_in_its_holes_is_white():
    ring = picture(top=20, left=20, height=60, width=60)
    ring[40:60, 40:60] = BLUE
    canvas = paste_subject(ring, Box(0, 0, 0.75, 0.75), 64)
    assert (canvas[50:] == 1).all() and (canvas[:, 50:] == 1).all()
    assert torch.allclose(canvas[24, 24], torch.ones(3)), "a hole shows the border's colour"
    eye = ring.clone()
    eye[40:60, 40:60] = BLUE + 0.03
    assert torch.allclose(paste_subject(eye, Box(0, 0, 0.75, 0.75), 64)[24, 24], BLUE + 0.03, atol=0.01), (
        "what only resembles it is the subject's"
    )
    outline = ((canvas - BLUE).abs().amax(-1) < 0.3)[:16]
    assert not outline.any(), "nothing of the old background is left at the outline"


def test_a_border_that_is_not_quite_plain_becomes_white_and_no_more_than_white():
    speckled = picture()
    speckled[50:70, 55:80] = RED  # leaves border in two corners of what is cut
    speckled[22:28, 60:78] = speckled[60:66, 42:53] = BLUE + 0.05
    canvas = paste_subject(speckled, Box(0.25, 0.25, 0.5, 0.5), 128)
    assert canvas.min() >= 0 and canvas.max() == 1 and (canvas[:20] == 1).all()


def test_a_picture_without_a_plain_border_is_laid_whole():
    photo = torch.rand(50, 80, 3, generator=torch.Generator().manual_seed(0))
    assert border(photo)[1].all()
    canvas = paste_subject(photo, Box(0.5, 0.5, 0.5, 0.5), 128)
    changed = (canvas - canvas[0, 0]).abs().amax(-1) > 0.02
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    assert abs((columns.max() - columns.min() + 1) / (rows.max() - rows.min() + 1) - 80 / 50) < 0.1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_odd_pictures_are_laid_without_a_crash(shape):
    canvas = paste_subject(torch.full(shape, 0.3), Box(0.1, 0.1, 0.01, 0.01), 128)
    assert canvas.shape == (128, 128, 3) and torch.isfinite(canvas).all() and ((canvas == 1) | ((canvas - 0.3).abs() < 1e-6)).all()
