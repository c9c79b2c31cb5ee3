"""`wegen run`: the check of a whole workflow before anything runs."""

import json

import pytest
from wegen.tests.workflow.nodes import NODES, api, called, no_calls, node, problems_of  # noqa: F401
from wegen.wegen_model import workflow as graph


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "nan", "-inf"])
def test_a_number_that_is_not_finite_is_refused(value):
    prompt = api()
    prompt["1"]["inputs"]["strength"] = value
    (problem,) = problems_of(prompt)
    assert problem.endswith(f"input strength: {float(value)} is not a finite number; set another value (--set 1.strength=VALUE)")


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
