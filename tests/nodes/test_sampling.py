"""KSampler, memory and previews inside ComfyUI's own modules (no server): inside_comfyui.py says, this asserts. Needs WEGEN_COMFYUI."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wegen
from wegen.tests.support import tiny_model

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    if not os.environ.get("WEGEN_COMFYUI"):
        pytest.skip("needs a ComfyUI checkout: set WEGEN_COMFYUI to its folder (and WEGEN_COMFYUI_PYTHON to its interpreter)")
    models = tmp_path_factory.mktemp("models")
    tiny_model(models / "tiny")
    command = [os.environ.get("WEGEN_COMFYUI_PYTHON", sys.executable), str(Path(__file__).with_name("inside_comfyui.py"))]
    command += [os.environ["WEGEN_COMFYUI"], str(Path(wegen.__file__).parent), str(models)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=models)
    assert done.returncode == 0 and "SAID" in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.split("SAID")[1])


def test_euler_equals_the_feature_decoder(said):
    """Same seed, the decoder's own timesteps: ddim_uniform of 50 for the released schedule, simple for the miniature's."""
    assert said["released"] < 1e-3 < said["spread"]
    assert said["mini"] < 1 / 255 and said["mini latents"] == [1, 16, 16, 16]


def test_what_does_not_fit_says_so(said):
    assert "features of 2 pictures for 3 latents" in said["two features, three latents"]
    assert "given a conditioning 2048 numbers wide (as text encoders make). Connect «Features to Conditioning»" in said["text"]
    assert "space 'other', but this decoder reads 'tiny/8x8x32'" in said["another space"]
    assert said["one feature, two latents"] == [2, 4, 16, 16]


def test_the_layout_for_load_diffusion_model(said):
    """The exported file has ComfyUI's names and our tensors; a full-size one is recognised, with the shape we would give it."""
    assert said["layout"]
    assert said["detected"] == "WeGenSDXL" and said["shape"] == {} and said["parameters"] == 2_525_520_644


def test_what_people_do_with_a_model(said):
    assert said["vae"] < 0.03 and said["img2img"][0] < said["img2img"][1] - 0.05
    assert said["inpaint keeps"] < 1e-3 < 0.1 < said["inpaint paints"]
    assert said["lora 0.0"] == said["lora undone"] == 0 and said["lora 1.0"] > 1e-3
    assert said["tiled"] == [1, 128, 128, 3]
    assert said["fp8"] == "torch.float8_e4m3fn" and said["fp8 off by"] < 0.1
    assert said["ancestral"] < 0.3


def test_previews_show_the_picture(said):
    assert said["preview of KSampler"] < 0.1 and said["preview of the node"] < 0.1


@pytest.mark.parametrize("way", ["partial 2", "partial 8", "novram", "stream"])
def test_weights_that_stay_behind_change_nothing(said, way):
    """Half or an eighth of the weights resident; none, by ComfyUI's choice or the loader's."""
    assert said[way] and all(said[way])
    assert said[f"{way} off by"] < 1e-5


def test_cpu_means_cpu(said):
    assert said["cpu"][:2] == ["cpu", "cpu"]


def test_room_is_asked_for(said):
    """The cache of 64 features and a prompt counts; language model and projectors are loaded together."""
    asked = [room for held, room in said["asked"] if sorted(held) == ["Language", "Projectors"]]
    assert asked and all(room > 2 * 2 * 64 * 32 * 4 for room in asked)
    assert all(room > 0 for held, room in said["asked"])


def test_nothing_outlives_the_graph(said):
    assert said["loaded after unload"] == 0
    assert said["alive"] == [] and said["watched"] > 50


@pytest.mark.parametrize("what", ["chat", "encode", "draw", "denoise", "vae", "ksampler"])
def test_cancel_comes_within_two_ticks_and_leaves_the_next_run_intact(said, what):
    assert said[f"cancel {what}"] <= 2
    assert said[f"after cancel {what}"] == 0
    assert said["caches"] == 0
