"""Reference pictures laid in their boxes."""

import pytest
import torch
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.chat.reference_cutout import border, cut_out, pad_to_square, paste_subject

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


def soft(h=100, w=100, ground=None):
    """A red square with a soft outline over a ground, (h,w,4)."""
    alpha = torch.zeros(h, w)
    alpha[28:72, 28:72], alpha[30:70, 30:70] = 0.5, 1
    ground = BLUE.expand(h, w, 3) if ground is None else ground
    return torch.cat([RED * alpha[..., None] + ground * (1 - alpha[..., None]), alpha[..., None]], -1)


def chequered(n=100):
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    return (((rows // 8 + columns // 8) % 2)[..., None] * 0.5 + 0.3).expand(n, n, 3)


@pytest.mark.parametrize(
    "ground", [None, chequered(), torch.rand(100, 100, 3, generator=torch.Generator().manual_seed(1)), RED.expand(100, 100, 3)]
)
def test_opacity_cuts_the_subject_out_over_any_colour_and_keeps_soft_edges(ground):
    box = Box(0.25, 0.25, 0.5, 0.5)
    wanted, opacity = cut_out(soft(ground=torch.ones(100, 100, 3)), box, 128)
    made = paste_subject(soft(ground=ground), box, 128)
    assert (made - wanted).abs().max() < 0.01 and (made[:33] == 1).all() and ((opacity > 0.3) & (opacity < 0.7)).any()


def test_opaque_alpha_is_no_alpha_to_the_bit():
    opaque = torch.cat([picture(), torch.ones(100, 100, 1)], -1)
    assert torch.equal(paste_subject(opaque, Box(0, 0, 1, 1), 64), paste_subject(picture(), Box(0, 0, 1, 1), 64))


def test_a_subject_of_one_pixel_and_none_at_all():
    one = torch.zeros(50, 50, 4)
    assert (paste_subject(one, Box(0, 0, 0.5, 0.5), 64) == 1).all()
    one[20, 30] = torch.tensor([0.9, 0.1, 0.1, 1])
    top, bottom, left, right = found(paste_subject(one, Box(0, 0, 0.5, 0.5), 64))
    assert bottom - top == right - left == 29


def test_without_a_box_proportions_are_kept_and_a_square_picture_is_untouched():
    assert torch.equal(pad_to_square(picture(), 64), picture())
    shown = pad_to_square(picture(h=50), 64)  # 100 wide
    top, bottom, left, right = found(shown)
    assert shown.shape == (64, 64, 3) and abs((bottom - top) / (right - left) - 30 / 15) < 0.25
    assert torch.allclose(shown[0, 0], BLUE), "bars of the plain rim's colour"
    noise = torch.rand(50, 100, 3, generator=torch.Generator().manual_seed(2))
    assert (pad_to_square(noise, 64)[:15] == 1).all()
    assert pad_to_square(torch.cat([noise, torch.zeros(50, 100, 1)], -1), 64).min() > 1 - 1e-5
    assert pad_to_square(torch.rand(1, 5000, 3), 64).shape == (64, 64, 3)
