"""Boxes in every form they come in, and what Bbox Compose makes of them."""

import json

import pytest
import torch
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture
from wegen.wegen_model.chat.boxes import normalise_boxes, parse_boxes
from wegen.wegen_model.chat.conversation import Box

HALF = Box(0.25, 0.5, 0.5, 0.25)
NATIVE = {"x": 50, "y": 50, "width": 100, "height": 25}  # HALF on a canvas of 200 x 100


@pytest.mark.parametrize(
    "value, bbox_format",
    [
        (NATIVE, "xywh"),
        ([NATIVE], "xywh"),
        ([[NATIVE]], "xywh"),
        ([[NATIVE], [{"x": 0, "y": 0, "width": 9, "height": 9}]], "xywh"),  # per frame: the first
        ({**NATIVE, "label": "cat", "score": 0.9}, "xywh"),
        ({k: float(v) for k, v in NATIVE.items()}, "xyxy"),  # the format is for bare numbers only
        ({"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25}, "xywh"),
        ((50, 50, 100, 25), "xywh"),
        ([(50, 50, 100, 25)], "xywh"),
        ([[(50, 50, 100, 25)]], "xywh"),
        ([(50, 50, 150, 75)], "xyxy"),
        ([[0.25, 0.5, 0.75, 0.75]], "xyxy"),
        (torch.tensor([[50.0, 50, 100, 25]]), "xywh"),
        (json.dumps([[NATIVE]]), "xywh"),
        ("[0.25, 0.5, 0.5, 0.25]", "xywh"),
    ],
)
def test_every_form_is_the_same_box(value, bbox_format):
    assert normalise_boxes(value, 200, 100, bbox_format) == (HALF,)


@pytest.mark.parametrize("value", [None, [], [[]], "[]"])
def test_no_boxes(value):
    assert normalise_boxes(value, 200, 100) == ()


@pytest.mark.parametrize("value", [[None, NATIVE], [[None, NATIVE]], [None, (50, 50, 100, 25)], json.dumps([None, NATIVE])])
def test_no_box_for_one_leaves_the_others_in_place(value):
    assert normalise_boxes(value, 200, 100) == (None, HALF)
    (references, *_), _ = call("WeGenBboxCompose", boxes=value, width=200, height=100, image_1=picture(), image_2=picture())
    assert [r.box for r in references] == [None, HALF]


def test_a_place_with_another_number_is_told_as_a_box():
    _, shown = call("WeGenBboxCompose", box_text="\n0 0 0.5 0.5")
    assert shown == ["Note: box 2 is reference 1 here: write <bbox_1> for it in the text."]


def test_one_pixel_beside_pixel_boxes_is_a_pixel():
    assert normalise_boxes([(0, 0, 1, 1), (50, 50, 100, 25)], 200, 100) == (Box(0, 0, 1 / 200, 1 / 100), HALF)


def test_a_detectors_overshoot_is_cut():
    assert normalise_boxes([(-0.4, 0, 200.6, 100.3)], 200, 100)[0] == Box(0, 0, 1, 1)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.25 0.5 0.5 0.25", (HALF,)),
        ("0.25, 0.5, 0.5, 0.25\n", (HALF,)),
        ("[0.25, 0.5, 0.5, 0.25]", (HALF,)),
        ("(0.25;0.5;0.5;0.25)", (HALF,)),
        ("50 50 100 25", (HALF,)),
        ("\n0.25 0.5 0.5 0.25", (None, HALF)),
        ("0.25 0.5 0.5 0.25\n-\n0.25 0.5 0.5 0.25", (HALF, None, HALF)),
        ("[0.25, 0.5, 0.5, 0.25]\n[0.25, 0.5, 0.5, 0.25]", (HALF, HALF)),
        ("[[0.25, 0.5, 0.5, 0.25], null]", (HALF, None)),
        ('[{"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25}]', (HALF,)),
        (json.dumps([[0.25, 0.5, 0.5, 0.25], None, [0.25, 0.5, 0.5, 0.25]], indent=2), (HALF, None, HALF)),
        (json.dumps({"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25}, indent=2), (HALF,)),
        ("[\n[0.25, 0.5, 0.5, 0.25],\n[0.25, 0.5, 0.5, 0.25]\n]", (HALF, HALF)),
        ("[\n0.25, 0.5, 0.5, 0.25\n]", (HALF,)),
        ("\n[0.25, 0.5, 0.5, 0.25]", (None, HALF)),
        ("", ()),
        ("\n \n", ()),
    ],
)
def test_box_text(text, expected):
    assert parse_boxes(text, 200, 100) == expected


def test_outputs_agree():
    (references, prompt, boxes, preview, masks), shown = call(
        "WeGenBboxCompose",
        prompt="<image_1> at <bbox_1>",
        box_text="0 0 0.5 1\n0.5 0.5 0.25 0.5",
        width=256,
        height=128,
        image_1=picture(),
        image_2=torch.ones(1, 4, 4, 3),
    )
    assert prompt == "<image_1> at <bbox_1>" and not shown
    assert [r.box for r in references] == [Box(0, 0, 0.5, 1), Box(0.5, 0.5, 0.25, 0.5)]
    assert boxes == [
        [
            {"x": 0, "y": 0, "width": 128, "height": 128, "label": "bbox_1"},
            {"x": 128, "y": 64, "width": 64, "height": 64, "label": "bbox_2"},
        ]
    ]
    assert normalise_boxes(boxes, 256, 128) == tuple(r.box for r in references)
    assert preview.shape == (1, 128, 256, 3) and masks.shape == (2, 128, 256)
    assert masks[1].sum() == 64 * 64 and masks[1, 64:, 128:192].min() == 1
    assert preview[0, 120, 184].min() > 0.99  # the white picture inside its box
    assert preview[0, 4, 250].max() < 0.3  # the empty canvas


def test_chaining_keeps_order_and_boxes():
    (first, *_), _ = call("WeGenBboxCompose", box_text="0 0 0.5 0.5", image_1=picture(seed=1))
    (both, _, boxes, _, masks), shown = call(
        "WeGenBboxCompose", prompt="<bbox_1> <bbox_2>", box_text="0.5 0.5 0.5 0.5", references=first, image_1=picture(seed=2)
    )
    assert both[0] is first[0] and torch.equal(both[1].picture, picture(seed=2))
    assert len(boxes[0]) == len(masks) == 2
    assert shown == ["Note: image_1 is reference 2 here: write <image_2> for it in the text."]


def test_places_without_pictures_and_pictures_without_places():
    (references, _, boxes, _, masks), _ = call("WeGenBboxCompose", box_text="\n0 0 0.5 0.5", image_1=picture(), width=64, height=64)
    assert [(r.has_picture, r.box is not None) for r in references] == [(True, False), (False, True)]
    assert boxes[0][0]["label"] == "bbox_2" and len(masks) == 1


def test_nothing_connected_is_nothing():
    (references, prompt, boxes, preview, masks), _ = call("WeGenBboxCompose", width=128, height=64)
    assert references == () and prompt == "" and boxes == [[]]
    assert preview.shape == (1, 64, 128, 3) and masks.shape == (1, 64, 128) and masks.max() == 0


def test_connected_boxes_win_over_text():
    (references, *_), shown = call("WeGenBboxCompose", boxes=NATIVE, box_text="0 0 1 1", width=200, height=100, image_1=picture())
    assert references[0].box == HALF and "box_text is ignored" in shown[0]


def test_preview_of_a_large_canvas_is_small_and_keeps_its_shape():
    preview = call("WeGenBboxCompose", box_text="0 0 1 1", width=4096, height=1024)[0][3]
    assert preview.shape == (1, 192, 768, 3)
