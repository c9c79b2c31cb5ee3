"""Whether an output node of ours runs although all that follows was refused: the rule, and ComfyUI's own queue as it is asked."""

import sys
import types

import pytest
from wegen.nodes import host
from wegen.nodes.host import later

# model -> chat -> draw -> decode -> save; draw -> second chat -> shown
PROMPT = {
    "1": {"class_type": "WeGenLoadModel", "inputs": {"model": "wegen-mini"}},
    "2": {"class_type": "WeGenChat", "inputs": {"model": ["1", 0], "message": "a fox"}},
    "3": {"class_type": "WeGenDraw", "inputs": {"model": ["1", 0], "chat": ["2", 0]}},
    "4": {"class_type": "WeGenDecode", "inputs": {"features": ["3", 0]}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}, "_meta": {"title": "My picture"}},
    "6": {"class_type": "WeGenChat", "inputs": {"model": ["1", 0], "chat": ["3", 1], "message": "what is it?"}},
}
OUTPUTS = {"2", "5", "6"}


@pytest.mark.parametrize(
    "node, good, chosen, wanted",
    [
        ("2", {"2", "5", "6"}, None, []),
        ("2", {"2", "6"}, None, []),  # the second chat still answers
        ("2", {"2"}, None, ["5", "6"]),
        ("6", {"2", "6"}, None, []),  # nothing follows it
        ("2", {"2"}, {"2"}, []),  # "run to here": the rest was not asked for
        ("2", {"2"}, {"2", "5"}, ["5"]),
        ("1", {"2"}, None, ["5", "6"]),
    ],
)
def test_a_node_is_in_vain_where_no_output_after_it_can_run(node, good, chosen, wanted):
    assert later.lost(PROMPT, node, OUTPUTS, good, chosen) == wanted


def test_a_loop_in_the_prompt_ends():
    assert later.followers({"a": {"inputs": {"x": ["b", 0]}}, "b": {"inputs": {"x": ["a", 0]}}}, "a") == {"a", "b"}


@pytest.mark.parametrize("good, chosen, refused", [(["2"], None, True), (["2", "5"], None, False), (["2"], ["2"], False)])
def test_chat_refuses_before_it_works_and_names_what_cannot_run(monkeypatch, good, chosen, refused):
    request = {"prompt": PROMPT, "extra_data": {}} | ({"partial_execution_targets": chosen} if chosen else {})
    extra = later.note_chosen(request)["extra_data"]
    queue = types.SimpleNamespace(currently_running={0: (0, "id", {k: v for k, v in PROMPT.items() if k != "6"}, extra, good)})
    server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=types.SimpleNamespace(prompt_queue=queue)))
    output = type("Output", (), {"OUTPUT_NODE": True})
    monkeypatch.setitem(sys.modules, "server", server)
    monkeypatch.setitem(sys.modules, "nodes", types.SimpleNamespace(NODE_CLASS_MAPPINGS={"WeGenChat": output, "SaveImage": output}))
    monkeypatch.setattr(later, "inside_comfyui", lambda: True)
    monkeypatch.setattr(later, "executing_node", lambda: "2")
    if not refused:
        return host.check_later()
    with pytest.raises(ValueError, match=r"nothing that follows can run: My picture \(#5\)"):
        host.check_later()
