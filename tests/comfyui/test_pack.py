"""The pack inside a real ComfyUI: it loads quietly, describes itself, runs its example workflows, cancels, and repeats itself.

Skipped unless WEGEN_COMFYUI names a checkout; see conftest.py.
"""

import contextlib
import json
import re

import numpy as np
import pytest
from PIL import Image
from wegen.tests.comfyui.server import BLUEPRINTS, WORKFLOWS, ComfyError, ComfyServer
from wegen.wegen_model import workflow as graph

pytestmark = pytest.mark.comfyui

IMPORT_SECONDS = 1.5  # a pack that imports its libraries late costs well under this, even on a busy machine
SAMPLERS = {"KSampler", "VAEEncode", "VAEDecode"}  # of core, in workflows that need ComfyUI
EXPECTED_LINES = (
    "Import times for custom nodes",
    "/custom_nodes/wegen",
    "Found example workflow folder 'workflows' for custom node 'wegen'",  # design.md keeps that name
)


def described(info: dict) -> list[str]:
    """What a node of /object_info fails to say."""
    missing = [] if info["description"].strip() else ["description"]
    for kind in ("required", "optional"):
        for name, declared in info["input"].get(kind, {}).items():
            options = declared[1] if len(declared) > 1 else {}
            if not options.get("tooltip", "").strip():
                missing.append(f"tooltip of input {name}")
    tips = info.get("output_tooltips") or []
    for i, name in enumerate(info["output_name"]):
        if i >= len(tips) or not str(tips[i]).strip():
            missing.append(f"tooltip of output {name}")
    return missing


def pictures_of(server, run) -> dict[str, list[np.ndarray]]:
    """node id -> its pictures, 8 bit (h,w,3)."""
    found = {}
    for node, shown in run.outputs.items():
        for image in shown.get("images", []):
            folder = {"output": server.outputs, "temp": server.base / "temp"}[image["type"]]
            found.setdefault(node, []).append(np.asarray(Image.open(folder / image["subfolder"] / image["filename"]).convert("RGB")))
    return found


def plain(text: str) -> str:
    with contextlib.suppress(ValueError):
        return json.dumps(json.loads(text))
    return text


def texts_of(run) -> dict[str, list[str]]:
    """node id -> the texts it showed; JSON without the indentation that only some versions of Preview as Text give it."""
    return {node: [plain(str(text)) for text in shown["text"]] for node, shown in run.outputs.items() if shown.get("text")}


def furthest(one: dict[str, list[np.ndarray]], other: dict[str, list[np.ndarray]]) -> int:
    """The largest difference of a pixel, in 255ths, over all pictures of two runs."""
    assert {node: [p.shape for p in row] for node, row in one.items()} == {node: [p.shape for p in row] for node, row in other.items()}
    pairs = [pair for node in one for pair in zip(one[node], other[node], strict=True)]
    return max((int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in pairs), default=0)


def test_loading_adds_nothing_to_the_log(comfy, nodes):
    """Beside a start without packs, only the line of its import time: no warning, traceback or chatter."""

    def lines(log: str) -> dict[tuple, str]:
        """Each line by its words: numbers, temporary names and the order of lists differ from start to start."""
        start = log.split("To see the GUI go to")[0]  # what requests print later is not loading
        plain = {line: re.sub(r"wegen-comfyui-\w+|\b[\d.]+\b|0x\w+", "#", line) for line in start.splitlines() if line.strip()}
        return {tuple(sorted(re.findall(r"\w+", text))): line for line, text in plain.items()}

    with ComfyServer.from_environment(packs={}) as bare:
        without = lines(bare.log)
    added = [line for words, line in lines(comfy.log).items() if words not in without]
    assert [line for line in added if not any(expected in line for expected in EXPECTED_LINES)] == []
    assert "IMPORT FAILED" not in comfy.log


def test_importing_is_cheap(comfy, record_property):
    seconds = comfy.import_seconds()
    record_property("import_seconds", seconds)
    assert seconds < IMPORT_SECONDS


def test_every_node_is_there_and_says_what_it_does(comfy, nodes):
    assert nodes, "the pack has no nodes"
    info = comfy.object_info()
    assert {name for name in info if name.startswith("WeGen")} == set(nodes)
    assert {info[name]["category"].split("/")[0] for name in nodes} == {"WeGen"}
    assert {name: missing for name in nodes if (missing := described(info[name]))} == {}


def test_every_node_has_a_help_page(comfy, nodes):
    def found(path: str) -> bool:
        try:
            return bool(comfy.request(f"/extensions/wegen/docs/{path}").strip())
        except ComfyError:
            return False

    assert [name for name in nodes if not found(f"{name}.md") and not found(f"{name}/en.md")] == []


def test_locales_reach_the_frontend(comfy, nodes):
    found = comfy.get("/i18n")
    for language in ("en", "zh"):
        assert set(nodes) <= set(found[language]["nodeDefs"]), language


