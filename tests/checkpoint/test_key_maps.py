"""Layouts are tables read in both directions: each public layout -> ours -> the same layout, bit for bit, on tiny models; full-size key
lists on the meta device; and the names against those that other libraries give."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from wegen.tests.golden_files import key_list
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert, export, skeleton
from wegen.wegen_model.checkpoint.formats.eva_clip import TOWER
from wegen.wegen_model.checkpoint.formats.llama import GGUF
from wegen.wegen_model.checkpoint.formats.sdxl import UNET
from wegen.wegen_model.checkpoint.formats.wegen import AGENT
from wegen.wegen_model.checkpoint.key_maps import detect, exports
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.checkpoint.scan import scan
from wegen.wegen_model.config import PRESETS
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime

CONFIG = PRESETS["wegen-7b"]
EXPORTS = exports()
PARTS = ("vision", "language", "projectors", "unet", "vae")
# what each layout holds of a model
HOLDS = {
    "wegen": PARTS,
    "eva-tower": ("vision",),
    "eva-clip": ("vision",),
    "open_clip": ("vision",),
    "timm": ("vision",),
    "emu2": ("vision",),
    "emu2-gen": ("vision", "unet", "vae"),
    "llama": ("language",),
    "diffusers-unet": ("unet",),
    "diffusers-vae": ("vae",),
    "ldm-unet": ("unet",),
    "ldm-vae": ("vae",),
}


def state_of(folder, part):
    return {k: v for path in model_folder.files(folder, part) for k, v in load_file(path).items()}


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# --- round trips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", EXPORTS)
def test_ours_and_back(converted, tmp_path, layout):
    """Ours -> public -> ours -> public: both of ours are equal, and both public files are, to the bit."""
    export(converted, tmp_path / "a.safetensors", layout)
    public = load_file(tmp_path / "a.safetensors")
    assert detect(public) is EXPORTS[layout]
    report = convert(tmp_path / "a.safetensors", tmp_path / "model")
    assert tuple(p.name for p in report.parts) == HOLDS[layout] and not report.dropped
    for part in HOLDS[layout]:
        assert same(state_of(tmp_path / "model", part), state_of(converted, part)), part
    export(tmp_path / "model", tmp_path / "b.safetensors", layout)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_every_export_is_tested():
    assert set(HOLDS) == set(EXPORTS)


def test_a_gguf_and_back(converted, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    state, heads = state_of(converted, "language"), PRESETS["tiny"].language.heads
    rows = GGUF.export_keys("language", list(state))
    from wegen.wegen_model.checkpoint.tensor_file import Spec
    from wegen.wegen_model.checkpoint.tensors import disassemble

    writer = gguf.GGUFWriter(tmp_path / "llm.gguf", "llama")
    writer.add_head_count(heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_context_length(1024)
    expected = {}
    for key, target, row in rows:
        spec = Spec(tuple(state[target].shape), state[target].dtype)
        expected[key] = disassemble(key, target, row, (spec, lambda t=target: state[t]), PRESETS["tiny"])[1]().contiguous()
        writer.add_tensor(key, expected[key].numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    assert sum(not torch.equal(expected[k], state[t]) for k, t, _ in rows) == 4  # the reordered rows of two layers
    report = convert(tmp_path / "llm.gguf", tmp_path / "model")
    assert same(state_of(tmp_path / "model", "language"), state) and report.parts[0].precision == "F32"
    assert model_folder.read_config(tmp_path / "model").language == PRESETS["tiny"].language
    stored = {t.name: torch.from_numpy(t.data.copy()) for t in gguf.GGUFReader(tmp_path / "llm.gguf").tensors}
    assert same(stored, expected)


def test_a_layout_that_cannot_hold_it(converted, tmp_path):
    biased = shutil.copytree(converted, tmp_path / "biased")
    state = load_file(biased / "vision.safetensors")
    state["blocks.1.attn.qkv.bias"][40] = 0.5
    save_file(state, biased / "vision.safetensors")
    with pytest.raises(CheckpointError, match="blocks.1.attn.qkv.bias holds a key bias that is not zero.*Choose the layout «eva-tower»"):
        export(biased, tmp_path / "a.safetensors", "eva-clip")
    shutil.rmtree(biased)
    with pytest.raises(CheckpointError, match=r"layout llama \(«LLaMA in Hugging Face's names»\) has no place for unet"):
        export(converted, tmp_path / "a.safetensors", "llama", parts=["unet"])
    with pytest.raises(CheckpointError, match=f"layout 'gif' is not one of {', '.join(EXPORTS)}."):
        export(converted, tmp_path / "a.safetensors", "gif")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="exists; nothing is overwritten"):
        export(converted, tmp_path / "a.safetensors", "timm")
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"


# --- towers: the same features --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["eva-clip", "open_clip", "timm", "emu2", "emu2-gen", "wegen"])
def test_a_tower_in_every_layout_gives_the_same_features(converted, tmp_path, layout, golden):
    def features(folder):
        with torch.no_grad():
            return WeGen.load(folder, runtime=Runtime("cpu", torch.float32)).component("vision").module(golden["image"])

    public = tmp_path / "a.safetensors"
    if layout == "wegen":
        save_file(
            {"adapter.visual_encoder." + k: v for k, v in state_of(converted, "vision").items()}
            | {"llm." + k: v for k, v in state_of(converted, "language").items()},
            public,
        )
    else:
        export(converted, public, layout, parts=["vision"])
        beside = {
            "eva-clip": ("text.token_embedding.weight", "logit_scale", "visual.norm.weight", "visual.head.bias"),
            "open_clip": ("text.ln_final.bias", "logit_scale", "visual.trunk.norm.bias", "visual.trunk.head.weight"),
            "timm": ("norm.weight", "head.weight"),
            "emu2": ("project_up.weight", "model.decoder.lm.lm_head.weight"),
            "emu2-gen": ("multimodal_encoder.project_up.weight", "safety_checker.visual_projection.weight"),
        }[layout]
        save_file(load_file(public) | {key: torch.zeros(4) for key in beside}, public)
    report = convert(public, tmp_path / "model", parts=["vision"])
    assert sum(report.dropped.values()) == (0 if layout == "wegen" else len(beside))
    assert (features(tmp_path / "model") - features(converted)).abs().max() < 1e-5


# --- full size ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes():
    return {part: {k: tuple(v.shape) for k, v in skeleton(part, CONFIG).state_dict().items()} for part in PARTS}


@pytest.mark.parametrize("layout", EXPORTS)
def test_full_size_names_go_both_ways(shapes, layout):
    table = EXPORTS[layout]
    rows = [row for part in HOLDS[layout] for row in table.export_keys(part, list(shapes[part]))]
    keys = [key for key, _, _ in rows]
    assert len(set(keys)) == len(keys) and detect(keys) is table
    routed, unknown = table.route(keys)
    assert not unknown and {(k, t) for k, t, _ in routed} == {(k, t) for k, t, _ in rows}
    assert {t for _, t, _ in rows} == {k for part in HOLDS[layout] for k in shapes[part]}


def test_the_public_agent_is_what_we_would_write(shapes):
    keys = key_list("mllm_full")
    written = {key for part in PARTS[1:] for key, _, _ in AGENT.export_keys(part, list(shapes[part]))}
    assert set(keys) - written == {k for k in keys if k.endswith(("rotary_emb.inv_freq", ".scale")) and len(keys[k]) < 2}
    assert not written - set(keys)
    assert {key for key, _, _ in TOWER.export_keys("vision", list(shapes["vision"]))} == set(key_list("eva_full"))
    assert {key for key, _, _ in UNET.export_keys("unet", list(shapes["unet"]))} == set(key_list("unet_full"))


def test_single_file_names_are_those_of_diffusers_own_converter(converted, tmp_path):
    """diffusers reads Stability's single files; what we write in their names it must read as what we have."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    config = model_folder.read_config(converted)
    export(converted, tmp_path / "unet.safetensors", "ldm-unet")
    read = convert_ldm_unet_checkpoint(load_file(tmp_path / "unet.safetensors"), config.unet)
    assert same(read, state_of(converted, "unet"))
    export(converted, tmp_path / "vae.safetensors", "ldm-vae")
    read = convert_ldm_vae_checkpoint({"first_stage_model." + k: v for k, v in load_file(tmp_path / "vae.safetensors").items()}, config.vae)
    ours = state_of(converted, "vae")
    assert set(read) == set(ours) and all(torch.equal(read[k].reshape(ours[k].shape), ours[k]) for k in ours)


def test_a_whole_sdxl_checkpoint_gives_its_vae(converted, tmp_path):
    export(converted, tmp_path / "unet.safetensors", "ldm-unet")
    export(converted, tmp_path / "vae.safetensors", "ldm-vae")
    state = (
        load_file(tmp_path / "unet.safetensors")
        | {"first_stage_model." + k: v for k, v in load_file(tmp_path / "vae.safetensors").items()}
        | {"conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)}
    )
    save_file(state, tmp_path / "sd_xl.safetensors")
    report = convert(tmp_path / "sd_xl.safetensors", tmp_path / "model", parts=["vae"])
    assert same(state_of(tmp_path / "model", "vae"), state_of(converted, "vae"))
    assert report.dropped == {"SDXL's text encoders; WeGen's decoder reads features": 1}
    found = scan(tmp_path / "sd_xl.safetensors")
    assert set(found.parts) == {"unet", "vae"} and inspect(tmp_path / "sd_xl.safetensors").kind == "SDXL checkpoint in one file"
