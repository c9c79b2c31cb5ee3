"""Folders as people download them, the start of training from stock models, and foreign models that must be refused by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from wegen.tests.support import byte_tokenizer
from wegen.wegen_model.chat.tokenizer import special_tokens
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert, export, skeleton
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.config import PRESETS
from wegen.wegen_model.features import Features
from wegen.wegen_model.pipeline import WeGenDecoder
from wegen.wegen_model.runtime import Runtime

TINY = PRESETS["tiny"]


def state_of(folder, part):
    return {k: v for path in model_folder.files(folder, part) for k, v in load_file(path).items()}


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def save_shards(folder, name, state, count=2, variant="", suffix=".safetensors"):
    """A state dict as Hugging Face's libraries shard it."""
    folder.mkdir(parents=True, exist_ok=True)
    keys, weight_map = list(state), {}
    stem = name + (f".{variant}" if variant else "")
    for i in range(count):
        file = f"{stem}-{i + 1:05d}-of-{count:05d}{suffix}"
        part = {k: state[k].contiguous() for k in keys[i::count]}
        save_file(part, folder / file) if suffix == ".safetensors" else torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = f"{name}{suffix}.index.{variant}.json" if variant else f"{name}{suffix}.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def diffusers_folder(folder, converted, variant="", shards=1):
    """unet/, vae/, scheduler/ and model_index.json, as a pipeline is saved."""
    for part in ("unet", "vae"):
        state = {k: v.bfloat16() if variant == "bf16" else v for k, v in state_of(converted, part).items()}
        if shards > 1:
            save_shards(folder / part, "diffusion_pytorch_model", state, shards, variant)
        else:
            (folder / part).mkdir(parents=True)
            save_file(state, folder / part / f"diffusion_pytorch_model{variant and '.' + variant}.safetensors")
        shutil.copy(converted / part / "config.json", folder / part / "config.json")
    shutil.copytree(converted / "scheduler", folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "EmuVisualGenerationPipeline"}))
    return folder


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant, shards", [("", 1), ("bf16", 1), ("bf16", 3), ("", 2)])
def test_an_emu2_gen_folder(converted, tmp_path, variant, shards):
    """UNet and VAE, plain or the bf16 variant, sharded or not; the tower out of the sharded encoder; Emu2's own language model stays."""
    source = diffusers_folder(tmp_path / "Emu2-Gen", converted, variant, shards)
    encoder = {"model.visual." + k: v for k, v in state_of(converted, "vision").items()}
    encoder |= {"model.decoder.lm.lm_head.weight": torch.zeros(7, 6), "project_up.weight": torch.zeros(6, 32)}
    save_shards(source / "multimodal_encoder", "model", encoder, 3, variant)
    report = inspect(source)
    assert report.kind == "Emu2-Gen" and not report.missing and report.tower == "tiny"
    assert [(p.name, len(p.files), p.precision) for p in report.parts] == [
        ("vision", 3, "F32"),
        ("unet", shards, "BF16" if variant else "F32"),
        ("vae", shards, "BF16" if variant else "F32"),
    ]
    report = convert(source, tmp_path / "model")
    assert report.dropped == {"Emu2's own language model (LLaMA-33B) and projections to it": 2} and not report.notes
    assert inspect(source).decoder == report.decoder == inspect(tmp_path / "model").decoder
    assert report.decoder.startswith("emu2: guidance 3 against the features of a blank picture")
    expected = {k: v.bfloat16() if variant else v for k, v in state_of(converted, "unet").items()}
    assert same(state_of(tmp_path / "model", "unet"), expected)
    assert same(state_of(tmp_path / "model", "vision"), state_of(converted, "vision"))
    without = shutil.copytree(source, tmp_path / "decoder", ignore=shutil.ignore_patterns("multimodal_encoder"))
    assert inspect(without).kind == "Emu2-Gen" and inspect(without).decoder == report.decoder
    [lost] = [p for p in (source / "multimodal_encoder").iterdir() if "00002-of" in p.name]
    lost.unlink()
    with pytest.raises(CheckpointError, match="00002-of-00003.safetensors is not there; the weights are in 3 files"):
        inspect(source)


