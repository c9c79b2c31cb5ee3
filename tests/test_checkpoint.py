"""Model folders: what is saved is what is loaded; damage, wrong shapes and missing parts are errors that name them."""

import dataclasses
import json
import os
import shutil

import pytest
import torch
from wegen.tests.support import picture, tiny_config, tiny_model
from wegen.wegen_model.checkpoint import folder as files
from wegen.wegen_model.checkpoint.convert import skeleton
from wegen.wegen_model.checkpoint.folder import CheckpointError
from wegen.wegen_model.checkpoint.inspect import inspect
from wegen.wegen_model.config import PRESETS, ModelConfig
from wegen.wegen_model.conversation import Conversation
from wegen.wegen_model.pipeline import WeGen, WeGenDecoder
from wegen.wegen_model.runtime import Runtime


@pytest.fixture
def own(tiny, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny, tmp_path / "own")


def open_model(folder) -> WeGen:
    return WeGen.load(folder, runtime=Runtime("cpu", torch.float32))


# --- round trip ---------------------------------------------------------------------------------------------------

def test_what_is_saved_is_what_is_loaded(tiny, tmp_path):
    config = files.read_config(tiny)
    states = {part: skeleton(part, config) for part in ("vision", "language", "projectors", "unet", "vae")}
    states = {part: files.load_into(module, tiny, part).state_dict() for part, module in states.items()}
    again = files.save(tmp_path / "again", config, states, tokenizer=tiny)
    assert files.read_config(again) == config
    assert files.parts(again) == files.parts(tiny) == list(states)
    for part, state in states.items():
        loaded = files.load_into(skeleton(part, config), again, part).state_dict()
        assert list(loaded) == list(state) and all(torch.equal(loaded[k], state[k]) for k in state)
    a, b = (open_model(f).encode(picture()) for f in (tiny, again))
    assert torch.equal(a.tokens, b.tokens) and (a.space, a.tower, a.grid) == (b.space, b.tower, b.grid)
    assert open_model(again).tokenizer.hash == open_model(tiny).tokenizer.hash


def test_saving_in_half_precision(tiny, tmp_path):
    config = files.read_config(tiny)
    state = files.load_into(skeleton("vision", config), tiny, "vision").state_dict()
    half = files.save(tmp_path / "half", config, {"vision": state}, dtype=torch.bfloat16)
    assert inspect(half).parts[0].precision == "BF16"
    model = WeGen.load(half, runtime=Runtime("cpu", torch.float32)).part("vision").module
    assert torch.equal(model.cls_token, state["cls_token"].bfloat16().float())


def test_an_interrupted_save_leaves_what_was_there(own, monkeypatch):
    before = {p: p.read_bytes() for p in own.rglob("*") if p.is_file()}
    config = files.read_config(own)
    with pytest.raises(AttributeError):
        files.save(own, config, {"vision": {"cls_token": "not a tensor"}})
    assert {p: p.read_bytes() for p in own.rglob("*") if p.is_file()} == before

    def fail(old, new):
        if str(old).endswith(".part"):
            raise OSError("no space")
        os.rename(old, new)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        files.replace_folder(own.with_name("own.part"), own)
    assert {p: p.read_bytes() for p in own.rglob("*") if p.is_file()} == before


def test_an_interruption_between_the_renames_is_mended(own):
    os.rename(own, own.with_name("own.old"))
    new = own.with_name("own.part")
    new.mkdir()
    (new / "config.json").write_text("{}")
    files.replace_folder(new, own)
    assert sorted(p.name for p in own.parent.iterdir()) == ["own"] and (own / "config.json").read_text() == "{}"


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_survives_json(name):
    config = PRESETS[name]
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, latent_rgb=((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))))
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert dataclasses.replace(again, unet={}, vae={}) == dataclasses.replace(config, unet={}, vae={})


# --- damage -------------------------------------------------------------------------------------------------------

def test_a_truncated_file(own):
    path = own / "vision.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: damaged or incomplete safetensors \(\d[\d,]* bytes"):
        open_model(own).encode(picture())
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: damaged or incomplete safetensors"):
        inspect(own)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: damaged or incomplete"):
        open_model(own).encode(picture())


