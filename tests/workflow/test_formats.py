"""`wegen run`: loading workflows of both formats, and changing their values."""

import copy
import json

import pytest
from wegen.tests.workflow.nodes import NODES, api, inputs_only, no_calls, pixel, problems_of, slot, ui, ui_node  # noqa: F401
from wegen.wegen_model import workflow as graph

# --- loading: both formats


def test_ui_and_api_format_are_the_same_workflow(tmp_path):
    from_api, from_ui = graph.load_workflow(api(), NODES), graph.load_workflow(ui(), NODES)
    assert inputs_only(from_api) == inputs_only(from_ui)
    saved = [graph.run(workflow, NODES, out_dir=tmp_path / name) for name, workflow in (("a", from_api), ("b", from_ui))]
    assert [item.path.relative_to(tmp_path / "a").as_posix() for item in saved[0]] == ["out/cat_00001_.png"]
    assert pixel(saved[0][0].path) == pixel(saved[1][0].path) == int(255 * 0.1)


def test_links_as_dicts_and_values_as_dict():
    workflow = ui()
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    workflow["links"] = [dict(zip(keys, link, strict=True)) for link in workflow["links"]]
    ui_node(workflow, 1)["widgets_values"] = {"seed": 200, "steps": 4, "mode": "hard", "strength": 0.5, "text": "a cat", "invert": False}
    assert inputs_only(graph.load_workflow(workflow, NODES)) == inputs_only(graph.load_workflow(api(), NODES))


def test_control_after_generate_may_be_absent_and_missing_values_take_the_default():
    workflow = ui()
    ui_node(workflow, 1)["widgets_values"] = [200, 4, "hard"]
    inputs = graph.load_workflow(workflow, NODES).prompt["1"]["inputs"]
    assert inputs == {"seed": 200, "steps": 4, "mode": "hard", "strength": 0.5, "text": "", "invert": False}


def test_a_widget_turned_into_an_input_keeps_its_place():
    workflow = ui()
    workflow["nodes"].append(
        {"id": 7, "type": "PrimitiveInt", "outputs": [{"name": "INT", "type": "INT", "links": [9]}], "widgets_values": [30, "fixed"]}
    )
    ui_node(workflow, 1)["inputs"].append(slot("steps", "INT", 9, widget=True))
    workflow["links"].append([9, 7, 0, 1, 1, "INT"])
    inputs = graph.load_workflow(workflow, NODES).prompt["1"]["inputs"]
    assert inputs["steps"] == ["7", 0] and inputs["mode"] == "hard" and inputs["text"] == "a cat"


def test_canvas_only_nodes_give_their_value_or_link():
    workflow = ui()
    workflow["nodes"] += [
        {
            "id": 8,
            "type": "PrimitiveNode",
            "title": "Seed",
            "outputs": [{"name": "INT", "type": "INT", "links": [10]}],
            "widgets_values": [77, "randomize"],
        },
        {"id": 9, "type": "Reroute", "inputs": [slot("", "*", 1)], "outputs": [{"name": "", "type": "IMAGE", "links": [11]}]},
    ]
    ui_node(workflow, 1)["inputs"].append(slot("seed", "INT", 10, widget=True))
    ui_node(workflow, 2)["inputs"] = [slot("image", "IMAGE", 11)]
    workflow["links"] = [[1, 1, 0, 9, 0, "*"], [2, 2, 0, 3, 0, "IMAGE"], [10, 8, 0, 1, 1, "INT"], [11, 9, 0, 2, 0, "IMAGE"]]
    loaded = graph.load_workflow(workflow, NODES)
    assert loaded.prompt["1"]["inputs"]["seed"] == 77
    assert loaded.prompt["2"]["inputs"]["image"] == ["1", 0]
    assert set(loaded.prompt) == {"1", "2", "3"}
    graph.set_values(loaded, ["Seed.value=5"])
    assert loaded.prompt["1"]["inputs"]["seed"] == 5 and ui_node(loaded.ui, 8)["widgets_values"][0] == 5


def test_bypass_passes_the_input_of_the_same_type_and_mute_drops_the_link():
    workflow = ui()
    ui_node(workflow, 2)["mode"] = 4
    loaded = graph.load_workflow(workflow, NODES)
    assert loaded.prompt["3"]["inputs"]["images"] == ["1", 0] and "2" not in loaded.prompt
    ui_node(workflow, 2)["mode"] = 2
    (problem,) = problems_of(workflow)
    assert problem == "node 3 (SaveImage), input images: is missing; connect an output of type IMAGE"


