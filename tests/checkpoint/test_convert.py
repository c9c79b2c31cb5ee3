"""`wegen convert` and `wegen inspect` on the public layouts: every tower layout, any subset, and wrong things that must fail loudly."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from wegen.tests.support import byte_tokenizer
from wegen.wegen_model.chat.tokenizer import Tokenizer, special_tokens
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.features import Features
from wegen.wegen_model.models.eva_clip import resize_positions
from wegen.wegen_model.pipeline import WeGen, WeGenDecoder
from wegen.wegen_model.runtime import Runtime


@pytest.fixture(scope="module")
def checkpoint(release):
    return release / "checkpoint"


@pytest.fixture(scope="module")
def tower(checkpoint):
    """The public tower's tensors."""
    return torch.load(checkpoint / "EVA-CLIP/visual.pt", weights_only=True)


@pytest.fixture(scope="module")
def agent(checkpoint):
    return torch.load(checkpoint / "pytorch_model.bin", weights_only=True)


@pytest.fixture(scope="module")
def words(agent):
    """The agent's language model and projectors."""
    return {k: v for k, v in agent.items() if not k.startswith("adapter.")}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def features_of(folder, pixels):
    with torch.no_grad():
        return WeGen.load(folder, runtime=Runtime("cpu", torch.float32)).component("vision").module(pixels)


# --- the whole release --------------------------------------------------------------------------------------------


def test_every_tensor_arrives_bit_for_bit(converted, agent, tower):
    expected = {"vision": tower, "projectors": {k: agent[k] for k in ("input_resampler.proj.weight", "output_resampler.proj.weight")}}
    for part, prefix in (("language", "llm."), ("unet", "adapter.unet."), ("vae", "adapter.vae.")):
        expected[part] = {k.removeprefix(prefix): v for k, v in agent.items() if k.startswith(prefix) and not k.endswith("inv_freq")}
    for part, state in expected.items():
        [path] = model_folder.files(converted, part)
        written = load_file(path)
        assert set(written) == set(state) and all(torch.equal(written[k], state[k]) for k in state), part


def test_inspecting_the_release(checkpoint):
    report = inspect(checkpoint)
    assert (report.kind, report.preset, report.space) == ("public WeGen release", "tiny", "tiny/8x8x32")
    assert {p.name: p.files for p in report.parts} == {
        "vision": ["EVA-CLIP/visual.pt"],
        "language": ["pytorch_model.bin"],
        "projectors": ["pytorch_model.bin"],
        "unet": ["pytorch_model.bin"],
        "vae": ["pytorch_model.bin"],
    }
    assert report.missing == ["tokenizer"] and "missing    tokenizer (tokenizer.model of meta-llama" in report.text()
    assert report.dropped["unet comes from pytorch_model.bin"] == 428
    assert report.dropped["rotary angles are computed from positions"] == 2
    assert report.dropped["never used by the public code's forward pass"] == 2


@pytest.mark.parametrize(
    "file, kind, parts, precision",
    [
        ("EVA-CLIP/visual.pt", "EVA-CLIP tower", ["vision"], "F32"),
        ("stage1_final/unet", "diffusers UNet", ["unet"], "BF16"),
        ("pytorch_model.bin", "WeGen agent", ["language", "projectors", "unet", "vae"], "F32"),
        ("vae/diffusion_pytorch_model.safetensors", "diffusers VAE", ["vae"], "F32"),
    ],
)
def test_inspecting_one_file(checkpoint, file, kind, parts, precision):
    report = inspect(checkpoint / file)
    assert (report.kind, [p.name for p in report.parts], report.parts[0].precision) == (kind, parts, precision)
    assert report.preset == "tiny" and not report.notes


def test_the_source_is_not_touched(checkpoint, converted, tmp_path):
    before = contents(checkpoint)
    report = convert(checkpoint, tmp_path / "half", dtype=torch.bfloat16)
    assert contents(checkpoint) == before
    assert {p.precision for p in report.parts} == {"BF16"}
    wide, half = load_file(converted / "vision.safetensors"), load_file(tmp_path / "half/vision.safetensors")
    assert all(torch.equal(half[k], wide[k].bfloat16()) for k in wide)


