"""Features as material: the ends of a mix are exact, the middle is where it should be, what does not fit is refused."""

import dataclasses

import pytest
import torch
from wegen.wegen_model.features import Features
from wegen.wegen_model.generation import feature_ops


def features(seed=0, batch=1, width=6, space="s", tower="t", scale=1.0):
    tokens = torch.randn(batch, 64, width, generator=torch.Generator().manual_seed(seed)) * scale
    return Features(tokens, (8, 8), space, tower)


A, B, C = (features(k) for k in (1, 2, 3))


@pytest.mark.parametrize("method", feature_ops.METHODS)
def test_the_ends_are_exact(method):
    assert torch.equal(feature_ops.mix(A, B, 0.0, method).tokens, A.tokens)
    assert torch.equal(feature_ops.mix(A, B, 1.0, method).tokens, B.tokens)


@pytest.mark.parametrize("method", feature_ops.METHODS)
def test_a_mix_is_the_same_from_the_other_side(method):
    torch.testing.assert_close(feature_ops.mix(A, B, 0.3, method).tokens, feature_ops.mix(B, A, 0.7, method).tokens)


def test_linear_is_the_weighted_mean():
    torch.testing.assert_close(feature_ops.mix(A, B, 0.25).tokens, 0.75 * A.tokens + 0.25 * B.tokens)


def test_spherical_turns_evenly_and_keeps_the_length():
    """Against a plane rotation worked out by hand: unit vectors 90 degrees apart, and lengths 2 and 4."""
    x, y = torch.zeros(1, 64, 3), torch.zeros(1, 64, 3)
    x[..., 0], y[..., 1] = 2, 4
    mixed = feature_ops.mix(dataclasses.replace(A, tokens=x), dataclasses.replace(A, tokens=y), 1 / 3, "spherical").tokens[0, 0]
    angle, length = torch.tensor(torch.pi / 6), 2 + 2 / 3
    torch.testing.assert_close(mixed, length * torch.tensor([angle.cos(), angle.sin(), 0.0]))
    lengths = feature_ops.mix(A, B, 0.5, "spherical").tokens.norm(dim=-1)
    torch.testing.assert_close(lengths, (A.tokens.norm(dim=-1) + B.tokens.norm(dim=-1)) / 2)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_spherical_of_parallel_or_opposite_features_is_linear(factor):
    other = dataclasses.replace(A, tokens=A.tokens * factor)
    mixed = feature_ops.mix(A, other, 0.25, "spherical").tokens
    assert torch.isfinite(mixed).all()
    if factor:  # a feature of nothing has no direction
        torch.testing.assert_close(mixed, feature_ops.mix(A, other, 0.25).tokens)


def test_a_mask_mixes_cell_by_cell():
    shares = torch.zeros(1, 8, 8)
    shares[0, 2, 5], shares[0, 7, 0] = 1, 0.5
    mixed = feature_ops.mix(A, B, 0.8, shares=shares).tokens[0]
    torch.testing.assert_close(mixed[21], 0.2 * A.tokens[0, 21] + 0.8 * B.tokens[0, 21])
    torch.testing.assert_close(mixed[56], 0.6 * A.tokens[0, 56] + 0.4 * B.tokens[0, 56])
    rest = [i for i in range(64) if i not in (21, 56)]
    assert torch.equal(mixed[rest], A.tokens[0, rest])


def test_masks_one_a_picture():
    a, b = features(1, batch=2), features(2, batch=2)
    shares = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    mixed = feature_ops.mix(a, b, 1.0, shares=shares).tokens
    assert torch.equal(mixed[0], a.tokens[0]) and torch.equal(mixed[1], b.tokens[1])


