"""What must hold for any weights, on tiny random models in float32: caching, guidance, batching, teacher forcing, keeping, seeds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model.chat import prompt
from wegen.wegen_model.chat.conversation import Box, Conversation, Reference
from wegen.wegen_model.config import LanguageConfig
from wegen.wegen_model.features import Features, check_space, pool
from wegen.wegen_model.generation import generate
from wegen.wegen_model.models.eva_clip import prepare, resize_positions
from wegen.wegen_model.models.llama import Cache, Language
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def wegen(tiny) -> WeGen:
    return WeGen.load(tiny, runtime=Runtime("cpu", torch.float32))


@pytest.fixture(scope="module")
def model(wegen) -> generate.Model:
    return wegen._model(CPU)


@pytest.fixture(scope="module")
def asked(wegen) -> Conversation:
    """A conversation with a reference in a box, whose last turn opened a picture."""
    reference = Reference(picture(), box=Box(0.25, 0.25, 0.5, 0.5))
    return wegen.chat(Conversation().user("a fox <image_1> at <bbox_1>", (reference,)), picture="always", max_tokens=6)


@pytest.fixture(scope="module")
def context(wegen, asked) -> prompt.Prompt:
    return prompt.build(asked, wegen.tokenizer, 1024)


@pytest.fixture(scope="module")
def drawn(wegen, asked):
    """Features, and the conversation with them."""
    return wegen.draw(asked)


def close(a, b, tolerance=1e-5):
    assert a.shape == b.shape
    difference = (a - b).abs().max().item() / max(1.0, b.abs().max().item())
    assert difference < tolerance, f"difference {difference:.2e}"


# --- language model -----------------------------------------------------------------------------------------------


def test_cached_steps_equal_a_full_pass(model):
    x = torch.randn(1, 24, 32, generator=torch.Generator().manual_seed(0))
    full = model.language(x)
    cache = model.cache(1, 40)
    out = [model.language(x[:, :7], cache)]
    steps = [(7, 8), (8, 9), (9, 13), *((i, i + 1) for i in range(13, 24))]  # one by one, and several at once
    for i, j in steps:
        out.append(model.language(x[:, i:j], cache, torch.arange(i, j)[None]))
    close(torch.cat(out, 1), full)


def test_rows_of_different_length_equal_each_alone(model):
    generator = torch.Generator().manual_seed(1)
    lengths, steps = (5, 1, 12), 6
    rows = [torch.randn(1, n + steps, 32, generator=generator) for n in lengths]
    cache = model.cache(3, 20)
    for i, (row, n) in enumerate(zip(rows, lengths)):
        model.language(row[:, :n], cache.rows(i, i + 1))
    start = torch.tensor(lengths)[:, None]
    for step in range(steps):
        batch = torch.cat([row[:, n + step : n + step + 1] for row, n in zip(rows, lengths)])
        hidden = model.language(batch, cache, start + step)
        for i, (row, n) in enumerate(zip(rows, lengths)):
            close(hidden[i : i + 1], model.language(row[:, : n + step + 1])[:, -1:])


def test_a_cache_written_before_does_not_leak(model):
    """Slots past a row's position hold another call's values and must not be seen."""
    x = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(2))
    cache = Cache(*(torch.full_like(t, 7.0) for t in vars(model.cache(1, 30)).values()))
    close(torch.cat([model.language(x[:, :5], cache), model.language(x[:, 5:], cache, torch.tensor([[5]]))], 1), model.language(x))


def test_llama_equals_transformers():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LanguageConfig(vocab_size=97, width=48, layers=3, heads=4, mlp_width=80, eps=1e-5, rope_theta=10000.0)
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97,
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=80,
            rms_norm_eps=1e-5,
            max_position_embeddings=256,
            initializer_range=0.3,
            tie_word_embeddings=False,
        )
    ).eval()
    ours = Language(config)
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, 97, (2, 50))
    expected = theirs(ids).logits
    assert expected.std() > 0.5  # weights large enough for the comparison to mean something
    close(ours.logits(ours(ours.embed(ids))), expected, 1e-4)


def test_written_words_are_the_likeliest_by_a_full_pass(wegen, model):
    conversation = wegen.encode_references(Conversation().user("what is in <image_1>?", (Reference(picture()),)))
    built = prompt.build(conversation, wegen.tokenizer, 1024)
    quiet = dict(temperature=0.0, top_p=1.0, seed=0, max_tokens=12, runtime=Runtime("cpu"))
    ids, opened = generate.write_text(model, built, picture="never", rewrite=False, **quiet)
    assert len(ids) == 12 and not opened
    allowed = torch.ones(model.language.config.vocab_size, dtype=torch.bool)
    special = wegen.tokenizer.special
    allowed[[i for name, i in special.items() if name.startswith(("<img", "</img", "<patch", "</patch"))]] = False
    x = model.embeds([built])
    for token in ids:
        logits = model.language.logits(model.language(x)[0, -1]).masked_fill(~allowed, -torch.inf)
        assert int(logits.argmax()) == token
        x = torch.cat([x, model.language.embed(torch.tensor([[token]]))], 1)


# --- the feature loop ---------------------------------------------------------------------------------------------


def test_each_feature_equals_a_full_pass_over_those_before(model, context, drawn):
    tokens = drawn[0].tokens[0]
    x = model.embeds([context])
    for i in range(64):
        close(model.projectors.write(model.language(x)[0, -1]), tokens[i])
        x = torch.cat([x, model.feature_embeds(tokens[None, i : i + 1], first=i)], 1)


def test_generation_equals_teacher_forcing(wegen, model, drawn):
    """A finished turn's hidden states, one position before each feature, predict that feature: training and drawing agree."""
    features, conversation = drawn
    finished = prompt.build(conversation, wegen.tokenizer, 1024, end=True)
    written = torch.tensor(finished.written)
    assert written.sum() == 64 and finished.ids[-1] == wegen.tokenizer.eos
    before = written.roll(-1)
    assert finished.ids[int(before.nonzero()[0])] == wegen.tokenizer.image_start
    close(model.projectors.write(model.language(model.embeds([finished]))[0, before]), features.tokens[0])


