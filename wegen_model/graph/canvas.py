"""UI format to API format: what ComfyUI's frontend does between the canvas and the queue.

Widget values lie by position in `widgets_values`, in the order of INPUT_TYPES; behind a seed-like INT lies its `control_after_generate`; a widget
turned into an input keeps its place. Reroute, PrimitiveNode and notes exist on the canvas only; muted nodes (mode 2) are left out with the links
from them, bypassed ones (mode 4) pass on the first input of a fitting type; a subgraph's nodes get ids such as "12:3".
Source: the behaviour of Comfy-Org/ComfyUI_frontend (graphToPrompt and the executable node's resolution of inputs and outputs).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .spec import Cell, inputs_of, name_node

MUTED, BYPASSED = 2, 4
NOTES = {"Note", "MarkdownNote"}
CANVAS_ONLY = NOTES | {"Reroute", "PrimitiveNode"}
CONTROL_VALUES = ("fixed", "increment", "decrement", "randomize", "increment-wrap")
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")


class Link(NamedTuple):
    origin: str
    origin_slot: int
    target: str
    target_slot: int


class Source(NamedTuple):
    """What an input gets: a link, a value with its cell, or (dropped) a link from a muted node."""

    link: list | None = None
    value: Any = None
    cell: Cell | None = None
    dropped: bool = False


class Scope:
    """One graph: the root, or one use of a subgraph."""

    def __init__(self, graph: dict, prefix: str = "", parent: Scope | None = None, host: dict | None = None):
        self.graph, self.prefix, self.parent, self.host = graph, prefix, parent, host
        self.nodes = {str(node["id"]): node for node in graph.get("nodes") or [] if isinstance(node, dict) and "id" in node}
        links = graph.get("links") or []
        self.links = dict(_read_link(link) for link in (links.values() if isinstance(links, dict) else links) if link)
        self.children: dict[str, Scope] = {}
        self.input_id = str((graph.get("inputNode") or {}).get("id", -10))
        self.output_id = str((graph.get("outputNode") or {}).get("id", -20))

    def node_id(self, node: dict) -> str:
        return f"{self.prefix}{node['id']}"


def _read_link(link: list | dict) -> tuple[Any, Link]:
    if isinstance(link, dict):
        return link.get("id"), Link(str(link.get("origin_id")), int(link.get("origin_slot") or 0), str(link.get("target_id")), int(link.get("target_slot") or 0))
    return link[0], Link(str(link[1]), int(link[2] or 0), str(link[3]), int(link[4] or 0))


def read_widgets(node: dict, node_class: type) -> dict[str, tuple[Any, Cell]]:
    """{widget: (value, cell)} of a UI node, by its class's inputs."""
    values, named = node.get("widgets_values"), node.get("widgets_values_named")
    named = values if isinstance(values, dict) else named if isinstance(named, dict) else {}
    row = values if isinstance(values, list) else []
    declared = list(inputs_of(node_class).values())
    drawn = {(slot.get("widget") or {}).get("name") for slot in node.get("inputs") or []}
    last_required = max((i for i, entry in enumerate(declared) if entry.required), default=-1)
    upload = any(entry.options.get(key) for entry in declared for key in UPLOADS)
    found, defaults = {}, []

    def skip(expected: tuple, fallback: Any) -> None:  # a value of the frontend's own, which hand-made files may lack
        if len(defaults) >= len(row) or row[len(defaults)] in expected:
            defaults.append(fallback)

    for i, entry in enumerate(declared):
        if entry.is_widget or entry.name in drawn:
            index = len(defaults)
            defaults.append(entry.default)
            value = named.get(entry.name, row[index] if index < len(row) else None)
            found[entry.name] = (entry.default if value is None else value, Cell(node, entry.name, index, defaults))
            if entry.has_control:
                skip(CONTROL_VALUES, "fixed")
                if entry.choices is not None:
                    skip(("",), "")
        if upload and i == last_required:
            skip(("image", "video", "audio", "upload", "", None), "image")
    return found


class Canvas:
    """The API format of a UI workflow, with the place of each value in it.

    `prompt`, `cells`, `primitives`, `problems`: as in Workflow. Nodes that `table` lacks keep their links only.
    """

    def __init__(self, ui: dict, table: dict[str, type]):
        self.table = table
        definitions = (ui.get("definitions") or {}).get("subgraphs") or []
        self.definitions = {str(graph.get("id")): graph for graph in definitions if isinstance(graph, dict)}
        self.prompt: dict[str, dict] = {}
        self.cells: dict[tuple[str, str], Cell] = {}
        self.primitives: dict[str, dict] = {}
        self.problems: list[str] = []
        self._walk(Scope(ui), ())
        for node in self.prompt.values():
            node["inputs"] = {k: v for k, v in node["inputs"].items() if not isinstance(v, list) or v[0] in self.prompt}

    def _walk(self, scope: Scope, inside: tuple[str, ...]) -> None:
        scopes = []
        for node in scope.nodes.values():  # children first: links may lead into any of them
            kind = str(node.get("type"))
            if kind in self.definitions and node.get("mode") not in (MUTED, BYPASSED):
                if kind in inside:
                    self.problems.append(f"{self._label(scope, node)}: this subgraph contains itself; remove the inner use of it")
                    continue
                child = Scope(self.definitions[kind], f"{scope.node_id(node)}:", scope, node)
                scope.children[str(node["id"])] = child
                scopes.append((child, (*inside, kind)))
        if scopes and scope.parent is None or not inside:
            self._open(scopes)
            self._emit_all(scope)

    def _label(self, scope: Scope, node: dict) -> str:
        kind = str(node.get("type"))
        kind = str(self.definitions[kind].get("name") or "subgraph") if kind in self.definitions else kind
        return name_node(scope.node_id(node), str(node.get("title") or kind), kind)