def test_a_blip3o_folder(converted, tmp_path):
    diffusers_folder(tmp_path / "BLIP3o/diffusion-decoder", converted, "bf16")
    for source in (tmp_path / "BLIP3o", tmp_path / "BLIP3o/diffusion-decoder"):
        target = tmp_path / f"model-{source.name}"
        report = convert(source, target)
        assert [p.name for p in report.parts] == ["unet", "vae"] and report.scheduler == "EulerDiscreteScheduler" and not report.notes
        features = Features(torch.randn(1, 64, 32), (8, 8), report.space, report.tower)
        assert report.decoder.startswith("blip3o: guidance 3 against the features of a blank picture")
        decoder = WeGenDecoder.load(target, Runtime("cpu", torch.float32))
        with pytest.raises(ValueError, match="its folder has no tower to make them. Connect the model to negative_features"):
            decoder.decode(features, steps=2)
        assert decoder.decode(features, steps=2, negative="zeros").shape == (1, 32, 32, 3)
        assert inspect(source).kind == "BLIP3-o"


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "sharded bin"])
def test_a_hugging_face_llama_folder(converted, tmp_path, form):
    state, source = state_of(converted, "language"), tmp_path / "llama"
    source.mkdir()
    if form == "safetensors":
        save_file(state, source / "model.safetensors")
    else:
        name, suffix = ("pytorch_model", ".bin") if form.endswith("bin") else ("model", ".safetensors")
        save_shards(source, name, state, 2, suffix=suffix)
    config = {"model_type": "llama", "num_attention_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "rope_theta": 500.0}
    (source / "config.json").write_text(json.dumps(config))
    (source / "tokenizer.model").write_bytes(b"words")
    report = convert(source, tmp_path / "model")
    assert same(state_of(tmp_path / "model", "language"), state) and report.tokenizer == "tokenizer.model"
    language = model_folder.read_config(tmp_path / "model").language
    assert (language.eps, language.positions, language.rope_theta) == (1e-6, 512, 500.0)
    assert inspect(source).kind == "Hugging Face LLaMA" and not inspect(source).missing
    for change, error in (
        ({"num_key_value_heads": 2}, "2 key heads for 4 query heads"),
        ({"attention_bias": True}, "biases in its attention"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rotary positions scaled as 'llama3'"),
    ):
        (source / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=f"a LLaMA with {error}.*This is another model"):
            inspect(source)


def test_one_shard_stands_for_all(converted, tmp_path):
    save_shards(tmp_path / "llama", "model", state_of(converted, "language"), 3)
    assert len(inspect(tmp_path / "llama/model-00002-of-00003.safetensors").parts[0].files) == 3
    (tmp_path / "llama/model-00001-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00001-of-00003.safetensors is not there"):
        inspect(tmp_path / "llama/model-00002-of-00003.safetensors")


def test_the_vae_for_16_bits_is_told_by_its_name_or_its_configuration(converted, tmp_path):
    export(converted, tmp_path / "sdxl_vae.safetensors", "ldm-vae", parts=["vae"])
    shutil.copy(tmp_path / "sdxl_vae.safetensors", tmp_path / "sdxl.vae-fp16-fix.safetensors")
    for name, upcast in (("sdxl_vae", True), ("sdxl.vae-fp16-fix", False)):
        report = convert(tmp_path / f"{name}.safetensors", tmp_path / name, config={"vae": {"force_upcast": True}} if upcast else None)
        assert model_folder.read_config(tmp_path / name).vae.get("force_upcast", True) is upcast
        assert any("fp16-fix" in note for note in report.notes) is not upcast
    (tmp_path / "folder").mkdir()
    save_file(state_of(converted, "vae"), tmp_path / "folder/diffusion_pytorch_model.safetensors")
    config = json.loads((converted / "vae/config.json").read_text()) | {"force_upcast": False, "scaling_factor": 0.18215}
    (tmp_path / "folder/config.json").write_text(json.dumps(config))
    report = convert(tmp_path / "folder", tmp_path / "fixed")
    assert model_folder.read_config(tmp_path / "fixed").vae["force_upcast"] is False
    assert any("scaling factor is 0.18215; SDXL's is 0.13025" in note for note in report.notes)


def test_old_pickles_are_read_whole_when_asked(converted, tmp_path):
    state = state_of(converted, "vision")
    torch.save(state, tmp_path / "visual.pt", _use_new_zipfile_serialization=False)
    for call in (inspect, lambda path: convert(path, tmp_path / "no")):
        with pytest.raises(CheckpointError, match=r"older PyTorch pickle \(before 1.6\).*Add --whole"):
            call(tmp_path / "visual.pt")
    assert inspect(tmp_path / "visual.pt", whole=True).parts[0].name == "vision"
    convert(tmp_path / "visual.pt", tmp_path / "model", whole=True)
    assert same(state_of(tmp_path / "model", "vision"), state)


# --- the start of training ------------------------------------------------------------------------------------------


def stock_unet(converted):
    """SDXL's relation to WeGen's UNet in small: text of width 48 instead of features of 32, pooled text of 20."""
    generator = torch.Generator().manual_seed(0)
    state = state_of(converted, "unet")
    for key, value in state.items():
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            state[key] = torch.randn(len(value), 48, generator=generator)
    state["add_embedding.linear_1.weight"] = torch.randn(len(state["add_embedding.linear_1.weight"]), 20 + 48, generator=generator)
    return state


def test_a_decoder_begun_from_stock_sdxl(converted, tmp_path):
    stock = stock_unet(converted)
    save_file(stock, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match="the unet .*cross_attention_dim 48.*no known model"):
        convert(tmp_path / "unet.safetensors", tmp_path / "no")
    report = convert(tmp_path / "unet.safetensors", tmp_path / "start", initialise=True)
    new = state_of(tmp_path / "start", "unet")
    changed = {k for k in stock if stock[k].shape != new[k].shape}
    assert changed == {k for k in stock if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))} | {"add_embedding.linear_1.weight"}
    assert all(torch.equal(stock[k], new[k]) for k in set(stock) - changed)
    added = "add_embedding.linear_1.weight"
    assert torch.equal(new[added][:, 32:], stock[added][:, 20:]) and new[added][:, :32].abs().max() <= 80**-0.5
    cross = new[min(changed - {added})]
    assert 0.8 * 32**-0.5 < cross.abs().max() <= 32**-0.5 and abs(cross.std() - (32 * 3) ** -0.5) < 0.02
    assert f"{len(changed)} of {len(stock)} tensors were initialised anew" in report.text() and "not a trained WeGen" in report.text()
    convert(tmp_path / "unet.safetensors", tmp_path / "again", initialise=True)
    assert same(state_of(tmp_path / "again", "unet"), new)
    with pytest.raises(CheckpointError, match="nothing to initialise"):
        convert(converted, tmp_path / "no", initialise=True)


