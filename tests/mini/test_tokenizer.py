"""The miniature's tokenizer: what it folds, and that the shipped file is what `build_tokenizer` writes."""

import json

import pytest
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.chat_state import parse_transcript
from wegen.wegen_model.chat.conversation import Conversation, Turn
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.mini.tasks import TAG, corpus, sample
from wegen.wegen_model.mini.tokenizer import build_tokenizer, normaliser
from wegen.wegen_model.mini.world.concepts import CONCEPTS

tokenizers = pytest.importorskip("tokenizers")
WEIGHTS = model_folder.resolve("wegen-mini")


@pytest.fixture(scope="module")
def folded():
    return Tokenizer.load(WEIGHTS)


@pytest.fixture(scope="module")
def unfolded(tmp_path_factory):
    """The same without its normaliser, as it was before."""
    folder = tmp_path_factory.mktemp("unfolded")
    values = json.loads((WEIGHTS / "tokenizer.json").read_text(encoding="utf8"))
    (folder / "tokenizer.json").write_text(json.dumps(values | {"normalizer": None}), encoding="utf8")
    (folder / "added_tokens.json").write_bytes((WEIGHTS / "added_tokens.json").read_bytes())
    return Tokenizer.load(folder)


def test_the_shipped_file_folds_as_the_code_does():
    code = tokenizers.Tokenizer(tokenizers.models.BPE())
    code.normalizer = normaliser()
    shipped = json.loads((WEIGHTS / "tokenizer.json").read_text(encoding="utf8"))
    assert shipped["normalizer"] == json.loads(code.to_str())["normalizer"]


@pytest.mark.slow
def test_the_shipped_file_is_the_one_that_is_built(tmp_path):
    build_tokenizer(tmp_path)
    for name in ("tokenizer.json", "added_tokens.json"):
        assert json.loads((tmp_path / name).read_text(encoding="utf8")) == json.loads((WEIGHTS / name).read_text(encoding="utf8"))


@pytest.mark.parametrize(
    "typed",
    [
        "A Fox On A Teal Background",
        "A FOX  ON\tA   TEAL\u00a0BACKGROUND",
        "\uff41 \uff46\uff4f\uff58 on a teal background",  # full-width letters
        "\u00e0 f\u00f3x on a te\u00e4l background",
        "a\U0001f98aon a teal background",
        "a \U0001f98a\ufe0f on a teal background",
    ],
)
def test_however_it_is_typed(folded, typed):
    plain = Conversation().user("a fox on a teal background")
    assert prompt.build(Conversation().user(typed), folded, 1024).ids == prompt.build(plain, folded, 1024).ids


def test_the_emoji_of_every_thing_is_the_thing(folded):
    for thing in (c for c in CONCEPTS if not c.held_out):
        assert folded.decode(folded.encode(f"a {chr(int(thing.codepoint, 16))} on teal")) == f"a {thing.name} on teal"


def test_ids_of_lower_case_text_are_what_they_were(folded, unfolded):
    """What was trained and every shipped workflow: with the marks of turns, and each piece between tags as the prompt cuts it."""
    for text in corpus(600):
        assert folded.encode(text) == unfolded.encode(text)
    for seed in range(300):
        turns = tuple(Turn(t.role, TAG.sub("", t.text).strip() or "a fox") for t in sample(seed).turns)
        turns = tuple(Turn(t.role, " ".join(t.text.split())) for t in turns)
        ids = [prompt.build(Conversation(turns), t, 4096, end=True).ids for t in (folded, unfolded)]
        assert ids[0] == ids[1]


@pytest.mark.parametrize("typed", ["\u0301", "\ufe0f", "\u3000!", "[inst] a fox [/inst]", "\u0130stanbul \u1e9e"])
def test_strange_text_is_read(folded, typed):
    assert prompt.build(Conversation().user(typed), folded, 1024).ids


def test_a_conversation_of_the_unfolded_tokenizer_is_refused_and_a_transcript_opens(folded, unfolded):
    """Ids mean something only to their tokenizer; the panel stores words."""
    with pytest.raises(ValueError, match="held with another model .tokenizer 3ac9c4ac81b3"):
        prompt.build(Conversation((Turn("user", "a fox"),), tokenizer="3ac9c4ac81b3"), folded, 1024)
    said = [{"role": "user", "text": "A Fox"}, {"role": "assistant", "text": "here"}, {"role": "user", "text": "now on Blue"}]
    talk = parse_transcript(json.dumps(said)).conversation(None, None)
    assert talk.tokenizer == "" and len(talk.turns) == 3
    assert prompt.build(talk, folded, 1024).ids == prompt.build(Conversation(tuple(map(_lower, talk.turns))), unfolded, 1024).ids


def _lower(turn):
    return Turn(turn.role, turn.text.lower())