def test_cell_shares_are_shares_of_white():
    mask = torch.zeros(80, 160)
    mask[:10, :10] = 1  # half of the first cell, which is 10 high and 20 wide
    assert feature_ops.cell_shares(mask, (8, 8))[0, 0, 0] == 0.5 and feature_ops.cell_shares(mask, (8, 8)).sum() == 0.5
    assert feature_ops.cell_shares(torch.ones(3, 8, 8), (8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "mask, said",
    [
        (torch.ones(4, 4), "4x4 pixels, fewer than the 8x8 cells"),
        (torch.ones(1, 3, 9, 9), "shape is"),
        (torch.full((1, 9, 9), float("nan")), "NaN"),
    ],
)
def test_a_wrong_mask_is_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        feature_ops.cell_shares(mask, (8, 8))


def test_arithmetic():
    torch.testing.assert_close(feature_ops.arithmetic(A, B, C).tokens, A.tokens - B.tokens + C.tokens)
    torch.testing.assert_close(feature_ops.arithmetic(A, B, C, -0.5).tokens, A.tokens - 0.5 * (C.tokens - B.tokens))
    assert torch.equal(feature_ops.arithmetic(A, B, B).tokens, A.tokens) and torch.equal(
        feature_ops.arithmetic(A, B, C, 0.0).tokens, A.tokens
    )


def test_one_picture_goes_with_a_batch():
    many = features(5, batch=3)
    assert len(feature_ops.mix(A, many)) == len(feature_ops.mix(many, A)) == len(feature_ops.arithmetic(A, many, C)) == 3
    torch.testing.assert_close(feature_ops.arithmetic(A, many, C).tokens, A.tokens - many.tokens + C.tokens)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="b: the features are of the space 'other', those of a of 's'.*same model"):
        feature_ops.mix(A, features(2, space="other"))
    with pytest.raises(ValueError, match="holds 2 pictures, another input 3"):
        feature_ops.mix(features(1, batch=2), features(2, batch=3))
    with pytest.raises(ValueError, match="2 masks for 3 pictures"):
        feature_ops.mix(features(1, batch=3), B, shares=torch.ones(2, 8, 8))
    with pytest.raises(ValueError, match="c: 1 of the features' values are NaN"):
        broken = C.tokens.clone()
        broken[0, 0, 0] = float("nan")
        feature_ops.arithmetic(A, B, dataclasses.replace(C, tokens=broken))
    with pytest.raises(ValueError, match="between 0"):
        feature_ops.mix(A, B, 1.5)
    with pytest.raises(ValueError, match="the batch of features is empty"):
        feature_ops.mix(A, B[:0])


def test_another_tower_is_told():
    told = []
    feature_ops.mix(A, features(2, tower="u"), warn=told.append)
    assert len(told) == 1 and "'u'" in told[0]


def test_the_portrait_is_the_principal_components():
    """Features that lie on three known axes come back as those axes, largest first; equal cells have equal colours."""
    seeds = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=seeds)
    x = torch.linalg.qr(x - x.mean(0))[0] * torch.tensor([9.0, 3.0, 1.0])  # centred and exactly uncorrelated
    q = torch.linalg.qr(torch.randn(3, 3, generator=seeds))[0]  # some orthonormal basis
    picture, held = feature_ops.portrait(dataclasses.replace(A, tokens=(x @ q)[None]), 64)
    assert picture.shape == (1, 64, 64, 3) and held == pytest.approx(1)
    assert picture.min() == 0 and picture.max() == 1
    seen = picture[0, ::8, ::8].reshape(64, 3)
    for k in range(3):
        assert abs(torch.corrcoef(torch.stack([seen[:, k], x[:, k]]))[0, 1]) > 0.999
    assert torch.equal(picture[0, 0, 0], picture[0, 7, 7]) and not torch.equal(picture[0, 0, 0], picture[0, 0, 8])


def test_a_portrait_of_equal_features_is_grey():
    flat, held = feature_ops.portrait(dataclasses.replace(A, tokens=torch.ones(2, 64, 6)))
    assert held == 1 and torch.equal(flat, torch.full_like(flat, 0.5))
    assert feature_ops.portrait(features(1, width=2))[0].shape[-1] == 3
