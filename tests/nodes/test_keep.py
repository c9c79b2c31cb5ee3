"""The nodes by which what was not touched stays: what they do, and what each refuses."""

import pytest
import torch
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture
from wegen.wegen_model.generation import keep


def half(height=30, width=40):
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2 :] = 1
    return mask


def stays(image, original, mask):
    outside = mask[0] == 0
    return outside.any() and torch.equal(image[0][outside], original[0][outside])


def test_the_decoder_keeps_and_without_an_original_is_as_it_was(model):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    plain = call("WeGenDecode", features=features, decoder=model)[0][0]
    assert torch.equal(plain, model.decode(features))
    for options in ({}, {"match_colours": True}, {"feather": 0.0, "grow": -2.0}, {"use_default_size": False, "width": 64, "height": 32}):
        image = call("WeGenDecode", features=features, decoder=model, original=picture(), mask=half(), **options)[0][0]
        assert stays(image, picture(), half()) and image.shape == picture().shape


def test_variations_go_on_from_the_seed(model):
    features = call("WeGenEncode", model=model, image=picture(batch=2))[0][0]
    four = call("WeGenDecode", features=features, decoder=model, seed=2**64 - 1, variations=2)[0][0]
    assert len(four) == 4
    for row, (k, seed) in zip(four, ((0, 2**64 - 1), (0, 0), (1, 2**64 - 1), (1, 0))):
        alone = call("WeGenDecode", features=features[k : k + 1], decoder=model, seed=seed)[0][0]
        assert torch.allclose(row, alone[0], atol=1e-4)
    kept = call("WeGenDecode", features=features[:1], decoder=model, variations=3, original=picture(), mask=half())[0][0]
    assert all(stays(row[None], picture(), half()) for row in kept)


@pytest.mark.parametrize("mode", ["paint", "probe"])
def test_change_mask(model, mode):
    before, after = (call("WeGenEncode", model=model, image=picture(seed=k))[0][0] for k in (0, 1))
    (mask, preview), lines = call(
        "WeGenChangeMask", before=before, after=after, decoder=model, mode=mode, threshold=4.0, original=picture(seed=0)
    )
    assert torch.equal(mask, model.painter.change_mask(before, after, mode=mode, threshold=4.0, original=picture(seed=0)))
    assert preview.shape == picture().shape and "% of the picture changes" in lines[0]
    (mask, preview), lines = call("WeGenChangeMask", before=before, after=before, decoder=model)
    assert not mask.any() and torch.equal(preview[..., 0], mask) and "Nothing changed" in " ".join(lines)


def test_keep_original_pixels(model):
    """Any painting, at the original's size; other sizes are brought to it."""
    original = picture(60, 45, seed=1)
    for painted in (picture(60, 45), picture(24, 24), picture(24, 24, channels=1)):
        image = call("WeGenKeepOriginal", painted=painted, original=original, mask=half(45, 60))[0][0]
        assert stays(image, original, half(45, 60)) and image.shape == original.shape
    hard = call("WeGenKeepOriginal", painted=picture(60, 45), original=original, mask=half(45, 60), feather=0.0)[0][0]
    assert torch.equal(hard[0, :, 30:], picture(60, 45)[0, :, 30:])


class Vae:
    """ComfyUI's face of one with eight pixels a cell."""

    def encode(self, pixels):
        self.seen = pixels
        return torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)


def test_original_to_latent():
    """Empty inside the mask, the original outside; each cell that a thin line touches is open."""
    vae, mask = Vae(), torch.zeros(1, 45, 60)
    mask[:, 20] = 1
    (latent,), _ = call("WeGenOriginalToLatent", vae=vae, original=picture(60, 45), mask=mask, width=64, height=48)
    assert vae.seen.shape == (1, 48, 64, 3) and latent["samples"].shape == (1, 3, 6, 8)
    opened = latent["noise_mask"][0, 0]
    assert opened.any(1).tolist() == [False, False, True, False, False, False] and opened[2].all()
    whole = vae.encode(vae.seen)
    assert (latent["samples"][:, :, 2] == 0).all() and torch.equal(latent["samples"][:, :, 3:], whole[:, :, 3:])


def test_edit_in_box(model):
    """A box in pixels, a mask, both; a picture into the box; and the box found by itself."""
    original = picture(60, 45, seed=1)
    ask = {"model": model, "image": original, "message": "<image_1> a hat"}
    boxes = [[{"x": 10, "y": 5, "width": 20, "height": 20}]]
    inside = torch.zeros(1, 45, 60)
    inside[:, 5:25, 10:30] = 1
    (image, mask, features, chat, preview), lines = call("WeGenEditInBox", boxes=boxes, **ask)
    assert torch.equal(mask, inside) and stays(image, original, mask) and len(features) == 1
    assert chat.turns[-1].pictures and preview.shape == original.shape and "% of the picture was painted anew" in lines[0]
    corner = torch.zeros(1, 45, 60)
    corner[:, 40:, 50:] = 1
    both = call("WeGenEditInBox", boxes=boxes, mask=corner, **ask)[0]
    assert torch.equal(both[1], torch.maximum(inside, corner)) and stays(both[0], original, both[1])
    ask["message"] = "<image_1> put <image_2> at <bbox_2>"
    (image, mask, _, chat, _), _ = call("WeGenEditInBox", boxes=boxes, image_2=picture(seed=4), **ask)
    placed = chat.turns[0].references[1]
    assert torch.equal(placed.picture, picture(seed=4)) and placed.box.x == pytest.approx(1 / 6) and stays(image, original, mask)
    ask["message"] = "<image_1> a hat"
    image, mask = call("WeGenEditInBox", **ask)[0][:2]
    assert mask.any() and (image.shape == original.shape or mask.all())


def test_what_is_refused(model):
    for inputs, words in (
        ({"image": picture(batch=2)}, "image holds 2 pictures: one is edited"),
        ({"message": "<bbox_2>"}, "<bbox_2>, but this turn has 1 reference"),
    ):
        with pytest.raises(ValueError, match=words):
            call("WeGenEditInBox", **({"model": model, "image": picture(), "message": "<image_1> x"} | inputs))
    with pytest.raises(ValueError, match="Keep Original Pixels: original holds 2 pictures for 3"):
        call("WeGenKeepOriginal", painted=picture(batch=3), original=picture(batch=2), mask=half())
    with pytest.raises(ValueError, match="no WeGen decoder but a int"):
        call("WeGenChangeMask", before=None, after=None, decoder=3)


def test_widgets_and_library_agree():
    from wegen.nodes import NODE_CLASS_MAPPINGS
    from wegen.wegen_model.generation import change_mask

    both = {**NODE_CLASS_MAPPINGS["WeGenChangeMask"].INPUT_TYPES()["required"]}
    assert both["threshold"][1]["default"] == change_mask.THRESHOLD and both["grow"][1]["default"] == change_mask.GROW
    assert NODE_CLASS_MAPPINGS["WeGenKeepOriginal"].INPUT_TYPES()["required"]["feather"][1]["default"] == keep.FEATHER