@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_batched_guidance_equals_two_passes(model, context, guidance):
    tokens = generate.write_features(model, context, guidance=guidance)
    opening = model.language.embed(torch.tensor([[model.tokenizer.image_start]]))
    rows = [model.embeds([context]), opening]
    for i in range(64):
        conditional, blank = (model.projectors.write(model.language(row)[0, -1]) for row in rows)
        close(blank + guidance * (conditional - blank), tokens[i])
        rows = [torch.cat([row, model.feature_embeds(tokens[None, i : i + 1], first=i)], 1) for row in rows]


def test_kept_cells_come_back_bit_for_bit_and_change_no_earlier_cell(wegen, asked, drawn):
    earlier = wegen.encode(picture(seed=5))
    mask = torch.zeros(8, 8)
    mask[2, 3:5] = mask[7, 7] = 1
    kept, _ = wegen.draw(asked, keep=(earlier, mask), guidance=2.0)
    free, _ = wegen.draw(asked, guidance=2.0)
    spots = mask.flatten() > 0
    assert torch.equal(kept.tokens[0, spots], earlier.tokens[0, spots])
    first = 2 * 8 + 3
    assert torch.equal(kept.tokens[0, :first], free.tokens[0, :first])
    changed = (kept.tokens - free.tokens)[0, first + 2 : -1].abs().amax(-1)
    assert (changed > 0).all()  # every later free cell is written anew after them


def test_keeping_all_that_was_drawn_changes_nothing(wegen, asked, drawn):
    again, _ = wegen.draw(asked, keep=(drawn[0], torch.ones(8, 8)))
    assert torch.equal(again.tokens, drawn[0].tokens)


