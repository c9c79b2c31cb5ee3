"""A model that looks at what it drew: when it stops, what it keeps, and that it always stops."""

import pytest
import torch
from wegen.wegen_model import self_check
from wegen.wegen_model.chat.conversation import Conversation, Turn
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.config import ModelConfig
from wegen.wegen_model.features import Features
from wegen.wegen_model.pipeline import WeGen


class Pretender:
    """A model whose answers are given; each picture is one more in brightness."""

    def __init__(self, *answers, concepts=("cat", "dog", "fox")):
        self.answers, self.config, self.drawn, self.asked, self.told = list(answers), ModelConfig(concepts=concepts), 0, [], []

    def draw(self, talk, **_):
        self.drawn += 1
        features = Features(torch.full((1, 4, 8), float(self.drawn)), (2, 2), "space", "tower")
        return features, talk.with_last(Turn("assistant", "", pictures=(features,)))

    def decode(self, features, seed):
        return features.tokens.mean() * torch.ones(1, 8, 8, 3)

    def chat(self, talk, *, picture, **_):
        turn = talk.turns[-1]
        if picture == "never":
            self.asked.append(turn.text)
            return Conversation((*talk.turns, Turn("assistant", self.answers.pop(0))))
        self.told.append(turn.text)
        return Conversation((*talk.turns, Turn("assistant", "", open_image=True)))


def opened(text="a cat and a dog on a red background"):
    return Conversation((Turn("user", text), Turn("assistant", "", open_image=True)))


def test_a_right_picture_is_drawn_once():
    model = Pretender("a dog and a cat on a red background")
    made = self_check.draw_checked(model, opened())
    assert made.right and model.drawn == 1 and model.told == [] and model.asked == [self_check.DESCRIBE]


def test_what_lacks_is_asked_for_again_until_it_is_there():
    model = Pretender("a fox", "a cat", "a cat and a dog", "never asked")
    made = self_check.draw_checked(model, opened(), attempts=5, correction="more {lacking}, {answer}")
    assert model.drawn == 3 and made.right and made.kept == 2
    assert model.told == ["more cat, dog, a fox", "more dog, a cat"]
    assert made.image[0, 0, 0, 0] == 3 and made.conversation.turns[-1].pictures[0] is made.features
    assert made.lacking == (("cat", "dog"), ("dog",), ())


@pytest.mark.parametrize("attempts", [0, 1, 3, 8])
def test_it_always_stops_and_keeps_the_least_wrong(attempts):
    model = Pretender(*(["a fox"] + ["a cat"] * attempts))
    made = self_check.draw_checked(model, opened(), attempts=attempts)
    assert model.drawn == attempts + 1 == len(made.answers) and not made.right
    assert made.kept == min(1, attempts) and made.image[0, 0, 0, 0] == made.kept + 1, "the first of equals"


def test_a_loop_without_a_bound_is_refused():
    for attempts in (-1, 9, 1000):
        with pytest.raises(ValueError, match=f"attempts is {attempts}: a picture is drawn again 0 to 8 times"):
            self_check.draw_checked(Pretender(), opened(), attempts=attempts)


def test_a_model_without_concepts_is_asked_whether_it_is_right():
    model = Pretender("No, the dog is missing.", "Yes.", concepts=())
    made = self_check.draw_checked(model, opened())
    assert made.right and model.drawn == 2
    assert (
        model.asked[0]
        == "<image_1> Does this picture show what was asked for: «a cat and a dog on a red background»? Answer yes, or say what is wrong."
    )
    assert model.told == ["That is not right yet: No, the dog is missing. Draw it again: a cat and a dog on a red background"]
    assert not self_check.draw_checked(Pretender("", concepts=()), opened(), attempts=0).right, "no answer is not yes"


def test_words_that_are_wanted():
    config = ModelConfig(concepts=("cat", "dog"))
    assert self_check.wanted_words("A Cat, a dog <bbox_1> and a cat; a catalogue", config) == ("cat", "dog")
    model = Pretender("teal")
    made = self_check.draw_checked(model, opened(), question="<image_1> which colour?", wanted=("Teal",))
    assert made.right and model.asked == ["<image_1> which colour?"]


def test_the_miniature_sees_what_it_drew():
    model = WeGen.load()
    talk = model.chat(Conversation().user("a fox on a teal background"), picture="always")
    made = self_check.draw_checked(model, talk, attempts=1, wanted=("fox", "teal"))
    assert made.right and made.answers == ("a fox on a teal background",)
    wrong = self_check.draw_checked(model, talk, attempts=1, wanted=("panda",), correction="replace the fox with a {lacking}")
    assert wrong.right and len(wrong.answers) == 2 and "panda" in wrong.answers[1]


def test_the_command_looks_at_its_pictures(monkeypatch, tmp_path, capsys):
    answers = iter(["a fox on a teal background", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(answers))
    assert main(["chat", "--check", "2", "--out", str(tmp_path)]) == 0
    assert "look 1: «a fox on a teal background», right" in capsys.readouterr().err
    assert (tmp_path / "chat_001.png").is_file()
    assert main(["chat", "--check", "9", "--out", str(tmp_path)]) == 2
    assert "--check is 9: a picture is drawn again 0 (off) to 8 times" in capsys.readouterr().err
