"""A random model folder for the node tests, and `call`: a node's outputs and what it shows."""

import pytest
import torch
from wegen.nodes import NODE_CLASS_MAPPINGS
from wegen.tests.support import tiny_model


def call(node: str, **inputs):
    """(outputs, shown lines) of one node, as ComfyUI calls it."""
    cls = NODE_CLASS_MAPPINGS[node]
    with torch.inference_mode():
        answer = getattr(cls(), cls.FUNCTION)(**inputs)
    if isinstance(answer, tuple):
        return answer, []
    return answer["result"], answer.get("ui", {}).get("text", [])


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def model(folder):
    return call("WeGenLoadModel", model=str(folder))[0][0]


@pytest.fixture
def asked(model):
    """A conversation that opened a picture."""
    return call("WeGenChat", model=model, message="a cat", picture="always", max_tokens=4)[0][0]
