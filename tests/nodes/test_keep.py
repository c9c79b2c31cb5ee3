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


# -- masks and originals as people connect them


def keepers(model):
    """node -> (what it makes of an original and a mask, the notes): the four nodes that keep."""
    features = model.encode(picture(seed=1))

    def decoder(original, mask):
        (image,), said = call("WeGenDecode", features=features, decoder=model, original=original, mask=mask)
        return image, said

    def pixels(original, mask):
        (image,), said = call("WeGenKeepOriginal", painted=picture(32, 32, seed=5), original=original, mask=mask)
        return image, said

    def latent(original, mask):
        (out,), said = call("WeGenOriginalToLatent", vae=Vae(), original=original[..., :3], mask=mask, width=64, height=48)
        return out, said

    def boxed(original, mask):
        out, said = call("WeGenEditInBox", model=model, image=original, mask=mask, message="<image_1> a hat")
        return out[0], said

    return {"decoder": decoder, "pixels": pixels, "latent": latent, "box": boxed}


@pytest.mark.parametrize("node", ["decoder", "pixels", "latent", "box"])
def test_every_node_that_keeps_says_what_is_odd_about_a_mask(model, node):
    run, original = keepers(model)[node], picture(60, 45, seed=3)
    for mask, words in (
        (half(45, 60), None),
        (half(90, 120), None),  # another size, the same aspect: brought to the original in silence
        (half(20, 90), "mask measures 90x20, the original 60x45: it was stretched"),
        (torch.zeros(1, 45, 60), "mask is all black: the original comes out as it is"),
        (torch.ones(1, 45, 60), "mask is all white: nothing of the original stays"),
        (0.5 * half(45, 60), None),  # soft: it blends
    ):
        made, said = run(original, mask)
        notes = " ".join(line for line in said if line.startswith("Note"))
        assert (words in notes) if words else not notes, (words, said)
        if node == "latent":
            assert bool(made["noise_mask"].any()) == bool(mask.any())
            continue
        black = mask.amax(0, keepdim=True) == 0
        outside = black[0] if mask.shape[1:] == (45, 60) else torch.zeros(45, 60, dtype=torch.bool)
        assert made.shape == original.shape and torch.equal(made[0][outside], original[0][outside])


def test_a_soft_mask_blends_half_and_half(model):
    original, painted = picture(60, 45, seed=3), picture(60, 45, seed=4)
    (image,), _ = call("WeGenKeepOriginal", painted=painted, original=original, mask=0.5 * half(45, 60), feather=0.0)
    assert torch.allclose(image[0, :, 30:], (original + painted)[0, :, 30:] / 2, atol=1e-6)


@pytest.mark.parametrize("node", ["decoder", "pixels", "box"])
def test_alpha_and_another_aspect_of_the_original(model, node):
    """Transparency is laid over white; a strip far from the decoder's square comes back as the strip that it was."""
    original = picture(90, 20, channels=4, seed=3)
    white = original[..., :3] * original[..., 3:] + (1 - original[..., 3:])
    image, _ = keepers(model)[node](original, half(20, 90))
    assert image.shape == (1, 20, 90, 3) and torch.equal(image[0, :, :45], white[0, :, :45])


def test_original_to_latent_for_img2img():
    """`inside` original: nothing is emptied."""
    ask = {"vae": Vae(), "original": picture(64, 48), "mask": half(48, 64), "width": 64, "height": 48}
    empty, whole = (call("WeGenOriginalToLatent", inside=inside, **ask)[0][0] for inside in ("empty", "original"))
    assert (empty["samples"][..., 4:] == 0).all() and (whole["samples"][..., 4:] != 0).all()
    assert torch.equal(empty["samples"][..., :4], whole["samples"][..., :4]) and torch.equal(empty["noise_mask"], whole["noise_mask"])
    assert torch.equal(empty["samples"], call("WeGenOriginalToLatent", **ask)[0][0]["samples"])


def test_boxes_that_overlap_count_once(model):
    original = picture(60, 45, seed=1)
    boxes = [[{"x": 5, "y": 5, "width": 20, "height": 20}, {"x": 15, "y": 15, "width": 30, "height": 20}]]
    image, mask = call("WeGenEditInBox", model=model, image=original, message="<image_1> a hat", boxes=boxes)[0][:2]
    assert stays(image, original, mask) and mask.sum() == 20 * 20 + 30 * 20 - 10 * 10 and mask.max() == 1


def test_originals_and_masks_one_each_go_with_variations(model):
    features = call("WeGenEncode", model=model, image=picture(batch=2))[0][0]
    originals, masks = torch.cat([picture(seed=2), picture(seed=3)]), torch.cat([half(), 1 - half()])
    four = call("WeGenDecode", features=features, decoder=model, variations=2, original=originals, mask=masks)[0][0]
    for row, k in zip(four, (0, 0, 1, 1)):
        assert torch.equal(row[masks[k] == 0], originals[k][masks[k] == 0])
    assert not torch.equal(four[0], four[1])


def saved(prompt, folder):
    """The PNGs that a prompt saves, as bytes (h,w,3) in the order of its nodes."""
    import numpy as np
    from PIL import Image
    from wegen.nodes import NODE_CLASS_MAPPINGS
    from wegen.wegen_model import workflow as graph

    items = graph.run(graph.load_workflow(prompt, NODE_CLASS_MAPPINGS), NODE_CLASS_MAPPINGS, out_dir=folder, input_dir=folder)
    return [np.asarray(Image.open(item.path)) for item in items if item.kind == "image" and item.path.parent.name != "preview"]


@pytest.mark.parametrize("size", [(128, 128), (97, 300), (400, 333), (13, 64)])
@pytest.mark.parametrize("guidance, variations", [(1.0, 1), (3.0, 2)])
def test_the_saved_png_is_the_original_outside_the_mask(folder, tmp_path, size, guidance, variations):
    """`wegen run`: Load Image, SDXL Feature Decoder, Save Image. Every value of a byte occurs in the original."""
    import numpy as np
    from PIL import Image

    height, width = size
    before = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 :] = mask[height * 2 // 3] = 255
    Image.fromarray(before).save(tmp_path / "original.png")
    Image.merge("RGBA", [Image.fromarray(255 - mask)] * 4).save(tmp_path / "mask.png")  # LoadImage: where it is transparent
    nodes = {
        "1": ("WeGenLoadModel", {"model": str(folder), "dtype": "default"}),
        "2": ("LoadImage", {"image": "original.png"}),
        "3": ("LoadImage", {"image": "mask.png"}),
        "4": ("WeGenEncode", {"model": ["1", 0], "image": ["2", 0], "fit": "squash"}),
        "5": (
            "WeGenDecode",
            {
                "features": ["4", 0],
                "decoder": ["1", 0],
                "seed": 1,
                "use_defaults": False,
                "steps": 2,
                "guidance_scale": guidance,
                "use_default_size": True,
                "width": 32,
                "height": 32,
                "scheduler": "from decoder",
                "variations": variations,
                "original": ["2", 0],
                "mask": ["3", 1],
            },
        ),
        "6": ("SaveImage", {"images": ["5", 0], "filename_prefix": "kept"}),
    }
    made = saved({key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}, tmp_path)
    assert len(made) == variations
    for image in made:
        differs = (image != before).any(-1)
        assert image.shape == before.shape and not differs[mask == 0].any() and differs[mask > 0].mean() > 0.9
