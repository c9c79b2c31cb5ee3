"""Checking a whole graph before anything runs, by the rules of ComfyUI's server (0.3.64 execution.py, validate_prompt and validate_inputs).

The server drops an output that fails and runs the others; here every problem is reported together and nothing runs.
As there, a node that no output needs is not looked into, but must be known.
"""

from __future__ import annotations

import difflib
import inspect
import math
from pathlib import Path
from typing import Any

from .call import hidden_values, map_over_lists
from .spec import (
    FALSE,
    TRUE,
    Folders,
    ForeignNodesError,
    GraphError,
    Input,
    NodeClass,
    Workflow,
    hidden_of,
    inputs_of,
    is_link,
    links_of,
    types_match,
)
from .standins import STANDINS
from .virtual import is_group

SHOWN_CHOICES = 20


def check(workflow: Workflow, nodes: dict[str, NodeClass], *, input_dir: str | Path | None = None, only: list[str] | None = None) -> None:
    """Raise GraphError (ForeignNodesError where a node is foreign) with all problems. Converts values to their declared types, in place.

    Args:
        nodes: the pack's {class type: node class}.
        input_dir: where Load Image looks, besides the workflow's own folder.
        only: ids of the output nodes to look at; None takes all.
    """
    raise_problems(*find_problems(workflow, {**STANDINS, **nodes}, folders_of(workflow, input_dir), only))


def folders_of(workflow: Workflow, input_dir: str | Path | None, out_dir: str | Path | None = None) -> Folders:
    """A given input folder comes before the workflow's own."""
    return Folders(
        tuple(Path(folder) for folder in (input_dir, workflow.folder) if folder is not None) or (Path("."),), Path(out_dir or ".")
    )


def raise_problems(problems: list[str], foreign: list[str]) -> None:
    if foreign:
        raise ForeignNodesError(foreign + problems)
    if problems:
        raise GraphError(problems)


def find_problems(
    workflow: Workflow, table: dict[str, NodeClass], folders: Folders, only: list[str] | None = None
) -> tuple[list[str], list[str]]:
    """(problems, foreign nodes), one line each."""
    problems, foreign, known = list(dict.fromkeys(workflow.problems)), [], {}
    for node_id, node in workflow.prompt.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str) or not isinstance(node.setdefault("inputs", {}), dict):
            problems.append(f'node {node_id}: has no proper "class_type" and "inputs"; export the workflow again from ComfyUI')
        elif node["class_type"] not in table:
            foreign.append(f"{workflow.label(node_id)}: {_foreign_advice(node['class_type'], table)}")
        else:
            known[node_id] = node
    outputs = output_nodes(known, table)
    for node_id in only or []:
        if node_id not in outputs:
            problems.append(f"node {node_id}: is not an output node of this workflow; its outputs are {', '.join(outputs) or 'none'}")
    outputs = outputs if only is None else [node_id for node_id in outputs if node_id in only]
    if not outputs and not foreign and only is None:
        problems.append("the workflow has no output: add a Save Image, a Preview Image or another node that saves or shows something")
    order, circle = needed_nodes(known, outputs)
    if circle:
        names = " -> ".join(workflow.label(node_id) for node_id in circle)
        problems.append(f"the links run in a circle: {names}; remove one of these links")
    for node_id in order:
        problems += [f"{workflow.label(node_id)}{text}" for text in _node_problems(workflow, node_id, table, folders)]
    return problems, foreign


def output_nodes(prompt: dict[str, dict], table: dict[str, NodeClass]) -> list[str]:
    return [node_id for node_id, node in prompt.items() if getattr(table[node["class_type"]], "OUTPUT_NODE", False) is True]


def needed_nodes(prompt: dict[str, dict], outputs: list[str]) -> tuple[list[str], list[str]]:
    """(every node that the outputs need, sources first; the ids of a circle among them, or nothing)."""
    order: list[str] = []
    circle: list[str] = []
    state: dict[str, str] = {}
    for output in outputs:
        path = [(output, iter(links_of(prompt[output]).values()))] if output not in state else []
        state.setdefault(output, "open")
        while path:
            node_id, links = path[-1]
            origin = next((link[0] for link in links if link[0] in prompt and state.get(link[0]) != "done"), None)
            if origin is None:
                state[node_id] = "done"
                order.append(node_id)
                path.pop()
            elif state.get(origin) == "open":
                ids = [step for step, _ in path]
                circle = circle or [*ids[ids.index(origin) :], origin][::-1]
            else:
                state[origin] = "open"
                path.append((origin, iter(links_of(prompt[origin]).values())))
    return order, circle


def _foreign_advice(class_type: str, table: dict[str, NodeClass]) -> str:
    if is_group(class_type):
        return "is a group node of the old kind; in ComfyUI turn it into a subgraph or ungroup it, and save the workflow again"
    close = difflib.get_close_matches(class_type, table, 1, 0.75)
    advice = f" (is {close[0]} meant?)" if close else ""
    return (
        f"is not a node of this pack{advice}, and `wegen run` brings only image loading, saving, preview and primitives; "
        "run this workflow in ComfyUI, or take the node out"
    )


