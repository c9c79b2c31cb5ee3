"""`wegen run`: loading, changing, checking and running workflows, with small node classes in place of the pack's."""

import copy
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.wegen_model import graph
from wegen.wegen_model.runtime import Cancelled

CALLS = []  # (class, arguments) of each call of a node below, in order


def node(inputs, returns=(), output=False, **extra):
    """A V1 node class around a function."""

    def make(function):
        def execute(self, **arguments):
            CALLS.append((function.__name__, arguments))
            return function(**arguments)

        body = {"RETURN_TYPES": returns, "FUNCTION": "execute", "OUTPUT_NODE": output, "execute": execute, **extra}
        return type(function.__name__, (), {"INPUT_TYPES": classmethod(lambda cls: inputs), **body})

    return make


@node(
    {
        "required": {
            "seed": ("INT", {"default": 0, "min": 0, "max": 1000}),
            "steps": ("INT", {"default": 4, "min": 1, "max": 50}),
            "mode": (["soft", "hard"], {"default": "soft"}),
            "strength": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}),
            "text": ("STRING", {"default": "", "multiline": True}),
            "invert": ("BOOLEAN", {"default": False}),
        },
        "optional": {"image": ("IMAGE",)},
    },
    ("IMAGE", "INT"),
)
def Draw(seed, steps, mode, strength, text, invert, image=None):
    value = seed / 1000 if image is None else image.mean().item() / 2
    return torch.full((1, 4, 6, 3), 1 - value if invert else value), seed


@node({"required": {"image": ("IMAGE",), "amount": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0})}}, ("IMAGE",))
def Dim(image, amount):
    return (image * amount,)


@node({"required": {"count": ("INT", {"default": 3})}}, ("INT",), OUTPUT_IS_LIST=(True,))
def Count(count):
    return (list(range(count)),)


@node({"required": {"numbers": ("INT", {"forceInput": True})}}, ("INT",), INPUT_IS_LIST=True)
def Sum(numbers):
    return (sum(numbers),)


@node(
    {"required": {"number": ("INT", {"forceInput": True})}, "hidden": {"me": "UNIQUE_ID", "all": "PROMPT", "extra": "EXTRA_PNGINFO"}},
    ("STRING",),
    output=True,
)
def Show(number, me, all, extra):
    return {"ui": {"text": [f"{me}:{number}"]}, "result": (str(number),)}


@node({"required": {}}, ("IMAGE",))
def Fail():
    raise ValueError("the tower is not loaded; connect a loader")


NODES = {cls.__name__: cls for cls in (Draw, Dim, Count, Sum, Show, Fail)}


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


def called():
    return [name for name, _ in CALLS]


