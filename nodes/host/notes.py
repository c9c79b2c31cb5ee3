"""What a node tells the person: warnings kept during its run, text below it, live text."""

from __future__ import annotations

import contextlib
import sys

from ...wegen_model.runtime import Runtime
from .folders import inside_comfyui


class Notes:
    """Keeps what was warned about, so that the node can show it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes: list[str] = []

    def warn(self, text: str) -> None:
        super().warn(text)
        if text not in self.notes:
            self.notes.append(text)


@contextlib.contextmanager
def watch(run: Runtime):
    """One node's run: yields the list of what is warned about meanwhile; drops the bar whatever happens."""
    run.notes.clear()
    try:
        yield run.notes
    finally:
        run.close()


def shown(result: tuple, notes: list[str], text: str = "") -> dict:
    """A V1 node's answer: its outputs, and text with notes below it where there is any."""
    lines = [line for line in (text, *(f"Note: {note}" for note in notes)) if line]
    if not lines:
        return {"result": result}
    show("\n\n".join(lines))
    return {"ui": {"text": lines}, "result": result}


def show(text: str) -> None:
    """Text below the node that runs, where this ComfyUI can show it."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    node = _executing_node() if inside_comfyui() else None
    if server is None or node is None:
        return
    if hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node, server.client_id)


def _executing_node() -> str | None:
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return context.node_id if context is not None else None
