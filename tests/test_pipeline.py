"""`WeGen`: whole calls on a tiny random model, and what they refuse or warn of. (The nodes' own bad input: nodes/test_bad_input.py.)"""

import dataclasses

import pytest
import torch
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model.chat.conversation import Conversation, Reference, Turn
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Cancelled, Runtime


class Listener(Runtime):
    """Remembers warnings and progress; cancels when told to."""

    def __init__(self, cancel_at: str = ""):
        super().__init__("cpu", torch.float32)
        self.warnings, self.ticks, self.cancel_at = [], [], cancel_at

    def warn(self, text):
        self.warnings.append(text)

    def tick(self, event):
        self.ticks.append(event)
        if event.kind == self.cancel_at and event.step == 2:
            raise Cancelled


@pytest.fixture
def wegen(tiny):
    return WeGen.load(tiny, runtime=Listener())


@pytest.fixture(scope="module")
def drawn(tiny):
    """A finished exchange."""
    model = WeGen.load(tiny, runtime=Listener())
    return model.draw(model.chat(Conversation().user("a fox"), picture="always", max_tokens=4))


def test_a_second_turn_sees_the_first(wegen, drawn):
    again = wegen.chat(drawn[1].user("make it blue"), picture="always", max_tokens=4)
    features, conversation = wegen.draw(again)
    alone, _ = wegen.draw(wegen.chat(Conversation().user("make it blue"), picture="always", max_tokens=4))
    assert len(conversation.turns) == 4 and not torch.equal(features.tokens, alone.tokens)
    assert [len(t.pictures) for t in conversation.turns] == [0, 1, 0, 1]
    assert torch.equal(conversation.turns[1].pictures[0].tokens, drawn[0].tokens)


def test_a_written_turn_without_ids_keeps_its_words(wegen):
    """Turns made by hand have text and no ids; drawing their picture must not lose the text."""
    turns = (Turn("user", "a fox"), Turn("assistant", "Here it is", open_image=True))
    features, conversation = wegen.draw(Conversation(turns))
    from wegen.wegen_model.chat import prompt

    before = prompt.build(wegen.encode_references(Conversation(turns)), wegen.tokenizer, 1024)
    after = prompt.build(conversation, wegen.tokenizer, 1024)
    assert after.ids[: len(before)] == before.ids and len(after) == len(before) + 65


def test_a_model_of_short_memory_forgets_nothing_of_the_conversation(tmp_path, monkeypatch):
    """The prompt carries one earlier exchange, the conversation all; a picture that the prompt leaves out is not looked at."""
    model = WeGen.load(tiny_model(tmp_path / "short", memory=1), runtime=Listener())
    looked, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda images, **more: looked.append(more["where"]) or encode(images, **more))
    shown = (Reference(picture()),)
    old = (Turn("user", "a <image_1>", shown), Turn("assistant", "yes"), Turn("user", "b <image_1>", shown), Turn("assistant", "no"))
    talk = model.chat(Conversation(old).user("c"), picture="always", max_tokens=4)
    features, talk = model.draw(talk)
    assert looked == ["WeGen Chat, turn 3, image_1"]
    assert len(talk.turns) == 6 and talk.turns[0].references[0].picture is shown[0].picture
    alone = model.chat(Conversation(old[2:]).user("c"), picture="always", max_tokens=4)
    assert alone.last.ids == talk.last.ids[: len(alone.last.ids)] and torch.equal(model.draw(alone)[0].tokens, features.tokens)
    undone = dataclasses.replace(talk, turns=())  # everything taken back
    assert (
        model.chat(undone.user("c"), picture="always", max_tokens=4).last.ids
        == model.chat(Conversation().user("c"), picture="always", max_tokens=4).last.ids
    )


