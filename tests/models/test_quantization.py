"""Weights in blocks of 8 and 4 bits: formats against the `gguf` package, conversion, loading, what stays in 16 bits, memory."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from wegen.tests.big_files import sparse_safetensors
from wegen.tests.support import picture, tiny_model
from wegen.wegen_model.chat.conversation import Conversation, Reference
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert, export
from wegen.wegen_model.checkpoint.model_folder import CheckpointError, read_tensors
from wegen.wegen_model.checkpoint.plan import skeleton
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.cli.main import main
from wegen.wegen_model.config import LanguageConfig
from wegen.wegen_model.models import quantization
from wegen.wegen_model.models.quantization import QuantizedLinear
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime

KINDS = ("q8_0", "q4_0", "fp8")


def outputs(model):
    """Features of a picture, and features written from words and that picture."""
    seen = model.encode(picture())
    talk = model.chat(Conversation().user("a <image_1>", (Reference(features=seen),)), picture="always", max_tokens=4)
    return seen.tokens, model.draw(talk, guidance=1.5)[0].tokens


@pytest.fixture(scope="module")
def quantized(tiny, tmp_path_factory):
    """kind -> the tiny model converted to it. Not to be written to."""
    root = tmp_path_factory.mktemp("quantized")
    return {kind: convert(tiny, root / kind, quantize=kind).path for kind in KINDS}


# --- formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_formats_are_ggml_s_bit_for_bit(kind):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    import numpy as np

    ggml = getattr(gguf.GGMLQuantizationType, kind)
    if kind in quantization.MADE:
        values = torch.randn(1500, 256, generator=torch.Generator().manual_seed(0)) * 0.02
        values[3], values[5, :32], values[7] = 0, 0, values[7].abs() + 1e-3
        stored = gguf.quants.quantize(values.numpy(), ggml)
        assert np.array_equal(quantization.quantize(values, kind).numpy(), stored)
    else:
        size = quantization.KINDS[kind].bytes
        stored = np.random.default_rng(0).integers(0, 256, (40, size), dtype=np.uint8)
        for at in (0, 2) if kind == "Q4_K" else (208,):
            stored[:, at : at + 2] = np.linspace(-1, 1, 40, dtype=np.float16)[:, None].view(np.uint8)
        stored = stored.reshape(20, -1)
    assert np.array_equal(quantization.dequantize(torch.from_numpy(stored), kind).numpy(), gguf.quants.dequantize(stored, ggml))


@pytest.mark.parametrize("columns", [33, 64])
def test_fp8_takes_any_width_and_is_near(columns):
    values = torch.randn(50, columns, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 50)[:, None]
    values[9] = 0
    stored = quantization.quantize(values, "FP8")
    assert stored.shape == (50, columns + 4) and stored.dtype == torch.uint8
    back = quantization.dequantize(stored, "FP8")
    step = values.abs().amax(1, keepdim=True) / 448 / 512  # float8's smallest number is 1/512
    assert ((back - values).abs() <= torch.maximum(values.abs() / 16, step)).all()  # three bits of fraction, rounded


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="rows of 33 values are no whole Q8_0 blocks of 32"):
        quantization.quantize(torch.zeros(2, 33), "Q8_0")
    with pytest.raises(ValueError, match="Q4_K is only read; what can be made is q8_0, q4_0, fp8"):
        quantization.quantize(torch.zeros(2, 256), "Q4_K")
    with pytest.raises(ValueError, match="'q4_k' is not one of q8_0, q4_0, fp8"):
        Runtime("cpu", blocks="q4_k")


@pytest.mark.parametrize("kind", quantization.MADE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_layer_is_a_linear_layer_of_its_widened_weights(kind, dtype):
    weight, bias = torch.randn(48, 64), torch.randn(48)
    layer = QuantizedLinear(64, 48, kind)
    layer.load_state_dict({"weight": quantization.quantize(weight, kind), "bias": bias.to(dtype)}, assign=True)
    x = torch.randn(2, 3, 64, dtype=dtype)
    expected = torch.nn.functional.linear(x, quantization.dequantize(layer.weight, kind, dtype), bias.to(dtype))
    assert torch.equal(layer(x), expected) and layer(x).dtype == dtype


# --- conversion and loading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_matrices_between_the_embeddings_are_in_blocks(tiny, quantized, kind):
    for part in ("vision", "language", "projectors", "unet", "vae"):
        whole = {k: v for path in model_folder.files(tiny, part) for k, v in read_tensors(path).items()}
        (path,) = model_folder.files(quantized[kind], part)
        with safe_open(path, "pt") as f:
            stored = {key: f.get_tensor(key) for key in f.keys()}
            named = json.loads((f.metadata() or {}).get(model_folder.BLOCKS, "{}"))
        assert set(stored) == set(whole)
        in_blocks = {k for k, v in stored.items() if v.dtype == torch.uint8}
        assert in_blocks == set(named) and set(named.values()) <= {kind.upper()}
        assert in_blocks == {
            k
            for k in whole
            if k.endswith(("qkv.weight", "attn.proj.weight", "fc1.weight", "fc2.weight", "_proj.weight")) and part in ("vision", "language")
        }
        assert all(torch.equal(v, whole[k]) for k, v in stored.items() if k not in in_blocks)
        assert all(torch.equal(v, quantization.quantize(whole[k], kind.upper())) for k, v in stored.items() if k in in_blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_folder_equals_quantising_while_loading(tiny, quantized, kind):
    stored, loaded, whole = WeGen.load(quantized[kind]), WeGen.load(tiny, quantize=kind), WeGen.load(tiny)
    a, b, c = outputs(stored), outputs(loaded), outputs(whole)
    assert all(torch.equal(x, y) for x, y in zip(a, b)), "one quantisation, two ways"
    seen = torch.cosine_similarity(a[0], c[0], -1).mean()
    assert not torch.equal(a[0], c[0]) and seen > {"q8_0": 0.9999, "q4_0": 0.9, "fp8": 0.99}[kind]
    for part in ("vision", "language"):
        layers = [m for m in stored.component(part).module.modules() if isinstance(m, QuantizedLinear)]
        assert layers and {m.kind for m in layers} == {kind.upper()} and all(m.weight.dtype == torch.uint8 for m in layers)


def test_blocks_stay_blocks_whatever_precision_is_asked_for(quantized):
    model = WeGen.load(quantized["q8_0"], dtype=torch.bfloat16, quantize="q4_0")
    module = model.component("vision").module
    assert {m.kind for m in module.modules() if isinstance(m, QuantizedLinear)} == {"Q8_0"}
    assert module.pos_embed.dtype == module.blocks[0].attn.qkv.bias.dtype == torch.bfloat16
    assert torch.isfinite(outputs(model)[1]).all()


def test_widths_that_are_no_whole_blocks_stay_as_they_were_and_it_is_told(tiny, tmp_path):
    config = model_folder.read_config(tiny)
    narrow = tiny_model(tmp_path / "narrow", vision=model_folder.dataclasses.replace(config.vision, mlp_width=48))
    report = convert(narrow, tmp_path / "q4", quantize="q4_0")
    assert any("2 matrices of the vision stay as they were: their rows are no whole q4_0 blocks" in note.lower() for note in report.notes)
    kinds = {k: kind for k, _, kind in model_folder.stored_tensors(tmp_path / "q4/vision.safetensors")}
    assert not kinds["blocks.1.mlp.fc2.weight"] and kinds["blocks.1.mlp.fc1.weight"] == "Q4_0"
    assert torch.isfinite(outputs(WeGen.load(tmp_path / "q4"))[0]).all()


def test_converting_blocks_on(tiny, quantized, tmp_path):
    """Blocks pass through bit for bit; --dtype and public layouts dequantize_linear them; another kind is made from their values."""
    source = quantized["q4_0"]
    convert(source, tmp_path / "same")
    convert(source, tmp_path / "wide", dtype=torch.float32)
    convert(source, tmp_path / "fp8", quantize="fp8")
    export(source, tmp_path / "llama.safetensors", "llama", parts=["language"])
    lies = {
        name: {k: (t, kind) for k, t, kind in model_folder.stored_tensors(folder / "language/model.safetensors")}
        for name, folder in (("q4", source), *((n, tmp_path / n) for n in ("same", "wide", "fp8")))
    }
    public = read_tensors(tmp_path / "llama.safetensors")
    for key, (blocks_, kind) in lies["q4"].items():
        assert lies["same"][key][1] == kind and torch.equal(lies["same"][key][0], blocks_)
        wide = lies["wide"][key][0]
        assert not lies["wide"][key][1] and torch.equal(
            wide, quantization.dequantize(blocks_, kind, torch.float16).float() if kind else blocks_
        )
        assert torch.equal(public[key].float(), wide)
        assert lies["fp8"][key][1] == ("FP8" if kind else "")


def test_inspecting_blocks(tiny, quantized, capsys):
    seen, whole = inspect(quantized["q8_0"]), inspect(tiny)
    assert seen.parameters == whole.parameters and not any("cannot be converted" in n for n in seen.notes)
    parts = {p.name: p.precision for p in seen.parts}
    assert parts["vision"] == parts["language"] == "Q8_0 + F32" or "Q8_0" in parts["vision"] and "Q8_0" in parts["language"]
    assert parts["projectors"] == "F32"


def test_the_command_line(tiny, tmp_path, capsys):
    assert main(["convert", str(tiny), str(tmp_path / "q"), "--quantize", "q8_0", "--part", "vision"]) == 0
    assert "Q8_0" in capsys.readouterr().out
    for arguments, error in (
        (["--quantize", "q3"], "quantisation 'q3' is not one of q8_0, q4_0, fp8"),
        (["--quantize", "q8_0", "--part", "unet"], "nothing to quantize: only vision and language are, and here is"),
        (["--quantize", "q8_0", "--layout", "wegen"], "--layout writes a model as it is"),
    ):
        assert main(["convert", str(tiny), str(tmp_path / "no"), *arguments]) == 2
        assert error in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_blocks_of_the_wrong_shape_or_an_unknown_kind(tiny, quantized, tmp_path):
    from safetensors.torch import save_file

    folder = convert(quantized["q8_0"], tmp_path / "m", parts=["vision"]).path
    path = folder / "vision.safetensors"
    lying = {k: t.clone() for k, t, _ in model_folder.stored_tensors(path)}
    kinds = {k: kind for k, _, kind in model_folder.stored_tensors(path) if kind}
    key = "blocks.0.mlp.fc1.weight"
    for change, error in (
        ({key: "Q9_9"}, "in blocks of the kind Q9_9; known are Q8_0"),
        ({key: "Q4_0"}, r"blocks.0.mlp.fc1.weight is \(64, 34\), expected \(64, 18\)"),
    ):
        save_file(lying, path, {"format": "pt", model_folder.BLOCKS: json.dumps(kinds | change)})
        with pytest.raises(CheckpointError, match=error):
            WeGen.load(folder).component("vision")
    save_file(lying, path, {"format": "pt", model_folder.BLOCKS: "{"})
    for reader in (lambda: WeGen.load(folder).component("vision"), lambda: inspect(folder)):
        with pytest.raises(CheckpointError, match="what it says of its blocks is unreadable"):
            reader()


# --- memory -------------------------------------------------------------------------------------------------------

MEASURED = """
import re, sys, threading, time, torch
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.pipeline import WeGen
def own(): return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
def do(source, target):
    if sys.argv[1] == "convert":
        return convert(source, target, quantize="q4_0")
    model = WeGen.load(source, dtype=torch.float16, quantize="q4_0")
    return model, model.component("language")
