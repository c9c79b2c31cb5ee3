"""What a workflow and its nodes are: the errors, the loaded workflow, and what a V1 node class says of its inputs.

Words: prompt = API format, {node id: {"class_type", "inputs", "_meta"}}; ui = the JSON of the canvas; link = [node id, output slot];
table = {class type: V1 node class}; widget = an input whose value is typed in rather than linked.
Source of the rules: ComfyUI 0.3.64 `comfy_execution/graph.py`, `comfy_execution/validation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

FOLDERS = (
    "WEGEN_FOLDERS"  # hidden input of nodes that read or write a person's files: gets Folders; ComfyUI, which has its own, leaves it out
)
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}  # types for which the frontend draws a widget
NodeClass = type[Any]  # a V1 node class, of this pack or another: what ComfyUI's interface asks of it is looked up as it is needed
SEED_NAMES = ("seed", "noise_seed")
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")  # a BOOLEAN as text


class GraphError(Exception):
    """The workflow cannot be run as it is. `problems`: all that is wrong, each naming node, input and remedy."""

    exit_code = 2

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class ForeignNodesError(GraphError):
    """The workflow has nodes that are neither in this pack nor among the stand-ins."""

    exit_code = 3


class NodeError(Exception):
    """A node failed. The message opens with the original error's; `original` is that error."""

    exit_code = 1

    def __init__(self, node_id: str, title: str, class_type: str, original: BaseException):
        self.node_id, self.title, self.class_type, self.original = node_id, title, class_type, original
        super().__init__(f"{str(original) or type(original).__name__}\n  in {name_node(node_id, title, class_type)}")


@dataclass(frozen=True)
class Folders:
    """Where a run reads and writes a person's files."""

    input: tuple[Path, ...] = ()  # in order of search
    output: Path = Path(".")


@dataclass(frozen=True)
class Input:
    """One declared input of a node class."""

    name: str
    type: Any  # "INT", "IMAGE", "A,B", "*", or a list of choices
    required: bool
    options: dict  # default, min, max, lazy, forceInput, …

    @property
    def choices(self) -> list | None:
        """The choices of a combo, None for any other type."""
        if isinstance(self.type, (list, tuple)):
            return list(self.type)
        return list(self.options.get("options") or []) if self.type == "COMBO" else None

    @property
    def is_widget(self) -> bool:
        if self.options.get("forceInput"):
            return False
        return self.choices is not None or self.type in WIDGET_TYPES or self.options.get("widgetType") in WIDGET_TYPES

    @property
    def has_control(self) -> bool:
        """Whether the frontend keeps a `control_after_generate` value right behind this widget's."""
        default = self.type == "INT" and self.name in SEED_NAMES
        return bool(self.options.get("control_after_generate", default)) and (self.type == "INT" or self.choices is not None)

    @property
    def is_dynamic(self) -> bool:
        """Whether the frontend chooses among `{a|b}` and drops comments in this text: dynamic_prompts.py."""
        return self.options.get("dynamicPrompts") is True

    @property
    def default(self) -> Any:
        """What the frontend fills in where the file has no value."""
        if "default" in self.options:
            return self.options["default"]
        if self.choices is not None:
            return self.choices[0] if self.choices else None
        return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}.get(self.type)


def inputs_of(node_class: NodeClass) -> dict[str, Input]:
    """Required and optional inputs in declared order."""
    declared = node_class.INPUT_TYPES()
    found: dict[str, Input] = {}
    for group in ("required", "optional"):
        for name, entry in (declared.get(group) or {}).items():
            options = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
            found.setdefault(name, Input(name, entry[0], group == "required", options))
    return found


def hidden_of(node_class: NodeClass) -> dict[str, str]:
    """Hidden inputs: {argument name: "PROMPT" | "EXTRA_PNGINFO" | "UNIQUE_ID" | …}."""
    return {
        name: entry[0] if isinstance(entry, (list, tuple)) else entry
        for name, entry in (node_class.INPUT_TYPES().get("hidden") or {}).items()
    }


def is_link(value: Any) -> TypeGuard[list]:
    """[node id as text, output slot]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def links_of(node: dict) -> dict[str, list]:
    """{input name: link} of a node of the prompt."""
    return {name: value for name, value in values_of(node).items() if is_link(value)}


def values_of(node: Any) -> dict[str, Any]:
    """The inputs of a node of the prompt; none where the file holds something else, which `check` tells."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def types_match(received: Any, wanted: Any) -> bool:
    """The server's rule: equal, or comma lists with a type in common; "*" goes with all; a `__ne__` of the type's own counts."""
    if not received != wanted or received == "*" or wanted == "*":  # noqa: SIM202 - types of other packs override __ne__
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool({t.strip() for t in received.split(",")} & {t.strip() for t in wanted.split(",")})


def name_node(node_id: str, title: str, class_type: str) -> str:
    return f"node {node_id} ({class_type})" if title in ("", class_type) else f'node {node_id} "{title}" ({class_type})'


@dataclass
class Cell:
    """Where the UI workflow keeps one widget's value."""

    node: dict  # the node in the UI workflow
    name: str  # the widget's name
    index: int  # its place in widgets_values
    defaults: list = field(default_factory=list)  # what belongs in each place up to this one, for a file that stops short

    @property
    def key(self) -> tuple[int, str]:
        return id(self.node), self.name

    def set(self, value: Any) -> None:
        values = self.node.get("widgets_values")
        if isinstance(values, dict):
            values[self.name] = value
        else:
            values = list(values or [])
            values += self.defaults[len(values) : self.index + 1]
            values[self.index] = value
            self.node["widgets_values"] = values
        if isinstance(self.node.get("widgets_values_named"), dict):
            self.node["widgets_values_named"][self.name] = value


@dataclass
class SubgraphUse:
    """A subgraph where a node of the canvas uses it."""

    title: str
    name: str  # of the subgraph
    widgets: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # what it shows of its inside: {name: [(node id, input)]}


@dataclass
class Workflow:
    """A loaded workflow."""

    prompt: dict[str, dict]  # API format; what is run
    ui: dict | None = None  # what the canvas saved; embedded in PNGs so that the file opens as a graph
    path: Path | None = None  # the file it came from
    table: dict[str, NodeClass] = field(default_factory=dict)  # the node classes it was read with, stand-ins included
    names: dict[str, str] = field(default_factory=dict)  # {class type: its display name}
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)  # (node id, input) -> its place in `ui`
    primitives: dict[str, dict] = field(default_factory=dict)  # the canvas' own PrimitiveNodes, in the prompt's form
    problems: list[str] = field(default_factory=list)  # what reading found wrong; `check` reports it with the rest
    dynamic: set[tuple[str, str]] = field(default_factory=set)  # (node id, input) of texts of which the choices are still to be made
    subgraphs: dict[str, SubgraphUse] = field(default_factory=dict)  # the subgraphs in use, by the id of the node that stands for each
    passed_over: list[str] = field(default_factory=list)  # nodes left out because nothing is linked to them and they are not here

    @property
    def folder(self) -> Path | None:
        return self.path.parent if self.path else None

    def title(self, node_id: str) -> str:
        node = self.prompt.get(node_id) or self.primitives.get(node_id) or {}
        meta = node.get("_meta")
        return str((meta.get("title") if isinstance(meta, dict) else None) or node.get("class_type", ""))

    def label(self, node_id: str) -> str:
        node = self.prompt.get(node_id) or self.primitives.get(node_id) or {}
        return name_node(node_id, self.title(node_id), str(node.get("class_type", "?")))