def test_a_note_counts_on_what_the_prompt_carries(tmp_path, drawn):
    """A picture that the prompt leaves out cannot be meant."""
    model = WeGen.load(tiny_model(tmp_path / "short", memory=1, concepts=("cat",)), runtime=Listener())
    model.chat(drawn[1].user("brighter"), max_tokens=1)
    assert model.runtime.warnings == []
    talk = drawn[1].user("well done")
    talk = dataclasses.replace(talk, turns=(*talk.turns, Turn("assistant", "thanks")))
    model.chat(talk.user("a wombat"), max_tokens=1)
    assert ["knows 1 things" in note for note in model.runtime.warnings] == [True]


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A model whose prompt carries one earlier exchange."""
    return WeGen.load(tiny_model(tmp_path_factory.mktemp("models") / "short", memory=1), runtime=Listener())


def say(model, talk, words, *shown, **options):
    return model.draw(model.chat(talk.user(words, shown), picture="always", max_tokens=4, **options))[1]


def test_undo_again_and_the_first_one_are_the_conversations_business(short):
    first = say(short, Conversation(), "a fox")
    second = say(short, first, "make it red")
    back = short.chat(second.user("Undo!"))
    features, same = short.draw(back)
    assert features is first.last.pictures[0] and same is back and "«a fox»" in back.reply
    shown = short.chat(back.user("the second picture"))
    assert short.draw(shown)[0] is second.last.pictures[0]
    on, at_once = say(short, shown, "now blue"), say(short, second, "now blue")
    assert on.last.ids == at_once.last.ids and torch.equal(on.last.pictures[0].tokens, at_once.last.pictures[0].tokens)
    with pytest.raises(ValueError, match="there is no picture 7: 2 were drawn"):
        short.chat(shown.user("picture 7"))
    assert [t.text for t in on.turns if t.role == "user"] == ["a fox", "make it red", "now blue"], "commands are no turns"


def test_again_asks_the_same_with_another_seed(short):
    talk = say(short, say(short, Conversation(), "a fox"), "make it red", temperature=2.0, seed=3)
    repeated = short.chat(talk.user("again"), picture="always", max_tokens=4, temperature=2.0, seed=3)
    asked = Conversation(talk.turns[:-1])
    expected = short.chat(asked, picture="always", max_tokens=4, temperature=2.0, seed=4)
    assert repeated.last.ids == expected.last.ids and repeated.last.seed == 4 and len(repeated.turns) == 4
    assert repeated.last.ids != talk.last.ids[: len(repeated.last.ids)]


def test_a_model_that_reads_the_whole_conversation_reads_commands_itself(wegen, short):
    talk = say(wegen, Conversation(), "a fox")
    assert [t.text for t in wegen.chat(talk.user("undo"), max_tokens=2).turns][::2] == ["a fox", "undo"]
    assert wegen.chat(talk.user("undo"), commands=True).turns == ()
    assert len(short.chat(talk.user("undo"), max_tokens=2, commands=False).turns) == 4


def test_a_picture_that_is_meant_is_in_a_short_prompt_again(short, monkeypatch):
    """As if the words between had not been said."""
    looked, encode = [], short.encode
    monkeypatch.setattr(short, "encode", lambda images, **more: looked.append(more["where"]) or encode(images, **more))
    question = (Turn("user", "is it red?"), Turn("assistant", "yes"))
    seen = (Turn("user", "what is in <image_1>?", (Reference(picture()),)), Turn("assistant", "a cat"))
    on = say(short, Conversation((*seen, *question)), "make it blue")
    assert looked == ["WeGen Chat, turn 1, image_1"]
    alone = say(short, Conversation(seen), "make it blue")
    assert on.last.ids == alone.last.ids and torch.equal(on.last.pictures[0].tokens, alone.last.pictures[0].tokens)
    other = say(short, Conversation((*seen, *question)), "yes please")
    assert not torch.equal(other.last.pictures[0].tokens, say(short, Conversation(seen), "yes please").last.pictures[0].tokens)


def speaks(monkeypatch, model, words):
    """Whatever is asked, the model says these words and ends its turn."""
    from wegen.wegen_model.generation import generate

    ids = [*model.tokenizer.encode(words), model.tokenizer.eos]
    left = []

    def choose(*_):
        if not left:
            left.extend(ids)
        return left.pop(0)

    monkeypatch.setattr(generate, "choose", choose)


@pytest.mark.parametrize(
    ("refuses", "words", "rewrite", "drawn"),
    [
        (True, "I cannot draw a zebra.", False, False),
        (True, "I cannot draw a zebra.", True, False),
        (True, "", False, True),  # it said nothing: the picture is opened for it
        (True, "  ", False, True),
        (False, "I cannot draw a zebra.", False, True),  # a model that does not say that it refuses: as ever
    ],
)
def test_always_does_not_paint_over_a_refusal(tiny, monkeypatch, refuses, words, rewrite, drawn):
    model = WeGen.load(tiny, runtime=Listener())
    model.config = dataclasses.replace(model.config, refuses=refuses, concepts=("cat",))
    speaks(monkeypatch, model, words)
    talk = model.chat(Conversation().user("a zebra"), picture="always", max_tokens=40, rewrite=rewrite)
    assert talk.open_image == drawn and talk.reply == words.strip()
    assert ["knows 1 things" in note for note in model.runtime.warnings] == [True] * (not refuses), "the model has said it itself"
    if not drawn:
        with pytest.raises(ValueError, match="The answer was: «I cannot draw a zebra.» Ask for something else."):
            model.draw(talk)
    cut_off = model.chat(Conversation().user("a zebra"), picture="always", max_tokens=5, rewrite=rewrite)
    assert cut_off.open_image, "words that max_tokens cut off are no answer"


def test_why_there_is_no_picture_is_quoted(wegen, drawn, monkeypatch):
    speaks(monkeypatch, wegen, "Hello!")
    with pytest.raises(ValueError, match="nothing to draw. The answer was: «Hello!» Ask for one, or set `picture` to «always»"):
        wegen.draw(wegen.chat(Conversation().user("hello"), max_tokens=40))
    with pytest.raises(ValueError, match="nothing to draw. Ask for one"):
        wegen.draw(drawn[1])
    with pytest.raises(ValueError, match="The answer was: «Taken back. Nothing is left of the conversation.»"):
        wegen.draw(wegen.chat(drawn[1].user("undo"), commands=True))


def test_a_conversation_of_another_model_is_refused(wegen, drawn, tmp_path):
    other = WeGen.load(tiny_model(tmp_path / "other", parts=("language", "projectors"), seed=1), runtime=Listener())
    (tmp_path / "other/added_tokens.json").write_text((tmp_path / "other/added_tokens.json").read_text().replace("<patch>", "<patch2>"))
    for call in (
        lambda c: other.chat(c.user("more"), max_tokens=2),
        lambda c: other.draw(c.with_last(dataclasses.replace(c.last, open_image=True))),
    ):
        with pytest.raises(ValueError, match="held with another model"):
            call(drawn[1])


def test_features_of_another_space_are_refused_wherever_they_stand(wegen, drawn):
    features, conversation = drawn
    foreign = dataclasses.replace(features, space="elsewhere/8x8x32")
    with pytest.raises(ValueError, match=r"turn 1, image_1.*elsewhere/8x8x32.*tiny/8x8x32"):
        wegen.chat(Conversation().user("a", (Reference(features=foreign),)))
    last = dataclasses.replace(conversation.last, pictures=(foreign,))
    with pytest.raises(ValueError, match=r"the picture of turn 2.*elsewhere/8x8x32"):
        wegen.chat(conversation.with_last(last).user("more"))
    with pytest.raises(ValueError, match="elsewhere/8x8x32"):
        wegen.decode(foreign)
    wegen.decode(dataclasses.replace(features, tower="other"), steps=1)
    assert wegen.runtime.warnings == [
        "SDXL Feature Decoder, features: the features come from the tower 'other', the decoder 'tiny' "
        "was trained with 'tiny'. The picture may differ in colour and detail."
    ]


@pytest.mark.parametrize(
    "options, error",
    [
        (dict(width=0), "width is 0: it must be a multiple of 8"),
        (dict(height=-8), "height is -8"),
        (dict(width=30), "width is 30"),
        (dict(steps=0), "steps is 0: at least 1"),
        (dict(guidance_scale=-1.0), "guidance_scale is -1.0"),
        (dict(scheduler="Magic"), "scheduler 'Magic' is not one of EulerDiscreteScheduler"),
    ],
)
def test_decoder_options_that_make_no_sense(wegen, drawn, options, error):
    with pytest.raises(ValueError, match=error):
        wegen.decode(drawn[0], **options)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8, 2), (1, 0, 8, 3)])
def test_images_that_are_no_pictures(wegen, shape):
    with pytest.raises(ValueError, match="is no picture; expected .batch, height, width"):
        wegen.encode(torch.zeros(shape))


def test_every_kind_of_picture_is_read(wegen):
    grey = picture(20, 20, 1)
    colour = wegen.encode(grey.expand(-1, -1, -1, 3))
    assert torch.equal(wegen.encode(grey).tokens, colour.tokens)
    assert torch.equal(wegen.encode(grey[0]).tokens, colour.tokens)
    clear = torch.cat([picture(20, 20), torch.zeros(1, 20, 20, 1)], -1)
    assert torch.equal(wegen.encode(clear).tokens, wegen.encode(torch.ones(1, 20, 20, 3)).tokens)
    for width, height in ((1, 1), (3, 900), (500, 2)):
        assert torch.isfinite(wegen.encode(picture(width, height)).tokens).all()
    wide = picture(64, 32)
    fits = {fit: wegen.encode(wide, fit).tokens for fit in ("squash", "crop", "pad")}
    assert torch.equal(fits["crop"], wegen.encode(wide[:, :, 16:48]).tokens)
    assert not torch.equal(fits["squash"], fits["pad"])
    with pytest.raises(ValueError, match="choose squash, crop or pad"):
        wegen.encode(wide, "stretch")


def test_many_references_are_a_warning(wegen):
    references = tuple(Reference(picture(seed=i)) for i in range(6))
    wegen.chat(Conversation().user("all of them", references), max_tokens=1, picture="never")
    assert wegen.runtime.warnings == ["6 references: the paper reports that identity suffers past three."]


@pytest.mark.parametrize("keep, error", [((3, 3), "mask has 9 cells, the features have 64"), ((64,), None)])
def test_the_mask_has_a_cell_for_each_feature(wegen, drawn, keep, error):
    features, conversation = drawn
    waiting = wegen.chat(Conversation().user("a fox"), picture="always", max_tokens=4)
    if error is None:
        assert torch.equal(wegen.draw(waiting, keep=(features, torch.ones(keep)))[0].tokens, features.tokens)
    else:
        with pytest.raises(ValueError, match=error):
            wegen.draw(waiting, keep=(features, torch.ones(keep)))


def test_never_and_always(wegen):
    question = Conversation().user("a fox")
    never = wegen.chat(question, picture="never", max_tokens=30, temperature=2.0, seed=1)
    always = wegen.chat(question, picture="always", max_tokens=3)
    start = wegen.tokenizer.image_start
    assert not never.open_image and start not in never.last.ids
    assert always.open_image and always.last.ids[-1] == start
    with pytest.raises(ValueError, match="choose auto, always or never"):
        wegen.chat(question, picture="maybe")


@pytest.mark.parametrize("what", ["tower", "write_text", "write_features", "denoise"])
def test_cancelling_leaves_the_next_run_intact(tiny, drawn, what):
    model = WeGen.load(tiny, runtime=Listener(cancel_at=what))

    def run():
        chat = model.chat(Conversation().user("a <image_1>", (Reference(picture()),)), picture="always", max_tokens=4)
        features, _ = model.draw(chat)
        return features.tokens, model.decode(features, steps=3)

    with pytest.raises(Cancelled):
        run()
    model.runtime.cancel_at = ""
    after = run()
    expected = WeGen.load(tiny, runtime=Listener())
    model = expected
    assert all(torch.equal(a, b) for a, b in zip(after, run()))
    assert {event.kind: event.label for event in expected.runtime.ticks} == {
        "tower": "EVA-CLIP",
        "read_prompt": "WeGen reads",
        "write_text": "WeGen writes",
        "write_features": "WeGen draws",
        "denoise": "Decoder",
        "vae": "VAE",
    }
    last = {event.kind: event for event in expected.runtime.ticks}["write_features"]
    assert torch.equal(last.cells(), last.preview()[::16, ::16].reshape(-1, 3)) and last.done
    assert [len(event.cells()) for event in expected.runtime.ticks if event.kind == "write_features"] == list(range(1, 65))
