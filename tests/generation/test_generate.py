"""Writing several pictures side by side, and how guidance orders its rows."""

import dataclasses

import pytest
import torch
from wegen.tests.support import tiny_config
from wegen.wegen_model.box import Box
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.conversation import Conversation, Reference, Turn
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.features import Features
from wegen.wegen_model.generation import generate
from wegen.wegen_model.models.guidance import guide
from wegen.wegen_model.models.llama import Language
from wegen.wegen_model.models.projectors import Projectors

N = 64


@pytest.fixture(scope="module", params=["plain", "miniature"])
def model(request, tiny):
    """A random writer, plain as the public one or with every option of the miniature. In float64: random weights amplify the rounding
    of what is fed back."""
    torch.manual_seed(2)
    config = tiny_config()
    features = config.features
    if request.param == "miniature":
        features = dataclasses.replace(features, pointer=True, pointer_blocks=1, slot_embedding=True, regions=True, normalised=True)
    language, projectors = Language(config.language), Projectors(features, config.language.width)
    language, projectors = language.double().eval(), projectors.double().eval()
    return generate.Model(language, projectors, Tokenizer.load(tiny), torch.device("cpu"), torch.float64)


@pytest.fixture(scope="module")
def prompts(model):
    """Three of unlike lengths: words alone, two pictures in boxes, and a second exchange."""
    f = model.projectors.config
    shown = [Features(torch.randn(1, N, f.width), f.grid, f.space, f.tower) for _ in range(3)]
    boxed = tuple(Reference(features=x, box=Box(0.1 + k / 4, 0.2, 0.5, 0.4)) for k, x in enumerate(shown[:2]))
    waiting = Turn("assistant", "", open_image=True)
    talks = (
        (Turn("user", "a fox"), waiting),
        (Turn("user", "<image_1> at <bbox_1> beside <image_2>", boxed), waiting),
        (
            Turn("user", "a"),
            Turn("assistant", "b", pictures=(shown[2],)),
            Turn("user", "so <bbox_1>", (Reference(box=Box(0, 0, 1, 0.5)),)),
            waiting,
        ),
    )
    return [prompt.build(Conversation(turns), model.tokenizer, 1024) for turns in talks]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("mode, readout", [("autoregressive", "aligned"), ("autoregressive", "released"), ("parallel", "aligned")])
def test_a_batch_equals_each_alone(model, prompts, guidance, mode, readout):
    options = dict(guidance=guidance, mode=mode, readout=readout)
    with torch.no_grad():
        together = generate.write_features(model, prompts, **options)
        alone = [generate.write_features(model, p, **options) for p in prompts]
    assert together.shape == (3, *alone[0].shape)
    for one, many in zip(alone, together):
        assert (one - many).abs().max() < 1e-5 * max(1, one.abs().max())
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_each_prompt_of_a_batch_keeps_its_own_cells(model, prompts):
    tokens = torch.randn(3, N, model.projectors.config.width)
    mask = torch.rand(3, N) < 0.3
    with torch.no_grad():
        together = generate.write_features(model, prompts, keep=(tokens, mask), guidance=2.0)
        alone = generate.write_features(model, prompts[1], keep=(tokens[1], mask[1]), guidance=2.0)
    assert torch.equal(together[mask], tokens[mask])
    assert (together[1] - alone).abs().max() < 1e-5 * max(1, alone.abs().max())


def test_words_alone_project_once_a_step(model, prompts, monkeypatch):
    """Only the released read-out looks at what follows a feature."""
    calls = []
    monkeypatch.setattr(model.projectors, "write", lambda *args: calls.append(args) or torch.zeros(1, 1, model.projectors.config.width))
    with torch.no_grad():
        generate.write_features(model, prompts[0])
        assert not calls
        generate.write_features(model, prompts[0], readout="released")
    assert len(calls) == N


def test_a_prompt_that_opens_no_picture_is_refused(model, prompts):
    with pytest.raises(ValueError, match="must end in <img>"):
        generate.write_features(model, [prompts[0], dataclasses.replace(prompts[1], ids=prompts[1].ids[:-1])])


def test_guidance_goes_from_the_unconditional_rows_which_come_last():
    rows = torch.tensor([1.0, 2.0, 10.0, 20.0])
    assert guide(rows, 3.0).tolist() == [10 + 3 * (1 - 10), 20 + 3 * (2 - 20)]
    assert guide(rows, 0.0).tolist() == [10, 20]
    assert guide(rows, 1.0) is rows
