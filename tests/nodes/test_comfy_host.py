"""The host inside ComfyUI's own modules (no server): memory, streaming, precision, cancel. Needs WEGEN_COMFYUI, see tests/comfyui."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wegen
from wegen.tests.nodes.conftest import call
from wegen.tests.support import picture, tiny_model

pytestmark = pytest.mark.comfyui

SCRIPT = """
import importlib.util, json, sys
comfyui, root, models = sys.argv[1:4]
sys.argv = [sys.argv[0], "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options; comfy.options.enable_args_parsing()
import comfy.model_management as mm, comfy.utils, folder_paths, torch
folder_paths.folder_names_and_paths["wegen"] = ([models], set())
spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
sys.modules["a_pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
def run(node, **inputs):
    cls = pack.NODE_CLASS_MAPPINGS[node]
    answer = getattr(cls(), cls.FUNCTION)(**inputs)
    return answer["result"] if isinstance(answer, dict) else answer
def graph(model, image):
    features, = run("WeGenEncode", model=model, image=image)
    chat, *_ = run("WeGenChat", model=model, message="a <image_1>", image_1=features, picture="always", max_tokens=6)
    drawn, _ = run("WeGenDraw", model=model, chat=chat, guidance=1.5)
    return features.tokens, drawn.tokens, run("WeGenDecode", features=drawn, decoder=model, seed=1)[0]
said = {"models": pack.NODE_CLASS_MAPPINGS["WeGenLoadModel"].INPUT_TYPES()["required"]["model"][0],
        "roots": [str(p) for p in sys.modules["a_pack.nodes.host"].model_roots()]}
with torch.inference_mode():
    image = torch.rand(1, 30, 40, 3, generator=torch.Generator().manual_seed(0))
    for dtype in ("default", "bfloat16", "float16", "q8_0", "q4_0", "fp8"):
        model, = run("WeGenLoadModel", model="tiny", dtype=dtype)
        whole = graph(model, image)
        parts = [*model._components.values(), *model.painter._components.values()]
        said[dtype] = {p.name: str(next(p.module.parameters()).dtype) for p in parts}
        layers = [m for m in model.component("language").module.modules() if type(m).__name__ == "QuantizedLinear"]
        said[dtype]["blocks"] = sorted({f"{m.kind} {m.weight.dtype}" for m in layers})
        said[dtype]["bytes"] = model.component("language").handle.model_size()
        loaded = [m.model for m in mm.current_loaded_models]
        said[dtype]["managed"] = all(any(p.handle is m for m in loaded) for p in parts)
        for p in parts:
            p.handle.load(torch.device("cpu"), lowvram_model_memory=0.1, full_load=False)  # every layer casts its weights as it runs
        said[dtype]["streaming"] = all(p.handle.model.model_lowvram for p in parts)
        said[dtype]["streamed"] = max(float((a.float() - b.float()).abs().max()) for a, b in zip(whole, graph(model, image)))
        if dtype == "default":
            said["picture"] = whole[2].flatten().tolist()
        if dtype in ("q8_0", "q4_0", "fp8"):
            said[dtype]["drawn"] = whole[1].flatten().tolist()
    ticks = []
    def hook(value, total, preview, **_):
        ticks.append(value)
        if value >= 3: mm.interrupt_current_processing()
    comfy.utils.set_progress_bar_global_hook(hook)
    comfy.utils.set_progress_bar_global_hook(hook)
    features = model.features(torch.zeros(1, 64, 32))
    try:
        run("WeGenDecode", features=features, decoder=model, use_defaults=False, steps=200)
    except mm.InterruptProcessingException:
        said["cancelled_at"] = ticks[-1]
    comfy.utils.set_progress_bar_global_hook(None)
    said["after_cancel"] = bool(torch.isfinite(run("WeGenDecode", features=features, decoder=model)[0]).all())
    mm.unload_all_models()
    said["after_unload"] = bool(torch.isfinite(run("WeGenDecode", features=features, decoder=model)[0]).all())
sys.stdout.write("SAID" + json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    if not os.environ.get("WEGEN_COMFYUI"):
        pytest.skip("needs a ComfyUI checkout: set WEGEN_COMFYUI to its folder (and WEGEN_COMFYUI_PYTHON to its interpreter)")
    models = tmp_path_factory.mktemp("models")
    tiny_model(models / "tiny")
    script = models / "script.py"
    script.write_text(SCRIPT)
    python = os.environ.get("WEGEN_COMFYUI_PYTHON", sys.executable)
    done = subprocess.run(
        [python, str(script), os.environ["WEGEN_COMFYUI"], str(Path(wegen.__file__).parent), str(models)],
        capture_output=True,
        text=True,
        cwd=models,
    )
    assert "SAID" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.split("SAID")[1]) | {"folder": str(models / "tiny"), "models_at": str(models)}


def test_own_model_paths_stay_first(said):
    assert said["models"] == ["wegen-mini", "tiny"]
    assert said["roots"][0] == said["models_at"] and said["roots"][1].endswith("models/wegen")


def test_precision_follows_the_widget(said):
    assert {said["default"][p] for p in ("vision", "language", "projectors", "unet", "vae")} == {"torch.float32"}  # on a CPU
    assert said["bfloat16"]["unet"] == said["bfloat16"]["language"] == "torch.bfloat16"
    assert said["float16"]["language"] == "torch.float16" and said["float16"]["vae"] != "torch.float16"  # SDXL's VAE overflows in it


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "fp8"])
def test_blocks_are_comfyui_s_to_move_and_give_what_they_give_headless(said, kind):
    assert said[kind]["blocks"] == [f"{kind.upper()} torch.uint8"] and said["default"]["blocks"] == []
    assert said[kind]["bytes"] < said["default"]["bytes"]
    assert said[kind]["vision"] == "torch.float32"  # what is not in blocks follows ComfyUI's choice
    model = call("WeGenLoadModel", model=said["folder"], dtype=kind)[0][0]
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    chat = call("WeGenChat", model=model, message="a <image_1>", image_1=features, picture="always", max_tokens=6)[0][0]
    drawn = call("WeGenDraw", model=model, chat=chat, guidance=1.5)[0][0]
    assert max(abs(a - b) for a, b in zip(drawn.tokens.flatten().tolist(), said[kind]["drawn"], strict=True)) < 1e-4


@pytest.mark.parametrize("dtype", ["default", "bfloat16", "float16", "q8_0", "q4_0", "fp8"])
def test_parts_are_managed_and_streaming_changes_nothing(said, dtype):
    assert said[dtype]["managed"] and said[dtype]["streaming"]
    assert said[dtype]["streamed"] == 0


def test_cancel_stops_and_leaves_the_next_run_intact(said):
    assert 3 <= said["cancelled_at"] < 200
    assert said["after_cancel"] and said["after_unload"]


def test_same_picture_as_headless(said):
    model = call("WeGenLoadModel", model=said["folder"])[0][0]
    features = call("WeGenEncode", model=model, image=picture())[0][0]
    chat = call("WeGenChat", model=model, message="a <image_1>", image_1=features, picture="always", max_tokens=6)[0][0]
    drawn = call("WeGenDraw", model=model, chat=chat, guidance=1.5)[0][0]
    image = call("WeGenDecode", features=drawn, decoder=model, seed=1)[0][0]
    assert max(abs(a - b) for a, b in zip(image.flatten().tolist(), said["picture"], strict=True)) <= 1 / 255
