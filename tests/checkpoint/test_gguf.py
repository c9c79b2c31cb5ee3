"""GGUF: written by the `gguf` package in llama.cpp's names and row order, read back as our language model."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from wegen.wegen_model.checkpoint import model_folder
from wegen.wegen_model.checkpoint.convert import convert
from wegen.wegen_model.checkpoint.formats.llama import GGUF
from wegen.wegen_model.checkpoint.gguf import language_config, read_header, read_tensor, to_rotary_pairs
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.config import LanguageConfig
from wegen.wegen_model.models.llama import Language
from wegen.wegen_model.models.quantization import dequantize

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
HEADS = 4


@pytest.fixture(scope="module")
def state():
    """A language model wide enough for blocks of 256."""
    torch.manual_seed(0)
    return Language(LanguageConfig(vocab_size=50, width=256, layers=2, heads=HEADS, mlp_width=512)).state_dict()


def llama_cpp_permute(weights, heads):
    """llama.cpp's convert_hf_to_gguf.py, in its own words."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def write(path, state, kind, heads=HEADS, architecture="llama", kv=HEADS, extra=None):
    """As llama.cpp writes it: norms in 32 bits, matrices as `kind`; a vocabulary that only takes room."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_context_length(2048)
    writer.add_token_list([f"<{i}>" for i in range(100)])
    writer.add_token_scores([0.5] * 100)
    for key, value in (extra or {}).items():
        writer.add_uint32(key, value)
    for name, tensor in state.items():
        key, row = next(
            (r.pattern.replace("{n}", n), r)
            for r in GGUF.rules
            if r.part
            for n in [name.split(".")[2] if "layers" in name else ""]
            if r.target.replace("{n}", n) == name
        )
        array = tensor.float().numpy()
        if row.how == "rotary":
            array = llama_cpp_permute(array, heads)
        q = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else getattr(gguf.GGMLQuantizationType, kind)
        data = blocks_of(array, kind) if kind.endswith("_K") and array.ndim > 1 else gguf.quants.quantize(array, q)
        writer.add_tensor(key, data, raw_dtype=q)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


def blocks_of(array, kind):
    """Any bytes are valid blocks of the K kinds, which the package cannot make; scales are set to small numbers."""
    values, size = gguf.GGML_QUANT_SIZES[getattr(gguf.GGMLQuantizationType, kind)]
    rng = np.random.default_rng(abs(hash(array.shape)) % 1000)
    blocks = rng.integers(0, 255, (array.size // values, size), dtype=np.uint8)
    scales = slice(0, 4) if kind == "Q4_K" else slice(size - 2, size)
    blocks[:, scales] = np.full((len(blocks), (scales.stop - scales.start) // 2), 0.01, np.float16).view(np.uint8)
    return blocks.reshape(*array.shape[:-1], -1)


def read_gguf(path):
    """The file's metadata, and its tensors one by one."""
    metadata, entries = read_header(path)
    heads = language_config(path, metadata)["heads"]

    def tensors():
        with path.open("rb") as f:
            yield from (read_tensor(f, entry, heads) for entry in entries if entry.name)

    return metadata, tensors()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_kinds_come_back_bit_for_bit(state, tmp_path, kind):
    metadata, tensors = read_gguf(write(tmp_path / "llm.gguf", state, kind))
    assert metadata["llama.attention.head_count"] == HEADS and metadata["tokenizer.ggml.tokens"] == 100
    read = {t.name: t.dequantize(torch.float32) for t in tensors}
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    assert set(read) == set(state)
    assert all(torch.equal(read[k], v.to(dtype).float() if v.ndim > 1 else v) for k, v in state.items())