def test_parallel_predicts_from_placeholders(wegen, model, asked, context):
    features, _ = wegen.draw(asked, mode="parallel")
    x = torch.cat([model.embeds([context]), model.slots(0, 63)[None]], 1)
    close(features.tokens[0], model.projectors.write(model.language(x)[0, -64:]))


def test_the_same_seed_gives_the_same_reply_features_and_picture(wegen):
    question = Conversation().user("a fox")

    def run(seed):
        chat = wegen.chat(question, picture="always", temperature=1.5, top_p=0.95, seed=seed, max_tokens=12)
        features, _ = wegen.draw(chat)
        return chat.last.ids, features.tokens, wegen.decode(features, seed=seed)

    (ids, tokens, image), again, other = run(1), run(1), run(2)
    assert ids == again[0] and torch.equal(tokens, again[1]) and torch.equal(image, again[2])
    assert ids != other[0] and not torch.equal(tokens, other[1]) and not torch.equal(image, other[2])


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_schedulers_that_add_noise_follow_the_seed_too(wegen, drawn, scheduler):
    pictures = []
    for other in (1, 2):
        torch.manual_seed(other)  # the global state must not matter
        pictures.append(wegen.decode(drawn[0], seed=3, scheduler=scheduler))
    assert torch.equal(*pictures)
    assert torch.isfinite(pictures[0]).all()


# --- tower and decoder --------------------------------------------------------------------------------------------


def test_pooling_is_the_mean_of_four_by_four_blocks_row_by_row():
    x = torch.randn(2, 1024, 5, generator=torch.Generator().manual_seed(3))
    blocks = x.view(2, 8, 4, 8, 4, 5).mean((2, 4)).flatten(1, 2)
    close(pool(x, (8, 8)), blocks)
    assert pool(blocks, (8, 8)) is blocks
    with pytest.raises(ValueError, match="1000 tokens"):
        pool(x[:, :1000], (8, 8))


def cubic(t):
    """Keys' kernel with a = -0.75, which is PyTorch's bicubic."""
    t = np.abs(t)
    return np.where(t <= 1, 1.25 * t**3 - 2.25 * t**2 + 1, np.where(t < 2, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4), 0.0))


def test_positions_interpolate_by_the_documented_formula():
    pos = torch.randn(1, 257, 3, generator=torch.Generator().manual_seed(4))
    out = resize_positions(pos, 32)
    at = (np.arange(32) + 0.5) / (32.1 / 16) - 0.5  # scale (32 + 0.1) / 16, half-pixel centres
    weights = np.zeros((32, 16))
    for i, x in enumerate(at):
        for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            weights[i, min(max(tap, 0), 15)] += cubic(x - tap)
    expected = np.einsum("ia,jb,abc->ijc", weights, weights, pos[0, 1:].view(16, 16, 3).double().numpy())
    assert torch.equal(out[:, 0], pos[:, 0])
    close(out[0, 1:], torch.from_numpy(expected).float().flatten(0, 1))
    assert resize_positions(out, 32) is out
    with pytest.raises(ValueError, match="square grid"):
        resize_positions(pos[:, :-1], 32)


