"""Small node classes in place of the pack's, and workflows of them, for the tests of `wegen run`."""

import numpy as np
import pytest
import torch
from PIL import Image
from wegen.wegen_model import workflow as graph

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