def test_blueprints_are_offered(comfy):
    """Core since 0.3.67; older ones have no such list."""
    try:
        offered = comfy.get("/global_subgraphs")
    except ComfyError:
        pytest.skip(f"ComfyUI {comfy.version} knows no subgraph blueprints")
    ours = {entry["name"]: key for key, entry in offered.items() if entry["info"]["node_pack"] == "custom_nodes.wegen"}
    assert set(ours) == {path.stem for path in BLUEPRINTS}
    for key in ours.values():
        assert json.loads(comfy.get(f"/global_subgraphs/{key}")["data"])["definitions"]["subgraphs"]


def test_the_template_browser_offers_every_workflow(comfy):
    if not WORKFLOWS:
        pytest.skip("workflows/ holds no workflow yet")
    assert sorted(comfy.get("/workflow_templates")["wegen"]) == [path.stem for path in WORKFLOWS]
    for path in WORKFLOWS:
        assert comfy.get(f"/api/workflow_templates/wegen/{path.name}")["nodes"]
        assert comfy.request(f"/api/workflow_templates/wegen/{path.stem}.jpg")[:2] == b"\xff\xd8", f"{path.stem}.jpg is no JPEG"


def test_workflow_runs(comfy, first_run, workflow):
    run = first_run(workflow)
    assert run.status == "success", run.error
    assert run.images or texts_of(run), f"nothing came out: {run.outputs}"
    for pictures in pictures_of(comfy, run).values():
        assert all(picture.std() > 1 for picture in pictures), "a picture of one flat colour"


def test_ksampler_leaves_the_rest_to_the_bit(comfy, first_run):
    """The PNG against the picture that it changes: outside the box 0.48 0.2 0.52 0.6 nothing differs, inside it was painted."""
    (flow,) = (path for path in WORKFLOWS if path.stem == "ksampler_keeps_the_rest")
    shown = pictures_of(comfy, first_run(flow))
    before, after = (shown[node][0].astype(int) for node in ("3", "13"))
    differs = (before != after).any(-1)
    inside = np.zeros(differs.shape, bool)
    inside[26:102, 61:] = True
    assert not differs[~inside].any() and differs[inside].mean() > 0.5


def test_workflow_repeats_itself_from_a_cold_cache(comfy, first_run, prompt_of, workflow):
    first = first_run(workflow)
    comfy.free()
    again = comfy.queue(prompt_of(workflow))
    assert not again.cached
    assert furthest(pictures_of(comfy, first), pictures_of(comfy, again)) == 0
    assert texts_of(first) == texts_of(again)


def test_workflow_gives_the_same_without_comfyui(comfy, first_run, nodes, ui_of, workflow, tmp_path, monkeypatch):
    """`wegen run` and ComfyUI: the same words, pictures at most one 255th apart."""
    import torch

    ui = ui_of(workflow)
    if foreign := {node["type"] for node in ui["nodes"]} & SAMPLERS:
        pytest.skip(f"{', '.join(sorted(foreign))}: ComfyUI's own, which `wegen run` refuses by name (tests/workflow/test_execute.py)")
    inside = first_run(workflow)
    monkeypatch.setenv("WEGEN_MODELS", str(comfy.base / "models" / "wegen"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the server: sums in the same order
    try:
        saved = graph.run(graph.load_workflow(ui, nodes), nodes, out_dir=tmp_path, input_dir=workflow.parent)
    finally:
        torch.set_num_threads(threads)
    panels = {str(node["id"]) for node in ui["nodes"] if node["type"] == "WeGenChatPanel"}  # their words are shown by our own scripts
    outside, texts = {}, {}
    for item in saved:
        if item.kind == "image":
            outside.setdefault(item.node_id, []).append(np.asarray(Image.open(item.path).convert("RGB")))
        elif item.kind == "text" and item.node_id not in panels:
            texts.setdefault(item.node_id, []).append(plain(item.text))
    assert texts == texts_of(inside)
    assert furthest(pictures_of(comfy, inside), outside) <= 1


def test_cancelling_leaves_the_next_run_intact(comfy, first_run, prompt_of):
    if not WORKFLOWS:
        pytest.skip("workflows/ holds no workflow yet")
    for workflow in WORKFLOWS:
        before, asked = first_run(workflow), []

        def cancel_early(event, asked=asked):
            if event["type"] == "progress" and 0 < event["data"]["value"] < event["data"]["max"] - 1 and not asked:
                asked.append(event["data"])
                comfy.interrupt()

        comfy.free()
        cancelled = comfy.queue(prompt_of(workflow), on_event=cancel_early)
        if cancelled.status == "success":
            continue  # over before the request arrived
        assert cancelled.status == "interrupted", cancelled.error
        value, last = cancelled.progress(asked[0]["node"])[-1]
        assert value < last, "the node went on to its end"
        after = comfy.queue(prompt_of(workflow))
        assert after.status == "success", after.error
        assert furthest(pictures_of(comfy, before), pictures_of(comfy, after)) == 0
        assert texts_of(before) == texts_of(after)
        return
    pytest.fail("no workflow could be cancelled: no progress, or cancelling is ignored")


def test_a_refused_prompt_names_the_node(comfy):
    """The harness itself: a prompt with an unknown node is an error, not a run."""
    with pytest.raises(ComfyError, match="WeGenNoSuchNode"):
        comfy.queue({"1": {"class_type": "WeGenNoSuchNode", "inputs": {}}})
