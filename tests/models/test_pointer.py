"""A writer that may point at earlier pictures: what comes out, and that writing one by one is what training computes."""

import dataclasses

import pytest
import torch
from wegen.tests.support import tiny_config
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.conversation import Box, Conversation, Reference, Turn
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.data.collate import Plan, collate, embed, predictions
from wegen.wegen_model.features import Features
from wegen.wegen_model.generation import generate
from wegen.wegen_model.models.llama import Language
from wegen.wegen_model.models.pointer import MOST, Pointer, Shown
from wegen.wegen_model.models.projectors import Projectors

C, D, N = 32, 32, 64


@pytest.fixture
def pointer():
    torch.manual_seed(0)
    module = Pointer(C, D)
    with torch.no_grad():
        module.own.weight.zero_()
    return module


def mix(pointer, shown, hidden=None):
    hidden = torch.randn(2, N, D) if hidden is None else hidden
    guess = torch.randn(2, N, C)
    with torch.no_grad():
        return pointer(hidden, guess, shown), guess


def test_a_row_without_pictures_keeps_its_own_guess(pointer):
    out, guess = mix(pointer, Shown.of([[torch.randn(N, C)], []], torch.empty(0)))
    assert torch.equal(out[1], guess[1]) and not torch.allclose(out[0], guess[0])
    assert Shown.of([[], []], torch.empty(0)) is None


def test_pointing_alone_returns_what_was_shown(pointer):
    shown = torch.randn(N, C)
    with torch.no_grad():
        pointer.own.bias.fill_(-1e4)
        pointer.change.weight.zero_()
    out, _ = mix(pointer, Shown.of([[shown], [shown]], torch.empty(0)))
    assert torch.allclose(out, shown.expand_as(out), atol=1e-6)


def test_blocks_begin_as_none_and_shape_what_is_pointed_at():
    """Weights without blocks are loaded into a pointer with them unchanged, once the blocks are silent."""
    torch.manual_seed(0)
    plain, deep = Pointer(C, D), Pointer(C, D, blocks=2)
    assert not deep.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    hidden, shown = torch.randn(2, N, D), Shown.of([[torch.randn(N, C)], [torch.randn(N, C)]], torch.empty(0))
    guess = torch.randn(2, N, C)
    with torch.no_grad():
        assert not torch.allclose(deep(hidden, guess, shown), plain(hidden, guess, shown))
        for block in deep.blocks:
            block.down.weight.zero_()
        assert torch.equal(deep(hidden, guess, shown), plain(hidden, guess, shown))


def test_latest_first_and_no_more_than_it_has_names_for():
    pictures = [torch.full((N, C), float(i)) for i in range(MOST + 3)]
    shown = Shown.of([pictures], torch.empty(0))
    assert shown.tokens.shape == (1, MOST, N, C)
    assert shown.tokens[0, :, 0, 0].tolist() == [float(MOST + 2 - i) for i in range(MOST)]


@pytest.fixture(scope="module")
def writer(tiny):
    """A random writer that points and is told of boxes, and a conversation that shows two pictures and has drawn one."""
    torch.manual_seed(1)
    config = tiny_config()
    features = dataclasses.replace(config.features, pointer=True, pointer_blocks=2, slot_embedding=True, regions=True)
    language, projectors = Language(config.language), Projectors(features, config.language.width)
    tokenizer = Tokenizer.load(tiny)
    a, b, c = (Features(torch.randn(1, N, C), (8, 8), features.space, features.tower) for _ in "abc")
    first = Reference(features=a, box=Box(0, 0, 0.4, 0.5)), Reference(features=b)
    then = Reference(box=Box(0.5, 0.1, 0.3, 0.3)), Reference(box=Box(0.1, 0.6, 0.8, 0.4))
    talk = Conversation(
        (
            Turn("user", "<image_1> and <image_2>", first),
            Turn("assistant", "so", pictures=(c,)),
            Turn("user", "again <bbox_1> and <bbox_2>", then),
            Turn("assistant", "", open_image=True),
        )
    )
    model = generate.Model(language.eval(), projectors.eval(), tokenizer, torch.device("cpu"), torch.float32)
    return model, prompt.build(talk, tokenizer, 1024), torch.cat([a.tokens, b.tokens, c.tokens])


@pytest.mark.parametrize("mode", ["autoregressive", "parallel"])
def test_writing_is_what_training_predicts(writer, mode):
    model, asked, known = writer
    with torch.no_grad():
        made = generate.write_features(model, asked, mode=mode)
        ids = [*asked.ids, *prompt.picture_ids(N, model.tokenizer)]
        plan = Plan(
            ids,
            [False] * len(ids),
            [*((slot.start, row, slot.written) for row, slot in enumerate(asked.slots)), (len(asked), 3, True)],
            asked.boxes,
            [*(slot.boxes for slot in asked.slots), asked.asked],
        )
        fed, batch = torch.cat([known, made[None]]), collate([plan])
        blank = torch.tensor([False, False, False, mode == "parallel"])
        hidden = model.language(embed(model.language, model.projectors, batch, fed, blank))
        again = predictions(model.projectors, hidden, batch, N, fed)[-1]
    assert torch.allclose(made, again, atol=1e-4)


def test_guidance_takes_the_pictures_from_the_unconditional_row(writer):
    """With guidance 0 what is written is the unconditional row's, which has seen no picture."""
    model, asked, _ = writer
    other = prompt.Prompt(**vars(asked))
    other.features = [Features(f.tokens + 1, f.grid, f.space, f.tower) for f in asked.features]
    with torch.no_grad():
        one, two = (generate.write_features(model, p, guidance=0.0, mode="parallel") for p in (asked, other))
        assert torch.allclose(one, two, atol=1e-5)
        assert not torch.allclose(generate.write_features(model, asked), generate.write_features(model, other), atol=1e-2)
