"""What was not touched stays: the original to the bit, the feather's shape, the mask of an edit, and what is refused."""

import pytest
import torch
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model.config import SAMPLERS
from wegen.wegen_model.generation import change_mask, keep
from wegen.wegen_model.pipeline import WeGen


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return WeGen.load(tiny_model(tmp_path_factory.mktemp("keep") / "tiny"))


@pytest.fixture(scope="module")
def features(model):
    return model.encode(picture(seed=1))


def bytes_of(image):
    """As Save Image writes them: cut off, not rounded."""
    return (255 * image).clamp(0, 255).byte()


def every_value(height=48, width=64):
    """A picture that holds all 256 values as a loader gives them."""
    values = torch.arange(height * width * 3).reshape(1, height, width, 3) * 7 % 256
    return values.float() / 255


def box(height=48, width=64, top=10, bottom=34, left=16, right=50):
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_outside_the_mask_every_value_is_saved_as_it_was(model, features, sampler):
    """At the original's size, whatever the decoder paints at."""
    original, mask = every_value(), box()
    image = model.decode(features, original=original, mask=mask, scheduler=sampler)
    outside = mask[0] == 0
    assert image.shape == original.shape and torch.equal(image[0][outside], original[0][outside])
    assert torch.equal(bytes_of(image)[0][outside], bytes_of(original)[0][outside])
    assert (image - original)[0][~outside].abs().mean() > 0.05, "and inside it is painted"


