"""Conversations in files: what comes back is what was said, and the talk goes on to the bit."""

import json

import pytest
import torch
from safetensors.torch import save_file
from wegen.tests.support import picture
from wegen.wegen_model.box import Box
from wegen.wegen_model.chat import commands
from wegen.wegen_model.chat.conversation import Conversation, Reference, Turn
from wegen.wegen_model.chat.saved import FORMAT, load_conversation, save_conversation
from wegen.wegen_model.features import Features
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime


@pytest.fixture(scope="module")
def wegen(tiny):
    return WeGen.load(tiny, runtime=Runtime("cpu", torch.float32))


def turn(wegen, talk, words, *shown):
    return wegen.draw(wegen.chat(talk.user(words, shown), picture="always", max_tokens=3))[1]


def test_a_saved_conversation_goes_on_to_the_bit(wegen, tmp_path):
    eight_bits = (picture() * 255).round() / 255
    talk = turn(
        wegen, Conversation(), "a <image_1> and <image_2>", Reference(eight_bits, box=Box(0.1, 0.2, 0.5, 0.5)), Reference(picture())
    )
    talk = commands.show(turn(wegen, talk, "redder"), 1)
    save_conversation(talk, tmp_path / "talk.safetensors")
    back = load_conversation(tmp_path / "talk.safetensors")
    assert [t.ids for t in back.turns] == [t.ids for t in talk.turns] and back.turns[0].text == talk.turns[0].text
    assert back.turns[0].references[0].box == Box(0.1, 0.2, 0.5, 0.5)
    for a, b in zip(talk.turns[0].references, back.turns[0].references):
        assert torch.equal(a.picture, b.picture) and torch.equal(a.features.tokens, b.features.tokens)
    on, same = turn(wegen, talk, "and bluer"), turn(wegen, back, "and bluer")
    assert torch.equal(on.last.pictures[0].tokens, same.last.pictures[0].tokens) and on.last.ids == same.last.ids
    assert len(back.drawn) == 2 and torch.equal(commands.show(back, 2).last.pictures[0].tokens, talk.drawn[1][-1].pictures[0].tokens)
    undone = commands.undo(back)  # the command, then the second message
    assert [t.text for t in undone.turns if t.role == "user"] == ["a <image_1> and <image_2>", "redder"]
    assert len(commands.undo(undone).turns) == 2 and len(same.drawn) == 3


def test_an_empty_conversation_comes_back(tmp_path):
    save_conversation(Conversation(), tmp_path / "x.safetensors")
    assert load_conversation(tmp_path / "x.safetensors").turns == ()


def file(tmp_path, value, tensors=None):
    save_file(tensors or {"t0": torch.zeros(1, 4, 2)}, tmp_path / "x", {"format": FORMAT, "conversation": value})


ROW = {"role": "user", "text": "a", "ids": None, "open_image": False, "seed": None, "references": [], "pictures": []}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: (p / "x").write_text("hello"),
        lambda p: (p / "x").write_bytes(b""),
        lambda p: (p / "x").mkdir(),
        lambda p: save_file({"tokens": torch.zeros(1)}, p / "x", {"format": "wegen-features-1"}),
        lambda p: save_file({"tokens": torch.zeros(1)}, p / "x"),
        lambda p: file(p, "{"),
        lambda p: file(p, "[]"),
        lambda p: file(p, json.dumps({"turns": [{}], "states": [], "drawn": [], "tokenizer": ""})),
        lambda p: file(p, json.dumps({"turns": [{**ROW, "role": "system"}], "states": [[0]], "drawn": [], "tokenizer": ""})),
        lambda p: file(p, json.dumps({"turns": [ROW], "states": [[7]], "drawn": [], "tokenizer": ""})),
        lambda p: file(p, json.dumps({"turns": [ROW], "states": [5], "drawn": [], "tokenizer": ""})),
        lambda p: file(p, json.dumps({"turns": [{**ROW, "text": "<image_1>"}], "states": [[0]], "drawn": [], "tokenizer": ""})),
    ],
)
def test_what_is_no_conversation_is_named(tmp_path, spoil):
    spoil(tmp_path)
    with pytest.raises(ValueError, match="x (holds no conversation|is a folder)"):
        load_conversation(tmp_path / "x")


def test_half_a_file_is_damaged(tmp_path):
    features = Features(torch.randn(1, 4, 2), (2, 2), "s", "s")
    save_conversation(Conversation((Turn("user", "a"), Turn("assistant", "", pictures=(features,)))), tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[: len(whole) - 8])
    with pytest.raises(ValueError, match="damaged"):
        load_conversation(tmp_path / "x")
