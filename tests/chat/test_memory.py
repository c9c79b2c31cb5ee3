"""What a short memory carries beside the last exchanges."""

import pytest
import torch
from wegen.wegen_model.chat.conversation import Conversation, Reference, Turn
from wegen.wegen_model.chat.memory import recall, recalled
from wegen.wegen_model.chat.prompt import first_kept
from wegen.wegen_model.features import Features

FEATURES = Features(torch.zeros(1, 4, 2), (2, 2), "s", "s")
SHOWN = (Reference(features=FEATURES),)


def talk(*exchanges: tuple[str, bool], message: str, shown: bool = False) -> Conversation:
    """Exchanges (words, answered with a picture?), and a message."""
    turns = []
    for words, picture in exchanges:
        turns += [Turn("user", words), Turn("assistant", "" if picture else "yes", pictures=(FEATURES,) if picture else ())]
    return Conversation((*turns, Turn("user", message, SHOWN if shown else ())))


A, Q, R = ("a fox", True), ("is it red?", False), ("what can you draw?", False)


@pytest.mark.parametrize(
    ("made", "memory", "said"),
    [
        (talk(A, Q, message="make it blue"), 1, ["a fox", "make it blue"]),
        (talk(A, Q, R, message="Make it blue!"), 1, ["a fox", "Make it blue!"]),
        (talk(A, Q, R, message="make it blue"), 2, ["a fox", "what can you draw?", "make it blue"]),
        (talk(A, Q, message="yes please"), 1, ["is it red?", "yes please"]),  # an answer to what was just said
        (talk(A, A, message="make it blue"), 1, ["a fox", "make it blue"]),  # the last exchange shows one
        (talk(A, Q, message="make it blue", shown=True), 1, ["is it red?", "make it blue"]),  # brings its own
        (talk(R, Q, message="make it blue"), 1, ["is it red?", "make it blue"]),  # nothing was shown
        (talk(A, Q, message="make it blue"), 0, ["a fox", "is it red?", "make it blue"]),
        (talk(message="make it blue"), 1, ["make it blue"]),
    ],
)
def test_the_picture_that_is_meant_takes_the_place_of_words(made, memory, said):
    seen = recall(made, memory)
    turns = seen.turns[first_kept(seen.turns, memory) :]
    assert [turn.text for turn in turns if turn.role == "user"] == said


def test_it_stays_so_while_the_answer_is_drawn():
    made = talk(A, Q, message="make it blue")
    drawing = Conversation((*made.turns, Turn("assistant", "", open_image=True)))
    assert recalled(drawing.turns, 1) == recalled(made.turns, 1) == range(0, 2)
    assert [turn.role for turn in recall(drawing, 1).turns] == ["user", "assistant"] * 2


def test_a_picture_that_was_attached_is_remembered_like_one_that_was_drawn():
    turns = (Turn("user", "what is in <image_1>?", SHOWN), Turn("assistant", "a cat"), Turn("user", "sure?"), Turn("assistant", "yes"))
    assert recalled((*turns, Turn("user", "where is it?")), 1) == range(0, 2)