def test_a_wrong_shape_a_missing_and_a_foreign_tensor(own):
    path = own / "vision.safetensors"
    state = files.read_tensors(path)
    state["blocks.1.mlp.fc1.bias"] = torch.zeros(63)
    state["blocks.2.mlp.fc1.bias"] = state.pop("cls_token")
    path.unlink()
    from safetensors.torch import save_file

    save_file(state, path)
    with pytest.raises(CheckpointError) as error:
        open_model(own).encode(picture())
    assert all(words in str(error.value) for words in (
        "own/vision.safetensors does not fit", "blocks.1.mlp.fc1.bias is (63,), expected (64,)", "cls_token is missing",
        "blocks.2.mlp.fc1.bias is not part of this model"))


def test_a_lost_shard(own):
    (own / "vision.safetensors").rename(own / "vision-00001-of-00002.safetensors")
    index = {"weight_map": {"cls_token": "vision-00001-of-00002.safetensors", "pos_embed": "vision-00002-of-00002.safetensors"}}
    (own / "vision.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="lists vision-00002-of-00002.safetensors, which is not there"):
        open_model(own).encode(picture())


@pytest.mark.parametrize("content, error", [
    ("{", "not a valid configuration"), ("[]", "not a valid configuration"), ('{"format_version": 99}', "version 99 is newer"),
    ('{"vision": {"wings": 2}}', "unknown keys in VisionConfig: wings"),
])
def test_a_bad_config(own, content, error):
    (own / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=error):
        WeGen.load(own)


# --- missing parts ------------------------------------------------------------------------------------------------

def test_an_absent_part_is_an_error_only_where_it_is_needed(tmp_path):
    folder = tiny_model(tmp_path / "seeing", parts=("vision",))
    model = open_model(folder)
    features = model.encode(picture())
    with pytest.raises(CheckpointError, match=r"seeing: the model folder has no (language|projectors) .*It has: vision"):
        model.chat(Conversation().user("a fox"))
    with pytest.raises(CheckpointError, match=r"seeing: no unet/ folder.*The folder has: vision"):
        model.decode(features)
    painting = open_model(tiny_model(tmp_path / "painting", parts=("unet", "vae")))
    assert painting.decode(features, steps=1).shape == (1, 32, 32, 3)
    with pytest.raises(CheckpointError, match=r"painting: the model folder has no vision \(vision.safetensors"):
        painting.encode(picture())
    talking = open_model(tiny_model(tmp_path / "talking", parts=("language", "projectors")))
    assert talking.chat(Conversation().user("a fox"), max_tokens=2).last.role == "assistant"


def test_a_decoder_without_its_weights(own):
    (own / "vae/diffusion_pytorch_model.safetensors").unlink()
    decoder = WeGenDecoder.load(own, Runtime("cpu", torch.float32))
    features = open_model(own).encode(picture())
    with pytest.raises(CheckpointError, match=r"own: the model folder has no vae \(vae/diffusion_pytorch_model.safetensors"):
        decoder.decode(features)


def test_names_that_are_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no model folder 'fox'.*Use wegen-mini"):
        WeGen.load("fox", roots=(tmp_path,))
    with pytest.raises(CheckpointError, match="'wegen-7b' is a preset of sizes; its weights are not bundled"):
        WeGen.load("wegen-7b", roots=(tmp_path,))


# --- inspect ------------------------------------------------------------------------------------------------------

def test_inspecting_a_model_folder(tiny):
    report = inspect(tiny)
    config = tiny_config()
    assert report.kind == "WeGen model folder" and not report.missing
    for part in report.parts:
        assert part.parameters == sum(p.numel() for p in skeleton(part.name, config).parameters())
    assert (report.space, report.tower, report.tokenizer) == ("tiny/8x8x32", "tiny", "tokenizer.json")
    assert "vision" in report.text() and f"{report.parts[0].parameters:,} parameters" in report.text()


def test_inspecting_a_decoder_folder(tmp_path):
    folder = tiny_model(tmp_path / "decoder", parts=("unet", "vae"))
    report = inspect(folder)
    assert report.kind == "WeGen decoder folder" and not report.missing
    assert [part.name for part in report.parts] == ["unet", "vae"] and report.scheduler == "EulerDiscreteScheduler"
    (folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    assert inspect(folder).missing == ["vae"] and "missing    vae" in inspect(folder).text()


def test_inspecting_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        inspect(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no WeGen weights found"):
        inspect(tmp_path)
    (tmp_path / "notes.bin").write_text("a shopping list")
    with pytest.raises(CheckpointError, match="neither safetensors nor a PyTorch zip file"):
        inspect(tmp_path / "notes.bin")
