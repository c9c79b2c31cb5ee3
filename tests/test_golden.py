"""Golden tensors: what the public WeGen code computes, through `wegen convert` on its checkpoint. Rows: golden/official_tiny/README.md."""

import pytest
import torch
from wegen.wegen_model.chat.conversation import Conversation
from wegen.wegen_model.chat.prompt import Prompt, Slot
from wegen.wegen_model.chat.tokenizer import Tokenizer, special_tokens
from wegen.wegen_model.features import pool
from wegen.wegen_model.generation.generate import Model, write_features
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime
from wegen.wegen_model.train.losses import alphas_cumprod, diffusion_loss, feature_losses


def assert_relative(actual, expected, tolerance):
    """The largest difference, relative to the largest expected value, is within the tolerance."""
    assert actual.shape == expected.shape
    difference = ((actual - expected).abs().max() / expected.abs().max()).item()
    print(f"{difference:.2e} of {tolerance}")
    assert difference < tolerance, f"relative difference {difference:.2e}"


@pytest.fixture(scope="module")
def wegen(converted):
    return WeGen.load(converted, runtime=Runtime("cpu", torch.float32))


@pytest.fixture(scope="module")
def model(wegen):
    """The generating parts. The golden checkpoint has no tokenizer: prompts are ids, the special ones the public table's."""
    tokenizer = Tokenizer(None, special_tokens(32000), 1, 2, "golden")
    return Model(wegen.component("language").module, wegen.component("projectors").module, tokenizer, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def prompt(wegen, golden):
    """The golden prompt: one reference picture, ending in <img>."""
    ids, mask = golden["prompt_ids"][0].tolist(), golden["prompt_feature_mask"][0].tolist()
    features = wegen.features(golden["reference_features"])
    return Prompt(sum(mask), ids, [False] * len(ids), [Slot(mask.index(True), False, 0, 0)], features=[features])


@pytest.fixture(scope="module")
def decoder(wegen):
    return wegen.painter._load()


@torch.no_grad()
def test_tower_and_pooling(wegen, golden):
    tokens = wegen.component("vision").module(golden["image"])
    assert_relative(tokens, golden["tower_tokens"], 1e-4)
    pooled = pool(tokens, (8, 8))
    assert_relative(pooled, golden["pooled_tokens"][:1], 1e-4)
    assert_relative(wegen.features(golden["pooled_tokens"]).pooled, golden["pooled_mean"], 1e-4)


@torch.no_grad()
def test_first_hidden_and_logits(model, prompt, golden):
    hidden = model.language(model.embeds([prompt]))[:, -1]
    assert_relative(hidden, golden["first_hidden"], 1e-4)
    assert_relative(model.language.logits(hidden), golden["first_logits"], 1e-4)


@pytest.mark.parametrize(
    "guidance, readout, row",
    [
        (1.0, "aligned", "features_aligned"),
        (1.0, "released", "features_released"),
        (2.0, "aligned", "features_guided2_aligned"),
        (2.0, "released", "features_guided2_released"),
    ],
)
@torch.no_grad()
def test_features(model, prompt, golden, guidance, readout, row):
    assert_relative(write_features(model, prompt, guidance=guidance, readout=readout), golden[row], 1e-4)


@torch.no_grad()
def test_read_outs_are_one_step_apart(model, prompt):
    aligned, released = (write_features(model, prompt, readout=r) for r in ("aligned", "released"))
    assert torch.equal(aligned[1:], released[:-1])
    assert not torch.allclose(aligned, released, atol=1e-2)


@pytest.mark.parametrize("guidance", [1, 6])
def test_decoder_latents(decoder, golden, guidance):
    tokens = golden["pooled_tokens"][:1]
    latents = decoder.sample(tokens, tokens.mean(1), golden["initial_noise"], steps=50, guidance_scale=float(guidance))
    assert_relative(latents, golden[f"latents_guidance{guidance}_steps50"], 1e-3)


def test_decoded_pixels(decoder, golden):
    assert_relative(decoder.to_pixels(golden["latents_guidance6_steps50"]), golden["decoded_pixels_guidance6"], 1e-3)


@torch.no_grad()
def test_decoder_training_step(decoder, golden):
    latents = decoder.to_latents(golden["train_pixels"])
    assert_relative(latents, golden["train_latents"], 1e-4)
    loss, predicted = diffusion_loss(
        decoder,
        alphas_cumprod(decoder),
        golden["train_latents"],
        golden["pooled_tokens"],
        golden["pooled_mean"],
        golden["train_timesteps"],
        golden["train_noise"],
        torch.zeros(2, 6),
    )
    assert_relative(predicted, golden["train_noise_pred"], 1e-4)
    assert_relative(loss[None], golden["train_minsnr_loss"], 1e-4)


def test_feature_losses(golden):
    mse, cosine = feature_losses(golden["features_aligned"], golden["pooled_tokens"][0])
    assert_relative(mse[None], golden["train_mse"], 1e-4)
    assert_relative(cosine[None], golden["train_cosine"], 1e-4)


def test_a_chat_without_tokenizer_says_what_is_missing(wegen):
    with pytest.raises(FileNotFoundError, match="tokenizer.model"):
        wegen.chat(Conversation().user("a fox"))
