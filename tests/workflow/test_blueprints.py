"""The subgraph blueprints: put into a graph, each gives what the flat workflow of the same name gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wegen.nodes import NODE_CLASS_MAPPINGS
from wegen.wegen_model import workflow as graph

ROOT = Path(__file__).parents[2]
INSIDE = {"WeGenChat", "WeGenDraw", "WeGenDecode"}
SAMPLING = {"KSampler", "VAEDecode"}  # ComfyUI's own: tests/comfyui/test_pack.py runs what holds them
INNER = {"WeGenDecoderToModel", "WeGenFeaturesToConditioning", "WeGenOriginalToLatent", "WeGenKeepOriginal", *SAMPLING}
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


def placed(path: Path, image: str | None) -> dict:
    """A blueprint in a graph with a loader, a picture and Save Image, wired as a person would."""
    data = json.loads(path.read_text())
    (box,) = data["nodes"]
    around = [("WeGenLoadModel", "model", ["wegen-mini", "default"], "WEGEN_MODEL"), ("WeGenExamplePicture", "image", [image], "IMAGE")]
    for kind, name, values, socket in around[: 1 + (image is not None)]:
        number, slot = len(data["nodes"]) + 1, [i["name"] for i in box["inputs"]].index(name)
        link = len(data["links"]) + 1
        outputs = [{"name": name, "type": socket, "links": [link]}]
        data["nodes"].append({"id": number, "type": kind, "widgets_values": values, "outputs": outputs})
        data["links"].append([link, number, 0, box["id"], slot, socket])
        box["inputs"][slot]["link"] = link
    data["links"].append([9, box["id"], 0, 9, 0, "IMAGE"])
    inputs = [{"name": "images", "type": "IMAGE", "link": 9}]
    data["nodes"].append({"id": 9, "type": "SaveImage", "widgets_values": ["x"], "inputs": inputs})
    return data


def first_picture(workflow, folder: Path) -> np.ndarray:
    saved = graph.run(graph.load_workflow(workflow, NODE_CLASS_MAPPINGS), NODE_CLASS_MAPPINGS, out_dir=folder)
    return np.array(Image.open(next(s.path for s in saved if s.kind == "image" and s.path.parent.name != "preview")))


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda p: p.stem)
def test_a_blueprint_is_one_described_box(path):
    data = json.loads(path.read_text())
    (box,), (inside,) = data["nodes"], data["definitions"]["subgraphs"]
    assert box["type"] == inside["id"] and inside["name"] == path.stem and len(inside["description"]) > 20
    assert {n["type"] for n in inside["nodes"]} <= set(NODE_CLASS_MAPPINGS) | SAMPLING
    for node in inside["nodes"]:  # the slots are the node's own
        if node["type"] in SAMPLING:
            continue
        declared = {i.name: i for i in graph.spec.inputs_of(NODE_CLASS_MAPPINGS[node["type"]]).values()}
        assert {i["name"] for i in node["inputs"]} == set(declared)


def test_there_are_three():
    assert [path.stem for path in BLUEPRINTS] == ["WeGen KSampler keeps the rest", "WeGen change a picture", "WeGen text to picture"]


def test_ksampler_in_one_box_is_wired_as_the_flat_workflow():
    """Node by node, the same inputs from the same outputs, where the box's own sockets do not come in."""

    def wired(nodes: list[dict], ends: dict[int, tuple[int, int]]) -> set[tuple]:
        types = {n["id"]: n["type"] for n in nodes}
        return {
            (n["type"], i["name"], types[ends[i["link"]][0]], ends[i["link"]][1])
            for n in nodes
            if n["type"] in INNER
            for i in n["inputs"]
            if i["link"] and ends[i["link"]][0] in types and types[ends[i["link"]][0]] in INNER
        }

    (inside,) = json.loads((ROOT / "subgraphs" / "WeGen KSampler keeps the rest.json").read_text())["definitions"]["subgraphs"]
    flat = json.loads((ROOT / "workflows" / "ksampler_keeps_the_rest.json").read_text())
    boxed = wired(inside["nodes"], {link["id"]: (link["origin_id"], link["origin_slot"]) for link in inside["links"]})
    assert boxed == wired(flat["nodes"], {link[0]: (link[1], link[2]) for link in flat["links"]}) and len(boxed) == 8


def test_text_to_picture_in_one_box(tmp_path):
    boxed = first_picture(placed(ROOT / "subgraphs" / "WeGen text to picture.json", None), tmp_path / "a")
    assert np.array_equal(boxed, first_picture(ROOT / "workflows" / "text_to_picture.json", tmp_path / "b"))


def test_a_change_in_one_box():
    """The same prompt as the first branch of the flat workflow: what the nodes are given, and which feeds which."""

    def given(workflow) -> dict[str, dict]:
        prompt, found = graph.load_workflow(workflow, NODE_CLASS_MAPPINGS).prompt, {}
        for node in prompt.values():
            linked = {k: [prompt[v[0]]["class_type"], v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()}
            found.setdefault(node["class_type"], linked)
        return {kind: inputs for kind, inputs in found.items() if kind in INSIDE}

    boxed = given(placed(ROOT / "subgraphs" / "WeGen change a picture.json", "fox_on_beige"))
    assert set(boxed) == INSIDE and boxed == given(ROOT / "workflows" / "edit_by_instruction.json")