@pytest.mark.parametrize("size", [(16, 16), (50, 30), (128, 128), (200, 333), (1, 400)])
@pytest.mark.parametrize("guidance, match", [(1.0, True), (2.0, False)])
def test_any_size_and_aspect(model, features, size, guidance, match):
    original = picture(size[1], size[0], seed=5)
    mask = torch.zeros(1, *size)
    mask[:, size[0] // 2 :, : size[1] // 2] = 1
    image = model.decode(features, original=original, mask=mask, guidance_scale=guidance, match_colours=match)
    assert image.shape == original.shape and torch.equal(image[0][mask[0] == 0], original[0][mask[0] == 0])


def test_off_is_what_it_was(model, features):
    """The same bits without an original; and inside a mask far from its edge, of a full mask, everywhere."""
    plain = model.decode(features, seed=3)
    assert torch.equal(plain, model.decode(features, seed=3, original=None, mask=None))
    original = picture(*plain.shape[2:0:-1], seed=2)
    assert torch.equal(plain, model.decode(features, seed=3, original=original, mask=torch.ones(1, 8, 8)))


def test_latents_outside_follow_the_original_with_the_starting_noise(model, features):
    """At the end they are its own; on the way they are `add_noise` of it with the noise that sampling began with."""
    decoder = model.painter._load()
    tokens, start = features.tokens, torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    original = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    cells = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    cells[..., 2:5, 2:5] = True
    seen = []
    denoise = decoder.denoise
    decoder.denoise = lambda x, *rest: seen.append(x.clone()) or denoise(x, *rest)
    try:
        out = decoder.sample(tokens, tokens.mean(1), start, steps=3, scheduler="DDIMScheduler", keep=(cells, original))
    finally:
        del decoder.denoise
    solver = decoder.scheduler("DDIMScheduler")
    solver.set_timesteps(3)
    outside = ~cells.expand_as(out)
    for x, time in zip(seen, solver.timesteps, strict=True):
        assert torch.allclose(x[outside], solver.add_noise(original, start, time[None])[outside], atol=1e-6)
    assert torch.equal(out[outside], original[outside]) and not torch.equal(out[~outside], original[~outside])


def test_cells_open_where_any_pixel_of_the_mask_is():
    """Two lines of one pixel, which a bilinear reduction loses."""
    mask = torch.zeros(1, 64, 64)
    mask[:, 7] = mask[:, :, 33] = 1
    cells = keep.kept(picture(64, 64), mask, 1).cells(8, 8)[0, 0]
    assert cells[0].all() and cells[:, 4].all() and cells.sum() == 15


def test_the_feather_rises_inside_and_only_there():
    mask = torch.zeros(1, 128, 128)
    mask[:, 30:90, 40:100] = 1
    alpha = keep.feather(mask, 3.0)[0]
    assert (alpha[mask[0] == 0] == 0).all() and alpha[60, 70] == 1
    row = alpha[60, 40:48]
    assert torch.allclose(row, torch.tensor([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1]), atol=1e-6)
    assert torch.equal(keep.feather(mask, 0.0), mask)
    framed = torch.zeros(1, 128, 128)
    framed[:, :64] = 1
    assert (keep.feather(framed, 3.0)[0, :50] == 1).all(), "the frame of the picture is no edge"


@pytest.mark.parametrize("side", [128, 1024, 2000])
@pytest.mark.parametrize("thick", [1, 2, 3, 5])
def test_thin_lines_are_painted(side, thick):
    """Where two feathers do not fit, the middle is full all the same."""
    mask = torch.zeros(1, side, side)
    mask[:, side // 3 : side // 3 + thick, 10:-10] = 1
    mask[:, side // 2 : side // 2 + side // 4, 10:60] = 1
    alpha = keep.feather(mask, 3.0)[0]
    line = alpha[side // 3 : side // 3 + thick, side // 2]
    assert line.amax() > 0.99 and (alpha[mask[0] == 0] == 0).all()


def test_a_large_feather_is_smooth():
    mask = torch.zeros(1, 1000, 1000)
    mask[:, 300:700, 300:700] = 1
    row = keep.feather(mask, 4.0)[0, 500, 299:420]
    assert row[0] == 0 and row[-1] == 1 and (row.diff() >= -1e-6).all() and row.diff().max() < 0.12


def test_grey_blends_and_a_soft_mask_opens_its_cells():
    original, painted = torch.zeros(1, 32, 32, 3), torch.ones(1, 32, 32, 3)
    mask = torch.full((1, 32, 32), 0.25)
    stays = keep.kept(original, mask, 1)
    assert torch.allclose(stays.composite(painted), torch.tensor(0.25)) and stays.cells(4, 4).all()
    assert not keep.kept(original, mask * 0.004, 1).mask.any(), "less than half a step of 8 bits is black"


def test_a_grown_mask_takes_the_rim_of_the_thing_that_stays():
    """A thing's antialiased outline, half old background: grown by a pixel, no grey of it is left."""
    alpha = torch.zeros(1, 100, 100)
    alpha[:, 20:80, 20:80], alpha[:, 21:79, 21:79] = 0.5, 1
    original = (1 - alpha)[..., None] * torch.tensor([1.0, 0, 0]) + alpha[..., None] * torch.tensor([0, 0, 1.0])
    green = torch.tensor([0, 1.0, 0]).expand(1, 100, 100, 3)
    rim = keep.kept(original, 1 - alpha, 1, grow=0.0, feather=0).composite(green)[0, 50, 20]
    mended = keep.kept(original, 1 - alpha, 1, grow=1.0, feather=0).composite(green)
    assert rim[0] > 0.2 and mended[..., 0].max() == 0
    assert torch.equal(mended[0, 25:75, 25:75], original[0, 25:75, 25:75])


def test_colours_match_at_the_edge_and_not_deep_inside():
    original, painted = torch.full((1, 128, 128, 3), 0.5), torch.full((1, 128, 128, 3), 0.6)
    mask = torch.zeros(1, 128, 128)
    mask[:, 30:100, 30:100] = 1
    tinted = keep.match_colours(painted, original, mask)
    assert (tinted[0, 64, 30] - 0.5).abs().max() < 0.02 and torch.allclose(tinted[0, 64, 64], torch.tensor(0.6))


def test_batches(model, features):
    """One original for all, or one each; a mask for all, one each, or several that count together for one picture."""
    two = features.repeat(2)
    originals, masks = torch.cat([every_value(), picture(64, 48, seed=9)]), torch.cat([box(), box(right=20)])
    image = model.decode(two, original=originals, mask=masks)
    for row, mask, original in zip(image, masks, originals):
        assert torch.equal(row[mask == 0], original[mask == 0])
    image = model.decode(two, original=every_value(), mask=masks[:1])
    assert image.shape[0] == 2 and not torch.equal(image[0], image[1])
    both = model.decode(features, original=every_value(), mask=torch.cat([box(right=20), box(left=40)]))
    outside = (box(right=20) + box(left=40))[0] == 0
    assert torch.equal(both[0][outside], every_value()[0][outside])


def test_variations_have_the_noise_they_would_have_alone(model, features):
    together = model.decode(features.repeat(3), seed=[5, 9, 5], scheduler="EulerAncestralDiscreteScheduler")
    alone = [model.decode(features, seed=seed, scheduler="EulerAncestralDiscreteScheduler")[0] for seed in (5, 9)]
    assert torch.allclose(together[0], alone[0], atol=1e-4) and torch.allclose(together[1], alone[1], atol=1e-4)
    assert torch.equal(together[0], together[2]) and (alone[0] - alone[1]).abs().max() > 0.01


def test_empty_and_full_masks_are_said(model, features):
    told = []
    original = every_value()
    runtime = model.runtime
    old, runtime.warn = runtime.warn, told.append
    try:
        image = model.decode(features, original=original, mask=torch.zeros(1, 64, 64))
        assert torch.equal(image, original) and "all black" in " ".join(told)
        model.decode(features, original=original, mask=torch.ones(1, 30, 20))
        assert "all white" in " ".join(told) and "stretched to the original" in " ".join(told)
    finally:
        runtime.warn = old


def test_alpha_is_laid_over_white(model, features):
    original = picture(64, 48, channels=4, seed=3)
    image = model.decode(features, original=original, mask=box())
    white = original[..., :3] * original[..., 3:] + (1 - original[..., 3:])
    assert torch.equal(image[0][box()[0] == 0], white[0][box()[0] == 0])


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"mask": None}, "original is connected but mask is not"),
        ({"original": None}, "mask is connected but original is not"),
        ({"original": picture(batch=2)}, "original holds 2 pictures for 1 to be painted"),
        ({"mask": torch.zeros(0, 4, 4)}, "a mask is .pictures, height, width"),
        ({"mask": torch.full((1, 4, 4), torch.nan)}, "mask: it holds NaN"),
        ({"original": torch.full((1, 4, 4, 3), torch.nan)}, "original: it contains NaN"),
        ({"original": torch.zeros(1, 4, 4, 2)}, "original: the shape .* is no picture"),
        ({"feather": 51.0}, "feather is 51"),
        ({"grow": float("nan")}, "grow is nan"),
        ({"seed": [1, 2]}, "2 seeds for 1 pictures"),
    ],
)
def test_what_does_not_fit_is_said(model, features, bad, words):
    with pytest.raises(ValueError, match=words):
        model.decode(features, **({"original": picture(), "mask": torch.ones(1, 30, 40)} | bad))
    with pytest.raises(ValueError, match="3 masks for 2 pictures"):
        model.decode(features.repeat(2), original=picture(), mask=torch.ones(3, 4, 4))


