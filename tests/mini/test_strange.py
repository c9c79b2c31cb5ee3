"""Strange input to the bundled miniature: a clear message or an honest picture, never a crash."""

import pytest
import torch
from wegen.wegen_model.chat.conversation import Box, Conversation, Reference
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime


class Told(Runtime):
    """Keeps what the person would be told."""

    notes: list[str]

    def warn(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def mini():
    runtime = Told("cpu")
    runtime.notes = []
    return WeGen.load("wegen-mini", runtime=runtime)


@pytest.fixture
def paint(mini):
    def paint(text: str, *references: Reference) -> torch.Tensor:
        mini.runtime.notes.clear()
        talk = mini.chat(Conversation().user(text, references), picture="always", max_tokens=8)
        image = mini.decode(mini.draw(talk, mode="parallel")[0], steps=2)
        assert image.shape == (1, 128, 128, 3) and image.isfinite().all() and image.std() > 0
        return image

    return paint


# the second and third: "draw a cat" in Russian and Chinese
@pytest.mark.parametrize(
    "text",
    [
        "xylophone of quartz",
        "\u043d\u0430\u0440\u0438\u0441\u0443\u0439 \u043a\u043e\u0442\u0430",
        "\u753b\u4e00\u53ea\u732b",
        "\U0001f984\U0001f984\U0001f984",
        "?",
        "<img> </s> [INST]",
    ],
)
def test_words_it_does_not_know_give_a_picture_and_the_list_of_those_it_knows(mini, paint, text):
    paint(text)
    assert any(f"knows {len(mini.config.concepts)} things" in note and "cat" in note for note in mini.runtime.notes)


@pytest.mark.parametrize("text", ["three cats on a red background", "Three CATS", "\U0001f98a\U0001f98a\U0001f98a"])
def test_words_it_knows_need_no_note(mini, paint, text):
    paint(text)
    assert not mini.runtime.notes


def test_five_hundred_words_are_drawn_or_refused_by_their_number(mini, paint):
    paint("a cat on a red background " * 60)
    with pytest.raises(ValueError, match=r"needs \d+ tokens, the model has 1024. Shorten the text"):
        paint("a marvellous zebra " * 170)


def thing() -> torch.Tensor:
    picture = torch.ones(1, 100, 80, 3)
    picture[:, 30:70, 20:60] = torch.tensor([0.8, 0.2, 0.1])
    return picture


def test_six_subjects_are_drawn_with_a_word_about_what_the_paper_reports(mini, paint):
    boxes = [Box(x / 8, y / 8, 2 / 8, 3 / 8) for y in (0, 4) for x in (0, 3, 6)]
    paint(" and ".join(f"<image_{k}><bbox_{k}>" for k in range(1, 7)), *(Reference(thing(), box=b) for b in boxes))
    assert any("identity suffers past three" in note for note in mini.runtime.notes)


@pytest.mark.parametrize(
    "boxes",
    [
        [Box(0, 0, 0.5, 0.5), Box(0.1, 0.1, 0.5, 0.5)],
        [Box(0.5, 0.5, 0.004, 0.004), Box(0, 0, 1, 1)],
        [Box(0, 0, 1, 0.01), Box(0.99, 0, 0.01, 1)],
    ],
    ids=["overlapping", "tiny and all", "lines"],
)
def test_boxes_of_any_kind(paint, boxes):
    paint("<image_1><bbox_1> and a cat <bbox_2> on a blue background", Reference(thing(), box=boxes[0]), Reference(box=boxes[1]))


@pytest.mark.parametrize(
    "picture",
    [
        torch.rand(1, 200, 300, 3, generator=torch.Generator().manual_seed(0)),
        torch.full((1, 1, 1, 3), 0.4),
        torch.zeros(1, 1, 500, 3),
        torch.ones(1, 40, 40, 3),
    ],
    ids=["a photo", "one pixel", "a line", "nothing"],
)
def test_pictures_of_any_kind(paint, picture):
    paint("<image_1><bbox_1> on a green background", Reference(picture, box=Box(0.2, 0.2, 0.5, 0.6)))
    paint("<image_1> on a green background", Reference(picture))
