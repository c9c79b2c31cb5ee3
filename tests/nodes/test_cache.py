"""Nothing is computed twice: pictures of a long conversation, pictures by content, and a model that comes with the conversation."""

import json

import pytest
import torch
from PIL import Image
from wegen.nodes import host
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model import encoder_pipeline
from wegen.wegen_model.pipeline import WeGen


@pytest.fixture
def looks(monkeypatch):
    """How many pictures the tower looked at, call by call."""
    counted, pool = [], encoder_pipeline.pool

    def count(tokens, grid):
        counted.append(len(tokens))
        return pool(tokens, grid)

    monkeypatch.setattr(encoder_pipeline, "pool", count)
    return counted


def test_the_same_picture_is_encoded_once(folder, looks):
    model, one = WeGen.load(folder), picture()
    first, again = model.encode(one), model.encode(one.clone())
    assert looks == [1] and torch.equal(first.tokens, again.tokens) and first is not again
    assert model.encode(one, fit="crop").tokens.shape == first.tokens.shape and looks == [1, 1]
    model.encode(picture(seed=1))
    assert looks == [1, 1, 1]
    for seed in range(encoder_pipeline.KEPT):
        model.encode(picture(8, 8, seed=seed))
    model.encode(one)  # forgotten meanwhile: what is kept has an end
    assert len(looks) == 4 + encoder_pipeline.KEPT


@pytest.mark.parametrize("memory, shown", [(1, 1), (0, 3)])
def test_a_long_conversation_encodes_only_what_its_prompt_shows(tmp_path, monkeypatch, looks, memory, shown):
    """With a short memory the last picture; with a long one those that fit into the model's positions (trim_oldest)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    turns = []
    for k in range(12):
        if k > 6:  # of those of long ago not even the files are needed
            Image.fromarray((picture(seed=k)[0] * 255).byte().numpy()).save(tmp_path / "output" / f"{k}.png")
        file = {"filename": f"{k}.png", "subfolder": "", "type": "output"}
        turns += [{"role": "user", "text": f"number {k}"}, {"role": "assistant", "text": "", "pictures": [file]}]
    turns.append({"role": "user", "text": "more"})
    model = WeGen.load(tiny_model(tmp_path / "tiny", memory=memory), runtime=host.runtime())
    (_, _, talk, _), _ = call("WeGenChatPanel", model=model, transcript=json.dumps(turns), picture="never", max_tokens=700)
    assert sum(looks) == shown and len(talk.turns) == 26
    assert talk.model is model


def test_ar_feature_decode_takes_the_model_of_the_conversation(model, asked):
    (own, _), _ = call("WeGenDraw", model=model, chat=asked)
    (brought, talk), _ = call("WeGenDraw", chat=asked)
    assert torch.equal(own.tokens, brought.tokens) and talk.model is model
    with pytest.raises(ValueError, match="model is not connected, and the conversation names none"):
        call("WeGenDraw", chat=type(asked)(asked.turns, asked.tokenizer))
