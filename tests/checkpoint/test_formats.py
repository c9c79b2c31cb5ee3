"""Public formats: one file each is all that inspection, conversion, nodes and messages need; docs/real-weights.md says the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wegen
from safetensors.torch import load_file, save_file
from wegen.nodes import NODE_CLASS_MAPPINGS
from wegen.tests.nodes.conftest import call
from wegen.wegen_model.checkpoint import formats, model_folder
from wegen.wegen_model.checkpoint.convert import convert, export
from wegen.wegen_model.checkpoint.formats.public_format import CONFIGS, WEIGHTS
from wegen.wegen_model.checkpoint.key_maps import exports
from wegen.wegen_model.checkpoint.model_folder import CheckpointError
from wegen.wegen_model.checkpoint.report import inspect
from wegen.wegen_model.config import NEGATIVES, TIME_IDS
from wegen.wegen_model.features import Features
from wegen.wegen_model.generation.decoder_presets import InferencePreset
from wegen.wegen_model.pipeline import WeGenDecoder
from wegen.wegen_model.runtime import Runtime

ROOT = Path(wegen.__file__).parent
PAGE = (ROOT / "docs" / "real-weights.md").read_text(encoding="utf8").splitlines()

SEVENTH = """
from wegen.wegen_model.checkpoint.formats.public_format import FileLayout, PublicFormat, decoder_configs, decoder_files
from wegen.wegen_model.checkpoint.formats.sdxl import UNET_RULES
from wegen.wegen_model.checkpoint.key_map import KeyMap, below
from wegen.wegen_model.generation.decoder_presets import InferencePreset

