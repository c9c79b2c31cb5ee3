"""What `from wegen import …` gives, what it costs, and the command where torch is missing. Each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

NO_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Missing())
"""


def python(code: str, *args: str) -> subprocess.CompletedProcess:
    import wegen

    parent = str(Path(wegen.__file__).parents[1])
    start = f"import sys; sys.path.insert(0, {parent!r})\n"
    return subprocess.run([sys.executable, "-c", start + code, *args], capture_output=True, text=True, timeout=120)


def test_the_configuration_loads_neither_torch_nor_nodes():
    done = python(
        "import wegen.wegen_model.config, wegen.wegen_model.box, sys\nprint(sorted(m for m in sys.modules if m in ('torch', 'wegen.nodes')))"
    )
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stderr


def test_the_face_is_the_library_s_own_names():
    import wegen
    from wegen.wegen_model import box, features, pipeline
    from wegen.wegen_model.chat import conversation

    assert wegen.WeGen is wegen.wegen_model.WeGen is pipeline.WeGen
    assert wegen.Conversation is conversation.Conversation and wegen.Reference is conversation.Reference
    assert wegen.Box is box.Box and wegen.Features is features.Features
    for module in (wegen, wegen.wegen_model):
        assert all(hasattr(module, name) for name in module.__all__)
        assert not hasattr(module, "comfy_entrypoint"), "ComfyUI asks for it"


def test_comfyui_finds_the_nodes_under_any_name():
    """Loaded by path under the folder's name, and asked with hasattr and getattr, as ComfyUI's load_custom_node does."""
    code = """
import importlib.util, sys, pathlib, wegen
here = pathlib.Path(wegen.__file__).parent
for name in [m for m in sys.modules if m.partition(".")[0] == "wegen"]:
    del sys.modules[name]
name = str(here).replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, here / "__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
assert hasattr(module, "WEB_DIRECTORY") and (here / module.WEB_DIRECTORY).is_dir()
assert hasattr(module, "NODE_CLASS_MAPPINGS") and getattr(module, "NODE_CLASS_MAPPINGS") is not None
assert module.NODE_CLASS_MAPPINGS.keys() == getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", {}).keys()
assert not hasattr(module, "comfy_entrypoint")
print(len(module.NODE_CLASS_MAPPINGS), "wegen" in sys.modules)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    count, again = done.stdout.split()
    assert int(count) >= 18 and again == "False"


def test_a_fault_inside_the_nodes_is_not_a_pack_without_nodes(monkeypatch):
    import wegen

    monkeypatch.delitem(vars(wegen), "NODE_CLASS_MAPPINGS", raising=False)
    monkeypatch.setattr(wegen, "import_module", lambda *args: object())
    with pytest.raises(ImportError, match="NODE_CLASS_MAPPINGS could not be loaded"):
        hasattr(wegen, "NODE_CLASS_MAPPINGS")


COMMANDS = ["run", "chat", "encode", "decode", "inspect", "convert", "mini", "data", "train", "bench"]


def test_the_list_of_commands_is_whole():
    from wegen.wegen_model.cli.main import COMMANDS as known

    assert sorted(known) == sorted(COMMANDS)


def test_without_torch_every_command_says_what_to_install():
    code = (
        NO_TORCH
        + f"""
from wegen.wegen_model.cli.main import main
for args in (["--help"], [], *([name] for name in {COMMANDS}), *([name, "--help"] for name in {COMMANDS})):
    sys.stderr.write(f"{{main(args)}} ")
assert "torch" not in sys.modules
"""
    )
    done = python(code)
    assert done.returncode == 0 and not done.stdout, done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 2 + 2 * len(COMMANDS) + 1 and said[-1].strip() == "2"
    sentences = {line.removeprefix("2 ") for line in said[:-1]}
    assert len(sentences) == 1 and "pip install torch" in sentences.pop()


def test_without_torch_the_module_ends_with_2():
    done = python(NO_TORCH + "import runpy\nrunpy.run_module('wegen.wegen_model', run_name='__main__')")
    assert done.returncode == 2 and "pip install torch" in done.stderr and "Traceback" not in done.stderr


def test_without_torch_a_model_folder_is_found():
    done = python(
        NO_TORCH + "from wegen.wegen_model.checkpoint import model_paths\nprint(model_paths.parts(model_paths.resolve('wegen-mini')))"
    )
    assert done.returncode == 0 and "'unet'" in done.stdout, done.stderr
