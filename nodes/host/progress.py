"""What a node shows: warnings collected during its run, text below it, live text."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from ...wegen_model.progress import ProgressEvent
from ...wegen_model.runtime import Runtime
from .folders import inside_comfyui

Listener = Callable[[ProgressEvent], None]


class NodeRuntime(Runtime):
    """A Runtime that keeps what was warned about, so that the node can show it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.notes: list[str] = []
        self.listener: Listener | None = None  # set by a node that shows its progress itself

    def tick(self, event: ProgressEvent) -> None:
        super().tick(event)
        if self.listener is not None:
            self.listener(event)

    def warn(self, text: str) -> None:
        super().warn(text)
        if text not in self.notes:
            self.notes.append(text)


@contextlib.contextmanager
def watch(run: NodeRuntime, listener: Listener | None = None):
    """One node's run: yields the list of what is warned about meanwhile; drops the bar whatever happens.

    `listener` is given each ProgressEvent, in place of what is otherwise shown below the node."""
    run.notes.clear()
    run.listener = listener
    try:
        yield run.notes
    finally:
        run.listener = None
        run.close()


def shown(result: tuple, notes: list[str], text: str = "", ui: dict | None = None) -> dict:
    """A V1 node's answer: its outputs, text with notes below it where there is any, and what our own scripts show (`ui`)."""
    lines = [line for line in (text, *(f"Note: {note}" for note in notes)) if line]
    if lines:
        show("\n\n".join(lines))
    ui = (ui or {}) | ({"text": lines} if lines else {})
    return {"ui": ui, "result": result} if ui else {"result": result}


def nothing() -> Any:
    """The value of an output that has none: ComfyUI skips the nodes connected to it (ExecutionBlocker); headless, None."""
    if not inside_comfyui():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def show(text: str) -> None:
    """Text below the node that runs, where this ComfyUI can show it."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    node = executing_node() if inside_comfyui() else None
    if server is None or node is None:
        return
    if hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node, server.client_id)


def executing_node() -> str | None:
    """The id of the node that runs, with those of the subgraphs around it before it ("7:3")."""
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return context.node_id if context is not None else None
