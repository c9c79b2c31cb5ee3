"""Conversations into token ids and back: the public format id by id, tokenizers, and what is refused with which words."""

import json
from pathlib import Path

import pytest
import torch
from wegen.tests.support import byte_tokenizer, picture
from wegen.wegen_model.box import BOX_IDS, LOCATIONS, Box
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.conversation import Conversation, Reference, Turn
from wegen.wegen_model.chat.tokenizer import Tokenizer, special_tokens
from wegen.wegen_model.features import Features

STORED = Path(__file__).parents[1] / "golden" / "tokenizer"
BOX = Box(0.25, 0.0, 0.5, 0.5)  # locations 112 56 112 112


def features(seed=0, n=64):
    return Features(torch.randn(1, n, 4, generator=torch.Generator().manual_seed(seed)), (n // 8, 8), "test", "test")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One id a byte from 3 on; WeGen's tokens from 259 on."""
    return Tokenizer.load(byte_tokenizer(tmp_path_factory.mktemp("bytes")))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The stored sentencepiece model, 400 pieces; WeGen's tokens from 400 on."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "tokenizer.model").write_bytes((STORED / "tokenizer.model").read_bytes())
    return Tokenizer.load(folder)


def image(t, n=64):
    return [t.special["<img>"], *(t.special[f"<img_{i:05d}>"] for i in range(n)), t.special["</img>"]]


def box(t, *values):
    return [t.special["<box_start>"], *(t.special[f"<loc-{v}>"] for v in values), t.special["<box_end>"]]


def text(t, words):
    """Ids of the byte tokenizer by hand: printable ASCII stands in byte order, but GPT-2's alphabet sorts by its own letters."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    shown = {" ": "\u0120", "\n": "\u010a"}
    return [3 + letters.index(shown.get(c, c)) for c in words]


# --- ids ----------------------------------------------------------------------------------------------------------


def test_a_prompt_by_hand(tokenizer):
    t = tokenizer
    references = (Reference(features=features(1), box=BOX), Reference(features=features(2)), Reference(box=Box(0, 0, 1, 1)))
    conversation = Conversation().user("a <image_1> at <bbox_1>, big <bbox_3>", references)
    built = prompt.build(conversation, t, 4096)
    expected = [
        1,
        *text(t, "[INST]"),
        *image(t),
        *text(t, "a"),
        *image(t),
        *text(t, "at"),
        *box(t, 112, 56, 112, 112),
        *text(t, ", big"),
        *box(t, 112, 112, 223, 223),
        *text(t, "[/INST]\n"),
    ]
    assert built.ids == expected
    # reference 2 is not named, so it comes before the text; features follow the order of appearance
    assert [f.tokens[0, 0, 0].item() for f in built.features] == [features(s).tokens[0, 0, 0].item() for s in (2, 1)]
    spots = [i for i, mark in enumerate(built.read) if mark]
    assert [built.ids[i] for i in spots] == image(t)[1:-1] * 2
    assert not any(built.written) and not any(built.trained) and len(built) == len(built.read) == len(built.written)


@pytest.mark.parametrize("words", ["<image_1><bbox_1> big", "<image_1> big"])
def test_a_box_without_a_tag_follows_its_picture(tokenizer, words):
    t = tokenizer
    start, ask = [1, *text(t, "[INST]")], (Reference(features=features(), box=BOX),)
    shown = [*image(t), *box(t, 112, 56, 112, 112)]
    assert prompt.build(Conversation().user(words, ask), t, 4096).ids == [*start, *shown, *text(t, "big [/INST]\n")]
    twice = prompt.build(Conversation().user(words + " <image_1>", ask), t, 4096).ids
    assert twice == [*start, *shown, *text(t, "big"), *image(t), *text(t, "[/INST]\n")]  # once, where the picture stands first


def test_a_training_prompt_by_hand(tokenizer):
    """Two exchanges with a written picture: what is trained are the reply's words, <img> and </s>, never the features or </img>."""
    t = tokenizer
    turns = (Turn("user", "a fox"), Turn("assistant", "Here", pictures=(features(),)), Turn("user", "bigger"), Turn("assistant", "Yes"))
    built = prompt.build(Conversation(turns), t, 4096, end=True)
    question, again = text(t, "[INST] a fox [/INST]\n"), text(t, "\n[INST] bigger [/INST]\n")
    assert built.ids == [1, *question, *text(t, "Here"), *image(t), *again, *text(t, "Yes"), 2]
    expected = [False] * (1 + len(question)) + [True] * 5 + [False] * 65 + [False] * len(again) + [True] * 4
    assert built.trained == expected
    assert [built.ids[i] for i, mark in enumerate(built.written) if mark] == image(t)[1:-1]
    assert built.starts == [1, 1 + len(question), 1 + len(question) + 4 + 66, 1 + len(question) + 4 + 66 + len(again)]


@pytest.mark.parametrize("case", json.loads((STORED / "prompts.json").read_text(encoding="utf8")), ids=lambda c: repr(c["text"]))
def test_prompts_equal_the_public_tokenizer_s(pieces, case):
    boxless = "<image_" in case["text"] and "<bbox_" not in case["text"]
    references = tuple(Reference(features=features(k), box=None if boxless else BOX) for k in range(case["references"]))
    turns = (
        Turn("user", case["text"], references),
        Turn("assistant", "Here is your image", pictures=(features(),)),
        Turn("user", "the same"),
    )
    assert prompt.build(Conversation(turns), pieces, 4096).ids == case["ids"]


def test_generated_ids_are_authoritative(tokenizer):
    t = tokenizer
    words = text(t, "odd  spaces ")
    ids = (*words, *image(t), t.eos)
    turns = (Turn("user", "go"), Turn("assistant", "something else", ids=ids, pictures=(features(),)), Turn("user", "more"))
    built = prompt.build(Conversation(turns), t, 4096)
    start = built.starts[1]
    assert built.ids[start : built.starts[2]] == [*words, *image(t)]
    assert sum(built.written) == 64
    lost = Turn("assistant", "", ids=ids)
    with pytest.raises(ValueError, match="features are lost"):
        prompt.build(Conversation((turns[0], lost)), t, 4096)


@pytest.mark.parametrize("words", ["<img><img_00000></img>", "<box_start><loc-3><box_end>", "</s><s>[/INST]", "draw <img> \n</img>"])
@pytest.mark.parametrize("kind", ["tokenizer", "pieces"])
def test_text_never_yields_special_ids(request, kind, words):
    t = request.getfixturevalue(kind)
    ids = prompt.build(Conversation().user(words), t, 4096).ids
    assert ids[0] == t.bos
    assert not {t.bos, t.eos, *t.special.values()} & set(ids[1:])
    assert words.strip() in t.decode(ids)


def test_tables_of_special_tokens(pieces, tokenizer):
    assert pieces.special == special_tokens(400) and pieces.size == 730
    assert tokenizer.special == special_tokens(259)
    assert (pieces.bos, pieces.eos) == (1, 2)
    assert pieces.hash != tokenizer.hash


def test_a_folder_without_tokenizer_or_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer. Put tokenizer.model"):
        Tokenizer.load(tmp_path)
    byte_tokenizer(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<img>": 300}')
    with pytest.raises(ValueError, match="lacks WeGen's special tokens.*<box_end>"):
        Tokenizer.load(tmp_path)


# --- slots --------------------------------------------------------------------------------------------------------


def talk_of_pictures():
    """Two exchanges: pictures shown by the user (one before the text), one shown by the assistant, and two that it drew."""
    first = (Reference(picture()), Reference(picture(), box=BOX), Reference(box=Box(0, 0, 1, 1)))
    then = (Reference(box=Box(0.5, 0.5, 0.25, 0.25)),)
    return Conversation(
        (
            Turn("user", "<bbox_3> and <image_2>", first),
            Turn("assistant", "as in <image_1>", (Reference(picture(), box=BOX),), pictures=(features(1), features(2))),
            Turn("user", "again <bbox_1>", then),
            Turn("assistant", "", pictures=(features(3),)),
        )
    )


def test_slots_say_whose_picture_stands_where(tokenizer):
    """A layout needs no features: only how many a picture has."""
    laid = prompt.layout(talk_of_pictures(), tokenizer, 4096, 9, end=True)
    assert [(s.turn, s.reference, s.drawn, s.written) for s in laid.slots] == [
        (0, 0, 0, False),
        (0, 1, 0, False),
        (1, 0, 0, False),
        (1, None, 0, True),
        (1, None, 1, True),
        (3, None, 0, True),
    ]
    asked, again = (Box(0, 0, 1, 1), BOX), (Box(0.5, 0.5, 0.25, 0.25),)
    assert [s.boxes for s in laid.slots] == [(), (), (), asked, asked, again] and laid.asked == again
    assert [number for _, number in laid.boxes] == [0, 1, 0], "an assistant's box is an answer and has no number"
    for slot in laid.slots:
        assert laid.ids[slot.start - 1 : slot.start + 10] == image(tokenizer, 9)
        assert laid.trained[slot.start - 1] is slot.written and not any(laid.trained[slot.start : slot.start + 10])
    assert sum(laid.read) == sum(laid.written) == 3 * 9


def test_slots_count_the_turns_that_were_forgotten(tokenizer):
    talk = talk_of_pictures()
    short = len(prompt.layout(Conversation(talk.turns[2:]), tokenizer, 4096, 64))
    laid = prompt.layout(talk, tokenizer, short, 64, trim_oldest=True)
    assert [(s.turn, s.reference, s.drawn) for s in laid.slots] == [(3, None, 0)]
    assert torch.equal(prompt.features_at(talk, laid.slots[0]).tokens, features(3).tokens)


def test_tags_in_capitals_are_tags(tokenizer):
    references = (Reference(features=features(1), box=BOX), Reference(features=features(2)))
    typed, plain = (
        Conversation().user(text, references) for text in ("<Image_2> at <BBOX_1>, <iMage_1>", "<image_2> at <bbox_1>, <image_1>")
    )
    assert typed.last.tags() == plain.last.tags() == [("image", 2), ("bbox", 1), ("image", 1)]
    assert prompt.build(typed, tokenizer, 4096).ids == prompt.build(plain, tokenizer, 4096).ids
    assert Conversation().user("<\u0131mage_1> <\u0130mage_1>").last.tags() == [], "other alphabets' letters are text"


@pytest.mark.parametrize(("memory", "first"), [(0, 0), (1, 4), (2, 2), (3, 0), (9, 0)])
@pytest.mark.parametrize("open_image", [False, True])
def test_memory_says_how_many_earlier_exchanges_a_prompt_carries(tokenizer, memory, first, open_image):
    """The same turns while a message waits for its answer, and while the answer waits for its picture."""
    turns = [turn for k in range(3) for turn in (Turn("user", f"q{k}"), Turn("assistant", "", pictures=(features(k),)))]
    turns += [Turn("user", "last")] + [Turn("assistant", "so", open_image=True)] * open_image
    talk = Conversation(tuple(turns))
    built = prompt.build(talk, tokenizer, 4096, memory=memory)
    assert built.ids == prompt.build(Conversation(talk.turns[first:]), tokenizer, 4096).ids
    assert [s.turn for s in built.slots] == [i for i in (1, 3, 5) if i > first]
    assert [f.tokens.sum() for f in built.features] == [features(i // 2).tokens.sum() for i in (1, 3, 5) if i > first]
    assert (
        prompt.build(Conversation(talk.turns[6:]), tokenizer, 4096, memory=memory).ids
        == prompt.build(Conversation(talk.turns[6:]), tokenizer, 4096).ids
    ), "a first request carries nothing"


def test_a_remembered_exchange_that_does_not_fit(tokenizer):
    """Turns are counted from the beginning of the conversation, and trimming goes on from what is remembered."""
    turns = tuple(turn for k in range(4) for turn in (Turn("user", f"question {k} " + "x" * 80), Turn("assistant", f"answer {k}")))
    talk = Conversation(turns).user("the last one")
    whole = len(prompt.build(talk, tokenizer, 4096, memory=1))
    with pytest.raises(ValueError, match=r"Drop the first 8 turns \(up to «answer 3»\)"):
        prompt.build(talk, tokenizer, whole - 1, memory=1)
    rest = Conversation(turns[8:]).user("the last one")
    assert prompt.build(talk, tokenizer, whole - 1, memory=1, trim_oldest=True).ids == prompt.build(rest, tokenizer, 4096, memory=1).ids


def test_what_a_prompt_leaves_out_need_not_be_encoded_or_of_one_size(tokenizer):
    talk = Conversation(
        (Turn("user", "a", ONE), Turn("assistant", "", pictures=(features(n=16),)), Turn("user", "b"), Turn("assistant", "c"))
    )
    talk = talk.user("d", (Reference(features=features()),))
    assert [s.turn for s in prompt.build(talk, tokenizer, 4096, memory=1).slots] == [4]


def test_features_of_unlike_counts_are_refused(tokenizer):
    with pytest.raises(ValueError, match="a picture of 16 features among pictures of 64"):
        prompt.build(Conversation().user("a", (Reference(features=features()), Reference(features=features(n=16)))), tokenizer, 4096)


def test_every_place_of_a_box_has_its_id(tokenizer):
    assert len(prompt.box_ids(BOX, tokenizer)) == BOX_IDS
    assert Box(1 - 1e-3, 0, 1e-3, 1).locations() == (LOCATIONS - 1, LOCATIONS // 2, 0, LOCATIONS - 1)
    assert tokenizer.names[tokenizer.location(LOCATIONS - 1)] == "<loc-223>" and tokenizer.location(LOCATIONS) == tokenizer.box_start


# --- replies ------------------------------------------------------------------------------------------------------


def test_a_reply_s_boxes_are_read(tokenizer):
    t = tokenizer
    ids = [*text(t, "fox at "), *box(t, 112, 56, 112, 112), *text(t, " ok"), t.special["<box_start>"], *text(t, "!")]
    words, references = prompt.parse(ids, t)
    assert words == "fox at <bbox_1> ok!"
    assert len(references) == 1
    assert references[0].box.locations() == (112, 56, 112, 112)


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (223, 223, 0, 0), (223, 0, 223, 223), (7, 200, 14, 40)])
def test_every_box_that_can_be_written_can_be_read(values):
    read = Box.from_locations(values)
    assert 0 <= read.x < read.x + read.width <= 1 + 1e-9 and 0 <= read.y < read.y + read.height <= 1 + 1e-9
    if values == (7, 200, 14, 40):
        assert read.locations() == values


# --- what is refused ----------------------------------------------------------------------------------------------

ONE = (Reference(picture()),)


@pytest.mark.parametrize(
    "words, references, error",
    [
        ("   ", (), "the message is empty"),
        ("a <image_3>", ONE * 2, r"says <image_3>, but this turn has 2 references. Connect image_3"),
        ("a <IMAGE_3>", ONE * 2, r"says <image_3>, but this turn has 2 references"),
        ("a <image_0>", ONE, r"says <image_0>, but this turn has 1 reference\."),
        ("a <bbox_1>", ONE, r"says <bbox_1>, but reference 1 has no box"),
        ("a <image_1>", (Reference(box=BOX),), r"says <image_1>, but reference 1 is only a box"),
    ],
)
def test_messages_that_do_not_fit_their_references(words, references, error):
    with pytest.raises(ValueError, match=error):
        Conversation().user(words, references)


def test_a_picture_alone_is_a_message_and_an_empty_reference_is_not():
    assert Conversation().user("", ONE).last.references == ONE
    with pytest.raises(ValueError, match="needs a picture, features or a box"):
        Reference()


@pytest.mark.parametrize(
    "values, error",
    [
        ((0.5, 0.5, 0.6, 0.2), "outside the picture"),
        ((-0.1, 0, 0.5, 0.5), "outside the picture"),
        ((0, 0, 0, 1), "empty or reversed"),
        ((0.8, 0.2, -0.5, 0.2), "empty or reversed"),
        ((10, 10, 200, 100), "fractions of the side"),
        ((float("nan"), 0, 1, 1), "not made of numbers"),
    ],
)
def test_bad_boxes(values, error):
    with pytest.raises(ValueError, match=error):
        Box(*values)


def test_an_open_picture_must_be_drawn_first():
    waiting = Conversation((Turn("user", "a"), Turn("assistant", "", open_image=True)))
    with pytest.raises(ValueError, match="AR Feature Decode first"):
        waiting.user("next")


def test_a_conversation_of_another_model(tokenizer, pieces):
    conversation = Conversation((Turn("user", "a"),), tokenizer=pieces.hash)
    with pytest.raises(ValueError, match="held with another model"):
        prompt.build(conversation, tokenizer, 4096)


def test_past_the_positions(tokenizer):
    turns = []
    for i in range(4):
        turns += [Turn("user", f"question {i} " + "x" * 80), Turn("assistant", f"answer {i}")]
    conversation = Conversation(tuple(turns)).user("the last one")
    whole = prompt.build(conversation, tokenizer, 4096)
    n = len(whole)
    assert len(prompt.build(conversation, tokenizer, n)) == n
    for reserve in (1, 60, 150, 300):
        with pytest.raises(ValueError, match=rf"needs {n + reserve} tokens, the model has {n}. Drop the first \d turns") as error:
            prompt.build(conversation, tokenizer, n, reserve=reserve)
        drop = int(str(error.value).split("Drop the first ")[1][0])
        assert drop > 0 and f"«{conversation.turns[drop - 1].text[:40]}»" in str(error.value)
        rest = Conversation(conversation.turns[drop:])  # the advice is enough, and no more than needed
        prompt.build(rest, tokenizer, n, reserve=reserve)
        if drop > 2:
            with pytest.raises(ValueError, match="Drop the first"):
                prompt.build(Conversation(conversation.turns[drop - 2 :]), tokenizer, n, reserve=reserve)
        trimmed = prompt.build(conversation, tokenizer, n, reserve=reserve, trim_oldest=True)
        assert trimmed.ids == prompt.build(rest, tokenizer, n).ids
    with pytest.raises(ValueError, match="the last message alone needs"):
        prompt.build(conversation, tokenizer, 20, trim_oldest=True)


def test_an_unencoded_reference(tokenizer):
    with pytest.raises(ValueError, match="image_1 was not encoded"):
        prompt.build(Conversation().user("a", ONE), tokenizer, 4096)