FORMATS = (
    PublicFormat(
        "Aurora",
        title="Aurora's decoder",
        origin="a made-up place",
        size="1 GiB",
        licence="none",
        gives="a decoder",
        files=(*decoder_files("painter"), FileLayout("single", ("aurora*.safetensors",))),
        configs=decoder_configs("painter"),
        marks=(("painter/unet",),),
        key_maps=(KeyMap("Aurora in one file", ("net.time_embedding.linear_1.weight",), below("net.", UNET_RULES), export="aurora"),),
        preset=InferencePreset("aurora", negative="zeros", guidance_scale=2.5, steps=7, time_ids="zeros"),
        holds={"unet": "painter/unet of Aurora"},
        needs=("unet", "vae"),
    ),
)
"""


@pytest.fixture
def seventh(tmp_path, monkeypatch):
    """A file more in formats/, and nothing else."""
    folder = tmp_path / "more_formats"
    folder.mkdir()
    (folder / "aurora.py").write_text(SEVENTH)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    monkeypatch.setattr(formats, "FORMATS", formats.discover())
    yield
    sys.modules.pop(f"{formats.__name__}.aurora", None)


def tables(first_cell):
    """Rows of the page's table that begins with this cell, as lists of cells."""
    start = next(i for i, line in enumerate(PAGE) if line.startswith(f"| {first_cell} |"))
    rows = []
    for line in PAGE[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_lists_the_public_checkpoints():
    known = [[f.title, f.origin, f.size, f.licence, f.gives] for f in formats.FORMATS if f.title]
    assert sorted(tables("what")) == sorted(known)


def test_the_page_says_how_decoders_are_driven():
    said = {}
    for names, guidance, negative, steps, time_ids, _ in tables("preset"):
        said |= {name.strip("` "): (float(guidance), negative, int(steps), time_ids.split("`")[1]) for name in names.split(",")}
    presets = formats.inference_presets().values()
    assert said == {p.name: (p.guidance_scale, NEGATIVES[p.negative].short, p.steps, p.time_ids) for p in presets}


# --- one more -------------------------------------------------------------------------------------------------------


def test_a_file_more_is_inspected_converted_and_offered(converted, tmp_path, seventh):
    source = tmp_path / "Aurora"
    for part in ("unet", "vae", "scheduler"):
        (source / "painter" / part).mkdir(parents=True)
        for path in (converted / part).iterdir():
            (source / "painter" / part / path.name).write_bytes(path.read_bytes())
    report = inspect(source)
    assert (report.kind, report.missing, [p.files for p in report.parts]) == (
        "Aurora",
        [],
        [[f"painter/{part}/diffusion_pytorch_model.safetensors"] for part in ("unet", "vae")],
    )
    assert report.decoder.startswith("aurora: guidance 2.5 against zeros, 7 steps") and report.scheduler == "EulerDiscreteScheduler"
    assert convert(source, tmp_path / "model").decoder == report.decoder
    decoder = model_folder.read_config(tmp_path / "model").decoder
    assert (decoder.preset, decoder.guidance_scale, decoder.steps, decoder.time_ids) == ("aurora", 2.5, 7, "zeros")
    choices, options = NODE_CLASS_MAPPINGS["WeGenLoadDecoder"].INPUT_TYPES()["optional"]["preset"]
    assert choices == ["from checkpoint", "wegen", "emu2", "blip3o", "aurora"]
    assert options["tooltip"].endswith(" aurora: guidance 2.5 against zeros, 7 steps.")
    assert "zeros: as wegen, aurora." in NODE_CLASS_MAPPINGS["WeGenDecode"].INPUT_TYPES()["optional"]["negative"][1]["tooltip"]
    (painter,), shown = call("WeGenLoadDecoder", decoder=str(converted), preset="aurora")
    assert "inference preset aurora: guidance 2.5" in shown[0]
    features = Features(torch.zeros(1, 64, 32), (8, 8), report.space, report.tower or "tiny")
    assert painter.decode(features, steps=1).isfinite().all()


def test_its_keys_go_both_ways(converted, tmp_path, seventh):
    assert "aurora" in exports()
    export(converted, tmp_path / "aurora.safetensors", "aurora", parts=["unet"])
    assert all(key.startswith("net.") for key in load_file(tmp_path / "aurora.safetensors"))
    report = convert(tmp_path / "aurora.safetensors", tmp_path / "model")
    assert inspect(tmp_path / "aurora.safetensors").kind == "Aurora in one file" and report.decoder.startswith("aurora")
    [path], [ours] = (model_folder.files(folder, "unet") for folder in (tmp_path / "model", converted))
    assert all(torch.equal(value, load_file(ours)[key]) for key, value in load_file(path).items())


def test_it_is_named_where_a_foreign_decoder_is_refused(tmp_path, seventh):
    foreign = {
        "conv_in.weight": (320, 4, 3, 3),
        "time_embedding.linear_1.weight": (1280, 320),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
    }
    save_file({key: torch.zeros(shape) for key, shape in foreign.items()}, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match="Stable Diffusion 1. WeGen's decoders: stage1_final/unet .*, painter/unet of Aurora"):
        convert(tmp_path / "unet.safetensors", tmp_path / "no")


def test_without_it_nothing_is_left():
    assert "aurora" not in formats.inference_presets()
    with pytest.raises(ValueError, match="decoder preset 'aurora' is not one of wegen, emu2, blip3o"):
        WeGenDecoder.load("wegen-mini", Runtime("cpu"), preset="aurora")


# --- the table ------------------------------------------------------------------------------------------------------


def test_formats_speak_of_known_roles():
    for f in formats.FORMATS:
        assert {layout.role for layout in f.files} <= {*WEIGHTS, "tokenizer"} and {layout.role for layout in f.configs} <= set(CONFIGS), (
            f.name
        )
    assert len({f.name for f in formats.FORMATS}) == len(formats.FORMATS)
    names = [m.name for f in formats.FORMATS for m in f.key_maps]
    assert len(set(names)) == len(names)


def test_formats_are_read_without_torch():
    """ComfyUI reads presets and tooltips from them when it starts."""
    code = (
        f"import sys, types; root = types.ModuleType('wegen'); root.__path__ = [{str(ROOT)!r}]; sys.modules['wegen'] = root\n"
        "sys.modules |= dict.fromkeys(('torch', 'diffusers', 'transformers', 'numpy'))\n"
        "from wegen.wegen_model.checkpoint import formats\nsys.stdout.write(' '.join(formats.inference_presets()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "wegen emu2 blip3o"


def test_a_preset_of_unknown_settings_is_refused():
    for change in ({"negative": "black"}, {"time_ids": "none"}):
        values = {"negative": next(iter(NEGATIVES)), "time_ids": next(iter(TIME_IDS))} | change
        with pytest.raises(ValueError, match="decoder preset 'x': negative .* is not known"):
            InferencePreset("x", guidance_scale=1.0, steps=1, **values)


# --- layers: pipelines -> checkpoint -> models, chat, generation -> config --------------------------------------------

BELOW = ("config", "features", "runtime", "models", "chat", "generation")
ABOVE = ("pipeline", "decoder_pipeline", "train", "mini", "cli", "workflow", "evaluate", "data")


def imported(path):
    """The modules of wegen_model that a file imports, wherever in it, as their first name."""
    package = path.relative_to(ROOT / "wegen_model").parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            names = [base] if node.module else [(*base[:-1], alias.name) for alias in node.names]
            yield from (name[0] for name in names)


@pytest.mark.parametrize("layer, not_from", [*((name, ("checkpoint", *ABOVE[:2])) for name in BELOW), ("checkpoint", ABOVE)])
def test_layers_import_downward(layer, not_from):
    place = ROOT / "wegen_model" / layer
    files = list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files and {p.name: found for p in files if (found := sorted(set(imported(p)) & set(not_from)))} == {}


def test_the_layer_check_sees_an_import():
    """The check itself."""
    found = set(imported(ROOT / "wegen_model" / "decoder_pipeline.py"))
    assert {"checkpoint", "models", "config", "generation"} <= found