def test_a_model_folder_of_ours_converts_too(converted, tmp_path):
    convert(converted, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(converted)


# --- subsets ------------------------------------------------------------------------------------------------------


def test_the_decoder_alone_with_the_stage_1_unet(checkpoint, tmp_path, golden):
    """Without the agent's file the UNet is stage1_final/unet's; no tower and no language model is still a decoder."""
    for name in ("stage1_final", "vae", "scheduler"):
        shutil.copytree(checkpoint / name, tmp_path / "release" / name)
    report = convert(tmp_path / "release", tmp_path / "decoder")
    assert [(p.name, p.precision) for p in report.parts] == [("unet", "BF16"), ("vae", "F32")]
    assert report.missing == ["vision", "language", "projectors", "tokenizer"]
    features = Features(golden["pooled_tokens"][:1], (8, 8), report.space, report.tower)
    assert WeGenDecoder.load(tmp_path / "decoder", Runtime("cpu")).decode(features, steps=2).shape == (1, 32, 32, 3)


def test_chosen_parts(checkpoint, tmp_path):
    report = convert(checkpoint, tmp_path / "some", parts=["vision", "projectors"])
    assert [p.name for p in report.parts] == ["vision", "projectors"] and model_folder.parts(tmp_path / "some") == ["vision", "projectors"]
    with pytest.raises(CheckpointError, match="no tokenizer there; it holds vision, language.*Its usual source: tokenizer.model"):
        convert(checkpoint, tmp_path / "none", parts=["tokenizer"])
    with pytest.raises(CheckpointError, match="'wings' is not one of vision"):
        convert(checkpoint, tmp_path / "none", parts=["wings"])


def test_defaults_stand_in_for_absent_configurations(checkpoint, tmp_path):
    report = convert(checkpoint / "pytorch_model.bin", tmp_path / "bare", parts=["unet", "vae"])
    assert "no unet configuration beside the weights: the one of tiny was taken" in report.notes
    assert WeGenDecoder.load(tmp_path / "bare").config.scheduler["timestep_spacing"] == "leading"


def test_a_tower_inside_the_agent(words, tower, tmp_path, golden, converted):
    """`adapter.visual_encoder.*` is taken when there is no visual.pt, and left when there is."""
    inside = words | {"adapter.visual_encoder." + k: v for k, v in tower.items()}
    torch.save(inside, tmp_path / "pytorch_model.bin")
    convert(tmp_path, tmp_path.with_name("inside"), parts=["vision"])
    assert torch.equal(features_of(tmp_path.with_name("inside"), golden["image"]), features_of(converted, golden["image"]))
    torch.save(tower, tmp_path / "visual.pt")
    assert inspect(tmp_path).dropped["vision comes from visual.pt"] == 28


def test_tokenizers(words, tmp_path):
    torch.save(words, tmp_path / "pytorch_model.bin")
    byte_tokenizer(tmp_path / "fast")
    for name in ("tokenizer.json", "added_tokens.json"):
        shutil.copy(tmp_path / "fast" / name, tmp_path / name)
    report = convert(tmp_path, tmp_path.with_name("a"))
    assert report.tokenizer == "tokenizer.json" and "tokenizer" not in report.missing
    assert Tokenizer.load(tmp_path.with_name("a")).special == special_tokens(259)
    (tmp_path / "added_tokens.json").unlink()  # plain LLaMA-2's folder: the public table is written beside it
    convert(tmp_path, tmp_path.with_name("b"))
    assert json.loads((tmp_path.with_name("b") / "added_tokens.json").read_text()) == special_tokens(32000)
    (tmp_path / "added_tokens.json").write_text(json.dumps(special_tokens(32001)))
    with pytest.raises(CheckpointError, match="ids up to 32330, but the language model has 32330"):
        convert(tmp_path, tmp_path.with_name("c"))
    assert not tmp_path.with_name("c").exists()


# --- towers -------------------------------------------------------------------------------------------------------


def split_bias(tower, keep=("q", "v")):
    """EVA-CLIP's own layout: q_bias and v_bias instead of a fused bias whose k third is zero."""
    out = {}
    for k, v in tower.items():
        if k.endswith("attn.qkv.bias"):
            q, _, value = v.chunk(3)
            out |= {k.replace("qkv.bias", f"{name}_bias"): t for name, t in (("q", q), ("v", value)) if name in keep}
        else:
            out[k] = v
    return out


def official(tower):
    """With the `visual.` prefix, the contrastive head and the text tower beside it."""
    extra = {
        "logit_scale": torch.ones(()),
        "text.transformer.weight": torch.zeros(3),
        "visual.norm.weight": torch.ones(32),
        "visual.norm.bias": torch.zeros(32),
        "visual.head.weight": torch.zeros(8, 32),
        "visual.head.bias": torch.zeros(8),
    }
    return {"visual." + k: v for k, v in split_bias(tower).items()} | extra


LAYOUTS = {
    "fused": lambda t: t,
    "split": split_bias,
    "official": official,
    "wrapped": lambda t: {"state_dict": official(t)},
    "emu2": lambda t: {"multimodal_encoder.visual." + k: v for k, v in t.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tower_layout_gives_the_same_features(layout, tower, tmp_path, golden):
    plain = {k: v.clone() for k, v in tower.items()}
    for k, v in plain.items():
        if k.endswith("qkv.bias"):
            v[32:64] = 0  # q_bias and v_bias cannot express a key bias
    torch.save(plain, tmp_path / "plain.pt")
    torch.save(LAYOUTS[layout](plain), tmp_path / "visual.pt")
    for name in ("plain", "visual"):
        convert(tmp_path / f"{name}.pt", tmp_path / name)
    assert torch.equal(*(features_of(tmp_path / name, golden["image"]) for name in ("plain", "visual")))


def test_257_positions_are_interpolated_and_the_tower_is_named_so(tower, tmp_path):
    small = torch.randn(1, 257, 32, generator=torch.Generator().manual_seed(0))
    torch.save(tower | {"pos_embed": small}, tmp_path / "visual.pt")
    report = convert(tmp_path / "visual.pt", tmp_path / "out")
    written = load_file(tmp_path / "out/vision.safetensors")["pos_embed"]
    assert written.shape == (1, 1025, 32) and torch.equal(written, resize_positions(small, 32))
    assert report.tower == model_folder.read_config(tmp_path / "out").features.tower == "official-224-resized"
    assert inspect(tmp_path / "visual.pt").tower == inspect(tmp_path / "out").tower == "official-224-resized"
    assert any("257 positions were interpolated to 1025" in note for note in report.notes)


# --- wrong things -------------------------------------------------------------------------------------------------


def without(state, part):
    return {k: v for k, v in state.items() if part not in k}


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda t: split_bias(t, ("q",)), r"blocks.0.attn.q_bias is there, its v_bias is not"),
        (lambda t: split_bias(t, ("v",)), r"blocks.0.attn.v_bias is there, its q_bias is not"),
        (lambda t: t | split_bias(t), "two sources of one tensor"),
        (lambda t: without(t, "blocks.1."), r"visual.pt has 1 blocks, tiny's has 2: from block 1 on they are missing"),
        (lambda t: without(t, "blocks.0."), "the vision lacks 'blocks.0.mlp.fc1.weight', which every model of this kind has"),
        (lambda t: without(t, "blocks.0.norm1.bias"), r"the vision in visual.pt is not a tiny vision: blocks.0.norm1.bias is missing"),
        (lambda t: without(t, "cls_token"), "the vision lacks 'cls_token'"),
        (
            lambda t: t | {"blocks.0.attn.rope.freqs": torch.zeros(2), "wing": torch.zeros(2)},
            "2 of 30 tensors do not belong to the layout «EVA-CLIP tower»: blocks.0.attn.rope.freqs, wing",
        ),
        (lambda t: t | {"blocks.1.norm2.bias": torch.zeros(31)}, r"blocks.1.norm2.bias is \(31,\), expected \(32,\)"),
        (lambda t: t | {"pos_embed": torch.zeros(1, 1000, 32)}, "pos_embed has 1000 positions, which are not one class token"),
        (lambda t: {"layer.0.weight": torch.zeros(2, 2)}, "not a layout that is known here. Its 1 tensors begin with layer.0.weight"),
        (lambda t: {}, "no tensors in it"),
    ],
)
def test_towers_that_are_wrong(tower, tmp_path, change, error):
    torch.save(change(tower), tmp_path / "visual.pt")
    with pytest.raises(CheckpointError, match=error):
        convert(tmp_path / "visual.pt", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["visual.pt"]


def test_sizes_of_no_preset_need_a_config(tower, tmp_path):
    """Heads cannot be read from weights: they are asked for, not guessed."""
    wider = {k: v for k, v in tower.items() if not k.startswith("blocks.1.")}
    torch.save(wider, tmp_path / "visual.pt")
    report = inspect(tmp_path / "visual.pt")
    assert "cannot be converted as it is" in report.notes[0] and report.parts[0].parameters == sum(v.numel() for v in wider.values())
    (tmp_path / "sizes.json").write_text('{"name": "mine", "vision": {"heads": 8, "eps": 1e-5}}')
    convert(tmp_path / "visual.pt", tmp_path / "out", config=tmp_path / "sizes.json")
    config = model_folder.read_config(tmp_path / "out")
    assert (config.vision.layers, config.vision.heads, config.vision.eps, config.features.width) == (1, 8, 1e-5, 32)
    assert config.features.space == "mine/8x8x32"
    with pytest.raises(CheckpointError, match="says vision.layers = 2, the weights in visual.pt have 1"):
        convert(tmp_path / "visual.pt", tmp_path / "no", config={"vision": {"heads": 8, "layers": 2}})
    with pytest.raises(CheckpointError, match="unknown keys in VisionConfig: wings"):
        convert(tmp_path / "visual.pt", tmp_path / "no", config={"vision": {"heads": 8, "wings": 2}})


def test_parts_of_different_models(words, tower, tmp_path):
    torch.save(words, tmp_path / "pytorch_model.bin")
    wide = {
        "cls_token": (1, 1, 1792),
        "pos_embed": (1, 1025, 1792),
        "patch_embed.proj.weight": (1792, 3, 14, 14),
        "patch_embed.proj.bias": (1792,),
        "blocks.0.attn.qkv.weight": (5376, 1792),
        "blocks.63.norm1.bias": (1792,),
        "blocks.0.mlp.fc1.weight": (15360, 1792),
    }
    torch.save({k: torch.zeros(1).expand(shape) for k, shape in wide.items()}, tmp_path / "visual.pt")
    with pytest.raises(CheckpointError, match=r"parts of different models: vision \(visual.pt\) is wegen-7b; language"):
        convert(tmp_path, tmp_path.with_name("out"))


def test_a_plain_vocabulary_and_a_stock_unet(words, checkpoint, tmp_path):
    cut = {k: v[:32000] if v.shape[:1] == (32330,) else v for k, v in words.items()}
    torch.save(cut, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"plain LLaMA-2: its vocabulary of 32000 lacks the 330 tokens.*--initialise"):
        convert(tmp_path / "pytorch_model.bin", tmp_path / "out")
    unet = load_file(checkpoint / "stage1_final/unet/diffusion_pytorch_model.bf16.safetensors")
    unet = {k: torch.zeros(v.shape[0], 48) if "attn2.to_k" in k or "attn2.to_v" in k else v for k, v in unet.items()}
    save_file(unet, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=r"unet \(cross_attention_dim 48.*wegen-7b: cross_attention_dim 1792"):
        convert(tmp_path / "unet.safetensors", tmp_path / "out")


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("call", [inspect, lambda path: convert(path, path.with_name("out"))])
def test_a_pickle_with_code_is_refused_and_not_run(tower, tmp_path, call, zipped):
    torch.save(tower | {"more": Evil(tmp_path / "harm")}, tmp_path / "visual.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="may run code, so it was not opened" if zipped else "older PyTorch pickle"):
        call(tmp_path / "visual.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["visual.pt"]


@pytest.mark.parametrize("file", ["EVA-CLIP/visual.pt", "vae/diffusion_pytorch_model.safetensors"])
def test_truncated_files(checkpoint, tmp_path, file):
    name = file.split("/")[-1]
    (tmp_path / name).write_bytes((checkpoint / file).read_bytes()[:-500])
    for call in (inspect, lambda path: convert(path, tmp_path / "out")):
        with pytest.raises(CheckpointError, match=rf"{name}: .*damaged or incomplete"):
            call(tmp_path / name)
