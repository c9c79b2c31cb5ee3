"""`wegen run` does to a canvas what ComfyUI's frontend does when it is queued: texts with choices, virtual nodes, links that bring nothing.

The texts of CHOICES were given to processDynamicPrompt of frontend 1.58.1 itself, with Math.random pinned to 0 and to just below 1.
"""

import json

import pytest
from wegen.tests.workflow.nodes import NODES, api, no_calls, node, problems_of, slot, ui, ui_node  # noqa: F401
from wegen.tests.workflow.test_formats import subgraph_ui
from wegen.wegen_model import workflow as graph
from wegen.wegen_model.workflow.dynamic_prompts import choose_text

CHOICES = (  # text, with the first choice each time, with the last
    ("a {fox|cat} on teal", "a fox on teal", "a cat on teal"),
    ("{a|b|{c|d}} {|x}", "a ", "d x"),
    ("{a|{b|{c|d}}|e}", "a", "e"),
    ("a fox /* or a\nrocket */ here // and no more\nsecond", "a fox  here \nsecond", "a fox  here \nsecond"),
    ("see https://a.b/c\nnext", "see https:\nnext", "see https:\nnext"),
    ("{a|b /* | c */}", "a", "b "),
    (r"\{a|b\} {x\|y|z}", "{a|b} x|y", "{a|b} z"),
    (r"path\to \\{a}", r"path\to \\a", r"path\to \\a"),
    ("{a|b", "a", "b"),
    ("a}b|c", "a}b|c", "a}b|c"),
    ("{}", "", ""),
    ("/* never closed {a|b}", "/* never closed a", "/* never closed b"),
    ("line\rend // x\rkept", "line\rend \rkept", "line\rend \rkept"),
)


@pytest.mark.parametrize("text, first, last", CHOICES)
def test_a_text_is_chosen_as_the_frontend_chooses(text, first, last):
    assert choose_text(text, lambda n: 0) == first and choose_text(text, lambda n: n - 1) == last


@node(
    {
        "required": {
            "message": ("STRING", {"multiline": True, "dynamicPrompts": True}),
            "plain": ("STRING", {"multiline": True}),
            "seed": ("INT", {"default": 0, "max": 2**64 - 1}),
            "on": ("BOOLEAN", {"default": True}),
        }
    },
    output=True,
)
def Say(message, plain, seed, on):
    return {"ui": {"text": [f"{message}|{plain}|{seed}|{on}"]}}


SAYING = NODES | {"Say": Say}
TEXT = "a {fox|cat} // {never|said}"


def say(*values, **more):
    return {"nodes": [{"id": 1, "type": "Say", "inputs": [], "widgets_values": list(values), **more}], "links": []}


def said(workflow, tmp_path, **options):
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    lines = []
    code = graph.run_command(tmp_path / "w.json", nodes=SAYING, out=tmp_path / "out", echo=lines.append, **options)
    return code, lines


def test_a_widget_that_declares_it_is_chosen_and_the_canvas_keeps_what_was_typed(tmp_path):
    workflow = graph.load_workflow(say(TEXT, TEXT, 5, "randomize", True), SAYING)
    (item,) = graph.run(workflow, SAYING, out_dir=tmp_path)
    assert item.text in (f"a fox |{TEXT}|5|True", f"a cat |{TEXT}|5|True")  # the stored seed: it changes after the first run
    assert workflow.prompt["1"]["inputs"]["message"] in ("a fox ", "a cat ") and workflow.ui["nodes"][0]["widgets_values"][0] == TEXT
    assert graph.run(workflow, SAYING, out_dir=tmp_path) == [item]  # chosen once


def test_the_choice_is_told_and_a_seed_repeats_it(tmp_path):
    texts = "{" + "|".join(map(str, range(1000))) + "}"
    runs = [said(say(texts, "", 5, "fixed", True), tmp_path, seed=seed) for seed in (1, 1, 2, None, None)]
    assert [code for code, _ in runs] == [0] * 5 and all(lines[0].startswith("Say (node 1), message: ") for _, lines in runs)
    chosen = [lines[0] for _, lines in runs]
    assert chosen[0] == chosen[1] != chosen[2] and chosen[3] != chosen[4]


def test_a_prompt_in_api_format_is_final_but_what_is_typed_is_not(tmp_path):
    prompt = {"1": {"class_type": "Say", "inputs": {"message": TEXT, "plain": "", "seed": 1, "on": False}}}
    assert said(prompt, tmp_path)[1][-1] == f"Say (node 1): {TEXT}||1|False"
    assert said(prompt, tmp_path, sets=["Say.message={dog|dog} // x"])[1][-1] == "Say (node 1): dog ||1|False"


