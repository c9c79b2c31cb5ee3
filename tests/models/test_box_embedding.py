"""What slots are told of boxes: which cells a box covers, which box it is, and where in a conversation."""

import pytest
import torch
from wegen.wegen_model.box import BOX_IDS
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.conversation import Box, Conversation, Reference, Turn
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.features import Features
from wegen.wegen_model.models.box_embedding import MOST, WHERE, Regions, overlaps, where

D = 16


@pytest.fixture
def regions():
    torch.manual_seed(0)
    return Regions(D, (8, 8))


def test_a_box_covers_its_cells_and_half_of_a_cell_by_half():
    share = overlaps(torch.tensor([[0.25, 0.5, 0.25, 0.1875]]), (8, 8)).reshape(8, 8)
    assert share[4, 2:4].tolist() == [1, 1] and share[5, 2:4].tolist() == [0.5, 0.5]
    assert share.sum() == 3


def test_where_a_slot_lies_does_not_depend_on_where_the_box_lies():
    told = where(torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.25, 0.5, 0.5]]), (8, 8)).reshape(2, 8, 8, WHERE)
    assert torch.allclose(told[0, :4, :4], told[1, 2:6, 4:], atol=1e-6)
    assert not torch.allclose(told[0, 0, 0], told[0, 0, 1], atol=0.1)


def test_slots_outside_every_box_are_told_nothing_and_others_of_each_box(regions):
    left, right = Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1)
    with torch.no_grad():
        none, one, both, turned = regions([(), (left,), (left, right), (right, left)], torch.device("cpu")).reshape(4, 8, 8, D)
    assert not none.any() and not one[:, 4:].any() and one[:, :4].abs().amin() > 0
    assert torch.equal(one[:, :4], both[:, :4])
    assert not torch.allclose(turned[:, :4], both[:, :4]), "the second box is told from the first"
    many = [left] * (MOST + 4)
    assert regions([many], torch.device("cpu")).isfinite().all()


def test_boxes_count_from_the_turn_that_asks(tiny):
    t = Tokenizer.load(tiny)
    drawn = Features(torch.zeros(1, 64, 32), (8, 8), "tiny/8x8x32", "tiny")
    a, b = Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 0.5, 0.5)
    talk = Conversation(
        (
            Turn("user", "a <bbox_1> b <bbox_2>", (Reference(box=a), Reference(box=b))),
            Turn("assistant", "", pictures=(drawn,)),
            Turn("user", "c <bbox_1>", (Reference(box=b),)),
            Turn("assistant", "", pictures=(drawn,)),
            Turn("user", "now on red"),
            Turn("assistant", "", open_image=True),
        )
    )
    made = prompt.build(talk, t, 1024)
    assert [number for _, number in made.boxes] == [0, 1, 0]
    assert all(made.ids[at] == t.box_start and made.ids[at + BOX_IDS - 1] == t.box_end for at, _ in made.boxes)
    assert [slot.boxes for slot in made.slots] == [(a, b), (b,)] and made.asked == ()
