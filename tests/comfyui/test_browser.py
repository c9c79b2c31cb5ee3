"""The pack in ComfyUI's own frontend, headless Chromium: nothing red, no script error, the canvas's prompt is ours, Run gives a picture.

Both renderers. Skipped without WEGEN_COMFYUI (see conftest.py), playwright or Chromium. WEGEN_SHOTS=folder keeps the screenshots.
"""

import pytest
from PIL import Image
from wegen.tests.comfyui.editors import SAVED
from wegen.tests.comfyui.server import WORKFLOWS
from wegen.wegen_model import workflow as graph

pytestmark = pytest.mark.comfyui


def declared(prompt: dict, info: dict[str, dict]) -> dict:
    """A prompt without titles and without inputs that the server does not know (1.27 adds its own to Preview as Text)."""
    known = {name: {entry for kind in ("required", "optional") for entry in node["input"].get(kind, {})} for name, node in info.items()}
    return {
        node: {"class_type": part["class_type"], "inputs": {k: v for k, v in part["inputs"].items() if k in known[part["class_type"]]}}
        for node, part in prompt.items()
    }


def test_the_renderer_is_the_one_asked_for(page):
    assert bool(page.page.evaluate("LiteGraph.vueNodesMode")) == page.vue


def test_workflow_is_drawn_without_faults(page, ui_of, shoot, workflow):
    page.load(ui_of(workflow))
    page.fit()
    picture = shoot(workflow.stem)
    assert page.broken() == []
    assert page.errors() == []
    assert page.overlaps() == []
    assert len(Image.open(picture).convert("RGB").getcolors(1 << 24)) > 50, "the screenshot is blank"


def test_the_frontend_makes_the_prompt_that_our_converter_makes(page, comfy, nodes, ui_of, prompt_of, workflow):
    page.load(ui_of(workflow))
    info, ours = comfy.object_info(), prompt_of(workflow)
    assert declared(page.prompt(), info) == declared(ours, info)
    saved = graph.load_workflow(page.page.evaluate(SAVED), {**comfy.node_classes(), **nodes})  # what this frontend saves, `wegen run` reads
    assert declared(saved.prompt, info) == declared(ours, info) and not saved.problems


TYPED = "a {fox|fox} /* or a {rocket|star} */ on a {teal|{teal|teal}} background // \\{no"


PLACE = {"pos": [0, 900], "size": [200, 60], "flags": {}, "order": 0, "mode": 0, "properties": {}}


