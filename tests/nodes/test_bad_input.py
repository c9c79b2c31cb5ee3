"""Each bad input ends in an error that names the input and the remedy."""

import dataclasses

import pytest
import torch
from wegen.nodes import NODE_CLASS_MAPPINGS
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture, tiny_config, tiny_model


def refused(match, node, **inputs):
    with pytest.raises(ValueError, match=match):
        call(node, **inputs)


def test_empty_message(model):
    refused("the message is empty: write what you want", "WeGenChat", model=model, message="  \n")


def test_tag_without_its_picture(model):
    refused(
        r"<image_3>, but this turn has 2 references. Connect image_3",
        "WeGenChat",
        model=model,
        message="<image_3>",
        image_1=picture(),
        image_2=picture(),
    )


def test_tag_that_counts_sockets(model):
    refused(
        r"says <image_3>, but the picture at image_3 is reference 2 here: write <image_2>\.",
        "WeGenChat",
        model=model,
        message="<image_3>",
        image_1=picture(),
        image_3=picture(),
    )
    refused(
        "picture at image_3 is reference 2 here: write <image_2>",
        "WeGenBboxCompose",
        prompt="<image_3>",
        image_1=picture(),
        image_3=picture(),
    )
    refused(
        "says <bbox_3>, but box 3 is reference 2 here: write <bbox_2>",
        "WeGenBboxCompose",
        prompt="<bbox_3>",
        box_text="0 0 1 1\n\n0 0 0.5 0.5",
        image_1=picture(),
    )
    place = call("WeGenBboxCompose", box_text="0 0 1 1")[0][0]
    refused(
        "picture at image_1 is reference 2 here: write <image_2>",
        "WeGenChat",
        model=model,
        message="<image_1>",
        references=place,
        image_1=picture(),
    )


def test_tag_without_its_box(model):
    refused(
        r"<bbox_1>, but reference 1 has no box. Give it one \(Bbox Compose\)",
        "WeGenChat",
        model=model,
        message="<bbox_1>",
        image_1=picture(),
    )


def test_nan_in_a_picture(model):
    broken = picture()
    broken[0, 3, 3] = float("nan")
    refused("image: it contains NaN", "WeGenEncode", model=model, image=broken)
    refused("NaN", "WeGenChat", model=model, message="<image_1>", image_1=broken)


def test_nan_in_features(model):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    tokens = features.tokens.clone()
    tokens[0, 5] = float("inf")
    features = dataclasses.replace(features, tokens=tokens)
    refused(
        "SDXL Feature Decoder, features: 32 of the features' values are NaN or infinite", "WeGenDecode", features=features, decoder=model
    )
    refused("image_1: 32 of", "WeGenChat", model=model, message="<image_1>", image_1=features)


def test_no_picture_in_an_image(model):
    refused("is no picture", "WeGenEncode", model=model, image=torch.zeros(1, 0, 8, 3))


def test_features_of_another_space(model):
    other = dataclasses.replace(call("WeGenEncode", model=model, image=picture())[0][0], space="other/8x8x32")
    refused(
        "space 'other/8x8x32', but the decoder 'tiny' reads 'tiny/8x8x32'.*load a decoder", "WeGenDecode", features=other, decoder=model
    )
    refused("image_1: the features are of the space 'other", "WeGenChat", model=model, message="<image_1>", image_1=other)


def test_another_tower_is_a_note(model):
    other = dataclasses.replace(call("WeGenEncode", model=model, image=picture())[0][0], tower="official")
    (image,), shown = call("WeGenDecode", features=other, decoder=model)
    assert image.shape == (1, 32, 32, 3)
    assert "tower 'official'" in shown[0]


@pytest.mark.parametrize(
    "inputs, match",
    [
        ({"use_default_size": False, "width": 12}, "width is 12: it must be a multiple of 8"),
        ({"use_default_size": False, "height": 0}, "height is 0: it must be a multiple of 8, and at least 8"),
        ({"use_defaults": False, "steps": 0}, "steps is 0: at least 1"),
        ({"use_defaults": False, "guidance_scale": -1.0}, "guidance_scale is -1.0: it must be 0 or more"),
    ],
)
def test_decoder_numbers(model, inputs, match):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    refused(match, "WeGenDecode", features=features, decoder=model, **inputs)


def test_guidance_below_zero(model, asked):
    refused("guidance is -0.5: it must be 0 or more", "WeGenDraw", model=model, chat=asked, guidance=-0.5)


def test_drawing_where_no_picture_was_opened(model):
    chat = call("WeGenChat", model=model, message="hello", picture="never", max_tokens=2)[0][0]
    refused("opened no picture.*set `picture` to «always»", "WeGenDraw", model=model, chat=chat)


def test_answering_before_the_picture_is_drawn(model, asked):
    refused("never drawn: pass the conversation through AR Feature Decode", "WeGenChat", model=model, message="redder", chat=asked)


