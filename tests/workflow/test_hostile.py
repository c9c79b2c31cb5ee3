"""Workflows from strangers: structures that double, nest or loop, and values of other types, are refused in words and in time."""

import pytest
from wegen.wegen_model.workflow import GraphError, check, load_workflow, set_seed, set_values
from wegen.wegen_model.workflow.standins import next_place


def doubling(levels, inputs=False):
    """Subgraphs, each of which uses the next one twice."""
    graphs = []
    for i in range(levels):
        nodes = [{"id": k, "type": f"s{i + 1}" if i < levels - 1 else "PreviewAny"} for k in (1, 2)]
        graph = {"id": f"s{i}", "nodes": nodes, "links": []}
        if inputs:
            for node in nodes:
                node["inputs"] = [{"name": "x", "link": node["id"]}]
            graph |= {"inputs": [{"name": "q"}], "links": [[k, -10, 0, k, 0, "X"] for k in (1, 2)]}
        graphs.append(graph)
    return graphs


def test_forty_doublings_are_refused():
    ui = {"nodes": [{"id": 1, "type": "s0"}], "links": [], "definitions": {"subgraphs": doubling(40)}}
    with pytest.raises(GraphError, match="subgraphs unfold to more than 20000 nodes"):
        load_workflow(ui, {})


def test_forty_doublings_of_promoted_inputs_are_looked_through_once():
    graphs = doubling(40, inputs=True)
    graphs[0]["nodes"] = [{"id": 1, "type": "PreviewAny"}]
    host = {"id": 1, "type": "outer", "inputs": [{"name": "q"}]}
    outer = {
        "id": "outer",
        "inputs": [{"name": "q"}],
        "links": [[1, -10, 0, 1, 0, "X"]],
        "nodes": [
            {"id": 1, "type": "s1", "mode": 2, "inputs": [{"name": "x", "link": 1}]},
            {"id": 2, "type": "PreviewAny", "inputs": [{"name": "source", "link": 2}]},
        ],
    }
    outer["links"].append([2, -10, 0, 2, 0, "X"])
    load_workflow({"nodes": [host], "links": [], "definitions": {"subgraphs": [*graphs, outer]}}, {})  # ended after 2**40 looks before


@pytest.mark.parametrize("depth", [70, 3000])
def test_subgraphs_in_subgraphs_without_end_are_refused(depth):
    graphs = [{"id": f"s{i}", "nodes": [{"id": 1, "type": f"s{i + 1}"}], "links": []} for i in range(depth)]
    with pytest.raises(GraphError, match="more than 64 levels"):
        load_workflow({"nodes": [{"id": 1, "type": "s0"}], "links": [], "definitions": {"subgraphs": graphs}}, {})


def test_a_few_levels_are_fine():
    ui = {"nodes": [{"id": 1, "type": "s0"}], "links": [], "definitions": {"subgraphs": doubling(8)}}
    assert len(load_workflow(ui, {}).prompt) == 256


def test_a_chain_of_thousands_of_reroutes_is_refused():
    nodes = [{"id": i, "type": "Reroute", "inputs": [{"name": "", "link": i}]} for i in range(3000)]
    nodes.append({"id": 3000, "type": "PreviewAny", "inputs": [{"name": "source", "link": 3000}]})
    with pytest.raises(GraphError, match="too many reroutes"):
        load_workflow({"nodes": nodes, "links": [[i, i - 1, 0, i, 0, "*"] for i in range(3001)]}, {})


@pytest.mark.parametrize("inputs", [[1], None, "x", 5])
@pytest.mark.parametrize("linked", [False, True])
def test_inputs_that_are_no_object_are_told_by_node(inputs, linked):
    prompt = {
        "1": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0], "seed": ["2", 0]} if linked else inputs},
        "2": {"class_type": "PrimitiveInt", "inputs": inputs if linked else {"value": 3}},
    }
    workflow = load_workflow(prompt, {})
    set_seed(workflow, 7)
    with pytest.raises(GraphError):
        set_values(workflow, ["1.seed=3"])
    with pytest.raises(GraphError, match=f'node {1 + linked}: has no proper "class_type" and "inputs"'):
        check(workflow, {})


@pytest.mark.parametrize("kind", [5, ["a"], {}, None])
def test_class_types_that_are_no_text(kind):
    prompt = {"1": {"class_type": kind, "inputs": {}}, "2": {"class_type": "PreviewAny", "inputs": {"source": 1}}}
    with pytest.raises(GraphError, match="node 1: has no proper"):
        check(load_workflow(prompt, {}), {})


@pytest.mark.parametrize("prefix", ["C:x", "C:\\x", "\\\\host\\share\\x", "a:stream", "..\\x", "CON", "sub/aux.png", "a\0b"])
def test_prefixes_that_lead_elsewhere_on_windows(tmp_path, prefix):
    with pytest.raises(ValueError, match="filename_prefix"):
        next_place(tmp_path, prefix, windows=True)
    assert list(tmp_path.iterdir()) == []


def test_prefixes_that_windows_takes(tmp_path):
    assert next_place(tmp_path, "sub/my picture", windows=True)[1:] == ("my picture", 1)