def api():
    return {
        "1": {
            "class_type": "Draw",
            "inputs": {"seed": 200, "steps": 4, "mode": "hard", "strength": 0.5, "text": "a cat", "invert": False},
            "_meta": {"title": "First"},
        },
        "2": {"class_type": "Dim", "inputs": {"image": ["1", 0], "amount": 0.5}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out/cat"}},
    }


def slot(name, kind, link=None, widget=False):
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def ui():
    return {
        "nodes": [
            {
                "id": 1,
                "type": "Draw",
                "title": "First",
                "inputs": [slot("image", "IMAGE")],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}, {"name": "INT", "type": "INT", "links": []}],
                "widgets_values": [200, "randomize", 4, "hard", 0.5, "a cat", False],
            },
            {
                "id": 2,
                "type": "Dim",
                "inputs": [slot("image", "IMAGE", 1)],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
                "widgets_values": [0.5],
            },
            {"id": 3, "type": "SaveImage", "inputs": [slot("images", "IMAGE", 2)], "widgets_values": ["out/cat"]},
            {"id": 4, "type": "Note", "widgets_values": ["hello"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
        "version": 0.4,
    }


def ui_node(workflow, node_id):
    return next(entry for entry in workflow["nodes"] if entry["id"] == node_id)


def inputs_only(workflow):
    return {key: (entry["class_type"], entry["inputs"]) for key, entry in workflow.prompt.items()}


def problems_of(prompt, **options):
    with pytest.raises(graph.GraphError) as caught:
        graph.check(graph.load_workflow(prompt, NODES), NODES, **options)
    return caught.value.problems


def pixel(path):
    return int(np.asarray(Image.open(path))[0, 0, 0])


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
        "nodes": [
            {**ui_node(ui(), 1), "inputs": [slot("image", "IMAGE", 5), slot("seed", "INT", 4, widget=True)]},
            ui_node(ui(), 2),
        ],
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


# --- checking


def test_every_problem_is_reported_together():
    prompt = api()
    prompt["1"]["inputs"] |= {"seed": 1001, "steps": "many", "mode": "medium", "strength": -0.5}
    prompt["2"]["inputs"] = {"image": ["9", 0], "amount": ["1", 0]}
    prompt["3"]["inputs"] = {"images": ["1", 5]}
    prompt["5"] = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}}
    prompt["6"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 1], "filename_prefix": "x"}}
    text = "\n".join(problems := problems_of(prompt))
    assert 'node 1 "First" (Draw), input seed: 1001 is larger than the maximum 1000; set 0 to 1000 (--set 1.seed=VALUE)' in problems
    assert "input steps: 'many' is not of type INT" in text
    assert "input mode: 'medium' is not among its choices: soft, hard" in text
    assert "input strength: -0.5 is smaller than the minimum 0.0" in text
    assert "node 2 (Dim), input image: comes from node 9, which the workflow does not have" in text
    assert 'node 2 (Dim), input amount: takes FLOAT, but node 1 "First" (Draw) gives IMAGE' in text
    assert 'input images: comes from output 5 of node 1 "First" (Draw), which has 2' in text
    assert "node 3 (SaveImage), input filename_prefix: is missing; set it (--set 3.filename_prefix=VALUE)" in problems
    assert "node 6 (SaveImage), input images: takes IMAGE" in text
    assert len(problems) == 9


def test_values_are_converted_as_by_the_server():
    prompt = api()
    prompt["1"]["inputs"] |= {"seed": "7", "strength": "1", "text": 5, "invert": 1}
    workflow = graph.load_workflow(prompt, NODES)
    graph.check(workflow, NODES)
    inputs = workflow.prompt["1"]["inputs"]
    assert (inputs["seed"], inputs["strength"], inputs["text"], inputs["invert"]) == (7, 1.0, "5", True)
    assert type(inputs["strength"]) is float


def test_a_cycle_is_named_in_the_direction_of_the_links():
    prompt = api()
    prompt["1"]["inputs"]["image"] = ["2", 0]
    (problem,) = problems_of(prompt)
    assert problem.startswith("the links run in a circle: ") and problem.endswith("; remove one of these links")
    assert 'node 1 "First" (Draw) -> node 2 (Dim)' in problem or 'node 2 (Dim) -> node 1 "First" (Draw)' in problem


def test_foreign_nodes_are_all_named_with_exit_code_3(tmp_path):
    prompt = api() | {"7": {"class_type": "KSampler", "inputs": {}}, "8": {"class_type": "Drow", "inputs": {}, "_meta": {"title": "Mine"}}}
    with pytest.raises(graph.ForeignNodesError) as caught:
        graph.check(graph.load_workflow(prompt, NODES), NODES)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["node 7 (KSampler)", 'node 8 "Mine" (Drow)']
    assert "(is Draw meant?)" in caught.value.problems[1] and "ComfyUI" in caught.value.problems[0]
    path, lines = tmp_path / "w.json", []
    path.write_text(json.dumps(prompt))
    assert graph.run_command(path, out=tmp_path / "out", nodes=NODES, echo=lines.append) == 3
    assert "node 7 (KSampler)" in "\n".join(lines) and called() == []


def test_a_workflow_without_outputs_is_refused():
    assert problems_of({"1": api()["1"]}) == [
        "the workflow has no output: add a Save Image, a Preview Image or another node that saves or shows something"
    ]


@pytest.mark.parametrize(
    "given, wanted, fits",
    [("BOX", "BOUNDING_BOX,BOX", True), ("A,B", "B,C", True), ("A", "*", True), ("*", "A", True), ("A", "B,C", False)],
)
def test_socket_types_match_as_on_the_server(given, wanted, fits):
    nodes = {
        "Give": node({"required": {}}, (given,))(lambda: (1,)),
        "Take": node({"required": {"x": (wanted,)}}, (), output=True)(lambda x: {}),
    }
    workflow = graph.load_workflow(
        {"1": {"class_type": "Give", "inputs": {}}, "2": {"class_type": "Take", "inputs": {"x": ["1", 0]}}}, nodes
    )
    if fits:
        assert graph.check(workflow, nodes) is None
    else:
        with pytest.raises(graph.GraphError, match="takes B,C, but node 1 .* gives A"):
            graph.check(workflow, nodes)


