"""wegen-7b on the meta device: parameter counts, and names and shapes equal to the public code's (golden/state_dict_keys)."""

import pytest
import torch
from wegen.tests.golden_files import key_list
from wegen.wegen_model.chat.tokenizer import special_tokens
from wegen.wegen_model.checkpoint import shapes as known_shapes
from wegen.wegen_model.checkpoint.convert import skeleton
from wegen.wegen_model.checkpoint.formats.eva_clip import TOWER
from wegen.wegen_model.checkpoint.formats.wegen import AGENT
from wegen.wegen_model.checkpoint.key_maps import detect
from wegen.wegen_model.config import PRESETS

CONFIG = PRESETS["wegen-7b"]
PARTS = ("vision", "language", "projectors", "unet", "vae")


@pytest.fixture(scope="module")
def shapes():
    """part -> {name: shape} of our modules."""
    return {part: {k: tuple(v.shape) for k, v in skeleton(part, CONFIG).state_dict().items()} for part in PARTS}


def parameters(part):
    return sum(p.numel() for p in skeleton(part, CONFIG).parameters())


def test_parameter_counts():
    assert parameters("vision") == 4_350_208_256
    assert parameters("unet") == 2_525_520_644


@pytest.mark.parametrize("part, name", [("vision", "eva_full"), ("unet", "unet_full")])
def test_tower_and_unet_have_the_public_names_and_shapes(shapes, part, name):
    assert shapes[part] == key_list(name)


def test_the_agent_s_state_dict_becomes_our_parts(shapes):
    keys = key_list("mllm_full")
    assert len(keys) == 2255 and detect(keys) is AGENT
    routed, unknown = AGENT.route(keys)
    assert not unknown
    dropped = {key for key, _, row in routed if row.part is None}
    assert dropped == {k for k in keys if k.endswith(("rotary_emb.inv_freq", ".scale")) and len(keys[k]) < 2}
    for part in ("language", "projectors", "unet", "vae"):
        assert {target: keys[key] for key, target, row in routed if row.part == part} == shapes[part], part


def test_the_tower_s_keys_pass_through(shapes):
    keys = key_list("eva_full")
    assert detect(keys) is TOWER
    routed, unknown = TOWER.route(keys)
    assert not unknown and {target for _, target, _ in routed} == set(shapes["vision"])


def test_conditioning_widths():
    unet = skeleton("unet", CONFIG)
    assert unet.add_embedding.linear_1.in_features == 3328 == 1792 + 6 * 256
    cross = [m for name, m in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    assert len(cross) == 140 and {m.in_features for m in cross} == {1792}
    with torch.device("meta"):
        tokens = skeleton("vision", CONFIG)(torch.empty(1, 3, 448, 448))
    assert tokens.shape == (1, 1024, 1792)


def test_special_ids():
    table = special_tokens(32000)
    assert len(table) == 330 and CONFIG.language.vocab_size == 32330
    expected = {
        "<img_00000>": 32000,
        "<img_00099>": 32099,
        "<img>": 32100,
        "</img>": 32101,
        "<patch>": 32102,
        "</patch>": 32103,
        "<loc-0>": 32104,
        "<loc-223>": 32327,
        "<box_start>": 32328,
        "<box_end>": 32329,
    }
    assert {name: table[name] for name in expected} == expected


@pytest.mark.parametrize(
    "name, part", [("wegen-7b", "unet"), ("wegen-7b", "vae"), ("tiny", "unet"), ("tiny", "vae"), ("wegen-mini", "unet")]
)
def test_shapes_from_a_configuration_are_those_of_diffusers(name, part):
    config = PRESETS[name]
    ours = getattr(known_shapes, part)(getattr(config, part))
    assert ours == {k: tuple(v.shape) for k, v in skeleton(part, config).state_dict().items()}
