"""Calling a V1 node class as ComfyUI's 0.3.64 execution.py does, to check it or to run it.

Every value travels as a list: a node is called once per element (shorter lists repeat their last) unless INPUT_IS_LIST; OUTPUT_IS_LIST joins
lists. Hidden inputs are what the host hands to the node.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from .spec import FOLDERS, Folders, Workflow


def hidden_values(hidden: dict[str, str], node_id: str, workflow: Workflow, folders: Folders) -> dict[str, list]:
    """{argument: [value]} for hidden inputs {argument: kind}; None for a kind that only ComfyUI has."""
    extra = None if workflow.ui is None else {"workflow": workflow.ui}
    known = {"PROMPT": workflow.prompt, "EXTRA_PNGINFO": extra, "UNIQUE_ID": node_id, FOLDERS: folders}
    return {name: [known.get(kind)] for name, kind in hidden.items()}


def map_over_lists(target: Any, function: str, data: dict[str, Any]) -> list:
    """Call `target.function` once per element of the longest list, or once with whole lists under INPUT_IS_LIST."""
    method = getattr(target, function)

    def call(arguments: dict) -> Any:
        result = method(**arguments)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    if getattr(target, "INPUT_IS_LIST", False):
        return [call({name: list(values) for name, values in data.items()})]
    empty = [name for name, values in data.items() if len(values) == 0]
    if empty:
        raise ValueError(f"input {empty[0]} received an empty list; let the node before it give at least one value")
    length = max((len(values) for values in data.values()), default=1)
    return [call({name: values[min(i, len(values) - 1)] for name, values in data.items()}) for i in range(length)]


def call_node(node: Any, data: dict[str, Any]) -> tuple[list[list], dict[str, list]]:
    """(outputs, each a list; what the node shows: {"images" | "text" | …: list})."""
    results: list[Any] = []
    shown: dict[str, list] = {}
    for returned in map_over_lists(node, node.FUNCTION, data):
        if isinstance(returned, dict):
            if "expand" in returned:
                raise NotImplementedError("this node builds a graph of its own while running; run the workflow in ComfyUI")
            for key, values in (returned.get("ui") or {}).items():
                shown.setdefault(key, []).extend(values)
            returned = returned.get("result")
        if returned is not None:
            results.append(returned)
    count = len(node.RETURN_TYPES)
    for returned in results:
        if not isinstance(returned, list | tuple) or len(returned) < count:
            raise TypeError(f"the node returned {type(returned).__name__}, not a tuple of its {count} outputs")
    joins = getattr(node, "OUTPUT_IS_LIST", None) or (False,) * count
    outputs = [[value for returned in results for value in (returned[i] if joins[i] else (returned[i],))] for i in range(count)]
    return outputs, shown