def test_padding_keeps_the_shape_in_the_middle_of_the_mean_colour(wegen):
    config = wegen.config.vision
    s = config.image_size
    for w, h in ((4 * s, 2 * s), (2 * s, 4 * s), (20, 10)):
        pixels = prepare(torch.ones(1, h, w, 3), config, "pad")
        assert pixels.shape == (1, 3, s, s)
        inside = pixels[0].abs().amax(0) > 1e-6  # the mean colour is zero here
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        wide, high = (s, s // 2) if w > h else (s // 2, s)
        assert (len(rows), len(columns)) == (high, wide) and inside.sum() == wide * high
        assert (int(rows[0]), int(columns[0])) == ((s - high) // 2, (s - wide) // 2)
    square = picture(50, 50)
    assert torch.equal(prepare(square, config, "pad"), prepare(square, config))


def test_padding_a_very_long_picture_needs_no_canvas_of_its_length_squared(wegen):
    """As a square of its length this one would be 480 GB."""
    pixels = prepare(torch.ones(1, 1, 200_000, 3), wegen.config.vision, "pad")
    assert (pixels.abs().amax(1) > 1e-6).sum() == wegen.config.vision.image_size


def test_features_of_no_picture_or_of_another_width_are_named():
    def check(batch, width):
        return check_space(Features(torch.zeros(batch, 4, width), (2, 2), "s", "t"), "s", "t", "the decoder 'd'", "Node, features", width=5)

    assert check(1, 5) is None
    with pytest.raises(ValueError, match="Node, features: .*6.*the decoder 'd' reads .*5"):
        check(1, 6)
    with pytest.raises(ValueError, match="Node, features: .*empty"):
        check(0, 5)


def test_the_unet_does_not_care_about_the_order_of_the_tokens(wegen, drawn):
    decoder = wegen.painter._load()
    tokens = drawn[0].tokens
    shuffled = tokens[:, torch.randperm(64, generator=torch.Generator().manual_seed(6))]
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    results = [decoder.denoise(noise, torch.tensor([500]), t, t.mean(1), decoder.time_ids(32, 32, 1, CPU)) for t in (tokens, shuffled)]
    close(*results)
    other = decoder.denoise(noise, torch.tensor([500]), tokens * 2, tokens.mean(1) * 2, decoder.time_ids(32, 32, 1, CPU))
    assert (other - results[0]).abs().max() > 1e-3  # but it does care about the tokens


def test_guidance_1_is_the_conditional_prediction_and_0_the_blank_one(wegen, drawn):
    decoder = wegen.painter._load()
    tokens = drawn[0].tokens
    noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(8))
    zeros = torch.zeros_like(tokens)
    sample = dict(steps=2, runtime=Runtime("cpu"))
    close(
        decoder.sample(tokens, tokens.mean(1), noise, guidance_scale=0.0, **sample),
        decoder.sample(zeros, zeros.mean(1), noise, guidance_scale=1.0, **sample),
        1e-4,
    )


def test_a_batch_of_pictures_equals_each_alone(wegen):
    images = torch.cat([picture(seed=i) for i in range(3)])
    features = wegen.encode(images)
    close(features.tokens, torch.cat([wegen.encode(image[None]).tokens for image in images]))
    decoder = wegen.painter._load()
    noise = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(9))
    batch = decoder.sample(features.tokens, features.pooled, noise, steps=2, guidance_scale=3.0)
    for i in range(3):
        one = features[i : i + 1]
        close(batch[i : i + 1], decoder.sample(one.tokens, one.pooled, noise[i : i + 1], steps=2, guidance_scale=3.0), 1e-4)


def test_parts_load_only_when_needed(tmp_path: Path):
    model = WeGen.load(tiny_model(tmp_path / "m", parts=("vision", "unet", "vae")), runtime=Runtime("cpu", torch.float32))
    picture_again = model.decode(model.encode(picture()), steps=1)
    assert picture_again.shape == (1, 32, 32, 3)
    with pytest.raises(ValueError, match="has no projectors|has no language"):
        model.chat(Conversation().user("a fox"))


def test_normalised_features_are_raw_outside(tmp_path: Path):
    """The miniature's z-scoring: what the model writes and reads is raw; prediction happens in normalised space."""
    from wegen.wegen_model.config import FeatureConfig
    from wegen.wegen_model.models.projectors import Projectors

    config = dataclasses.replace(FeatureConfig(), width=6, normalised=True)
    projectors = Projectors(config, 10)
    projectors.mean.data, projectors.std.data = torch.arange(6.0), torch.full((6,), 3.0)
    hidden = torch.randn(4, 10, generator=torch.Generator().manual_seed(10))
    close(projectors.write(hidden), projectors.predict(hidden) * 3 + torch.arange(6.0))
    close(projectors.read(projectors.write(hidden)), projectors.input_resampler(projectors.predict(hidden)))
