"""`wegen run`: running a workflow, and the command."""

import json
import os

import pytest
import torch
from PIL import Image
from wegen.tests.workflow.nodes import CALLS, NODES, api, called, no_calls, node, pixel, ui  # noqa: F401
from wegen.wegen_model import workflow as graph
from wegen.wegen_model.runtime import Cancelled

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
    assert lines[-1] == f"Save Image (node 3): {os.path.join(tmp_path, 'out', 'out', 'cat_00001_.png')}"
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


@pytest.mark.parametrize(
    "stop, code, words", [(ValueError("the disk is full"), 1, "the disk is full"), (KeyboardInterrupt(), 130, "cancelled")]
)
def test_what_was_saved_before_the_end_is_told(tmp_path, stop, code, words):
    def fail():
        raise stop

    nodes = NODES | {"Stop": node({"required": {}}, ("IMAGE",))(fail)}
    prompt = api() | {
        "4": {"class_type": "Stop", "inputs": {}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "never"}},
    }
    (tmp_path / "w.json").write_text(json.dumps(prompt))
    lines = []
    assert graph.run_command(tmp_path / "w.json", nodes=nodes, out=tmp_path / "out", echo=lines.append) == code
    assert lines[-2] == f"Save Image (node 3): {os.path.join(tmp_path, 'out', 'out', 'cat_00001_.png')}"
    assert lines[-1].startswith(words) and (tmp_path / "out/out/cat_00001_.png").is_file()