def test_full_size_surgery_changes_141_tensors():
    """Of SDXL base's 1680 tensors: the 140 of the cross-attention and add_embedding.linear_1."""
    from wegen.wegen_model.checkpoint.initialise import adapts

    ours = {k: tuple(v.shape) for k, v in skeleton("unet", PRESETS["wegen-7b"]).state_dict().items()}
    stock = {k: (*v[:1], 2048) if k.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else v for k, v in ours.items()}
    stock["add_embedding.linear_1.weight"] = (1280, 2816)
    assert adapts("unet", stock, ours) and len(stock) == 1680 and sum(stock[k] != ours[k] for k in ours) == 141
    assert not adapts("unet", stock | {"conv_in.weight": (320, 8, 3, 3)}, ours)  # an editing UNet of 8 channels


def test_language_training_begun_from_plain_llama(converted, tmp_path):
    state = state_of(converted, "language")
    plain = {k: v[:32000].clone() if len(v) == 32330 else v for k, v in state.items()}
    save_file(plain, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": 4, "rms_norm_eps": 1e-6}))
    byte_tokenizer(tmp_path / "fast")
    shutil.copy(tmp_path / "fast/tokenizer.json", tmp_path)
    with pytest.raises(CheckpointError, match="plain LLaMA-2: its vocabulary of 32000 lacks the 330 tokens"):
        convert(tmp_path, tmp_path.with_name("no"))
    report = convert(tmp_path, tmp_path.with_name("start"), initialise=True)
    new = state_of(tmp_path.with_name("start"), "language")
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(new[key][:32000], plain[key]) and abs(new[key][32000:].std() - 0.02) < 0.001
    assert not torch.equal(new["lm_head.weight"][32000:], new["model.embed_tokens.weight"][32000:])
    assert all(torch.equal(new[k], plain[k]) for k in plain if k not in ("model.embed_tokens.weight", "lm_head.weight"))
    assert "330 tokens were added" in report.text() and model_folder.read_config(tmp_path.with_name("start")).language.vocab_size == 32330
    assert json.loads((tmp_path.with_name("start") / "added_tokens.json").read_text()) == special_tokens(32000)


# --- foreign models -------------------------------------------------------------------------------------------------


def unet_of(cross, added, **more):
    return {
        "conv_in.weight": (320, 4, 3, 3),
        "time_embedding.linear_1.weight": (1280, 320),
        "add_embedding.linear_1.weight": (1280, added),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1280, cross),
    } | more