def test_validate_inputs_of_a_node_judges_ranges_and_types_itself():
    def validate(cls, size, input_types):
        if input_types.get("image") != "IMAGE":
            return f"image must be a picture, not {input_types['image']}"
        return True if size % 8 == 0 else f"size {size} is no multiple of 8; use {size // 8 * 8}"

    inputs = {"required": {"image": ("IMAGE",), "size": ("INT", {"max": 10})}}
    nodes = NODES | {"Resize": node(inputs, (), output=True, VALIDATE_INPUTS=classmethod(validate))(lambda image, size: {})}

    def problems(link, size):
        prompt = {"1": api()["1"], "4": {"class_type": "Resize", "inputs": {"image": link, "size": size}}}
        try:
            graph.check(graph.load_workflow(prompt, nodes), nodes)
        except graph.GraphError as error:
            return error.problems
        return []

    assert problems(["1", 0], 64) == []  # its own check stands for max
    assert problems(["1", 0], 63) == ["node 4 (Resize), input size: size 63 is no multiple of 8; use 56"]
    assert problems(["1", 1], 64) == ["node 4 (Resize), input size: image must be a picture, not INT"]


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


# --- running


def test_only_what_the_outputs_need_runs_and_progress_counts_it(tmp_path):
    prompt = api() | {"4": {"class_type": "Fail", "inputs": {}}, "5": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}}}
    seen = []
    saved = graph.run(graph.load_workflow(prompt, NODES), NODES, out_dir=tmp_path, on_node=lambda *step: seen.append(step))
    assert called() == ["Draw", "Dim"]
    assert seen == [(0, 4, "1", "First"), (1, 4, "2", "Dim"), (2, 4, "3", "SaveImage"), (3, 4, "5", "PreviewAny")]
    assert [(item.node_id, item.kind) for item in saved] == [("3", "image"), ("5", "text")] and saved[1].text == "200"
    CALLS.clear()
    (item,) = graph.run(graph.load_workflow(prompt, NODES), NODES, out_dir=tmp_path, only=["5"])
    assert called() == ["Draw"] and item.text == "200"


def test_lists_are_mapped_and_joined(tmp_path):
    prompt = {
        "1": {"class_type": "Count", "inputs": {"count": 4}},
        "2": {"class_type": "Show", "inputs": {"number": ["1", 0]}},
        "3": {"class_type": "Sum", "inputs": {"numbers": ["1", 0]}},
        "4": {"class_type": "Show", "inputs": {"number": ["3", 0]}},
    }
    saved = graph.run(graph.load_workflow(prompt, NODES), NODES, out_dir=tmp_path)
    assert [item.text for item in saved] == ["2:0", "2:1", "2:2", "2:3", "4:6"]
    assert CALLS[1][1]["me"] == "2" and CALLS[1][1]["all"]["1"]["class_type"] == "Count" and CALLS[1][1]["extra"] is None


