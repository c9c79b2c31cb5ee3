"""The pack in a ComfyUI whose owner keeps models elsewhere; and what is left when it is gone. Skipped without WEGEN_COMFYUI."""

import json

import pytest
from wegen.tests.comfyui.conftest import need_comfyui
from wegen.tests.comfyui.server import PACK, ComfyServer
from wegen.wegen_model import workflow as graph

pytestmark = pytest.mark.comfyui
MODEL = "shelf/my-mini"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A server of its own, with an extra_model_paths.yaml that names a `wegen` folder, a model lying in it."""
    need_comfyui()
    shelf = tmp_path_factory.mktemp("drive") / "wegen-models"
    (shelf / MODEL).parent.mkdir(parents=True)
    (shelf / MODEL).symlink_to(PACK / "wegen_model" / "mini" / "weights", target_is_directory=True)
    paths = shelf.parent / "extra.yaml"
    paths.write_text(f"mine:\n    base_path: {shelf.parent}\n    wegen: wegen-models\n")
    with ComfyServer.from_environment(arguments=("--extra-model-paths-config", str(paths))) as server:
        yield server


def test_models_of_extra_model_paths_are_offered_and_run(elsewhere, nodes):
    kind, *_ = elsewhere.object_info()["WeGenLoadModel"]["input"]["required"]["model"]
    assert MODEL in kind and "wegen-mini" in kind
    workflow = json.loads((PACK / "workflows" / "picture_to_features_and_back.json").read_text().replace('"wegen-mini"', json.dumps(MODEL)))
    run = elsewhere.queue(graph.load_workflow(workflow, nodes).prompt)
    assert run.status == "success", run.error
    assert len(run.images) == 3


def test_nothing_is_written_outside_the_output(elsewhere):
    """After a run: beside what Save Image saved, no file of ours in the base folder, so removing the pack leaves nothing."""
    paths = (p.relative_to(elsewhere.base) for p in elsewhere.base.rglob("*"))
    ours = {path.parts[:2] for path in paths if "wegen" in str(path).lower()}
    assert ours <= {("custom_nodes", "wegen"), ("output", "wegen")}
