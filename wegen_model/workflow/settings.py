"""Changing widget values of a loaded workflow: `NODE.WIDGET=VALUE`, `--seed` and `--image NODE=FILE`.

A value is changed in the prompt, which runs, and in the UI workflow, which is embedded, so a saved PNG opens with what made it.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from .spec import FALSE, SEED_NAMES, TRUE, GraphError, Input, Workflow, inputs_of, is_link, values_of
from .validate import list_choices


def set_values(workflow: Workflow, settings: list[str]) -> None:
    """Apply `NODE.WIDGET=VALUE` settings.

    NODE is an id, a title, a display name or a class type, where unique, also of a subgraph on the canvas, for the widgets that it shows.
    VALUE is read by the widget's declared type.
    Raises GraphError with all settings that do not fit; then none is applied.
    """
    problems, changes = [], []
    for setting in settings:
        try:
            changes.append(_resolve(workflow, setting))
        except GraphError as error:
            problems += [f"--set {setting}: {problem}" for problem in error.problems]
    if problems:
        raise GraphError(problems)
    for targets, value in changes:
        for node_id, name in targets:
            _write(workflow, node_id, name, value)
            node_class = workflow.table.get(str(_all_nodes(workflow)[node_id].get("class_type")))
            shown = any((node_id, name) in places for use in workflow.subgraphs.values() for places in use.widgets.values())
            if node_class is not None and name in inputs_of(node_class) and inputs_of(node_class)[name].is_dynamic and not shown:
                workflow.dynamic.add((node_id, name))


def set_seed(workflow: Workflow, seed: int) -> int:
    """Set every seed and noise_seed, also one that a primitive feeds. Returns how many widgets were set."""
    targets: dict[tuple[str, str], None] = {}  # in order, each once
    for node_id, node in workflow.prompt.items():
        for name in SEED_NAMES:
            value = values_of(node).get(name)
            if is_link(value):
                origin = workflow.prompt.get(value[0])
                if isinstance(origin, dict) and origin.get("class_type") == "PrimitiveInt" and not is_link(values_of(origin).get("value")):
                    targets[value[0], "value"] = None
            elif value is not None:
                targets[node_id, name] = None
    for node_id, name in targets:
        _write(workflow, node_id, name, seed)
    return len(targets)


def _resolve(workflow: Workflow, setting: str) -> tuple[list[tuple[str, str]], Any]:
    """([(node id, input)], value) of a setting; several where a subgraph shows one widget for several of its nodes."""
    target, equals, text = setting.partition("=")
    if not equals or "." not in target:
        raise GraphError("write it as NODE.WIDGET=VALUE, for example 3.seed=7")
    candidates = [(target[:i], target[i + 1 :]) for i, letter in enumerate(target) if letter == "."]
    found = [(ids, name) for node, name in reversed(candidates) if (ids := _find(workflow, node.strip()))]
    if not found:
        node = candidates[-1][0]
        names = [_label(workflow, node_id) for node_id in (*_all_nodes(workflow), *workflow.subgraphs)]
        raise GraphError(f'there is no node "{node}"; the workflow has {"; ".join(names) or "no nodes"}')
    errors = []
    for ids, name in found:
        if len(ids) > 1:
            errors.append(f"several nodes go by this name ({'; '.join(_label(workflow, i) for i in ids)}); use the id")
            continue
        try:
            targets = _shown(workflow, ids[0], name.strip()) if ids[0] in workflow.subgraphs else [(ids[0], name.strip())]
            return targets, [_read(workflow, *target, text) for target in targets][0]
        except GraphError as error:
            errors += error.problems
    raise GraphError(errors[0])


def _all_nodes(workflow: Workflow) -> dict[str, dict]:
    return {node_id: node for node_id, node in {**workflow.prompt, **workflow.primitives}.items() if isinstance(node, dict)}


def _find(workflow: Workflow, name: str) -> list[str]:
    """Ids of the nodes called `name`: by id, else by title, else by display name or class type; then the same without regard to case."""
    kinds = {node_id: str(node.get("class_type", "")) for node_id, node in _all_nodes(workflow).items()}
    kinds |= {node_id: use.name for node_id, use in workflow.subgraphs.items()}
    titles = {node_id: workflow.title(node_id) for node_id in kinds} | {i: use.title for i, use in workflow.subgraphs.items()}
    if name in kinds:
        return [name]
    for fold in (str, str.casefold):
        for names in (titles, {node_id: workflow.names.get(kind, kind) for node_id, kind in kinds.items()}, kinds):
            ids = [node_id for node_id, one in names.items() if fold(one) == fold(name)]
            if ids:
                return ids
    return []


def _label(workflow: Workflow, node_id: str) -> str:
    use = workflow.subgraphs.get(node_id)
    return workflow.label(node_id) if use is None else f'node {node_id} "{use.title}" (subgraph)'


def _shown(workflow: Workflow, node_id: str, name: str) -> list[tuple[str, str]]:
    """The inner widgets that the subgraph in use shows as `name`."""
    shown = workflow.subgraphs[node_id].widgets
    if name not in shown:
        inside = [workflow.label(other) for other in _all_nodes(workflow) if other.startswith(f"{node_id}:")]
        raise GraphError(
            f'{_label(workflow, node_id)} shows no widget "{name}"; it shows {", ".join(shown) or "none"}; inside are {"; ".join(inside)}'
        )
    return shown[name]


def set_images(workflow: Workflow, images: list[str]) -> None:
    """Apply `NODE=FILE`: a person's own picture in place of an example's, or of the one that Load Image names.

    NODE is named as in `set_values`, and may be left out where the workflow has one such node. The node becomes a Load Image.
    Raises GraphError with all that do not fit; then none is applied.
    """
    problems, changes = [], []
    for setting in images:
        try:
            changes.append(_picture(workflow, setting))
        except GraphError as error:
            problems += [f"--image {setting}: {problem}" for problem in error.problems]
    if problems:
        raise GraphError(problems)
    for node_id, path in changes:
        cell = next((cell for (other, _), cell in workflow.cells.items() if other == node_id), None)
        node = workflow.prompt[node_id]
        title = workflow.title(node_id)
        node["_meta"] = {**(node.get("_meta") or {}), "title": "LoadImage" if title == node["class_type"] else title}
        node |= {"class_type": "LoadImage", "inputs": {"image": path}}
        if cell is not None:
            cell.node |= {"type": "LoadImage", "widgets_values": [path, "image"]}
            cell.node.pop("widgets_values_named", None)


def _picture(workflow: Workflow, setting: str) -> tuple[str, str]:
    """(node id, full path of the file)."""
    wanted = workflow.table["LoadImage"].RETURN_TYPES
    classes = {node_id: workflow.table.get(str(node.get("class_type"))) for node_id, node in workflow.prompt.items()}
    pictures = [
        node_id
        for node_id, node_class in classes.items()
        if node_class is not None
        and tuple(node_class.RETURN_TYPES) == wanted
        and all(entry.is_widget for entry in inputs_of(node_class).values())
    ]
    names = "; ".join(workflow.label(node_id) for node_id in pictures) or "none"
    node, equals, file = setting.partition("=")
    ids = _find(workflow, node.strip()) if equals else []
    if not ids and len(pictures) == 1 and (not equals or Path(setting).expanduser().is_file()):
        ids, file = pictures, setting
    if len(ids) != 1 or ids[0] not in pictures:
        raise GraphError(f"write it as NODE=FILE, where NODE is one of the nodes that give a picture: {names}")
    path = Path(file.strip()).expanduser()
    if not path.is_file():
        raise GraphError(f'there is no picture "{file.strip()}" in {Path.cwd()}; give the path of a picture file')
    return ids[0], str(path.resolve())


def _read(workflow: Workflow, node_id: str, name: str, text: str) -> Any:
    node = _all_nodes(workflow)[node_id]
    if node_id in workflow.primitives:
        if name != "value":
            raise GraphError(f'{workflow.label(node_id)} has no widget "{name}"; it has value')
        return _read_like(node["inputs"]["value"], text)
    node_class = workflow.table.get(str(node.get("class_type")))
    if node_class is None:
        raise GraphError(f"{workflow.label(node_id)} is not a node of this pack, so its widgets are not known; use ComfyUI to change it")
    declared = inputs_of(node_class)
    widgets = {
        key: entry for key, entry in declared.items() if entry.is_widget or (key in values_of(node) and not is_link(values_of(node)[key]))
    }
    if name not in widgets:
        close = difflib.get_close_matches(name, widgets, 1)
        hint = f" (is {close[0]} meant?)" if close else ""
        kind = (
            f" is an input of type {declared[name].type}, to be linked, not a widget"
            if name in declared
            else f' has no widget "{name}"{hint}'
        )
        raise GraphError(
            f"{workflow.label(node_id)}{', ' + name if name in declared else ''}{kind}; its widgets are {', '.join(widgets) or 'none'}"
        )
    link = values_of(node).get(name)
    if is_link(link):
        raise GraphError(
            f"{workflow.label(node_id)}, input {name}, gets its value from {workflow.label(link[0])}; set it there, or unlink it in ComfyUI"
        )
    try:
        return _parse(widgets[name], text)
    except ValueError as error:
        raise GraphError(f"{workflow.label(node_id)}, input {name}: {error}") from error


def _parse(entry: Input, text: str) -> Any:
    """Text by the widget's type. Raises ValueError with the remedy."""
    if entry.choices is not None:
        for choice in entry.choices:
            if str(choice) == text:
                return choice
        if entry.choices:
            raise ValueError(f'"{text}" is not among its choices: {list_choices(entry.choices, text)}')
        return text
    if entry.type == "INT":
        try:
            return int(text, 0) if text.strip().lower().lstrip("+-").startswith(("0x", "0b", "0o")) else int(text)
        except ValueError as error:
            raise ValueError(f'"{text}" is not a whole number; give one such as 7') from error
    if entry.type == "FLOAT":
        try:
            return float(text)
        except ValueError as error:
            raise ValueError(f'"{text}" is not a number; give one such as 0.5') from error
    if entry.type == "BOOLEAN":
        if text.strip().lower() in TRUE + FALSE:
            return text.strip().lower() in TRUE
        raise ValueError(f'"{text}" is neither true nor false; give one of the two')
    return text


def _read_like(value: Any, text: str) -> Any:
    """Text by the type of the value it replaces (a PrimitiveNode declares none)."""
    kind = "BOOLEAN" if isinstance(value, bool) else "INT" if isinstance(value, int) else "FLOAT" if isinstance(value, float) else "STRING"
    try:
        return _parse(Input("value", kind, True, {}), text)
    except ValueError as error:
        raise GraphError(f"value: {error}") from error


def _write(workflow: Workflow, node_id: str, name: str, value: Any) -> None:
    """Set a value in the prompt and the UI workflow, and everywhere else that shows the same place of the UI workflow."""
    nodes, cell = _all_nodes(workflow), workflow.cells.get((node_id, name))
    if not isinstance(nodes[node_id].setdefault("inputs", {}), dict):
        return  # `check` tells it
    nodes[node_id]["inputs"][name] = value
    if cell is None:
        return
    cell.set(value)
    for (other, key), shared in workflow.cells.items():
        if shared.key == cell.key and other in nodes and not is_link(values_of(nodes[other]).get(key)):
            nodes[other]["inputs"][key] = value
