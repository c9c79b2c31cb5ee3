"""Commands to the conversation: which messages are some, and what they make of it."""

import pytest
import torch
from wegen.wegen_model.chat import commands
from wegen.wegen_model.chat.commands import Command, again, another_seed, apply, read, show, undo
from wegen.wegen_model.chat.conversation import Conversation, Reference, Turn
from wegen.wegen_model.features import Features


def drawn(talk: Conversation, words: str, seed: int = 0) -> Conversation:
    """The conversation after a message that was answered with a picture."""
    return answered(talk.user(words), seed)


def answered(talk: Conversation, seed: int = 0, text: str = "", pictures: int = 1) -> Conversation:
    features = tuple(Features(torch.randn(1, 4, 2), (2, 2), "s", "s") for _ in range(pictures))
    turn = Turn("assistant", text, pictures=features, seed=seed)
    return Conversation((*talk.turns, turn), talk.tokenizer, talk.drawn, talk.previous)


def words(talk: Conversation) -> list[str]:
    return [turn.text for turn in talk.turns if turn.role == "user"]


def current(talk: Conversation) -> Features:
    return talk.last.pictures[0]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        *[(t, Command("undo")) for t in ("undo", "Undo!", "  UNDO  please.", "go back", "Take that back.", "please undo", "ＵＮＤＯ")],
        *[(t, Command("again")) for t in ("again", "Again…", "once more", "another one?", "Try again, please", "¡again!")],
        *[
            (t, Command("show", 1))
            for t in ("the first one", "Back to the first", "picture 1", "image #1", "the 1st picture again", "First.")
        ],
        *[(t, Command("show", 2)) for t in ("the second picture", "go back to the second one", "show me picture two", "picture no. 2")],
        ("the 12th picture", Command("show", 12)),
        *[
            (t, None)
            for t in (
                "a fox again",
                "undo the fox",
                "another fox",
                "another one on teal",
                "the first fox",
                "back to black",
                "2",
                "the one",
                "picture",
                "<image_1>",
                "",
                "?!",
                "🦊",
                "снова",
                "un-do-it-all",
                "word " * 500,
            )
        ],
    ],
)
def test_a_command_is_a_whole_message_in_one_of_the_phrases(text, command):
    assert read(text) == command


def test_a_message_that_brings_a_picture_is_a_request():
    assert commands.of(Turn("user", "again", (Reference(torch.rand(1, 4, 4, 3)),))) is None
    assert commands.of(Turn("assistant", "again")) is None and commands.of(Turn("user", "again")) == Command("again")


def test_undo_goes_back_a_step_at_a_time_and_no_picture_is_lost():
    first = drawn(Conversation(), "a fox")
    second = drawn(first, "make it red")
    back = undo(second)
    assert words(back) == ["a fox"] and current(back) is current(first) and back.shown_again is current(first)
    assert "Taken back" in back.reply and "«a fox»" in back.reply and len(back.drawn) == 2
    empty = undo(back)
    assert words(empty) == [] and "Nothing is left" in empty.reply and empty.shown_again is None
    assert current(show(empty, 2)) is current(second) and words(show(empty, 2)) == ["a fox", "make it red"]
    with pytest.raises(ValueError, match="nothing to take back"):
        undo(undo(Conversation().user("hello")))


def test_what_is_said_next_is_an_answer_of_the_model_again():
    back = undo(drawn(drawn(Conversation(), "a fox"), "make it red"))
    assert back.notice and not back.user("now blue").notice and back.user("now blue").shown_again is None


def test_undo_takes_back_a_command_too():
    three = drawn(drawn(drawn(Conversation(), "a fox"), "now red"), "now blue")
    assert words(undo(show(three, 1))) == words(three) and current(undo(show(three, 1))) is current(three)
    repeated = answered(again(three), seed=1)
    assert current(repeated) is not current(three) and current(undo(repeated)) is current(three)


def test_again_ends_with_the_last_request_and_takes_another_seed_each_time():
    talk = drawn(drawn(Conversation(), "a fox"), "now red", seed=5)
    asked = again(talk)
    assert words(asked) == ["a fox", "now red"] and asked.last.role == "user" and not asked.notice
    seeds = []
    for _ in range(3):
        seeds.append(another_seed(talk, 5))
        talk = answered(again(talk), seeds[-1])
    assert seeds == [6, 7, 8] and len(talk.drawn) == 5
    assert another_seed(talk, 99) == 99 and another_seed(answered(talk, 2**64 - 1), 0) == 0
    with pytest.raises(ValueError, match="nothing to repeat"):
        again(Conversation())


def test_pictures_keep_the_number_under_which_they_were_drawn():
    talk = drawn(drawn(Conversation(), "one"), "two")
    second = current(talk)
    talk = drawn(undo(talk), "three")  # two was taken back
    talk = answered(again(talk))  # three, and three again
    assert [turns[-2].text for turns in talk.drawn] == ["one", "two", "three", "three"]
    assert current(show(talk, 2)) is second and len(show(talk, 2).drawn) == 4
    assert len(drawn(show(talk, 1), "on").drawn) == 5
    with pytest.raises(ValueError, match="there is no picture 5: 4 were drawn"):
        show(talk, 5)
    with pytest.raises(ValueError, match="there is no picture 1: none was drawn"):
        show(Conversation(), 1)


def test_a_conversation_made_of_turns_knows_its_pictures_and_goes_back_by_exchanges():
    talk = Conversation(drawn(drawn(Conversation(), "a fox"), "make it red").turns)
    assert len(talk.drawn) == 2 and words(apply(talk, Command("show", 1))) == ["a fox"]
    assert words(apply(talk, Command("undo"))) == ["a fox"] and len(undo(talk).drawn) == 2


def test_a_tag_without_a_picture_means_the_one_shown_last():
    shown = (Reference(torch.rand(1, 4, 4, 3)),)
    talk = answered(Conversation().user("what is in <image_1>?", shown), text="a cat", pictures=0)
    talk = answered(talk.user("where?"), text="there", pictures=0)
    assert talk.user("put <image_1> on a beach").last.references == shown
    assert talk.user("a fox").last.references == ()
    with pytest.raises(ValueError, match="this turn has 1 reference"):
        talk.user("and <image_2>")
    with pytest.raises(ValueError, match="this turn has 0 references"):
        Conversation().user("and <image_1>")
