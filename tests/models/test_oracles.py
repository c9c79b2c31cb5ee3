"""Other libraries as oracles, on random weights that go through our files: what they compute from a public layout, we compute too.

(The LLaMA body against transformers' LlamaForCausalLM: here through a folder that transformers wrote, in test_properties.py directly.)
"""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from wegen.tests.support import tiny_config
from wegen.wegen_model.checkpoint.convert import convert, export
from wegen.wegen_model.config import PRESETS
from wegen.wegen_model.features import Features
from wegen.wegen_model.models.decoder import noise
from wegen.wegen_model.pipeline import WeGen, WeGenDecoder
from wegen.wegen_model.runtime import Runtime

CPU = Runtime("cpu", torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_that_transformers_wrote_gives_its_logits(tmp_path, shards):
    from transformers import LlamaConfig, LlamaForCausalLM

    c = PRESETS["tiny"].language
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.width,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            intermediate_size=c.mlp_width,
            rms_norm_eps=3e-6,
            max_position_embeddings=256,
            initializer_range=0.3,
            tie_word_embeddings=False,
        )
    ).eval()
    theirs.save_pretrained(tmp_path / "llama", max_shard_size="50GB" if shards == 1 else "3MB")
    assert len(list((tmp_path / "llama").glob("*.safetensors"))) == shards
    convert(tmp_path / "llama", tmp_path / "model", parts=["language"])
    ours = WeGen.load(tmp_path / "model", runtime=CPU).component("language").module
    assert ours.config.eps == 3e-6 and ours.config.positions == 256  # as their config.json says
    ids = torch.randint(0, c.vocab_size, (2, 40))
    expected = theirs(ids).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(ours.logits(ours(ours.embed(ids))), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_tower_equals_timm_s(converted, tmp_path, golden):
    timm_eva = pytest.importorskip("timm.models.eva", reason="timm is not installed; it is an oracle only", exc_type=ImportError)
    c = PRESETS["tiny"].vision
    export(converted, tmp_path / "timm.safetensors", "timm", parts=["vision"])
    theirs = timm_eva.Eva(
        img_size=c.image_size,
        patch_size=c.patch_size,
        embed_dim=c.width,
        depth=c.layers,
        num_heads=c.heads,
        mlp_ratio=c.mlp_width / c.width,
        use_post_norm=True,
        num_classes=0,
        global_pool="token",
    ).eval()
    missing, unexpected = theirs.load_state_dict(load_file(tmp_path / "timm.safetensors"), strict=False)
    assert sorted(missing) == ["norm.bias", "norm.weight"] and not unexpected
    theirs.norm = torch.nn.Identity()
    expected = theirs.forward_features(golden["image"])[:, 1:]
    ours = WeGen.load(converted, runtime=CPU).component("vision").module(golden["image"])
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("guidance, negative", [(1.0, "zeros"), (5.0, "zeros"), (3.0, "features")])
def test_the_decoder_equals_stable_diffusion_xl_pipeline(tmp_path, guidance, negative):
    """A pipeline that diffusers saved, converted: the same picture from the same embeddings, unconditional input and noise."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    config = tiny_config()
    torch.manual_seed(0)
    unet, vae = UNet2DConditionModel.from_config(config.unet), AutoencoderKL.from_config(config.vae)
    scheduler = EulerDiscreteScheduler.from_config({k: v for k, v in config.scheduler.items() if k != "_class_name"})
    for part in ("unet", "vae", "scheduler"):
        {"unet": unet, "vae": vae, "scheduler": scheduler}[part].save_pretrained(tmp_path / "pipeline" / part)
    convert(tmp_path / "pipeline", tmp_path / "model")
    decoder = WeGenDecoder.load(tmp_path / "model", CPU)
    pipe = StableDiffusionXLPipeline(vae, None, None, None, None, unet, scheduler, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    tokens = torch.randn(1, 64, 32)
    blank = torch.zeros_like(tokens) if negative == "zeros" else torch.randn(1, 64, 32)
    expected = pipe(
        prompt_embeds=tokens,
        pooled_prompt_embeds=tokens.mean(1),
        negative_prompt_embeds=blank,
        negative_pooled_prompt_embeds=blank.mean(1),
        guidance_scale=guidance,
        num_inference_steps=6,
        height=32,
        width=32,
        latents=noise(1, 4, 16, 16, 7),
        output_type="pt",
    ).images
    features = Features(tokens, (8, 8), decoder.config.decoder.space, decoder.config.decoder.tower)
    ours = decoder.decode(
        features,
        steps=6,
        guidance_scale=guidance,
        seed=7,
        width=32,
        height=32,
        negative=negative if negative == "zeros" else dataclasses.replace(features, tokens=blank),
    )
    assert expected.std() > 0.01
    torch.testing.assert_close(ours.movedim(-1, 1), expected, rtol=0, atol=1e-4)