def test_a_primitive_is_chosen_where_it_goes_and_a_subgraphs_text_is_handed_in_as_typed(tmp_path):
    workflow = say("own", "", 5, "fixed", True)
    workflow["nodes"][0]["inputs"] = [slot("message", "STRING", 1, widget=True)]
    workflow["nodes"].append(
        {"id": 2, "type": "PrimitiveNode", "outputs": [{"name": "STRING", "type": "STRING"}], "widgets_values": [TEXT]}
    )
    workflow["links"] = [[1, 2, 0, 1, 0, "STRING"]]
    assert said(workflow, tmp_path)[1][-1] in ("Say (node 1): a fox ||5|True", "Say (node 1): a cat ||5|True")
    inner = {**workflow["nodes"][0], "inputs": [slot("message", "STRING", 1, widget=True)]}
    definition = {
        "id": "sub",
        "name": "Speaker",
        "inputs": [{"name": "words", "type": "STRING"}],
        "nodes": [inner],
        "links": [{"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "STRING"}],
    }
    host = {"id": 7, "type": "sub", "inputs": [slot("words", "STRING", widget=True)], "widgets_values": [TEXT]}
    whole = {"nodes": [host], "links": [], "definitions": {"subgraphs": [definition]}}
    assert said(whole, tmp_path)[1][-1] == f"Say (node 7:1): {TEXT}||5|True"
    assert said(whole, tmp_path, sets=["Speaker.words={a|a}"])[1][-1] == "Say (node 7:1): {a|a}||5|True"


def test_choices_nested_without_end_are_refused(tmp_path):
    code, lines = said(say("{" * 5000, "", 5, "fixed", True), tmp_path)
    assert code == 2 and "input message: its {choices} are nested too deeply" in lines[-1]


@pytest.mark.parametrize("text, value", [("false", False), ("False", False), ("off", False), ("true", True), ("1", True)])
def test_a_boolean_as_text_is_what_it_says(tmp_path, text, value):
    prompt = api()
    prompt["1"]["inputs"]["invert"] = text
    workflow = graph.load_workflow(prompt, NODES)
    graph.check(workflow, NODES)
    assert workflow.prompt["1"]["inputs"]["invert"] is value
    prompt["1"]["inputs"]["invert"] = "maybe"
    assert problems_of(prompt) == [
        "node 1 \"First\" (Draw), input invert: 'maybe' is neither true nor false; set one of the two (--set 1.invert=VALUE)"
    ]


# --- nodes of the canvas


def test_labels_and_what_nothing_is_linked_to_are_passed_over_and_named(tmp_path):
    workflow = ui()
    workflow["nodes"] += [{"id": 20, "type": "Label (rgthree)", "title": "hello"}, {"id": 21, "type": "Sticky (of a pack)", "inputs": []}]
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    lines = []
    assert graph.run_command(tmp_path / "w.json", nodes=NODES, out=tmp_path, echo=lines.append) == 0
    assert lines[0] == "passed over, as nothing is linked to it and it is not of this pack: node 21 (Sticky (of a pack))"
    assert lines[1].startswith("[1/3]")  # of a label there is nothing to say


def test_a_foreign_node_with_a_link_and_a_group_node_are_still_refused():
    workflow = ui()
    workflow["nodes"] += [{"id": 20, "type": "Sharpen", "inputs": [slot("image", "IMAGE", 3)]}, {"id": 21, "type": "workflow>Mine"}]
    workflow["links"].append([3, 2, 0, 20, 0, "IMAGE"])
    problems = problems_of(workflow)
    assert [problem.split(":")[0] for problem in problems] == ["node 20 (Sharpen)", "node 21 (workflow>Mine)"]


def test_a_switch_of_modes_is_passed_over_with_its_links():
    workflow = ui()
    workflow["nodes"].append({"id": 20, "type": "Fast Muter (rgthree)", "inputs": [slot("", "*", 3)]})
    workflow["links"].append([3, 2, 0, 20, 0, "*"])
    assert set(graph.load_workflow(workflow, NODES).prompt) == {"1", "2", "3"}


@pytest.mark.parametrize("prefix", ["", "easy "])
def test_set_and_get_are_a_link(prefix):
    kinds = ("SetNode", "GetNode") if not prefix else ("easy setNode", "easy getNode")
    workflow = ui()
    workflow["nodes"] += [
        {
            "id": 8,
            "type": kinds[0],
            "inputs": [slot("IMAGE", "IMAGE", 1)],
            "outputs": [{"name": "*", "type": "*"}],
            "widgets_values": ["fox"],
        },
        {"id": 9, "type": kinds[1], "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE"}], "widgets_values": ["fox"]},
    ]
    ui_node(workflow, 2)["inputs"] = [slot("image", "IMAGE", 3)]
    workflow["links"] = [[1, 1, 0, 8, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 9, 0, 2, 0, "IMAGE"]]
    prompt = graph.load_workflow(workflow, NODES).prompt
    assert prompt["2"]["inputs"]["image"] == ["1", 0] and set(prompt) == {"1", "2", "3"}
    workflow["links"][2] = [3, 8, 0, 2, 0, "IMAGE"]  # the Set node's own output is its input
    assert graph.load_workflow(workflow, NODES).prompt["2"]["inputs"]["image"] == ["1", 0]
    workflow["links"][2] = [3, 9, 0, 2, 0, "IMAGE"]
    ui_node(workflow, 9)["widgets_values"] = ["cat"]
    assert any('there is no Set node called "cat"' in problem for problem in problems_of(workflow))