do(sys.argv[2], sys.argv[3] + "-small")  # what is imported on the way is not counted
going, before, peak = True, own(), 0
def watch():
    global peak
    while going:
        peak = max(peak, own()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
held = do(sys.argv[4], sys.argv[3])
left = own(); going = False; thread.join()
print(peak - before, left - before)
"""


@pytest.mark.parametrize("how", ["load", "convert"])
def test_16_bits_are_never_held_whole(tmp_path, how):
    """A language model of 195 MiB in 16 bits, of which 55 MiB in blocks remain."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("memory is read from /proc, which this system lacks")
    small = tiny_model(tmp_path / "small", parts=("language",))
    config = model_folder.dataclasses.replace(
        model_folder.read_config(small), name="mine", language=LanguageConfig(vocab_size=589, width=1024, layers=8, heads=8, mlp_width=2752)
    )
    source = tmp_path / "source"
    (source / "language").mkdir(parents=True)
    model_folder.write_config(source, config)
    shapes = {k: tuple(v.shape) for k, v in skeleton("language", config).state_dict().items()}
    sparse_safetensors(source / "language/model.safetensors", shapes)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, how, str(small), str(tmp_path / "target"), str(source)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    peak, left = map(int, done.stdout.split())
    whole = (source / "language/model.safetensors").stat().st_size
    stays = whole * 4.5 / 16 if how == "load" else 0
    one = quantization.CHUNK * 2752 * 4  # a chunk of rows in 32 bits; making blocks holds a few of them
    assert peak < stays + 8 * one + 2**25 < whole * 0.65, (peak, left, whole)
    assert left > stays * 0.9
