"""Running a checked graph: only what the outputs need, sources first, each result dropped when nothing later needs it.

Semantics of ComfyUI's 0.3.64 execution.py for V1 node classes: every output travels as a list; lazy inputs are computed when
check_lazy_status names them. How one node is called: call.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime import Cancelled
from .call import call_node, hidden_values, map_over_lists
from .dynamic_prompts import expand
from .spec import Folders, NodeClass, NodeError, Workflow, hidden_of, inputs_of, links_of
from .standins import PREVIEW_FOLDER, STANDINS
from .validate import find_problems, folders_of, needed_nodes, output_nodes, raise_problems


@dataclass(frozen=True)
class Saved:
    """Something that an output node made: a picture or another file, or text to show."""

    node_id: str
    kind: str  # "image" | "file" | "text"
    path: Path | None = None
    text: str | None = None


def run(
    workflow: Workflow,
    nodes: dict[str, NodeClass],
    *,
    out_dir: str | Path,
    input_dir: str | Path | None = None,
    cancel: Callable[[], bool] | None = None,
    on_node: Callable[[int, int, str, str], None] | None = None,
    on_saved: Callable[[Saved], None] | None = None,
    only: list[str] | None = None,
) -> list[Saved]:
    """Check the whole graph, then run what its outputs need, under inference mode.

    Args:
        nodes: the pack's {class type: V1 node class}; stand-ins are added.
        out_dir: where pictures go; made if absent.
        input_dir: where Load Image looks first; the workflow's own folder comes second.
        cancel: asked before each node; True stops the run.
        on_node: called before each node with (how many are done, how many there are at most, node id, title).
        on_saved: called with each thing that an output node made, as soon as the node is done; so it is known when a later one fails.
        only: ids of the output nodes to run; None runs all.

    Returns: what the output nodes made, in order.

    Raises: GraphError before anything ran; NodeError when a node fails; runtime.Cancelled.
    """
    import torch

    expand(workflow)
    table, folders = {**STANDINS, **nodes}, folders_of(workflow, input_dir, out_dir)
    problems, foreign = find_problems(workflow, table, folders, only)
    raise_problems(problems + _folder_problems(folders.output), foreign)
    outputs = [node_id for node_id in output_nodes(workflow.prompt, table) if only is None or node_id in only]
    with torch.inference_mode():
        return _Run(workflow, table, outputs, folders, cancel, on_node, on_saved).run()


def _folder_problems(folder: Path) -> list[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        return [f"output folder {folder.absolute()}: cannot be written ({error.strerror or error}); choose another with --out DIR"]


class _Run:
    def __init__(
        self,
        workflow: Workflow,
        table: dict[str, NodeClass],
        outputs: list[str],
        folders: Folders,
        cancel: Any,
        on_node: Any,
        on_saved: Any,
    ):
        self.workflow, self.table, self.outputs, self.folders = workflow, table, outputs, folders
        self.cancel, self.on_node, self.on_saved = cancel, on_node, on_saved
        needed, _ = needed_nodes(workflow.prompt, outputs)
        self.waiting: dict[str, set[str]] = {node_id: set() for node_id in needed}  # node -> who still needs its result
        for node_id in needed:
            for origin, _ in links_of(workflow.prompt[node_id]).values():
                self.waiting[origin].add(node_id)
        self.results: dict[str, list] = {}  # node -> its outputs, each a list
        self.objects: dict[str, Any] = {}
        self.asked: dict[str, set[str]] = {node_id: set() for node_id in needed}  # lazy inputs that check_lazy_status named
        self.done: set[str] = set()
        self.saved: list[Saved] = []

    def run(self) -> list[Saved]:
        stack = self.outputs[::-1]
        while stack:
            node_id = stack[-1]
            if node_id in self.done:
                stack.pop()
                continue
            if self.cancel is not None and self.cancel():
                raise Cancelled("cancelled")
            missing = [origin for origin in self._origins(node_id) if origin not in self.done]
            if missing:
                stack += missing[::-1]
            elif not self._ask_lazy(node_id):
                self._execute(node_id)
                stack.pop()
        return self.saved

    def _class(self, node_id: str) -> type:
        return self.table[self.workflow.prompt[node_id]["class_type"]]

    def _origins(self, node_id: str) -> list[str]:
        declared = inputs_of(self._class(node_id))
        links = links_of(self.workflow.prompt[node_id])
        lazy = {name for name in links if name in declared and declared[name].options.get("lazy")} - self.asked[node_id]
        return list(dict.fromkeys(link[0] for name, link in links.items() if name not in lazy))

    def _data(self, node_id: str) -> dict[str, Sequence]:
        """{argument: list of values}; (None,) for a lazy input that is not there."""
        node, node_class = self.workflow.prompt[node_id], self._class(node_id)
        declared, links = inputs_of(node_class), links_of(node)
        data: dict[str, Sequence] = {}
        for name, value in node["inputs"].items():
            if name in links:
                data[name] = self.results[value[0]][value[1]] if value[0] in self.results else (None,)
            elif name in declared:
                data[name] = [value]
        data.update(hidden_values(hidden_of(node_class), node_id, self.workflow, self.folders))
        return data

    def _object(self, node_id: str) -> Any:
        if node_id not in self.objects:
            self.objects[node_id] = self._class(node_id)()
        return self.objects[node_id]

    def _ask_lazy(self, node_id: str) -> bool:
        """Whether the node asks for more of its lazy inputs."""
        if not hasattr(self._class(node_id), "check_lazy_status"):
            return False
        answers = self._guard(node_id, lambda: map_over_lists(self._object(node_id), "check_lazy_status", self._data(node_id)))
        links = links_of(self.workflow.prompt[node_id])
        names = {
            name
            for answer in answers
            if isinstance(answer, list | tuple)
            for name in answer
            if name in links and links[name][0] not in self.done
        }
        fresh = names - self.asked[node_id]
        self.asked[node_id] |= fresh
        return bool(fresh)

    def _guard(self, node_id: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (Cancelled, NodeError):
            raise
        except Exception as error:
            raise NodeError(node_id, self.workflow.title(node_id), self.workflow.prompt[node_id]["class_type"], error) from error

    def _execute(self, node_id: str) -> None:
        if self.on_node is not None:
            self.on_node(len(self.done), len(self.waiting), node_id, self.workflow.title(node_id))
        outputs, shown = self._guard(node_id, lambda: call_node(self._object(node_id), self._data(node_id)))
        self.objects.pop(node_id, None)
        self.done.add(node_id)
        self._report(node_id, shown)
        if self.waiting[node_id]:
            self.results[node_id] = outputs
        for origin, _ in links_of(self.workflow.prompt[node_id]).values():
            self.waiting[origin].discard(node_id)
            if not self.waiting[origin]:
                self.results.pop(origin, None)

    def _report(self, node_id: str, shown: dict[str, list]) -> None:
        for key, entries in shown.items():
            for entry in entries:
                if isinstance(entry, dict) and "filename" in entry:
                    folder = self.folders.output / PREVIEW_FOLDER if entry.get("type") == "temp" else self.folders.output
                    kind = "image" if key == "images" else "file"
                    self._save(Saved(node_id, kind, path=folder / entry.get("subfolder", "") / entry["filename"]))
        for text in shown.get("text", []):
            self._save(Saved(node_id, "text", text=str(text)))

    def _save(self, item: Saved) -> None:
        self.saved.append(item)
        if self.on_saved is not None:
            self.on_saved(item)