def test_links_that_lead_nowhere_or_back_to_themselves_are_named():
    workflow = ui()
    workflow["links"] = workflow["links"][1:]
    assert "node 2 (Dim), input image: its link 1 is missing from the file; connect the input again" in problems_of(workflow)
    reroute = {"id": 9, "type": "Reroute", "inputs": [slot("", "*", 1)], "outputs": [{"name": "", "type": "*"}]}
    workflow = ui()
    workflow["nodes"].append(reroute)
    workflow["links"] = [[1, 9, 0, 9, 0, "*"], [2, 9, 0, 3, 0, "IMAGE"]]
    assert any("its link leads back to itself" in problem for problem in problems_of(workflow))


def subgraph_ui(host_values=None):
    """Draw and Dim as a subgraph in node 12, its inputs `image`, `seed`; Save Image outside."""
    inner = {
        "id": "sub-1",
        "name": "Draw dimmed",
        "inputs": [{"name": "image", "type": "IMAGE", "linkIds": [5]}, {"name": "my_seed", "type": "INT", "linkIds": [4]}],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "linkIds": [2]}],
        "inputNode": {"id": -10},
        "outputNode": {"id": -20},
        "nodes": [{**ui_node(ui(), 1), "inputs": [slot("image", "IMAGE", 5), slot("seed", "INT", 4, widget=True)]}, ui_node(ui(), 2)],
        "links": [
            {"id": 1, "origin_id": 1, "origin_slot": 0, "target_id": 2, "target_slot": 0, "type": "IMAGE"},
            {"id": 2, "origin_id": 2, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
            {"id": 4, "origin_id": -10, "origin_slot": 1, "target_id": 1, "target_slot": 1, "type": "INT"},
            {"id": 5, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "IMAGE"},
        ],
    }
    host = {
        "id": 12,
        "type": "sub-1",
        "inputs": [slot("image", "IMAGE"), slot("my_seed", "INT", widget=True)],
        "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
    }
    if host_values is not None:
        host["widgets_values"] = host_values
    save = {"id": 3, "type": "SaveImage", "inputs": [slot("images", "IMAGE", 1)], "widgets_values": ["cat"]}
    return {"nodes": [host, save], "links": [[1, 12, 0, 3, 0, "IMAGE"]], "definitions": {"subgraphs": [inner]}}


def test_subgraphs_are_flattened():
    prompt = graph.load_workflow(subgraph_ui(), NODES).prompt
    assert set(prompt) == {"12:1", "12:2", "3"}
    assert prompt["3"]["inputs"]["images"] == ["12:2", 0] and prompt["12:2"]["inputs"]["image"] == ["12:1", 0]
    assert prompt["12:1"]["inputs"]["seed"] == 200 and "image" not in prompt["12:1"]["inputs"]


def test_a_subgraphs_promoted_widget_holds_over_the_inner_one_and_can_be_set():
    workflow = graph.load_workflow(subgraph_ui([321]), NODES)
    assert workflow.prompt["12:1"]["inputs"]["seed"] == 321
    graph.set_values(workflow, ["12:1.seed=5"])
    assert workflow.ui["nodes"][0]["widgets_values"] == [5] and graph.load_workflow(workflow.ui, NODES).prompt == workflow.prompt


@pytest.mark.parametrize("values", [[321, 9], [321, "fixed", 9]])
def test_promoted_values_lie_in_a_row_with_or_without_control_after_generate(values):
    workflow = subgraph_ui(values)
    inner = workflow["definitions"]["subgraphs"][0]
    inner["inputs"].append({"name": "steps", "type": "INT", "linkIds": [6]})
    inner["nodes"][0]["inputs"].append(slot("steps", "INT", 6, widget=True))
    inner["links"].append({"id": 6, "origin_id": -10, "origin_slot": 2, "target_id": 1, "target_slot": 2, "type": "INT"})
    inputs = graph.load_workflow(workflow, NODES).prompt["12:1"]["inputs"]
    assert (inputs["seed"], inputs["steps"]) == (321, 9)


def test_a_link_into_a_subgraph_reaches_its_inner_node():
    workflow = subgraph_ui()
    workflow["nodes"].append(
        {"id": 20, "type": "LoadImage", "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE"}], "widgets_values": ["a.png", "image"]}
    )
    workflow["nodes"][0]["inputs"][0]["link"] = 7
    workflow["links"].append([7, 20, 0, 12, 0, "IMAGE"])
    assert graph.load_workflow(workflow, NODES).prompt["12:1"]["inputs"]["image"] == ["20", 0]


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_workflow_of_windows_is_read(tmp_path, mark):
    (tmp_path / "w.json").write_bytes(json.dumps(api()).encode(mark))
    assert graph.load_workflow(tmp_path / "w.json", NODES).prompt == graph.load_workflow(api(), NODES).prompt


@pytest.mark.parametrize("raw, part", [(b"\x80\x81", "is not text in UTF-8"), (b"[" * 200_000, "nested too deeply")])
def test_a_file_of_bytes_or_of_brackets_is_named(tmp_path, raw, part):
    (tmp_path / "w.json").write_bytes(raw)
    with pytest.raises(graph.GraphError, match=f"w.json is {part}|w.json {part}") as caught:
        graph.load_workflow(tmp_path / "w.json", NODES)
    assert "Export" in str(caught.value)