def test_lazy_inputs_run_when_the_node_asks(tmp_path):
    inputs = {"required": {"first": ("BOOLEAN",), "a": ("IMAGE", {"lazy": True}), "b": ("IMAGE", {"lazy": True})}}

    def ask(self, first, a, b):
        wanted = "a" if first else "b"
        return [wanted] if {"a": a, "b": b}[wanted] is None else []

    nodes = NODES | {"Switch": node(inputs, ("IMAGE",), check_lazy_status=ask)(lambda first, a, b: (a if first else b,))}
    prompt = {
        "1": api()["1"],
        "2": {"class_type": "Fail", "inputs": {}},
        "3": {"class_type": "Switch", "inputs": {"first": True, "a": ["1", 0], "b": ["2", 0]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }
    (item,) = graph.run(graph.load_workflow(prompt, nodes), nodes, out_dir=tmp_path)
    assert "Fail" not in called() and item.path.parent == tmp_path / "preview" and pixel(item.path) == 51


def test_a_result_is_dropped_once_no_later_node_needs_it(tmp_path):
    import weakref

    alive = {}

    @node({"required": {}}, ("THING",))
    def Make():
        thing = torch.zeros(1)
        alive["it"] = weakref.ref(thing)
        return (thing,)

    nodes = {
        "Make": Make,
        "Use": node({"required": {"thing": ("THING",)}}, ("INT",))(lambda thing: CALLS.clear() or (1,)),
        "After": node({"required": {"n": ("INT",)}}, (), output=True)(lambda n: {"ui": {"text": [str(alive["it"]() is None)]}}),
    }
    prompt = {
        "1": {"class_type": "Make", "inputs": {}},
        "2": {"class_type": "Use", "inputs": {"thing": ["1", 0]}},
        "3": {"class_type": "After", "inputs": {"n": ["2", 0]}},
    }
    assert graph.run(graph.load_workflow(prompt, nodes), nodes, out_dir=tmp_path)[0].text == "True"


def test_nodes_run_without_gradients(tmp_path):
    nodes = {"Ask": node({"required": {}}, (), output=True)(lambda: {"ui": {"text": [str(torch.is_inference_mode_enabled())]}})}
    (item,) = graph.run(graph.load_workflow({"1": {"class_type": "Ask", "inputs": {}}}, nodes), nodes, out_dir=tmp_path)
    assert item.text == "True"


def test_a_failing_node_is_named_after_its_own_message(tmp_path):
    prompt = {
        "1": {"class_type": "Fail", "inputs": {}, "_meta": {"title": "Tower"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with pytest.raises(graph.NodeError) as caught:
        graph.run(graph.load_workflow(prompt, NODES), NODES, out_dir=tmp_path)
    assert str(caught.value) == 'the tower is not loaded; connect a loader\n  in node 1 "Tower" (Fail)'
    assert isinstance(caught.value.original, ValueError) and caught.value.__cause__ is caught.value.original


def test_cancelling_stops_before_the_next_node_and_the_next_run_is_whole(tmp_path):
    workflow = graph.load_workflow(api(), NODES)
    with pytest.raises(Cancelled):
        graph.run(workflow, NODES, out_dir=tmp_path, cancel=lambda: len(CALLS) > 0)
    assert called() == ["Draw"] and not list(tmp_path.rglob("*.png"))
    assert len(graph.run(workflow, NODES, out_dir=tmp_path)) == 1


def test_an_output_folder_that_cannot_be_written_is_known_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    prompt = api()
    prompt["1"]["inputs"]["steps"] = 0
    with pytest.raises(graph.GraphError) as caught:
        graph.run(graph.load_workflow(prompt, NODES), NODES, out_dir=tmp_path / "file" / "out")
    assert len(caught.value.problems) == 2 and called() == []
    assert (
        caught.value.problems[1].startswith(f"output folder {tmp_path / 'file' / 'out'}: cannot be written")
        and "--out DIR" in caught.value.problems[1]
    )


# --- the command


def command(tmp_path, workflow, **options):
    path, lines = tmp_path / "w.json", []
    path.write_text(json.dumps(workflow))
    return graph.run_command(path, nodes=NODES, out=tmp_path / "out", echo=lines.append, **options), lines


def test_command_runs_and_tells_what_it_saved(tmp_path):
    code, lines = command(tmp_path, ui(), sets=["1.seed=100"], seed=300)
    assert code == 0 and lines[0] == "[1/3] First (node 1)"
    assert lines[-1] == f"node 3 (SaveImage): {os.path.join(tmp_path, 'out', 'out', 'cat_00001_.png')}"
    assert pixel(tmp_path / "out" / "out" / "cat_00001_.png") == int(255 * 0.05)  # --set wins over --seed


def test_command_exit_codes(tmp_path):
    failing = {"1": {"class_type": "Fail", "inputs": {}}, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    code, lines = command(tmp_path, failing)
    assert code == 1 and lines[-1].startswith("the tower is not loaded")
    code, lines = command(tmp_path, api(), sets=["1.seed=5000"])
    assert code == 2 and "larger than the maximum 1000" in lines[-1]
    assert graph.run_command(tmp_path / "none.json", nodes=NODES, echo=lines.append) == 2 and "there is no such file" in lines[-1]


def test_ctrl_c_is_130_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    code, lines = command(tmp_path, api())
    assert code == 130 and lines[-1] == "cancelled"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
