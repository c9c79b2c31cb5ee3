"""Reading a workflow file: JSON in API format, JSON as the canvas saves it ("UI format"), or a PNG with either inside."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ..fileio import MAX_BYTES, JSONError, parse_json
from ..images import PNG_SIGNATURE
from .canvas import Canvas
from .png import prompt_from_png
from .spec import GraphError, NodeClass, Workflow
from .standins import STANDINS


def load_workflow(source: str | Path | dict, nodes: dict[str, NodeClass]) -> Workflow:
    """Read a workflow.

    Args:
        source: a .json file in either format, a .png with a workflow inside, or the parsed JSON.
        nodes: {class type: V1 node class} of the pack; the stand-ins are added. UI format stores widget values by position,
            so the classes say which value is whose.

    Raises:
        GraphError: the file cannot be read, is not JSON, or is no workflow.
    """
    path = None if isinstance(source, dict) else Path(source)
    data = copy.deepcopy(source) if isinstance(source, dict) else _read(Path(source))
    name = str(path) if path else "the workflow"
    prompt, ui = _parts(data, name)
    workflow = Workflow(prompt or {}, ui, path, {**STANDINS, **nodes})
    if ui is not None:
        try:
            canvas = Canvas(ui, workflow.table)
        except GraphError as error:
            raise GraphError([f"{name}: {problem}" for problem in error.problems]) from error
        except RecursionError as error:
            raise GraphError(f"{name}: its links run through too many reroutes or subgraphs; connect the nodes directly") from error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise GraphError(f"{name}: its nodes and links are not as ComfyUI writes them ({error!r}); save it again in ComfyUI") from error
        workflow.cells, workflow.primitives, workflow.subgraphs = canvas.cells, canvas.primitives, canvas.subgraphs
        if prompt is None:
            workflow.prompt, workflow.problems = canvas.prompt, canvas.problems
            workflow.dynamic, workflow.passed_over = canvas.dynamic, canvas.passed_over
    return workflow


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise GraphError(f"{path}: there is no such file; give the path of a workflow JSON") from error
    except OSError as error:
        raise GraphError(f"{path}: cannot be read ({error.strerror or error}); give the path of a workflow JSON") from error
    if raw.startswith(PNG_SIGNATURE):
        return prompt_from_png(path)
    try:
        return parse_json(raw, str(path), lenient=True)
    except JSONError as error:
        raise GraphError(f"{error}; save the workflow again in ComfyUI with Export or Export (API)") from error


def _parts(data: Any, name: str) -> tuple[dict | None, dict | None]:
    """(prompt, ui) of parsed JSON, either None. Also takes the pair that a PNG holds, and the body of a POST to /prompt."""
    if isinstance(data, dict):
        if isinstance(data.get("nodes"), list):
            return None, data
        if _is_prompt(data):
            return data, None
        inner = data.get("prompt", data.get("output"))
        ui = data.get("workflow")
        if ui is None and isinstance(data.get("extra_data"), dict):
            ui = (data["extra_data"].get("extra_pnginfo") or {}).get("workflow")
        prompt = inner if isinstance(inner, dict) and _is_prompt(inner) else None
        ui = ui if isinstance(ui, dict) and isinstance(ui.get("nodes"), list) else None
        if prompt is not None or ui is not None:
            return prompt, ui
    raise GraphError(
        f'{name}: is JSON, but no ComfyUI workflow: neither nodes with "class_type" (API format) nor a "nodes" list (UI format); '
        "save it in ComfyUI with Export or Export (API)"
    )


def _is_prompt(data: dict) -> bool:
    return any(isinstance(node, dict) and "class_type" in node for node in data.values())