def _node_problems(workflow: Workflow, node_id: str, table: dict[str, NodeClass], folders: Folders) -> list[str]:
    """Texts to put behind the node's name."""
    node = workflow.prompt[node_id]
    node_class, inputs, problems, received = table[node["class_type"]], node["inputs"], [], {}
    try:
        declared = inputs_of(node_class)
        validator = getattr(node_class, "VALIDATE_INPUTS", None)
        spec = inspect.getfullargspec(validator) if validator else None
    except Exception as error:  # noqa: BLE001 - a node's own code; ours to report, not to die of
        return [f": cannot tell its inputs ({type(error).__name__}: {error})"]
    arguments, takes_all = (spec.args, spec.varkw is not None) if spec else ([], False)
    for entry in declared.values():
        if entry.name not in inputs:
            if entry.required:
                remedy = f"set it (--set {node_id}.{entry.name}=VALUE)" if entry.is_widget else f"connect an output of type {entry.type}"
                problems.append(f", input {entry.name}: is missing; {remedy}")
            continue
        value = inputs[entry.name]
        if isinstance(value, list):
            text, kind = _check_link(workflow, entry, value, table, "input_types" in arguments)
            if kind is not None:
                received[entry.name] = kind
        else:
            text = _check_value(node_id, entry, inputs, takes_all or entry.name in arguments)
        problems += [f", input {entry.name}: {text}"] if text else []
    function = inspect.signature(getattr(node_class, node_class.FUNCTION)).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in function.values()):
        extra = [name for name in links_of(node) if name not in declared and name not in function]
        problems += [f", input {name}: this node has no such input; remove the link or update the pack" for name in extra]
    if arguments or takes_all:
        problems += _custom(node_class, node_id, workflow, folders, arguments, takes_all, received)
    return problems


def _check_link(workflow: Workflow, entry: Input, link: list, table: dict[str, NodeClass], judged_by_node: bool) -> tuple[str | None, Any]:
    """(problem, type received)."""
    if not is_link(link):
        return f'has a bad link {link}; a link is [node id as text, output slot], a list as value is {{"__value__": [...]}}', None
    origin = workflow.prompt.get(link[0])
    if origin is None:
        return f"comes from node {link[0]}, which the workflow does not have; connect it again", None
    if not isinstance(origin, dict) or origin.get("class_type") not in table:
        return None, None
    returns = table[origin["class_type"]].RETURN_TYPES
    if not 0 <= link[1] < len(returns):
        return f"comes from output {link[1]} of {workflow.label(link[0])}, which has {len(returns)}; connect it again", None
    kind = returns[link[1]]
    if not judged_by_node and not types_match(kind, entry.type):
        wanted = "one of its choices" if entry.choices is not None else entry.type
        return f"takes {wanted}, but {workflow.label(link[0])} gives {kind}; connect an output of type {wanted}", kind
    return None, kind


def _check_value(node_id: str, entry: Input, inputs: dict, judged_by_node: bool) -> str | None:
    value = inputs[entry.name]
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[entry.name] = value["__value__"]
    convert = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(entry.type) if isinstance(entry.type, str) else None
    remedy = f"--set {node_id}.{entry.name}=VALUE"
    if convert is bool and isinstance(value, str):  # the server takes every text for true, "false" too
        if value.strip().lower() not in TRUE + FALSE:
            return f"{value!r} is neither true nor false; set one of the two ({remedy})"
        value = value.strip().lower() in TRUE
    if convert is not None:
        try:
            value = inputs[entry.name] = convert(value)
        except (TypeError, ValueError, OverflowError):
            return f"{value!r} is not of type {entry.type}; set another value ({remedy})"
    if isinstance(value, float) and not math.isfinite(value):  # the server lets them pass: no comparison with a range catches them all
        return f"{value} is not a finite number; set another value ({remedy})"
    if judged_by_node:
        return None
    low, high = entry.options.get("min"), entry.options.get("max")
    try:
        if low is not None and value < low:
            return f"{value} is smaller than the minimum {low}; set {_range(low, high)} ({remedy})"
        if high is not None and value > high:
            return f"{value} is larger than the maximum {high}; set {_range(low, high)} ({remedy})"
    except TypeError:
        return f"{value!r} cannot be compared with its range; set {_range(low, high)} ({remedy})"
    if entry.choices is not None and value not in entry.choices:
        return f"{value!r} is not among its choices: {list_choices(entry.choices, value)} ({remedy})"
    return None


def _range(low: Any, high: Any) -> str:
    return f"{low} to {high}" if None not in (low, high) else f"{low} or more" if high is None else f"{high} or less"


def list_choices(choices: list, value: Any = None) -> str:
    """The choices in words; of a long list the nearest ones."""
    if not choices:
        return "there are none, as nothing to choose from is installed"
    if len(choices) <= SHOWN_CHOICES:
        return ", ".join(map(str, choices))
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], 5, 0.3) or [str(choice) for choice in choices[:5]]
    return f"{', '.join(near)} and {len(choices) - len(near)} more"


def _custom(
    node_class: NodeClass, node_id: str, workflow: Workflow, folders: Folders, arguments: list[str], takes_all: bool, received: dict
) -> list[str]:
    """What the node's own VALIDATE_INPUTS says. Linked inputs are None there, as on the server."""
    inputs = workflow.prompt[node_id]["inputs"]
    declared, hidden = inputs_of(node_class), hidden_of(node_class)
    data = {
        name: (None,) if is_link(value) else [value]
        for name, value in inputs.items()
        if is_link(value) or name in declared or name in hidden
    }
    data |= hidden_values(hidden, node_id, workflow, folders)
    data = {name: value for name, value in data.items() if takes_all or name in arguments}
    if "input_types" in arguments:
        data["input_types"] = [received]
    try:
        results = map_over_lists(node_class, "VALIDATE_INPUTS", data)
    except Exception as error:  # noqa: BLE001 - the node's own code
        return [f": its check of the inputs failed ({type(error).__name__}: {error}); correct its inputs"]
    names = [name for name in data if name in declared]
    where = f", input {names[0]}" if len(names) == 1 else ""
    texts = dict.fromkeys(
        f"{where}: {result if result is not False else 'refused by the node'}" for result in results if result is not True
    )
    return list(texts) if data else []
