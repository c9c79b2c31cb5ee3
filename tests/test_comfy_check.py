"""`make comfy-check` (comfy_uses.py, comfy_check.py): what would break is named, in a pack and a ComfyUI of a few lines."""

import os
from pathlib import Path

import pytest
from wegen.tests.comfy_check import PACK, check, main
from wegen.tests.comfy_uses import uses_of

CORE = {
    "comfyui_version.py": '__version__ = "9.9"',
    "folder_paths.py": "models_dir = ''\ndef get_filename_list(kind): ...",
    "server.py": "class PromptServer:\n    def __init__(self, loop):\n        self.client_id = None\n    def send_sync(self, event, data, sid=None): ...",
    "comfy/sd.py": "from .model import Base\nclass VAE:\n    def __init__(self, sd=None, device=None): ...",
    "comfy/model.py": (
        "import torch\nclass Base(torch.nn.Module):\n    def __init__(self, config, device=None):\n        self.config = config\n"
        "    def encode(self, noise, scale=1): ...\n    def copy(self): ..."
    ),
    "comfy/memory.py": "if True:\n    def load(models, *, room=0): ...",
}
PACK_FILE = """
import sys
import comfy.sd
import folder_paths

class Mine(comfy.sd.Base):
    def encode(self, noise, scale=1):
        self.ours = self.config
        return super().encode(noise, scale) + self.parameters()

    def only_ours(self):
        return self.ours

def use():
    import comfy.memory as m
    m.load([1], room=2)
    made = Mine(1, device=2)
    made.copy()
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    server.send_sync("a", {}, server.client_id)
    if hasattr(server, "send_words"):
        server.send_words("a")
    getattr(comfy.sd, "newer", None)
    try:
        from comfy.memory import later
    except ImportError:
        pass
    return comfy.sd.VAE(sd={}), folder_paths.get_filename_list("loras")
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf8")
    return folder


def problems(tmp_path: Path, **changed: str) -> list[str]:
    files = CORE | {name.replace("__", "/") + ".py": text for name, text in changed.items()}
    pack = write(tmp_path / "pack", {"use.py": PACK_FILE})
    version, found = check(write(tmp_path / "core", files), uses_of(pack))
    assert version == "9.9"
    return [line.split(": ", 1)[1] for line in found]


def test_a_core_that_has_everything_is_passed(tmp_path):
    assert problems(tmp_path) == []
    names = {str(use) for use in uses_of(tmp_path / "pack")}
    assert {"comfy.sd.VAE(sd=)", "comfy.memory.load(_, room=)", "folder_paths.get_filename_list(_)"} <= names
    assert {"server.PromptServer().send_sync(_, _, _)", "comfy.sd.Base().config", "comfy.sd.Base().copy()"} <= names


@pytest.mark.parametrize(
    "module, text, words",
    [
        ("folder_paths", "models_dir = ''\nclass Hidden:\n    def get_filename_list(self, kind): ...", "get_filename_list is not there"),
        ("folder_paths", "def get_filename_list(kind, folder): ...", "missing a required argument: 'folder' (there: kind, folder)"),
        ("comfy__memory", "def load(models): ...", "unexpected keyword argument 'room'"),
        ("comfy__sd", "from .model import Base\nclass VAE:\n    def __init__(self, device=None): ...", "unexpected keyword argument 'sd'"),
        (
            "comfy__model",
            CORE["comfy/model.py"].replace("noise, scale=1", "noise, mask, scale=1"),
            "takes (noise, mask, scale) there, ours",
        ),
        ("comfy__model", CORE["comfy/model.py"].replace("def encode", "def other"), "comfy.sd.Base().encode is not there"),
        ("comfy__model", CORE["comfy/model.py"].replace("self.config = config", "pass"), "comfy.sd.Base().config is not there"),
        ("comfy__model", CORE["comfy/model.py"].replace("def copy", "def clone"), "comfy.sd.Base().copy is not there"),
        ("comfy__model", CORE["comfy/model.py"].replace("config, device=None", "config"), "unexpected keyword argument 'device'"),
        ("server", CORE["server.py"].replace("def send_sync", "async def send"), "send_sync is not there"),
    ],
)
def test_what_a_core_lacks_or_calls_otherwise_is_named(tmp_path, module, text, words):
    found = problems(tmp_path, **{module: text})
    assert found and any(words in line for line in found), found


def test_the_pack_is_read_and_a_folder_that_is_no_comfyui_is_refused(tmp_path, capsys):
    names = {str(use) for use in uses_of(PACK)}
    assert {"comfy.sd.VAE(sd=)", "comfy.supported_models.SDXL().get_model", "comfy.model_sampling.EPS().noise_scaling"} <= names
    assert {"comfy.model_patcher.ModelPatcher().set_model_attn2_replace(_, _, _)", "folder_paths.get_save_image_path"} <= names
    with pytest.raises(SystemExit, match="is no ComfyUI checkout"):
        main([str(tmp_path)])


@pytest.mark.comfyui
def test_the_pack_fits_this_comfyui():
    if not os.environ.get("WEGEN_COMFYUI"):
        pytest.skip("needs WEGEN_COMFYUI")
    assert main([os.environ["WEGEN_COMFYUI"]]) == 0