@pytest.mark.parametrize("kind, cosine", [("Q8_0", 0.9999), ("Q4_0", 0.99)])
def test_blocks_come_near(state, tmp_path, kind, cosine):
    _, tensors = read_gguf(write(tmp_path / "llm.gguf", state, kind))
    for t in tensors:
        values = t.dequantize(torch.float32)
        assert t.kind == (kind if values.ndim > 1 else "F32") and t.shape == tuple(state[t.name].shape)
        assert torch.cosine_similarity(values.flatten(), state[t.name].flatten(), 0) > cosine, t.name


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K"])
def test_rows_of_blocks_are_put_in_our_order(state, tmp_path, kind):
    """Reordering blocks and then dequantising equals dequantising what the file holds and then reordering."""
    path = write(tmp_path / "llm.gguf", state, kind)
    _, tensors = read_gguf(path)
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    ours = {t.name: t for t in tensors}
    for part in "qk":
        t = ours[f"model.layers.1.self_attn.{part}_proj.weight"]
        raw = stored[f"blk.1.attn_{part}.weight"]
        expected = torch.from_numpy(gguf.quants.dequantize(raw.data, raw.tensor_type))
        assert torch.equal(to_rotary_pairs(t.dequantize(torch.float32), HEADS), expected)
        assert not torch.equal(t.dequantize(torch.float32), expected)


def test_wrong_files(state, tmp_path):
    path = write(tmp_path / "llm.gguf", state, "Q8_0")
    whole = path.read_bytes()
    for cut, error in (
        (2000, "damaged or incomplete GGUF header"),
        (len(whole) - 40, "incomplete: .* would end at byte"),
        (10, "damaged or incomplete GGUF header"),
    ):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match=error):
            read_gguf(path)
    path.write_bytes(b"GGML" + whole[4:])
    with pytest.raises(CheckpointError, match="no GGUF of version 2 or 3"):
        read_gguf(path)
    with pytest.raises(CheckpointError, match="architecture 'falcon'"):
        read_gguf(write(tmp_path / "f.gguf", state, "F16", architecture="falcon"))
    with pytest.raises(CheckpointError, match="4 query heads and 2 key heads"):
        read_gguf(write(tmp_path / "g.gguf", state, "F16", kv=2))
    with pytest.raises(CheckpointError, match="one of 3 pieces of a split GGUF"):
        read_gguf(write(tmp_path / "s.gguf", state, "F16", extra={"split.count": 3}))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K", "Q5_0"])
def test_blocks_become_a_language_model(state, tmp_path, kind):
    """As they lie where our layer reads them, except for the embeddings; in 16 bits where it does not, or when that is asked for.
    Sizes of no preset: heads and eps come from the file, but that it is wanted must be said."""
    path = write(tmp_path / "llm.gguf", state, kind)
    assert inspect(path).parts[0].precision == f"{kind} + F32"
    with pytest.raises(CheckpointError, match="has the sizes of no known model"):
        convert(path, tmp_path / "no")
    sizes = {"name": "mine", "language": {}}
    kept, wide = (convert(path, tmp_path / name, config=sizes, dtype=dtype) for name, dtype in (("kept", None), ("wide", torch.float32)))
    config = model_folder.read_config(tmp_path / "kept").language
    assert (config.heads, config.eps, config.positions, config.vocab_size) == (HEADS, 1e-5, 2048, 50)
    assert kept.parts[0].precision == ("F16 + F32" if kind == "Q5_0" else f"{kind} + F16 + F32") and wide.parts[0].precision == "F32"
    assert kept.parts[0].parameters == wide.parts[0].parameters == sum(v.numel() for v in state.values())
    blocks, written = load_file(tmp_path / "kept/language/model.safetensors"), load_file(tmp_path / "wide/language/model.safetensors")
    assert set(written) == set(blocks) == set(state)
    assert {k for k, v in blocks.items() if v.dtype == torch.uint8} == (set() if kind == "Q5_0" else {k for k in state if "_proj" in k})
    if kind[-1] == "0":
        least = {"Q8_0": 0.9999, "Q5_0": 0.997, "Q4_0": 0.99}[kind]
        assert all(torch.cosine_similarity(written[k].flatten(), v.flatten(), 0) > least for k, v in state.items())
    widened = {k: dequantize(v, kind) if v.dtype == torch.uint8 else v.float() for k, v in blocks.items()}
    assert all(torch.equal(v.half().float() if blocks[k].dtype == torch.uint8 else v, written[k]) for k, v in widened.items())
    with torch.device("meta"):
        language, plain = Language(config), Language(config)
    model_folder.load_into(language, tmp_path / "kept", "language", torch.float32)
    plain.load_state_dict(widened, assign=True)
    x = torch.randn(1, 5, 256, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(language(x), plain(x), atol=1e-5)