@pytest.mark.parametrize("lack", ["keep_features", "keep_mask"])
def test_half_of_the_keep_inputs(model, asked, lack):
    keep = {"keep_features": call("WeGenEncode", model=model, image=picture())[0][0], "keep_mask": torch.ones(1, 8, 8)}
    del keep[lack]
    refused(f"but {lack} is not. Keeping needs both", "WeGenDraw", model=model, chat=asked, **keep)


def test_no_picture_in_keep_features(model, asked):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    refused(
        "keep_features is an empty batch", "WeGenDraw", model=model, chat=asked, keep_features=features[:0], keep_mask=torch.ones(1, 8, 8)
    )


@pytest.mark.parametrize("options", [{"mode": "parallel"}, {"readout": "released"}])
def test_keeping_excludes_other_ways(model, asked, options):
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    refused("keeping cells needs", "WeGenDraw", model=model, chat=asked, keep_features=features, keep_mask=torch.ones(1, 8, 8), **options)


def test_parallel_without_training(tmp_path):
    base = tiny_config()
    plain = tiny_model(tmp_path / "plain", parts=("language", "projectors"), features=dataclasses.replace(base.features, parallel=False))
    model = call("WeGenLoadModel", model=str(plain))[0][0]
    chat = call("WeGenChat", model=model, message="a", picture="always", max_tokens=2)[0][0]
    refused("not trained to write in parallel. Set mode", "WeGenDraw", model=model, chat=chat, mode="parallel")
    refused("no unet", "WeGenDecode", features=model.features(torch.zeros(1, 64, 32)), decoder=model)


def test_past_the_positions(model):
    long = call("WeGenChat", model=model, message="word " * 120, picture="never", max_tokens=4)[0][0]
    refused(
        r"Drop the first 2 turns \(up to .*or switch trim_oldest on",
        "WeGenChat",
        model=model,
        message="more " * 60,
        chat=long,
        picture="never",
        max_tokens=200,
    )
    (chat, reply, *_), _ = call(
        "WeGenChat", model=model, message="more " * 60, chat=long, picture="never", max_tokens=200, trim_oldest=True
    )
    assert len(chat.turns) == 4
    refused("lower max_tokens", "WeGenChat", model=model, message="hello", max_tokens=4096)


def test_unknown_model_folder():
    for node, key in (("WeGenLoadModel", "model"), ("WeGenLoadDecoder", "decoder")):
        said = NODE_CLASS_MAPPINGS[node].VALIDATE_INPUTS("nowhere")
        assert "'nowhere'" in said and "wegen-mini" in said and "wegen convert" in said
        refused("there is no", node, **{key: "nowhere"})


def test_damaged_weights_name_the_file(tmp_path):
    folder = tiny_model(tmp_path / "cut", parts=("vision",))
    file = folder / "vision.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    model = call("WeGenLoadModel", model=str(folder))[0][0]
    refused("vision.safetensors: damaged or incomplete", "WeGenEncode", model=model, image=picture())


@pytest.mark.parametrize(
    "inputs, match",
    [
        ({"box_text": "0.5 0 0.6 0.5"}, r"box_text, box 1: box \(0.5, 0, 0.6, 0.5\) reaches outside the picture"),
        ({"box_text": "0 0 1 1\n0 0 0 0.5"}, "box_text, box 2: .*empty or reversed"),
        ({"box_text": "0 0 left"}, "box_text, line 1: «0 0 left» is not four numbers"),
        ({"box_text": "0 0 1"}, "box_text, box 1: .* is not four numbers"),
        ({"box_text": "{'x': 1}"}, "box_text: neither lines of four numbers nor JSON"),
        ({"box_text": "[\n  [0, 0, 1, 1],\n"}, "box_text: neither lines of four numbers nor JSON"),
        ({"box_text": "[\n  [0, 0, 1, 1],\n  [0, 0, 1]\n]"}, "box_text, box 2: .* is not four numbers"),
        ({"boxes": {"x": 0, "y": 0, "width": 600, "height": 10}}, r"boxes, box 1: .*pixels of a canvas of 512x512"),
        ({"boxes": [(50, 50, 10, 10)], "bbox_format": "xyxy"}, "empty or reversed"),
        ({"boxes": {"x": 0, "width": 1, "height": 1}}, "boxes, box 1: it has no y"),
        ({"boxes": [(0, 0, float("nan"), 1)]}, "NaN"),
        ({"boxes": 7}, "int is not a box"),
        ({"prompt": "at <bbox_1>", "image_1": picture()}, "<bbox_1>, but reference 1 has no box"),
        ({"prompt": "<image_1>", "box_text": "0 0 1 1"}, "<image_1>, but reference 1 is only a box"),
    ],
)
def test_compose_refuses(inputs, match):
    refused(match, "WeGenBboxCompose", width=512, height=512, **inputs)
