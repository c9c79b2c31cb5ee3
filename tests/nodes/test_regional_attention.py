"""Regional attention: its bias, in diffusers' UNet, and in ComfyUI's (the last part needs WEGEN_COMFYUI; regional_inside_comfyui.py says)."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wegen
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model.chat.conversation import Box, Reference
from wegen.wegen_model.models.regional_attention import AttentionBias, RegionalAttention, level

GRID = (8, 8)
CORNER, HALF = Box(0, 0, 0.25, 0.25), Box(0.5, 0, 0.5, 1)


def features(model, rows=1, seed=0):
    return model.features(2 * torch.randn(rows, 64, 32, generator=torch.Generator().manual_seed(seed)))


def decode(decoder, given, **options):
    options = {"seed": 1, "use_defaults": False, "steps": 3, "guidance_scale": 2.0, **options}
    return call("WeGenDecode", features=given, decoder=decoder, **options)[0][0]


# --- the bias -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (32, 24), (5, 7)])
def test_a_pixel_attends_most_to_the_cell_that_it_lies_in(size):
    logits = RegionalAttention(0.5).logits(size, GRID)
    assert logits.shape == (size[0] * size[1], 64) and torch.isfinite(logits).all() and (logits <= 0).all()
    y, x = torch.meshgrid(*((torch.arange(s) + 0.5) / s * 8 for s in size), indexing="ij")
    own = logits.gather(1, (y.long() * 8 + x.long()).reshape(-1, 1))[:, 0]  # a pixel on a border belongs to both
    assert torch.allclose(logits.amax(1), own)


def test_the_bias_is_a_gaussian_of_the_distance_in_cells():
    logits = RegionalAttention(2.0).logits(GRID, GRID)
    assert logits[0, 0] == 0 and logits[0, 1] == pytest.approx(-1 / 8) and logits[0, 63] == pytest.approx(-98 / 8)


def test_reference_tokens_act_in_their_box_alone_and_own_tokens_everywhere(model):
    regional = RegionalAttention(0.0, features(model), (CORNER, HALF), 4.0)
    cells = regional.cells(GRID)
    assert len(cells) == 4 + 32 and cells[0] == [CORNER] and cells[4] == [HALF]
    logits = regional.logits((16, 16), GRID).reshape(16, 16, 64 + 36)
    assert (logits[..., :64] == 0).all()
    acts = torch.isfinite(logits[..., 64:])
    columns = list(cells)
    corner, half = [columns.index(c) for c in (0, 1, 8, 9)], [columns.index(c) for c in range(64) if c % 8 >= 4]
    assert acts[:4, :4][..., corner].all() and not acts[4:][..., corner].any() and not acts[:, 4:][..., corner].any()
    assert acts[:, 8:][..., half].all() and not acts[:, :8][..., half].any()
    assert torch.allclose(logits[0, 0, 64 + corner[0]], torch.tensor(4.0).log())


def test_a_cell_of_two_boxes_acts_in_both(model):
    regional = RegionalAttention(0.0, features(model), (Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.5, 0.5)))
    cells = regional.cells(GRID)
    assert len(cells) == 16 + 16 - 4 and len(cells[3 * 8 + 3]) == 2
    acts = torch.isfinite(regional.logits(GRID, GRID)[:, 64 + list(cells).index(3 * 8 + 3)]).reshape(8, 8)
    assert acts.sum() == 28 and acts[0, 0] and acts[5, 5] and not acts[0, 5]


def test_references_stay_out_of_the_unconditional_rows(model):
    bias = AttentionBias(RegionalAttention(0.0, features(model), (CORNER,)), GRID, (16, 16), pictures=2)
    rows = torch.zeros(4, 256, 8)
    assert bias.lengthen(torch.zeros(4, 64, 32)).shape == (4, 68, 32)
    acts = torch.isfinite(bias.mask((16, 16), rows)[:, 0, :, 64:])
    assert acts[:2].any() and not acts[2:].any()
    chunks = bias.at((16, 16), 1, (False, True, True, False))  # ComfyUI's order is its own
    assert torch.isfinite(chunks.mask((16, 16), rows)[:, 0, :, 64:]).any(2).any(1).tolist() == [False, True, True, False]


def test_levels_are_halves_rounded_up():
    assert [level((19, 12), n) for n in (228, 60, 15)] == [(19, 12), (10, 6), (5, 3)]
    with pytest.raises(ValueError, match="which is none of a 12x19 latent"):
        level((19, 12), 59)


# --- the decoder --------------------------------------------------------------------------------------------------------


def test_off_is_equal_to_the_bit_and_on_is_not(model):
    given = features(model, 2)
    plain = decode(model, given)
    for off in (
        dict(locality=0.0),
        dict(locality=0.0, reference_strength=0.0, references=(Reference(box=HALF),), reference_features=given[:1]),
    ):
        assert torch.equal(plain, decode(call("WeGenRegionalAttention", decoder=model, **off)[0][0], given))
    biased = call("WeGenRegionalAttention", decoder=model, locality=0.5)[0][0]
    assert (decode(biased, given) - plain).abs().max() > 0.01
    assert torch.equal(plain, decode(model, given)), "the decoder that came in stays as it is"
    assert biased._decoder is model.painter._decoder, "one set of weights"


def test_a_feature_acts_where_it_lies(model):
    """The cell of a feature that changes moves the picture more with the bias near it, less far from it."""
    given = features(model)
    other = dataclasses.replace(given, tokens=given.tokens.clone())
    other.tokens[:, 0] = -other.tokens[:, 0]
    other.tokens[:, 63] += given.tokens[:, 0] * 2  # the mean, the decoder's second condition, stays
    decoder = call("WeGenRegionalAttention", decoder=model, locality=0.3)[0][0]._load()
    bias = AttentionBias.of(RegionalAttention(0.3), (16, 16), GRID, 1)
    from wegen.wegen_model.models.regional_attention import biased

    moved = {}
    attention = next(m for n, m in decoder.unet.named_modules() if n.endswith("attn2"))
    query = torch.randn(1, 64, attention.to_q.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), biased(decoder.unet, bias):
        one, two = (attention(query, encoder_hidden_states=f.tokens) for f in (given, other))
    moved = (one - two).abs().mean(-1)[0]
    assert moved[0] > 100 * moved[27] and moved[63] > 100 * moved[36]


def test_references_change_their_box_in_the_rows_of_pictures(model):
    given, shown = features(model, 2), features(model, 1, 7)
    biased = call(
        "WeGenRegionalAttention",
        decoder=model,
        locality=0.0,
        reference_strength=50.0,
        references=(Reference(box=HALF),),
        reference_features=shown,
    )[0][0]
    assert (decode(biased, given) - decode(model, given)).abs().max() > 0.01
    assert (decode(biased, given, use_default_size=False, width=40, height=24)).shape == (2, 24, 40, 3)
    alone = decode(biased, given[:1], guidance_scale=1.0)
    assert alone.shape == (1, 32, 32, 3) and torch.isfinite(alone).all()


def test_a_lora_and_the_bias_go_together(model, tmp_path):
    from safetensors.torch import save_file

    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    high, wide = model.painter._load().unet.state_dict()[f"{key}.weight"].shape
    name = f"lora_unet_{key.replace('.', '_')}"
    save_file({f"{name}.lora_up.weight": torch.ones(high, 2), f"{name}.lora_down.weight": torch.ones(2, wide)}, tmp_path / "l.safetensors")
    given, regional = features(model), RegionalAttention(0.5)
    first = model.painter.with_lora(tmp_path / "l.safetensors").with_regional_attention(regional)
    last = model.painter.with_regional_attention(regional).with_lora(tmp_path / "l.safetensors")
    assert torch.equal(decode(first, given), decode(last, given))
    assert not torch.equal(decode(first, given), decode(model.painter.with_regional_attention(regional), given))


def test_the_miniature_says_that_it_hardly_sees_it():
    mini = call("WeGenLoadModel", model="wegen-mini")[0][0]
    _, shown = call("WeGenRegionalAttention", decoder=mini)
    assert any("hardly uses cross-attention" in line for line in shown)


def refused(match, node, **inputs):
    with pytest.raises(ValueError, match=match):
        call(node, **inputs)


def test_what_has_no_place_is_refused(model, folder, tmp_path):
    node, shown = "WeGenRegionalAttention", features(model)
    refused("locality is 0.05: it must be 0", node, decoder=model, locality=0.05)
    refused("there are boxes but no reference_features", node, decoder=model, references=(Reference(box=HALF),))
    refused("there are reference_features but no boxes", node, decoder=model, reference_features=shown)
    refused("none of the 1 references has a box", node, decoder=model, references=(Reference(picture()),), reference_features=shown)
    refused(
        "no cell of the 8x8 features is more than half",
        node,
        decoder=model,
        references=(Reference(box=Box(0, 0, 0.05, 0.05)),),
        reference_features=shown,
    )
    refused(
        "of the space 'other'",
        node,
        decoder=model,
        references=(Reference(box=HALF),),
        reference_features=dataclasses.replace(shown, space="other"),
    )
    broken = dataclasses.replace(shown, tokens=shown.tokens * float("nan"))
    refused("reference_features: .* NaN", node, decoder=model, references=(Reference(box=HALF),), reference_features=broken)
    three = call(node, decoder=model, references=(Reference(box=HALF),), reference_features=features(model, 3))[0][0]
    refused("hold 3 pictures, and 2 are painted", "WeGenDecode", features=features(model, 2), decoder=three)
    refused("only inside ComfyUI", "WeGenRegionalAttentionModel", model=object())
    lined = dataclasses.replace(model.config, decoder=dataclasses.replace(model.config.decoder, grid=(1, 64)))
    with pytest.raises(ValueError, match=r"lie on no grid \(1x64\)"):
        RegionalAttention(1.0).check(lined)
    with pytest.raises(ValueError, match="holds 77 tokens, and this decoder's grid has 64 cells"):
        AttentionBias(RegionalAttention(1.0), GRID).lengthen(torch.zeros(1, 77, 32))


# --- ComfyUI's UNet -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    if not os.environ.get("WEGEN_COMFYUI"):
        pytest.skip("needs a ComfyUI checkout: set WEGEN_COMFYUI to its folder (and WEGEN_COMFYUI_PYTHON to its interpreter)")
    models = tmp_path_factory.mktemp("models")
    tiny_model(models / "tiny")
    command = [os.environ.get("WEGEN_COMFYUI_PYTHON", sys.executable), str(Path(__file__).with_name("regional_inside_comfyui.py"))]
    command += [os.environ["WEGEN_COMFYUI"], str(Path(wegen.__file__).parent), str(models)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=models)
    assert done.returncode == 0 and "SAID" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.split("SAID")[1])


@pytest.mark.comfyui
def test_the_two_hosts_agree(said):
    assert said["off"] == {"effect": 0, "through the decoder": 0} and said["patcher untouched"] == 0
    for kind in ("locality", "references", "both", "one each"):
        assert said[kind]["call"] < 2e-5 and said[kind]["odd call"] < 2e-5 < said[kind]["size"], kind
        assert said[kind]["through the decoder"] == 0 < 1e-3 < said[kind]["effect"], kind
    assert said["pictures at 2"] < 1e-4 and said["pictures at 1"] < 1e-4


@pytest.mark.comfyui
def test_it_goes_with_lora_samplers_and_other_patches(said):
    assert said["twice is once"] == said["taken off"] == 0 and said["samplers"] and said["areas"]
    changed, order = said["lora"]
    assert changed > 1e-3 and order == 0
    assert said["patches beside"] == said["override beside"] == 0 and said["patches ran"] and said["override ran"]


@pytest.mark.comfyui
def test_what_does_not_go_with_it_is_refused_in_words(said):
    for when in ("foreign before", "foreign after", "ip-adapter after"):
        assert "another node (IP-Adapter, for example) replaces the same cross-attention" in said[when]
    assert "a conditioning holds 128 tokens, and this decoder's grid has 64 cells" in said["unequal"]
    assert "hold 3 pictures, and 2 are painted" in said["three pictures"]
    assert "this MODEL is no WeGen decoder" in said["no decoder"]