# -- the mask of an edit


def test_a_change_is_found_without_its_specks_and_with_room_around():
    before = torch.full((1, 128, 128, 3), 0.5)
    after = before.clone()
    after[:, 40:60, 50:70, 1] = 0.7
    after[:, 100, 100] = 1.0  # a speck
    after[:, 0:30, 0:30] += 10 / 255  # less than counts
    mask = change_mask.mask_of(change_mask.compare(before, after), (128, 128))[0]
    rows, columns = mask.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (36, 63, 46, 73)


def test_a_new_background_takes_the_rim():
    mask = torch.ones(1, 64, 64)
    mask[:, 20:40, 20:40] = 0
    assert change_mask.is_whole(mask)
    inner = torch.zeros(1, 64, 64)
    inner[:, 4:60, 4:60] = 1
    assert not change_mask.is_whole(inner)


@pytest.mark.parametrize("mode", ["paint", "probe"])
def test_equal_features_change_nothing_and_others_do(model, features, mode):
    """Both are painted from the same noise, row by row."""
    other, original = model.encode(picture(seed=8)), picture(seed=1)
    assert not model.painter.change_mask(features, features.repeat(2), mode=mode, original=original).any()
    masks = model.painter.change_mask(features, other.repeat(2), mode=mode, original=original, threshold=4.0, seed=4)
    assert masks.shape[0] == 2 and masks.any() and set(masks.unique().tolist()) <= {0.0, 1.0}


def test_the_probe_compares_clean_latents(model, features):
    """By hand, one noise after the other, in both predictions."""
    decoder = model.painter._load()
    other, z = model.encode(picture(seed=8)), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    seen = change_mask.probe(decoder, features.tokens, other.tokens, z, seed=6)
    generator, total = torch.Generator().manual_seed(6), 0
    share = float(decoder.scheduler("DDIMScheduler").alphas_cumprod[change_mask.PROBE_TIME])
    ids = decoder.time_ids(8 * decoder.factor, 8 * decoder.factor, 1, torch.device("cpu"))
    with torch.no_grad():
        for _ in range(change_mask.PROBE_DRAWS):
            x = share**0.5 * z + (1 - share) ** 0.5 * torch.randn(1, 4, 8, 8, generator=generator)
            e = [decoder.denoise(x, torch.tensor(change_mask.PROBE_TIME), f.tokens, f.tokens.mean(1), ids) for f in (features, other)]
            total = total + ((1 - share) ** 0.5 * (e[0] - e[1]) / share**0.5).square().mean(1).sqrt()
    assert decoder.scheduler("DDIMScheduler").config.prediction_type == "epsilon"
    assert torch.allclose(seen, total / change_mask.PROBE_DRAWS * change_mask.PROBE_SCALE, rtol=1e-3)


def test_masks_say_what_they_lack(model, features):
    find = model.painter.change_mask
    for bad, words in (
        ({"mode": "guess"}, "mode is 'guess'"),
        ({"mode": "probe"}, "connect it to original"),
        ({"threshold": -1.0}, "threshold is -1"),
        ({"grow": 60.0}, "grow is 60"),
    ):
        with pytest.raises(ValueError, match=words):
            find(features, features, **bad)
    with pytest.raises(ValueError, match="before holds 2 pictures, after 3"):
        find(features.repeat(2), features.repeat(3))
