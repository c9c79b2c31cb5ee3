"""Boxes in every form they come in, and what Bbox Compose makes of them."""

import json

import numpy as np
import pytest
import torch
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture
from wegen.wegen_model.chat.box_forms import given_labels, normalise_boxes, parse_boxes
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
    (references, prompt, boxes, preview, masks, *_), shown = call(
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
    (both, _, boxes, _, masks, *_), shown = call(
        "WeGenBboxCompose", prompt="<bbox_1> <bbox_2>", box_text="0.5 0.5 0.5 0.5", references=first, image_1=picture(seed=2)
    )
    assert both[0] is first[0] and torch.equal(both[1].picture, picture(seed=2))
    assert len(boxes[0]) == len(masks) == 2
    assert shown == ["Note: image_1 is reference 2 here: write <image_2> for it in the text."]


def test_places_without_pictures_and_pictures_without_places():
    (references, _, boxes, _, masks, *_), _ = call("WeGenBboxCompose", box_text="\n0 0 0.5 0.5", image_1=picture(), width=64, height=64)
    assert [(r.has_picture, r.box is not None) for r in references] == [(True, False), (False, True)]
    assert boxes[0][0]["label"] == "bbox_2" and len(masks) == 1


def test_nothing_connected_is_nothing():
    (references, prompt, boxes, preview, masks, *_), _ = call("WeGenBboxCompose", width=128, height=64)
    assert references == () and prompt == "" and boxes == [[]]
    assert preview.shape == (1, 64, 128, 3) and masks.shape == (1, 64, 128) and masks.max() == 0


def test_connected_boxes_win_over_text():
    (references, *_), shown = call("WeGenBboxCompose", boxes=NATIVE, box_text="0 0 1 1", width=200, height=100, image_1=picture())
    assert references[0].box == HALF and "box_text is ignored" in shown[0]


def test_preview_of_a_large_canvas_is_small_and_keeps_its_shape():
    preview = call("WeGenBboxCompose", box_text="0 0 1 1", width=4096, height=1024)[0][3]
    assert preview.shape == (1, 192, 768, 3)


def red_on_noise():
    """A red square on noise (1,64,64,3), and its MASK: white around it."""
    shown = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    shown[:, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.1])
    mask = torch.ones(1, 64, 64)
    mask[:, 16:48, 16:48] = 0
    return shown, mask


def composed(**inputs):
    (references, *_, plan, _), notes = call("WeGenBboxCompose", box_text="0 0 0.5 0.5", width=128, height=128, **inputs)
    return references, plan[0], notes


def test_a_mask_cuts_its_picture_out_and_the_plan_shows_it():
    shown, mask = red_on_noise()
    (reference,), plan, notes = composed(image_1=shown, mask_1=mask)
    assert reference.picture.shape == (1, 64, 64, 4) and not notes
    inside = plan[20:60, 20:60]
    assert (inside - torch.tensor([0.9, 0.1, 0.1])).abs().max() < 0.02 and plan[120, 120].max() < 0.3
    assert torch.equal(composed(image_1=reference.picture)[1], plan), "the same as alpha"


def test_the_blank_mask_of_load_image_changes_nothing():
    shown, _ = red_on_noise()
    (reference,), plan, notes = composed(image_1=shown, mask_1=torch.zeros(1, 64, 64))
    assert torch.equal(reference.picture, shown) and torch.equal(plan, composed(image_1=shown)[1]) and not notes
    assert composed(image_1=torch.rand(1, 30, 200, 3), mask_1=torch.zeros(1, 64, 64))[2] == []


def test_masks_of_other_sizes_batches_and_places_are_taken_with_a_word():
    shown, mask = red_on_noise()
    small = torch.nn.functional.interpolate(mask[None], (32, 32))[0]
    assert composed(image_1=shown, mask_1=small)[0][0].picture.shape == (1, 64, 64, 4)
    assert composed(image_1=shown, mask_1=mask[0])[2] == []
    assert "mask_1 holds 2 masks" in composed(image_1=shown, mask_1=mask.repeat(2, 1, 1))[2][0]
    assert "mask_1 is 64x32 and its picture 64x64" in composed(image_1=shown, mask_1=mask[:, :32])[2][0]
    assert "mask_2 is ignored: nothing is connected at image_2" in composed(image_1=shown, mask_2=mask)[2][0]


