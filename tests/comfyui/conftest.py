"""The server that the tests of this folder share, and the workflows they go through.

Environment: WEGEN_COMFYUI, a ComfyUI checkout (without it every test here is skipped); WEGEN_COMFYUI_PYTHON, the interpreter with its
requirements (else this one); WEGEN_COMFYUI_FRONTEND, another frontend's `static` folder; WEGEN_COMFYUI_MODEL, a model folder to run the
workflows with in place of wegen-mini; WEGEN_SHOTS, a folder that keeps the screenshots.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import wegen
from wegen.tests.comfyui.browser import CHROMIUM, Frontend
from wegen.tests.comfyui.server import WORKFLOWS, ComfyError, ComfyServer
from wegen.wegen_model import workflow as graph

MODEL = os.environ.get("WEGEN_COMFYUI_MODEL")
NEWER = {"ComfySwitchNode"}  # core's, later than the oldest ComfyUI that the pack runs in; workflows say so in their notes
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def pytest_generate_tests(metafunc):
    """A test with an argument `workflow` runs once per example workflow."""
    if "workflow" in metafunc.fixturenames:
        none = [pytest.param(None, marks=pytest.mark.skip(reason="workflows/ holds no workflow yet"))]
        metafunc.parametrize("workflow", [pytest.param(path, id=path.stem) for path in WORKFLOWS] or none)


def need_comfyui():
    """Skip, with a plain reason, where no ComfyUI can be started."""
    if not os.environ.get("WEGEN_COMFYUI"):
        pytest.skip("needs a ComfyUI checkout: set WEGEN_COMFYUI to its folder (and WEGEN_COMFYUI_PYTHON to its interpreter)")
    if importlib.util.find_spec("websocket") is None:
        pytest.skip("needs the package websocket-client: pip install websocket-client")


def put_pictures(server: ComfyServer, workflow: Path) -> None:
    """Copy the pictures that a workflow's Load Image nodes name from beside it into the server's input folder."""
    for node in json.loads(workflow.read_text(encoding="utf8"))["nodes"]:
        name = next(
            (value for value in node.get("widgets_values") or [] if isinstance(value, str) and value.lower().endswith(PICTURES)), None
        )
        if not str(node.get("type", "")).startswith("LoadImage") or name is None:
            continue
        source = workflow.parent / name
        if not source.is_file():
            raise ComfyError(f"{workflow.name}: its {node['type']} #{node['id']} names {name}, which does not lie in {workflow.parent}")
        target = server.base / "input" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


@pytest.fixture(scope="session")
def comfy():
    """A ComfyUI with this pack, for the whole session."""
    need_comfyui()
    with ComfyServer.from_environment(arguments=("--preview-method", "auto")) as server:
        for workflow in WORKFLOWS:
            put_pictures(server, workflow)
        if MODEL:
            (server.base / "models" / "wegen").mkdir(exist_ok=True)
            (server.base / "models" / "wegen" / Path(MODEL).name).symlink_to(Path(MODEL).resolve())
        yield server


@pytest.fixture(scope="session")
def nodes():
    """The pack's table of nodes, as it is without ComfyUI."""
    return wegen.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="session")
def ui_of():
    """workflow path -> its JSON, with the model that the session uses."""

    def read(workflow: Path) -> dict:
        text = workflow.read_text(encoding="utf8")
        return json.loads(text.replace('"wegen-mini"', json.dumps(Path(MODEL).name)) if MODEL else text)

    return read


@pytest.fixture(scope="session")
def prompt_of(comfy, nodes, ui_of):
    """workflow path -> the prompt that the pack's own converter makes."""
    known = {**comfy.node_classes(), **nodes}

    def convert(workflow: Path) -> dict:
        if new := NEWER & {node["type"] for node in ui_of(workflow)["nodes"]} - set(known):
            pytest.skip(f"ComfyUI {comfy.version} has no {', '.join(new)}, which this workflow says that it needs")
        loaded = graph.load_workflow(ui_of(workflow), known)
        assert not loaded.problems, loaded.problems
        return loaded.prompt

    return convert


@pytest.fixture(scope="session")
def first_run(comfy, prompt_of):
    """workflow path -> its run from a cold cache; each workflow runs once for all tests that look at it."""
    runs = {}

    def run(workflow: Path):
        if workflow not in runs:
            comfy.free()
            runs[workflow] = comfy.queue(prompt_of(workflow))
        return runs[workflow]

    return run


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes2"])
def page(request, comfy):
    """The frontend in headless Chromium, in one renderer."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs the package playwright: pip install playwright (its own browsers are not used)")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"needs Chromium: {CHROMIUM} is not there (apt-get install chromium, or set WEGEN_CHROMIUM)")
    with Frontend(comfy, vue=request.param, size=(1700, 1000)) as frontend:
        yield frontend


@pytest.fixture
def shoot(page, tmp_path):
    """stem -> a screenshot STEM-VERSION-RENDERER.png in WEGEN_SHOTS; returns its path."""
    folder = Path(os.environ.get("WEGEN_SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def take(stem: str, **options) -> Path:
        picture = folder / f"{stem}-{page.server.version}-{'nodes2' if page.vue else 'classic'}.png"
        page.shoot(picture, **options)
        return picture

    return take
