"""Model folders as loaders list them, and the headless host."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wegen
from wegen.nodes import NODE_CLASS_MAPPINGS, host
from wegen.tests.support import picture, tiny_model


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("WEGEN_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_headless_host_is_plain(folder):
    run = host.runtime()
    assert not host.inside_comfyui() and run.operations is torch.nn
    assert run.place("unet").dtype == torch.float32 or torch.cuda.is_available()
    assert host.runtime("bfloat16").place("language").dtype == torch.bfloat16


def test_folders_are_listed_recursively_and_by_kind(models):
    tiny_model(models / "art" / "whole")
    tiny_model(models / "eye", parts=("vision",))
    tiny_model(models / "painter", parts=("unet", "vae"))
    (models / "empty").mkdir()
    assert host.list_models("model") == ["wegen-mini", "art/whole", "eye"]
    assert host.list_models("decoder") == ["wegen-mini", "art/whole", "painter"]
    combo, options = NODE_CLASS_MAPPINGS["WeGenLoadModel"].INPUT_TYPES()["required"]["model"]
    assert combo[0] == options["default"] == "wegen-mini" and "art/whole" in combo


def test_a_loop_of_links_ends(models):
    tiny_model(models / "art" / "whole")
    try:
        (models / "art" / "back").symlink_to(models, target_is_directory=True)
        (models / "also").symlink_to(models / "art", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert host.list_models("model") == ["wegen-mini", "also/whole", "art/whole"]


def test_a_name_from_the_list_opens(models):
    tiny_model(models / "art" / "whole", parts=("vision",))
    node = NODE_CLASS_MAPPINGS["WeGenLoadModel"]
    assert node.VALIDATE_INPUTS("art/whole") is True
    (model,) = node().load("art/whole")
    assert model.encode(picture()).tokens.shape == (1, 64, 32)


def test_fingerprint_follows_the_files(models):
    folder = tiny_model(models / "a", parts=("vision",))
    node = NODE_CLASS_MAPPINGS["WeGenLoadModel"]
    before = node.IS_CHANGED("a", dtype="default")
    assert node.IS_CHANGED("a") == before
    tiny_model(models / "a", seed=1, parts=("vision",))
    assert node.IS_CHANGED("a") != before
    shutil.rmtree(folder)
    assert node.IS_CHANGED("a") == "a"


def test_notes_are_kept_once_and_logged(caplog):
    run = host.runtime()
    with host.watch(run) as notes:
        run.warn("careful")
        run.warn("careful")
        assert notes == ["careful"]
    assert "careful" in caplog.text


def test_the_pack_loads_as_comfyui_loads_it(tmp_path):
    """Under a name made from its path, with no `wegen` on the path; and beside a comfy that was never loaded."""
    root = Path(wegen.__file__).parent
    (tmp_path / "comfy").mkdir()
    (tmp_path / "comfy" / "__init__.py").write_text("raise RuntimeError('imported from outside')")
    code = (
        "import importlib.util, sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        f"name, root = {str(tmp_path / 'x' / 'wegen').replace('.', '_x_')!r}, {str(root)!r}\n"
        "spec = importlib.util.spec_from_file_location(name, root + '/__init__.py', submodule_search_locations=[root])\n"
        "sys.modules[name] = pack = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(pack)\n"
        f"(model,) = pack.NODE_CLASS_MAPPINGS['WeGenLoadModel']().load({str(tiny_model(tmp_path / 'm', parts=('vision',)))!r})\n"
        "import torch\n"
        "sys.stdout.write(str(tuple(model.encode(torch.zeros(1, 8, 8, 3)).tokens.shape)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout == "(1, 64, 32)", done.stderr