@pytest.mark.parametrize(
    "text, part", [("{not json", "is not JSON: Expecting property name"), ("[1]", "no ComfyUI workflow"), ("{}", "no ComfyUI workflow")]
)
def test_a_file_that_is_no_workflow_is_named(tmp_path, text, part):
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(graph.GraphError) as caught:
        graph.load_workflow(path, NODES)
    assert str(caught.value).startswith(str(path)) and part in str(caught.value) and "Export" in str(caught.value)


def test_a_malformed_canvas_is_an_error_of_the_file():
    workflow = ui()
    workflow["links"] = [[1, 1]]
    with pytest.raises(graph.GraphError, match="not as ComfyUI writes them"):
        graph.load_workflow(workflow, NODES)


# --- changing values


@pytest.mark.parametrize("make", [api, ui])
def test_set_changes_what_runs_and_what_is_embedded(make):
    workflow = graph.load_workflow(make(), NODES)
    graph.set_values(workflow, ["1.seed=9", "First.mode=soft", "Draw.text=x = 1.5", "dim.amount=1", "1.invert=yes"])
    inputs = workflow.prompt["1"]["inputs"]
    assert (inputs["seed"], inputs["mode"], inputs["text"], inputs["invert"]) == (9, "soft", "x = 1.5", True)
    assert workflow.prompt["2"]["inputs"]["amount"] == 1.0
    if workflow.ui:
        assert ui_node(workflow.ui, 1)["widgets_values"] == [9, "randomize", 4, "soft", 0.5, "x = 1.5", True]
        assert graph.load_workflow(workflow.ui, NODES).prompt == workflow.prompt


def test_set_fills_a_row_of_values_that_stops_short():
    workflow = ui()
    ui_node(workflow, 1)["widgets_values"] = [200]
    loaded = graph.load_workflow(workflow, NODES)
    graph.set_values(loaded, ["1.strength=0.75"])
    assert ui_node(loaded.ui, 1)["widgets_values"] == [200, "fixed", 4, "soft", 0.75]
    assert graph.load_workflow(loaded.ui, NODES).prompt == loaded.prompt


def test_wrong_settings_are_listed_together_and_none_is_applied():
    workflow = graph.load_workflow(api(), NODES)
    wrong = ["seed=9", "Nobody.seed=1", "1.sede=1", "1.steps=four", "1.mode=medium", "1.image=x", "2.image=y", "1.invert=maybe"]
    with pytest.raises(graph.GraphError) as caught:
        graph.set_values(workflow, ["1.seed=9", *wrong])
    lines = caught.value.problems
    assert [line.split(": ")[0] for line in lines] == [f"--set {setting}" for setting in wrong]
    assert "NODE.WIDGET=VALUE" in lines[0]
    assert 'the workflow has node 1 "First" (Draw); node 2 (Dim); node 3 (SaveImage)' in lines[1]
    assert "(is seed meant?); its widgets are seed, steps, mode, strength, text, invert" in lines[2]
    assert '"four" is not a whole number' in lines[3] and "soft, hard" in lines[4] and "to be linked" in lines[5]
    assert workflow.prompt["1"]["inputs"]["seed"] == 200


def test_a_name_that_two_nodes_share_must_be_an_id():
    prompt = api() | {"4": copy.deepcopy(api()["2"])}
    with pytest.raises(graph.GraphError, match=r"several nodes go by this name \(node 2 \(Dim\); node 4 \(Dim\)\); use the id"):
        graph.set_values(graph.load_workflow(prompt, NODES), ["Dim.amount=1"])


def test_a_linked_widget_is_set_where_its_value_comes_from():
    prompt = api() | {"4": {"class_type": "PrimitiveInt", "inputs": {"value": 3}}}
    prompt["1"]["inputs"]["seed"] = ["4", 0]
    workflow = graph.load_workflow(prompt, NODES)
    with pytest.raises(graph.GraphError, match=r"gets its value from node 4 \(PrimitiveInt\); set it there"):
        graph.set_values(workflow, ["1.seed=1"])
    assert graph.set_seed(workflow, 8) == 1 and workflow.prompt["4"]["inputs"]["value"] == 8


def test_seed_reaches_every_seed():
    workflow = ui()
    workflow["nodes"].append({**copy.deepcopy(ui_node(workflow, 1)), "id": 5})
    loaded = graph.load_workflow(workflow, NODES)
    assert graph.set_seed(loaded, 42) == 2
    assert (
        [loaded.prompt[i]["inputs"]["seed"] for i in ("1", "5")] == [42, 42] == [ui_node(loaded.ui, i)["widgets_values"][0] for i in (1, 5)]
    )