@pytest.mark.parametrize(
    "mask, words",
    [
        (torch.ones(1, 64, 64), "mask_1: it is white everywhere.*Invert Mask"),
        (torch.full((1, 64, 64), torch.nan), "mask_1: it contains NaN"),
        (torch.zeros(1, 64, 64, 3), "is no mask. Connect a MASK"),
        ("x", "str is no mask"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_in_words(mask, words):
    with pytest.raises(ValueError, match=words):
        composed(image_1=red_on_noise()[0], mask_1=mask)


def test_a_picture_that_is_transparent_everywhere_is_refused_in_words():
    with pytest.raises(ValueError, match="image_1: the picture is transparent everywhere"):
        composed(image_1=torch.zeros(1, 8, 8, 4))


def test_both_subjects_show_where_boxes_overlap_and_labels_stand_in_the_plan():
    shown, mask = red_on_noise()
    plan = call(
        "WeGenBboxCompose", box_text="0 0 1 1\n0 0 1 1", width=64, height=64, image_1=shown, image_2=shown * 0, mask_1=mask, mask_2=1 - mask
    )
    assert ((plan[0][5][0] - torch.tensor([0.9, 0.1, 0.1])).abs().amax(-1) < 0.05).any()


@pytest.mark.parametrize(
    "value",
    [
        np.array([[100, 50, 100, 25]]),
        np.array([100.0, 50, 100, 25]),
        [np.array([100, 50, 100, 25])],
        [(np.float32(100), np.float32(50), np.int64(100), 25)],
        [{"x": 100, "y": 50, "w": 100, "h": 25}],
        [{"bbox": [500, 500, 750, 1000], "desc": "a cat"}],
        [(100, 50, 102, 26)],  # two pixels over a side of 200, one over 100: as a detector may
    ],
)
def test_boxes_of_detectors_and_layout_nodes_are_read(value):
    (box,) = normalise_boxes(value, 200, 100)
    assert (box.x, box.y, box.width) == (0.5, 0.5, 0.5) and box.height == pytest.approx(0.25, abs=0.011)


def test_a_box_far_outside_is_still_refused():
    with pytest.raises(ValueError, match="reaches outside"):
        normalise_boxes([(150, 50, 60, 25)], 200, 100)
    assert normalise_boxes([], 200, 100) == () == normalise_boxes(np.zeros((0, 4)), 200, 100)


def test_names_go_through_boxes_and_elements_and_come_back():
    rows = [[{"x": 0, "y": 0, "width": 100, "height": 50, "metadata": {"desc": "a cat"}}, {"x": 100, "y": 50, "width": 100, "height": 25}]]
    (references, _, boxes, *_, elements), _ = call("WeGenBboxCompose", boxes=rows, width=200, height=100)
    assert [r.label for r in references] == ["a cat", ""]
    assert boxes[0][0]["label"] == "a cat" and boxes[0][1]["label"] == "bbox_2"
    assert elements == [{"bbox": [0, 0, 500, 500], "desc": "a cat"}, {"bbox": [500, 500, 750, 1000], "desc": "bbox_2"}]
    for again in (boxes, elements):
        assert call("WeGenBboxCompose", boxes=again, width=200, height=100)[0][0] == references
        assert given_labels(again) == ("a cat", "")


def test_the_background_is_below_the_preview_s_boxes_alone():
    ground = torch.tensor([0.2, 0.4, 0.6]).expand(1, 10, 10, 3)
    options = {"box_text": "0.5 0.5 0.5 0.5", "width": 64, "height": 64, "image_1": torch.ones(1, 4, 4, 3)}
    (*with_it,), _ = call("WeGenBboxCompose", background=ground, **options)
    (*without,), _ = call("WeGenBboxCompose", **options)
    assert with_it[3][0, 5, 5].tolist() == pytest.approx([0.2, 0.4, 0.6], abs=0.01)
    assert torch.equal(with_it[3][:, 40:, 40:], without[3][:, 40:, 40:]) and torch.equal(with_it[5], without[5])