def test_get_inside_a_subgraph_finds_the_set_around_it():
    workflow = subgraph_ui()
    definition = workflow["definitions"]["subgraphs"][0]
    definition["nodes"].append({"id": 9, "type": "GetNode", "outputs": [{"name": "IMAGE", "type": "IMAGE"}], "widgets_values": ["pic"]})
    definition["links"][3] = {"id": 5, "origin_id": 9, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "IMAGE"}
    workflow["nodes"] += [
        {"id": 20, "type": "LoadImage", "outputs": [{"name": "IMAGE", "type": "IMAGE"}], "widgets_values": ["a.png", "image"]},
        {"id": 21, "type": "SetNode", "inputs": [slot("IMAGE", "IMAGE", 7)], "widgets_values": ["pic"]},
    ]
    workflow["links"].append([7, 20, 0, 21, 0, "IMAGE"])
    assert graph.load_workflow(workflow, NODES).prompt["12:1"]["inputs"]["image"] == ["20", 0]


def test_a_widget_linked_to_a_muted_node_keeps_its_own_value():
    workflow = ui()
    workflow["nodes"].append(
        {"id": 7, "type": "PrimitiveInt", "mode": 2, "outputs": [{"name": "INT", "type": "INT"}], "widgets_values": [30, "fixed"]}
    )
    ui_node(workflow, 1)["inputs"].append(slot("steps", "INT", 9, widget=True))
    workflow["links"].append([9, 7, 0, 1, 1, "INT"])
    assert graph.load_workflow(workflow, NODES).prompt["1"]["inputs"]["steps"] == 4


# --- a subgraph by its name; a person's own picture


@pytest.mark.parametrize("name", ["Draw dimmed", "draw DIMMED", "12"])
def test_a_subgraph_is_addressed_by_its_name(name):
    workflow = graph.load_workflow(subgraph_ui([321]), NODES)
    graph.set_values(workflow, [f"{name}.my_seed=5"])
    assert workflow.prompt["12:1"]["inputs"]["seed"] == 5
    assert workflow.ui["nodes"][0]["widgets_values"] == [5] and graph.load_workflow(workflow.ui, NODES).prompt == workflow.prompt


def test_a_subgraph_says_what_it_shows_and_of_two_the_id_is_asked():
    ui_ = subgraph_ui()
    with pytest.raises(graph.GraphError) as caught:
        graph.set_values(graph.load_workflow(ui_, NODES), ["Draw dimmed.steps=3"])
    assert caught.value.problems == [
        '--set Draw dimmed.steps=3: node 12 "Draw dimmed" (subgraph) shows no widget "steps"; it shows image, my_seed; '
        'inside are node 12:1 "First" (Draw); node 12:2 (Dim)'
    ]
    ui_["nodes"].append({**ui_["nodes"][0], "id": 13})
    with pytest.raises(graph.GraphError, match=r'several nodes go by this name \(node 12 "Draw dimmed" \(subgraph\); node 13 '):
        graph.set_values(graph.load_workflow(ui_, NODES), ["Draw dimmed.my_seed=3"])
    with pytest.raises(graph.GraphError, match='"Draw dimmed" .subgraph.'):
        graph.set_values(graph.load_workflow(ui_, NODES), ["Nobody.seed=3"])