def tower_of(width, mlp=6144, layers=2):
    return {
        "visual.cls_token": (1, 1, width),
        "visual.pos_embed": (1, 257, width),
        "visual.patch_embed.proj.weight": (width, 3, 14, 14),
        "visual.blocks.0.attn.qkv.weight": (3 * width, width),
        "visual.blocks.0.attn.q_bias": (width,),
        "visual.blocks.0.attn.v_bias": (width,),
        "visual.blocks.0.mlp.fc1.weight": (mlp, width),
        f"visual.blocks.{layers - 1}.norm1.bias": (width,),
    }


FOREIGN = {
    "stock SDXL": (unet_of(2048, 2816), "a stock SDXL UNet: it reads text of width 2048, WeGen's reads features of width 1792.*--init"),
    "Kolors": (unet_of(2048, 5632), "Kolors' UNet, which reads ChatGLM3's text"),
    "Kolors whole": (unet_of(2048, 5632, **{"encoder_hid_proj.weight": (2048, 4096)}), "this is Kolors' UNet, told by encoder_hid_proj"),
    "SDXL refiner": (unet_of(1280, 2560), "SDXL's refiner"),
    "SD1": (unet_of(768, 0), "the UNet of Stable Diffusion 1"),
    "SEED-X adapter": (
        {"resampler.latents": (1, 64, 1024), "unet.mid_block.attentions.0.attn2.to_k.weight": (1280, 2048)},
        "SEED-X's de-tokenizer.*another space",
    ),
    "SEED-X agent": (
        {
            "llm.model.embed_tokens.weight": (32330, 5120),
            "input_resampler.query": (64, 5120),
            "input_resampler.attn.in_proj_weight": (15360, 5120),
        },
        "SEED-X's language model",
    ),
    "SEED-X tower": (
        {"conv1.weight": (1664, 3, 14, 14), "transformer.resblocks.0.attn.in_proj.weight": (4992, 1664)},
        "Qwen-VL's ViT-bigG",
    ),
    "CLIP-L of OpenAI": (
        {"visual.conv1.weight": (1024, 3, 14, 14), "visual.transformer.resblocks.0.attn.in_proj_weight": (3072, 1024)},
        r"this is CLIP \(OpenAI's",
    ),
    "CLIP-L of Hugging Face": ({"vision_model.encoder.layers.0.self_attn.q_proj.weight": (1024, 1024)}, r"this is CLIP \(Hugging Face's\)"),
    "EVA02-L": (
        {
            "visual.cls_token": (1, 1, 1024),
            "visual.blocks.0.attn.q_proj.weight": (1024, 1024),
            "visual.blocks.0.mlp.w1.weight": (2730, 1024),
        },
        "this is EVA02-CLIP-L or -B.*WeGen needs EVA02-CLIP-E/14. at 448",
    ),
    "EVA-g": (tower_of(1408), "the vision in .* is EVA-CLIP-g"),
    "EVA02-E without plus": (
        tower_of(1792, 15360, 64) | {"text.token_embedding.weight": (49408, 1024)},
        "EVA02-CLIP-E/14 .not «plus».*its features are others",
    ),
    "13 billion": (
        {
            "model.embed_tokens.weight": (32330, 5120),
            "model.layers.39.mlp.up_proj.weight": (13824, 5120),
            "model.layers.0.mlp.gate_proj.weight": (13824, 5120),
        },
        "13 billion parameters",
    ),
    "plain LLaMA": (
        {
            "model.embed_tokens.weight": (32000, 4096),
            "model.layers.31.mlp.up_proj.weight": (11008, 4096),
            "model.layers.0.mlp.gate_proj.weight": (11008, 4096),
        },
        "vocabulary of 32000",
    ),
    "an adapter": ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (16, 160)}, "this is a LoRA of a UNet.*with Decoder LoRA"),
    "FLUX's VAE": ({"decoder.conv_in.weight": (512, 16, 3, 3), "decoder.conv_out.weight": (3, 128, 3, 3)}, "a VAE of 16 channels"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_models_are_refused_by_name(tmp_path, name):
    shapes, error = FOREIGN[name]
    torch.save({k: torch.zeros(1).expand(s) if 0 not in s else torch.zeros(s) for k, s in shapes.items()}, tmp_path / "file.bin")
    with pytest.raises(CheckpointError, match=error):
        convert(tmp_path / "file.bin", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