def typed(ui: dict) -> dict:
    """text_to_picture with choices and comments in the message, and a reroute on the model."""
    chat, draw = ({node["type"]: node for node in ui["nodes"]}[kind] for kind in ("WeGenChat", "WeGenDraw"))
    chat["widgets_values"][0] = TYPED
    (model,) = [entry for entry in draw["inputs"] if entry["name"] == "model"]
    (old,) = [link for link in ui["links"] if link[0] == model["link"]]
    reroute = {"id": 92, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": old[0]}]}
    ui["nodes"].append({**PLACE, **reroute, "outputs": [{"name": "", "type": "WEGEN_MODEL", "links": [93]}]})
    ui["links"].append([93, 92, 0, *old[3:5], "WEGEN_MODEL"])
    old[3:5], model["link"] = [92, 0], 93
    return ui


def muted_link(ui: dict) -> dict:
    """text_to_picture with the decoder's steps linked to a muted node: its own value holds."""
    (decode,) = [node for node in ui["nodes"] if node["type"] == "WeGenDecode"]
    decode["inputs"].append({"name": "steps", "type": "INT", "link": 91, "widget": {"name": "steps"}})
    muted = {"id": 90, "type": "PrimitiveInt", "mode": 2, "inputs": [], "widgets_values": [7, "fixed"]}
    ui["nodes"].append({**PLACE, **muted, "outputs": [{"name": "INT", "type": "INT", "links": [91]}]})
    ui["links"].append([91, 90, 0, decode["id"], len(decode["inputs"]) - 1, "INT"])
    return ui


def in_subgraph(ui: dict) -> dict:
    """text_to_picture with WeGen Chat in a subgraph that shows its message."""
    chat = next(node for node in ui["nodes"] if node["type"] == "WeGenChat")
    (into,) = [link for link in ui["links"] if link[3] == chat["id"]]
    (out,) = [link for link in ui["links"] if link[1] == chat["id"]]
    name = "11111111-2222-3333-4444-555555555555"
    message = {"name": "message", "type": "STRING", "link": None, "widget": {"name": "message"}}
    model = {"name": "model", "type": "WEGEN_MODEL", "link": into[0]}
    inner = {
        **chat,
        "inputs": [{**model, "link": 1}, {**message, "link": 2}],
        "outputs": [{"name": "chat", "type": "WEGEN_CHAT", "links": [3]}],
    }
    inner["widgets_values"] = ["never", *chat["widgets_values"][1:]]
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    rows = ((1, -10, 0, chat["id"], 0, "WEGEN_MODEL"), (2, -10, 1, chat["id"], 1, "STRING"), (3, chat["id"], 0, -20, 0, "WEGEN_CHAT"))
    definition = {"id": name, "version": 1, "revision": 0, "state": {}, "config": {}, "name": "Speaker", "groups": [], "widgets": []} | {
        "inputNode": {"id": -10, "bounding": [0, 0, 120, 80]},
        "outputNode": {"id": -20, "bounding": [900, 0, 120, 60]},
        "inputs": [{"id": "a", "name": "model", "type": "WEGEN_MODEL", "linkIds": [1]}]
        + [{"id": "b", "name": "message", "type": "STRING", "linkIds": [2]}],
        "outputs": [{"id": "c", "name": "chat", "type": "WEGEN_CHAT", "linkIds": [3]}],
        "nodes": [inner],
        "links": [dict(zip(keys, row, strict=True)) for row in rows],
    }
    host = {**chat, "id": 40, "type": name, "inputs": [model, message], "widgets_values": [TYPED], "title": "Speaker", "properties": {}}
    ui["nodes"][ui["nodes"].index(chat)] = host | {"outputs": [{"name": "chat", "type": "WEGEN_CHAT", "links": [out[0]]}]}
    into[3:5], out[1:3] = [40, 0], [40, 0]
    return ui | {"definitions": {"subgraphs": [definition]}}


@pytest.mark.parametrize("change", [typed, muted_link, in_subgraph])
def test_values_are_those_that_the_frontend_queues(page, comfy, nodes, ui_of, change):
    if change is not typed and page.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__.split('.').map(Number)") < [1, 30]:
        pytest.skip("the first frontends with subgraphs drop such a value; `wegen run` does as those of today")
    (path,) = [path for path in WORKFLOWS if path.stem == "text_to_picture"]
    ui = change(ui_of(path))
    ours = graph.load_workflow(ui, {**comfy.node_classes(), **nodes})
    graph.expand(ours)
    page.load(ui)
    info = comfy.object_info()
    assert declared(page.prompt(), info) == declared(ours.prompt, info) and not ours.problems


def test_run_shows_a_picture(page, comfy, ui_of, prompt_of, shoot):
    """The Run button, for the first workflow that saves a picture."""
    saving = [path for path in WORKFLOWS if {"SaveImage", "PreviewImage"} & {part["class_type"] for part in prompt_of(path).values()}]
    if not saving:
        pytest.skip("workflows/ holds no workflow that saves a picture yet")
    page.load(ui_of(saving[0]))
    comfy.free()  # nothing from the cache: every node shows what it has
    assert page.run() == "success", page.broken()
    assert page.pictures() > 0
    assert page.errors() == []
    page.fit()
    shoot(f"{saving[0].stem}-run")
    covered = [text for text in page.overlaps() if "cover each other" in text]  # a preview of ComfyUI's own may outgrow a group
    assert covered == [], "what a run shows below its nodes covers others"


def test_a_missing_node_is_noticed(page):
    """The check itself: a graph with a node that no pack has is reported."""
    node = {"id": 1, "type": "WeGenNoSuchNode", "pos": [50, 50], "size": [200, 80], "flags": {}, "order": 0, "mode": 0}
    graph = {"last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4}
    page.load(graph)
    page.close_windows()
    assert any("WeGenNoSuchNode" in problem for problem in page.broken())


def test_errors_of_the_pack_are_noticed(page):
    """The check itself: a script of the pack that does not load is reported, an exception of somebody else is not."""
    before = len(page.errors())
    page.page.evaluate("setTimeout(() => { throw new Error('not of the pack') })")
    page.page.evaluate(
        """() => new Promise(done => {
          const script = document.createElement('script');
          script.src = '/extensions/wegen/no-such.js';
          script.onerror = done;
          document.head.append(script);
        })"""
    )
    page.page.wait_for_timeout(300)
    assert len(page.errors()) == before + 1
    page.console.clear()