def test_a_subgraph_in_a_subgraph_shows_the_widget_at_both_levels():
    workflow = subgraph_ui([321])
    inner = workflow["nodes"].pop(0)
    outer = {
        "id": "sub-2",
        "name": "Outer",
        "inputs": [{"name": "outer_seed", "type": "INT"}],
        "outputs": [{"name": "IMAGE", "type": "IMAGE"}],
        "nodes": [{**inner, "inputs": [slot("image", "IMAGE"), slot("my_seed", "INT", 8, widget=True)]}],
        "links": [
            {"id": 8, "origin_id": -10, "origin_slot": 0, "target_id": 12, "target_slot": 1, "type": "INT"},
            {"id": 9, "origin_id": 12, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
        ],
    }
    host = {
        "id": 30,
        "type": "sub-2",
        "inputs": [slot("outer_seed", "INT", widget=True)],
        "outputs": inner["outputs"],
        "widgets_values": [77],
    }
    workflow["nodes"].append(host)
    workflow["links"] = [[1, 30, 0, 3, 0, "IMAGE"]]
    workflow["definitions"]["subgraphs"].append(outer)
    loaded = graph.load_workflow(workflow, NODES)
    assert loaded.prompt["30:12:1"]["inputs"]["seed"] == 77
    graph.set_values(loaded, ["Outer.outer_seed=8"])
    assert loaded.prompt["30:12:1"]["inputs"]["seed"] == 8
    graph.set_values(loaded, ["Draw dimmed.my_seed=9"])
    assert loaded.prompt["30:12:1"]["inputs"]["seed"] == 9 and ui_node(loaded.ui, 30)["widgets_values"] == [9]


def with_picture(kind="LoadImage"):
    workflow = ui()
    ui_node(workflow, 1)["inputs"] = [slot("image", "IMAGE", 5)]
    outputs = [{"name": "IMAGE", "type": "IMAGE"}, {"name": "MASK", "type": "MASK"}]
    workflow["nodes"].append({"id": 6, "type": kind, "title": "Mine", "outputs": outputs, "widgets_values": ["cat", "image"]})
    workflow["links"].append([5, 6, 0, 1, 0, "IMAGE"])
    return workflow


@node({"required": {"picture": (["cat", "dog"],)}}, ("IMAGE", "MASK"))
def Example(picture):
    raise AssertionError("a person's own picture stands in its place")


@pytest.mark.parametrize("kind", ["LoadImage", "Example"])
@pytest.mark.parametrize("setting", ["6={}", "Mine={}", "{}"])
def test_a_persons_own_picture_takes_the_place_of_an_examples(tmp_path, monkeypatch, kind, setting):
    from PIL import Image

    (tmp_path / "my pictures").mkdir()
    mine = tmp_path / "my pictures" / "a=b.png"
    Image.new("RGB", (4, 4), (102, 102, 102)).save(mine)
    (tmp_path / "w.json").write_text(json.dumps(with_picture(kind)))
    monkeypatch.chdir(tmp_path / "my pictures")
    lines, nodes = [], NODES | {"Example": Example}
    options = dict(nodes=nodes, out=tmp_path / "out", echo=lines.append, images=[setting.format("a=b.png")])
    assert graph.run_command(tmp_path / "w.json", **options) == 0, lines
    assert "[1/4] Mine (node 6)" in lines
    saved = Image.open(tmp_path / "out/out/cat_00001_.png")
    assert saved.getpixel((0, 0))[0] == int(255 * 0.4 / 4)
    (embedded,) = [n for n in json.loads(saved.text["workflow"])["nodes"] if n["id"] == 6]
    assert (embedded["type"], embedded["widgets_values"]) == ("LoadImage", [str(mine), "image"])


@pytest.mark.parametrize(
    "setting, words",
    [
        ("6=none.png", 'there is no picture "none.png" in '),
        ("1=w.json", 'NODE is one of the nodes that give a picture: node 6 "Mine" (LoadImage)'),
        ("nobody=w.json", "write it as NODE=FILE"),
    ],
)
def test_a_picture_that_is_not_there_or_a_node_that_takes_none_is_named(tmp_path, setting, words):
    (tmp_path / "w.json").write_text(json.dumps(with_picture()))
    lines = []
    assert graph.run_command(tmp_path / "w.json", nodes=NODES, echo=lines.append, images=[setting]) == 2
    assert lines[-1].startswith(f"  - --image {setting}: ") and words in lines[-1]


# --- what is told


def test_each_thing_is_told_once_by_the_names_that_the_canvas_shows(tmp_path):
    import logging

    @node({"required": {}}, ("STRING",), output=True)
    def Speak():
        logging.getLogger("wegen.runtime").warning("mind the step")
        return {"ui": {"text": ["a cat", "Note: mind the step"]}, "result": ("a cat",)}

    prompt = {
        "1": {"class_type": "Speak", "inputs": {}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}, "_meta": {"title": "What is on it"}},
    }
    (tmp_path / "w.json").write_text(json.dumps(prompt))
    lines = []
    options = dict(nodes={"Speak": Speak}, out=tmp_path, echo=lines.append, names={"Speak": "WeGen Speak"})
    assert graph.run_command(tmp_path / "w.json", **options) == 0
    assert lines == ["[1/2] WeGen Speak (node 1)", "note: mind the step", "[2/2] What is on it (node 2)", "What is on it (node 2): a cat"]
