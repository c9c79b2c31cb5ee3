"""The sample form: what the model sees of it."""

import numpy as np
import pytest
from wegen.wegen_model.chat.conversation import Box
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.data.sample import Sample, Turn, picture_at, plan


def flat(value: int) -> np.ndarray:
    return np.full((6, 8, 3), value, np.uint8)


def subject() -> Sample:
    box = Box(0.5, 0.25, 0.25, 0.5)
    asked = Turn("user", "put <image_2> at <bbox_2> beside this", (flat(1), flat(2)), (None, box))
    return Sample("subject", (asked, Turn("assistant", "here it is.", drawn=flat(3))), "s1")


@pytest.fixture
def tokenizer(tiny):
    return Tokenizer.load(tiny)


def test_ids_masks_and_pictures_are_in_the_order_of_the_prompt(tokenizer):
    seen, slots = plan(subject().check(), tokenizer, 400, 4)
    assert [int(picture_at(subject(), slot)[0, 0, 0]) for slot in slots] == [1, 2, 3]  # the untagged one first
    assert [(row, out) for _, row, out in seen.pictures] == [(0, False), (1, False), (2, True)]
    for start, _, _ in seen.pictures:
        assert seen.ids[start - 1] == tokenizer.image_start and seen.ids[start + 4] == tokenizer.image_end
        assert seen.ids[start] == tokenizer.image_first
    at = seen.ids.index(tokenizer.box_start)
    assert [i - tokenizer.loc_first for i in seen.ids[at + 1 : at + 5]] == [140, 112, 56, 112]
    trained = [i for i, t in zip(seen.ids, seen.trained) if t]
    assert trained[-1] == tokenizer.eos and tokenizer.image_start in trained
    assert tokenizer.decode([i for i in trained if i not in (tokenizer.eos, tokenizer.image_start)]) == "here it is."


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (Sample("painting", subject().turns, "x"), "no task 'painting'"),
        (Sample("editing", subject().turns[:1], "x"), "last turn must be the assistant's"),
        (Sample("editing", (Turn("user", "see <image_2>", (flat(0),), (None,)), Turn("assistant", "no")), "x"), "<image_2>, but this turn"),
        (Sample("editing", (Turn("user", "a", (flat(0),)), Turn("assistant", "no")), "x"), "1 pictures and 0 boxes"),
        (Sample("editing", (Turn("user", "a"), Turn("assistant", "", drawn=np.zeros((3, 3), np.uint8))), "x"), r"not uint8 \(h, w, 3\)"),
    ],
)
def test_what_is_wrong_with_a_sample_is_said_with_its_key(sample, words):
    with pytest.raises(ValueError, match=f"sample x.*{words}"):
        sample.check()


def test_a_sample_is_planned_with_the_exchanges_that_a_prompt_carries(tokenizer):
    turns = tuple(t for k in range(3) for t in (Turn("user", f"{k}"), Turn("assistant", f"so {k}", drawn=flat(k))))
    sample = Sample("editing", turns, "x")
    seen, slots = plan(sample, tokenizer, 400, 4, memory=1)
    alone, _ = plan(Sample("editing", turns[2:], "x"), tokenizer, 400, 4)
    assert [int(picture_at(sample, slot)[0, 0, 0]) for slot in slots] == [1, 2] and (seen.ids, seen.trained) == (alone.ids, alone.trained)
    assert len(plan(sample, tokenizer, 400, 4)[1]) == 3


def test_a_sample_longer_than_the_model_loses_its_oldest_exchange_or_is_refused(tokenizer):
    asked, answer = Turn("user", "a" * 100), Turn("assistant", "b")
    seen, _ = plan(Sample("understanding", (asked, answer, asked, answer), "x"), tokenizer, 150, 4)
    assert len(seen.ids) < 150
    with pytest.raises(ValueError, match="alone needs"):
        plan(Sample("understanding", (asked, answer), "x"), tokenizer, 50, 4)
