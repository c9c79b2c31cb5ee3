"""Sizes from outside are asked before memory and loops: configurations, headers, indices, pictures, archives."""

import dataclasses
import io
import json
import shutil
import struct
import tarfile
import time

import pytest
import torch
from PIL import Image
from wegen.tests.support import tiny_model
from wegen.wegen_model import bounds, images
from wegen.wegen_model.chat.tokenizer import Tokenizer
from wegen.wegen_model.checkpoint import gguf, model_folder
from wegen.wegen_model.checkpoint.model_paths import CheckpointError, files
from wegen.wegen_model.checkpoint.resumable_write import verify
from wegen.wegen_model.checkpoint.tensor_file import open_file
from wegen.wegen_model.data.items import Skips
from wegen.wegen_model.data.readers import containers
from wegen.wegen_model.features import Features, load_features
from wegen.wegen_model.fileio import stays_inside
from wegen.wegen_model.models.lora import read_lora
from wegen.wegen_model.pipeline import WeGen
from wegen.wegen_model.runtime import Runtime


def changed(tiny, tmp_path, file, *path, value):
    """The tiny folder with one value of a JSON file changed."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    values = json.loads((folder / file).read_text())
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (folder / file).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    "section, field, value",
    [
        ("vision", "layers", 10**8),
        ("vision", "layers", -1),
        ("vision", "heads", 0),
        ("vision", "heads", 7),
        ("vision", "patch_size", 0),
        ("vision", "image_size", -128),
        ("vision", "width", 10**12),
        ("vision", "mean", [0.5]),
        ("vision", "std", [1, 0, 1]),
        ("language", "layers", 10**7),
        ("language", "heads", 3),
        ("language", "vocab_size", 10**12),
        ("language", "positions", 0),
        ("language", "rope_theta", 0.0),
        ("features", "grid", [0, 0]),
        ("features", "grid", [10**6, 10**6]),
        ("features", "pointer_blocks", 10**8),
        ("decoder", "steps", 10**9),
        ("decoder", "size", 2**40),
        ("decoder", "layout_factor", 0),
        ("decoder", "time_ids", "x"),
        ("decoder", "latent_rgb", [[1.0]]),
    ],
)
def test_sizes_in_config_json_are_refused_by_name(tiny, tmp_path, section, field, value):
    folder = changed(tiny, tmp_path, "config.json", section, field, value=value)
    with pytest.raises(CheckpointError, match=rf"config.json.*{section}\.{field}"):
        model_folder.read_config(folder)


@pytest.mark.parametrize(
    "file, field, value",
    [
        ("unet/config.json", "layers_per_block", 10**7),
        ("unet/config.json", "transformer_layers_per_block", [1, 10**7]),
        ("unet/config.json", "layers_per_block", "x"),
        ("unet/config.json", "block_out_channels", [0, 32]),
        ("unet/config.json", "in_channels", 0),
        ("unet/config.json", "sample_size", 10**30 % 2**63),
        ("vae/config.json", "layers_per_block", 10**7),
        ("vae/config.json", "latent_channels", 0),
        ("vae/config.json", "block_out_channels", []),
        ("vae/config.json", "scaling_factor", "a"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**12),
        ("scheduler/scheduler_config.json", "num_train_timesteps", -1),
    ],
)
def test_sizes_of_the_decoder_are_refused_before_it_is_built(tiny, tmp_path, file, field, value):
    folder = changed(tiny, tmp_path, file, field, value=value)
    with pytest.raises(CheckpointError, match=f"{file}.*{field}"):
        WeGen.load(folder)


@pytest.mark.parametrize(
    "file, field, value",
    [
        ("unet/config.json", "down_block_types", ["Foo", "Bar"]),
        ("unet/config.json", "act_fn", "zz"),
        ("vae/config.json", "act_fn", 5),
        ("scheduler/scheduler_config.json", "beta_schedule", "zz"),
        ("scheduler/scheduler_config.json", "trained_betas", "abc"),
    ],
)
def test_what_diffusers_cannot_make_names_the_file(tiny, tmp_path, file, field, value):
    folder = changed(tiny, tmp_path, file, field, value=value)
    model = WeGen.load(folder, runtime=Runtime("cpu", torch.float32))
    features = Features(torch.zeros(1, 64, 32), (8, 8), "tiny/8x8x32", "tiny")
    with pytest.raises(ValueError, match=f"decoder: {file} describes no .*Copy or convert"):
        model.decode(features)


def test_every_preset_is_within_bounds():
    from wegen.wegen_model.config import PRESETS

    for preset in PRESETS.values():
        for part in (preset.unet, preset.vae, preset.scheduler):
            bounds.check_diffusers(part, preset.name)


def test_steps_are_bounded_before_the_noise_is_made(tiny):
    model = WeGen.load(tiny, runtime=Runtime("cpu", torch.float32))
    features = Features(torch.zeros(1, 64, 32), (8, 8), "tiny/8x8x32", "tiny")
    with pytest.raises(ValueError, match="steps is 1000000000: it must be between 1 and 10000"):
        model.decode(features, steps=10**9)


# -- names ------------------------------------------------------------------------------------------------------------------------

OUTSIDE = [
    "../x",
    "a/../../x",
    "/etc/x",
    "..",
    ".",
    "",
    "a//b",
    "C:\\x",
    "C:x",
    "\\\\host\\share\\x",
    "..\\x",
    "a\\..\\x",
    "x:stream",
    "CON",
]
OUTSIDE += ["a/nul.txt", "Com1", "LPT9.png", "a\0b", "a\nb", "x" * 2000, None, 5]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_elsewhere_on_some_system(name):
    assert not stays_inside(name)


@pytest.mark.parametrize("name", ["a.safetensors", "a/b c.png", "языки/я.png", "a..b", "...a", "console", "com10", ".hidden"])
def test_names_that_stay(name):
    assert stays_inside(name)


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/tmp/secret.safetensors", "..\\secret.safetensors", "sub/x.safetensors"])
def test_an_index_never_leaves_its_folder(tmp_path, name):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/projectors.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="index.json.*no file beside it"):
        files(tmp_path / "m", "projectors")
    with pytest.raises(CheckpointError, match="no file beside it"):
        from wegen.wegen_model.checkpoint.file_layouts import shards_of

        shards_of(tmp_path / "m/projectors.safetensors.index.json")


def test_a_list_of_files_is_not_followed_out_of_the_folder(tmp_path):
    (tmp_path / "x").write_bytes(b"1")
    folder = tmp_path / "m"
    folder.mkdir()
    sha = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    (folder / "index.json").write_text(json.dumps({"files": {"../x": {"bytes": 1, "sha256": sha}}}))
    assert verify(folder) == ["../x"], "a file outside never counts as whole"
    (folder / "index.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="not a valid index"):
        verify(folder)


# -- headers ----------------------------------------------------------------------------------------------------------------------


def safetensors(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, start=0, stop=16):
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([-1, -4])},
        {"a": entry([2.0, 2])},
        {"a": entry([True, 4])},
        {"a": entry([4]), "b": entry([4])},
        {"a": entry([4], -16, 0), "b": entry([4])},
        {"a": entry([2], 8, 16)},
        {"a": entry([1] * 9 + [4])},
    ],
    ids=["negative", "fraction", "bool", "overlap", "before", "gap", "dimensions"],
)
def test_headers_that_lie_about_shapes_and_places(tmp_path, header):
    with pytest.raises(CheckpointError, match="damaged or incomplete safetensors"):
        open_file(safetensors(tmp_path / "x.safetensors", header, bytes(16)))


def test_one_value_repeated_without_end_is_not_unfolded(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.bin")
    file = open_file(tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=r"x.bin: a says that it is \(1000000, 1000000\)"):
        file.read("a")


@pytest.mark.parametrize("made", [lambda: torch.zeros(2).to_sparse(), lambda: torch.empty(10**9, 10**6, device="meta")])
def test_tensors_without_plain_values_are_refused(tmp_path, made):
    torch.save({"a": made()}, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="no plain tensor"):
        open_file(tmp_path / "x.bin")


def text(value):
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    "key, value",
    [
        (b"general.alignment", struct.pack("<II", 4, 0)),
        (b"general.alignment", struct.pack("<I", 8) + text(b"x")),
        (b"q", struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000 + struct.pack("<IQ", 4, 0)),
        (b"split.count", struct.pack("<I", 8) + text(b"x")),
        (b"llama.attention.head_count_kv", struct.pack("<I", 8) + text(b"x")),
        (b"llama.attention.layer_norm_rms_epsilon", struct.pack("<If", 6, float("nan"))),
        (b"llama.rope.freq_base", struct.pack("<IIQ", 9, 4, 0)),
    ],
)
def test_gguf_values_of_wrong_types(tmp_path, key, value):
    rows = [(b"general.architecture", struct.pack("<I", 8) + text(b"llama")), (b"llama.attention.head_count", struct.pack("<II", 4, 2))]
    rows.append((key, value))
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(rows)) + b"".join(text(k) + v for k, v in rows))
    with pytest.raises(CheckpointError, match="x.gguf: .*Copy or download it again"):
        gguf.language_config(path, gguf.read_header(path)[0])


@pytest.mark.parametrize(
    "tokens, grid",
    [
        (torch.zeros(1, 64, 4), "8"),
        (torch.zeros(1, 64, 4), "axb"),
        (torch.zeros(1, 64, 4), "-8x-8"),
        (torch.zeros(1, 0, 4), "0x0"),
        (torch.zeros(1, 64, 4, dtype=torch.int32), "8x8"),
        (torch.zeros(64, 4), "8x8"),
    ],
)
def test_features_files_of_other_forms_are_named(tmp_path, tokens, grid):
    from safetensors.torch import save_file

    path = tmp_path / "f.safetensors"
    save_file({"tokens": tokens}, path, {"format": "wegen-features-1", "space": "a", "tower": "b", "grid": grid})
    with pytest.raises(ValueError, match="f.safetensors holds no WeGen features"):
        load_features(path)


@pytest.mark.parametrize("raw", [b"garbage", b""])
def test_a_damaged_sentencepiece_model_is_named(tmp_path, raw):
    (tmp_path / "tokenizer.model").write_bytes(raw)
    with pytest.raises(ValueError, match="tokenizer.model: .*Copy or convert"):
        Tokenizer.load(tmp_path)


def test_a_lora_with_a_value_that_is_no_number_is_named(tmp_path):
    from safetensors.torch import save_file

    down = torch.tensor([[1.0, float("nan")]])
    save_file({"lora_unet_x.lora_down.weight": down, "lora_unet_x.lora_up.weight": torch.ones(2, 1)}, tmp_path / "l.safetensors")
    with pytest.raises(ValueError, match="l.safetensors is damaged: lora_unet_x.lora_down.weight"):
        read_lora(tmp_path / "l.safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        read_lora(tmp_path)


def test_conversion_names_a_weight_that_is_no_number(tmp_path):
    from safetensors.torch import load_file, save_file
    from wegen.wegen_model.checkpoint.convert import convert

    source = tiny_model(tmp_path / "source", parts=("vision",))
    tensors = load_file(source / "vision.safetensors")
    tensors["blocks.1.mlp.fc1.bias"][3] = float("inf")
    save_file(tensors, source / "vision.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"blocks.1.mlp.fc1.bias holds NaN or infinity"):
        convert(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


# -- pictures and archives --------------------------------------------------------------------------------------------------------


def test_a_small_animation_of_many_frames_is_refused(tmp_path):
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path = tmp_path / "a.gif"
    path.write_bytes(head + frame * 100_000 + b"\x3b")
    begun = time.process_time()
    with pytest.raises(images.PictureError, match="a.gif.*more than 2000 frames.*Shorten"):
        images.read_frames(path)
    assert time.process_time() - begun < 2, "and not looked through to its end"
    assert images.read(path).shape == (1, 1, 3), "its first frame is a picture"
    path.write_bytes(head + (b"\x21\xf9\x04" + bytes(5) + frame) * 3 + b"\x3b")
    assert images.read_frames(path)[0].shape == (3, 1, 1, 3)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp"])
@pytest.mark.parametrize("count, fits", [(4, True), (5, True), (6, False), (7, False)])
def test_as_many_frames_as_the_bound_are_read(tmp_path, monkeypatch, name, count, fits):
    monkeypatch.setattr(images, "MAX_FRAMES", 5)
    frames = [Image.new("RGB", (8, 8), (40 * k, 255 - 30 * k, 0)) for k in range(count)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    if fits:
        assert len(images.read_frames(tmp_path / name)[0]) == count
        return
    with pytest.raises(images.PictureError, match="more than 5 frames"):
        images.read_frames(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_frames_of_a_gif_are_counted_as_pillow_does(tmp_path, mode):
    frames = [Image.new("RGB", (40, 30), (8 * k, 255 - 8 * k, k)).convert(mode) for k in range(7)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], comment=b"x" * 600, loop=0, duration=50)
    with Image.open(tmp_path / "a.gif") as image:
        assert images._gif_frames(image.fp) == image.n_frames
    assert len(images.read_frames(tmp_path / "a.gif")[0]) == image.n_frames


def test_large_members_and_crowded_records_of_a_tar_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_BYTES", 1000)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, size in [("big.jpg", 2000), *((f"many.{k}", 1) for k in range(70)), ("c.txt", 2)]:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(b"x" * size))
    skips = Skips()
    found = {m.name: m for m in containers.members(tmp_path, skips)}
    assert found["a.tar/c"].text() == "xx", "one bad member costs itself"
    assert len(found["a.tar/many"].files) == 64 and "jpg" not in found.get("a.tar/big", dataclasses.replace(found["a.tar/c"])).files
    assert sum(skips.reasons.values()) == 7
