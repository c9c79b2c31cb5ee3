"""UI format to API format: what ComfyUI's frontend does between the canvas and the queue.

Widget values lie by position in `widgets_values`, in the order of INPUT_TYPES; behind a seed-like INT lies its `control_after_generate`; a
widget turned into an input keeps its place. Newer files repeat the values by name (`widgets_values_named`): positions hold, names fill in
where the row stops short. Some nodes exist on the canvas only (virtual.py); muted nodes (mode 2) are left out with the links from
them, bypassed ones (mode 4) pass on the first input of a fitting type; a subgraph's nodes get ids such as "12:3". An input whose link
brings nothing keeps its own value.
Source: the behaviour of Comfy-Org/ComfyUI_frontend (graphToPrompt and the executable node's resolution of inputs and outputs).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .spec import SEED_NAMES, Cell, GraphError, NodeClass, SubgraphUse, inputs_of, name_node
from .virtual import GETTERS, PASSING, PRIMITIVE, SETTERS, VIRTUAL, is_group, name_of_pair

MUTED, BYPASSED = 2, 4
MOST_NODES, MOST_DEPTH = 20_000, 64  # of a workflow with all its subgraphs unfolded; of subgraphs in subgraphs
CONTROL_VALUES = ("fixed", "increment", "decrement", "randomize", "increment-wrap")
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")


class Link(NamedTuple):
    origin: str
    origin_slot: int
    target: str
    target_slot: int


class Source(NamedTuple):
    """What an input gets: a link, or a value with its cell; with neither, its own value holds."""

    link: list | None = None
    value: Any = None
    cell: Cell | None = None
    shown_by: tuple[tuple[str, str], ...] = ()  # (node, widget) of the subgraphs in use that show this input


class Scope:
    """One graph: the root, or (Subgraph) one use of a subgraph."""

    def __init__(self, graph: dict, prefix: str = ""):
        self.graph, self.prefix = graph, prefix
        self.nodes = {str(node["id"]): node for node in graph.get("nodes") or [] if isinstance(node, dict) and "id" in node}
        links = graph.get("links") or []
        self.links = dict(_read_link(link) for link in (links.values() if isinstance(links, dict) else links) if link)
        self.children: dict[str, Subgraph] = {}
        self.input_id = str((graph.get("inputNode") or {}).get("id", -10))
        self.output_id = str((graph.get("outputNode") or {}).get("id", -20))

    def node_id(self, node: dict) -> str:
        return f"{self.prefix}{node['id']}"


class Subgraph(Scope):
    """The graph of a subgraph where `host`, a node of `parent`, uses it."""

    def __init__(self, graph: dict, prefix: str, parent: Scope, host: dict):
        super().__init__(graph, prefix)
        self.parent, self.host = parent, host


def _read_link(link: list | dict) -> tuple[Any, Link]:
    if isinstance(link, dict):
        link = [link.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
    return link[0], Link(str(link[1]), int(link[2] or 0), str(link[3]), int(link[4] or 0))


def read_widgets(node: dict, node_class: NodeClass) -> dict[str, tuple[Any, Cell]]:
    """{widget: (value, cell)} of a UI node, by its class's inputs."""
    values, named = node.get("widgets_values"), node.get("widgets_values_named")
    named = values if isinstance(values, dict) else named if isinstance(named, dict) else {}
    row = values if isinstance(values, list) else []
    declared = list(inputs_of(node_class).values())
    drawn = {(slot.get("widget") or {}).get("name") for slot in node.get("inputs") or []}
    last_required = max((i for i, entry in enumerate(declared) if entry.required), default=-1)
    upload = any(entry.options.get(key) for entry in declared for key in UPLOADS)
    found: dict[str, tuple[Any, Cell]] = {}
    defaults: list = []

    def skip(expected: tuple, fallback: Any) -> None:  # a value of the frontend's own, which hand-made files may lack
        if len(defaults) >= len(row) or row[len(defaults)] in expected:
            defaults.append(fallback)

    for i, entry in enumerate(declared):
        if entry.is_widget or entry.name in drawn:
            index = len(defaults)
            defaults.append(entry.default)
            value = row[index] if index < len(row) else named.get(entry.name)
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

    `prompt`, `cells`, `primitives`, `problems`, `dynamic`, `subgraphs`, `passed_over`: as in Workflow. Nodes that `table` lacks keep
    their links only.
    """

    def __init__(self, ui: dict, table: dict[str, NodeClass]):
        self.table = table
        definitions = (ui.get("definitions") or {}).get("subgraphs") or []
        self.definitions = {str(graph.get("id")): graph for graph in definitions if isinstance(graph, dict)}
        self.prompt: dict[str, dict] = {}
        self.cells: dict[tuple[str, str], Cell] = {}
        self.primitives: dict[str, dict] = {}
        self.problems: list[str] = []
        self.dynamic: set[tuple[str, str]] = set()
        self.subgraphs: dict[str, SubgraphUse] = {}
        self.passed_over: list[str] = []
        self._unfolded = 0  # nodes so far
        self._known: dict[int, dict[str, bool]] = {}  # what _promoted found of a subgraph
        root = Scope(ui)
        self._open(root, ())
        self._emit(root)
        for node in self.prompt.values():
            node["inputs"] = {
                name: value for name, value in node["inputs"].items() if not isinstance(value, list) or value[0] in self.prompt
            }

    def _open(self, scope: Scope, inside: tuple[str, ...]) -> None:
        """Make a scope of every subgraph in use, all the way down. GraphError where that is more than any workflow holds."""
        self._unfolded += len(scope.nodes)
        if self._unfolded > MOST_NODES or len(inside) > MOST_DEPTH:
            what = f"{MOST_NODES} nodes" if self._unfolded > MOST_NODES else f"{MOST_DEPTH} levels"
            raise GraphError(f"its subgraphs unfold to more than {what}; make it smaller, or split it into several workflows")
        for key, node in scope.nodes.items():
            kind = str(node.get("type"))
            if kind not in self.definitions or node.get("mode") in (MUTED, BYPASSED):
                continue
            if kind in inside:
                self.problems.append(f"{self._label(scope, node)}: this subgraph contains itself; remove the inner use of it")
                continue
            scope.children[key] = Subgraph(self.definitions[kind], f"{scope.node_id(node)}:", scope, node)
            name = str(self.definitions[kind].get("name") or "subgraph")
            self.subgraphs[scope.node_id(node)] = SubgraphUse(str(node.get("title") or name), name)
            self._open(scope.children[key], (*inside, kind))

    def _emit(self, scope: Scope) -> None:
        for key, node in scope.nodes.items():
            kind = str(node.get("type"))
            if key in scope.children:
                self._emit(scope.children[key])
            elif kind == PRIMITIVE:
                value, cell = self._primitive(node)
                title = str(node.get("title") or kind)
                self.primitives[scope.node_id(node)] = {"class_type": kind, "inputs": {"value": value}, "_meta": {"title": title}}
                self.cells[scope.node_id(node), "value"] = cell
            elif kind not in VIRTUAL and kind not in self.definitions and node.get("mode") not in (MUTED, BYPASSED):
                if kind in self.table or is_group(kind) or any(key in (link.origin, link.target) for link in scope.links.values()):
                    self._emit_node(scope, node, kind)
                else:
                    self.passed_over.append(self._label(scope, node))

    def _emit_node(self, scope: Scope, node: dict, kind: str) -> None:
        node_id, inputs = scope.node_id(node), {}
        declared = inputs_of(self.table[kind]) if kind in self.table else {}
        widgets = read_widgets(node, self.table[kind]) if declared else {}
        dynamic = {name for name, entry in declared.items() if entry.is_dynamic}
        for name, (value, cell) in widgets.items():
            inputs[name] = {"__value__": value} if isinstance(value, list) else value
            self.cells[node_id, name] = cell
        for slot, entry in enumerate(node.get("inputs") or []):
            name, source = entry.get("name"), self._input(scope, node, slot, ())
            if source is None:
                continue
            for host_id, shown in source.shown_by:
                self.subgraphs[host_id].widgets.setdefault(shown, []).append((node_id, name))
            if source.link is not None:
                inputs[name] = source.link
                self.cells.pop((node_id, name), None)
            elif source.cell is not None:
                inputs[name] = {"__value__": source.value} if isinstance(source.value, list) else source.value
                self.cells[node_id, name] = source.cell
            if source.link is not None or source.shown_by:  # what a subgraph shows is handed in as it was typed
                dynamic.discard(name)
        self.dynamic |= {(node_id, name) for name in dynamic if isinstance(inputs.get(name), str)}
        self.prompt[node_id] = {"inputs": inputs, "class_type": kind, "_meta": {"title": str(node.get("title") or kind)}}

    def _input(self, scope: Scope, node: dict, slot: int, seen: tuple, kind: Any = None) -> Source | None:
        """What an input slot gets; None when nothing comes in, and the node's own value holds."""
        slots = node.get("inputs") or []
        if slot >= len(slots) or slots[slot].get("link") is None:
            return None
        entry = slots[slot]
        link = scope.links.get(entry["link"])
        if link is None:
            return self._broken(scope, node, entry, f"its link {entry['link']} is missing from the file; connect the input again")
        here = (scope.prefix, str(node["id"]), slot)
        if here in seen:
            return self._broken(scope, node, entry, "its link leads back to itself; remove one link of the circle")
        seen = (*seen, here)
        if isinstance(scope, Subgraph) and link.origin == scope.input_id:
            return self._host_input(scope, link.origin_slot, seen)
        origin = scope.nodes.get(link.origin)
        if origin is None:
            return self._broken(scope, node, entry, f"comes from node {link.origin}, which the file lacks; connect the input again")
        return self._output(scope, origin, link.origin_slot, entry.get("type") if kind is None else kind, seen)

    def _output(self, scope: Scope, node: dict, slot: int, kind: Any, seen: tuple) -> Source | None:
        """What comes out of a slot, past bypassed and virtual nodes and subgraph borders; None where nothing does."""
        node_type = str(node.get("type"))
        if node_type == PRIMITIVE:
            value, cell = self._primitive(node)
            return Source(value=value, cell=cell)
        if node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED:
            passed = _bypass_slot(node, slot, kind)
            return None if passed is None else self._input(scope, node, passed, seen)
        if node_type in PASSING:
            return self._input(scope, node, 0, seen, kind)
        if node_type in GETTERS:
            return self._got(scope, node, seen, kind)
        if node_type in VIRTUAL:
            return None
        child = scope.children.get(str(node["id"]))
        if child is None:
            return Source(link=[scope.node_id(node), slot])
        link = next((link for link in child.links.values() if link.target == child.output_id and link.target_slot == slot), None)
        if link is None:
            return None
        if link.origin == child.input_id:
            return self._host_input(child, link.origin_slot, seen)
        origin = child.nodes.get(link.origin)
        return None if origin is None else self._output(child, origin, link.origin_slot, kind, seen)

    def _got(self, scope: Scope, node: dict, seen: tuple, kind: Any) -> Source | None:
        """What a Get node gives: what goes into the Set node of its name, in its own graph, else in those around it."""
        name, around = name_of_pair(node), scope
        while name:
            for other in around.nodes.values():
                if str(other.get("type")) in SETTERS and name_of_pair(other) == name:
                    return self._input(around, other, 0, seen, kind)
            if not isinstance(around, Subgraph):
                break
            around = around.parent
        self.problems.append(
            f'{self._label(scope, node)}: there is no Set node called "{name}"; choose one of the workflow\'s on the canvas, or link its target'
        )
        return None

    def _host_input(self, scope: Subgraph, slot: int, seen: tuple) -> Source | None:
        """What the subgraph's own input brings in: the link outside, or the value of the widget it is promoted to."""
        declared = scope.graph.get("inputs") or []
        if slot >= len(declared):
            return None
        name = str(declared[slot].get("name"))
        source = Source()
        for outer, entry in enumerate(scope.host.get("inputs") or []):
            if entry.get("name") == name and entry.get("link") is not None:
                source = self._input(scope.parent, scope.host, outer, seen) or source
                break
        else:
            found = self._promoted_values(scope).get(name)
            source = Source(value=found[0], cell=found[1]) if found else source
        return source._replace(shown_by=(*source.shown_by, (scope.parent.node_id(scope.host), name)))

    def _promoted_values(self, scope: Subgraph) -> dict[str, tuple[Any, Cell]]:
        """Values that this use of a subgraph keeps for itself. Older files keep none: the inner nodes' values hold."""
        host, row, found = scope.host, scope.host.get("widgets_values"), {}
        named = host.get("widgets_values_named")
        named = row if isinstance(row, dict) else named if isinstance(named, dict) else {}
        row = row if isinstance(row, list) else []
        proxies = (host.get("properties") or {}).get("proxyWidgets")
        if isinstance(proxies, list) and proxies:
            places = {str(entry[1]): i for i, entry in enumerate(proxies) if str(entry[0]) == "-1"}
        else:
            promoted = self._promoted(scope.graph, ())
            spread, places, i = len(row) > len(promoted), {}, 0
            for name, has_control in promoted.items():
                places[name] = i
                i += 1 + (spread and has_control)
        for name, i in places.items():
            value = row[i] if i < len(row) else named.get(name)
            if value is not None:
                found[name] = value, Cell(host, name, i)
        return found

    def _promoted(self, graph: dict, inside: tuple[str, ...]) -> dict[str, bool]:
        """{subgraph input that shows as a widget: whether its inner widget has control_after_generate}, in order."""
        if id(graph) in self._known:
            return self._known[id(graph)]
        if len(inside) > MOST_DEPTH:
            return {}
        scope, found = Scope(graph), self._known.setdefault(id(graph), {})
        for slot, entry in enumerate(graph.get("inputs") or []):
            for key, link in scope.links.items():
                node = scope.nodes.get(link.target)
                if link.origin != scope.input_id or link.origin_slot != slot or node is None:
                    continue
                inner: dict = next((i for i in node.get("inputs") or [] if i.get("link") == key), {})
                kind = str(node.get("type"))
                if kind in self.definitions and kind not in inside:
                    nested = self._promoted(self.definitions[kind], (*inside, kind))
                    if inner.get("name") in nested:
                        found[entry.get("name")] = nested[inner["name"]]
                        break
                declared = inputs_of(self.table[kind]).get(inner.get("name", "")) if kind in self.table else None
                if inner.get("widget") or (declared is not None and declared.is_widget):
                    found[entry.get("name")] = declared.has_control if declared else inner.get("name") in SEED_NAMES
                    break
        return found

    def _primitive(self, node: dict) -> tuple[Any, Cell]:
        """A PrimitiveNode's value and its place."""
        row = node.get("widgets_values")
        value = row.get("value") if isinstance(row, dict) else row[0] if row else None
        return value, Cell(node, "value", 0, [value])

    def _broken(self, scope: Scope, node: dict, entry: dict, text: str) -> Source | None:
        self.problems.append(f"{self._label(scope, node)}, input {entry.get('name')}: {text}")
        return None

    def _label(self, scope: Scope, node: dict) -> str:
        kind = str(node.get("type"))
        kind = str(self.definitions[kind].get("name") or "subgraph") if kind in self.definitions else kind
        return name_node(scope.node_id(node), str(node.get("title") or kind), kind)


def _bypass_slot(node: dict, slot: int, kind: Any) -> int | None:
    """The input that a bypassed node passes to its output `slot`, for a target of type `kind`: same place, same type, any that fits."""
    inputs, outputs = node.get("inputs") or [], node.get("outputs") or []
    if not inputs:
        return None
    if kind in ("*", "", None, 0):
        return slot if slot < len(inputs) else 0
    out = outputs[slot].get("type") if slot < len(outputs) else kind

    def fits(entry: dict) -> bool:
        return _connects(entry.get("type"), out) and _connects(entry.get("type"), kind)

    if slot < len(inputs) and fits(inputs[slot]):
        return slot
    exact = next((i for i, entry in enumerate(inputs) if entry.get("type") == kind), None)
    return exact if exact is not None else next((i for i, entry in enumerate(inputs) if fits(entry)), None)


def _connects(a: Any, b: Any) -> bool:
    if a in ("*", "", None, 0) or b in ("*", "", None, 0) or a == b:
        return True
    return bool({t.strip() for t in str(a).lower().split(",")} & {t.strip() for t in str(b).lower().split(",")})
