"""Whether what follows a node can run: ComfyUI runs an output node of ours even where everything after it was refused.

At `/prompt` ComfyUI checks each output for itself, queues those that are good and marks the others' faults. A chat that answers while its
picture can only fail keeps a person waiting for nothing, so it refuses, before any work. A run of chosen outputs only ("to here") says which;
it is noted in the prompt's extra_data, since ComfyUI does not keep it.
"""

from __future__ import annotations

import sys
from typing import Any

from .folders import inside_comfyui
from .progress import executing_node

CHOSEN = "wegen_chosen_outputs"  # in extra_data


def followers(prompt: dict, node: str) -> set[str]:
    """Ids of all that takes something from a node, directly or not. `prompt`: API form."""
    takes: dict[str, set[str]] = {}
    for one, part in prompt.items():
        for value in part.get("inputs", {}).values():
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
                takes.setdefault(value[0], set()).add(one)
    found: set[str] = set()
    waiting = [node]
    while waiting:
        new = takes.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def lost(prompt: dict, node: str, outputs: set[str], good: set[str], chosen: set[str] | None = None) -> list[str]:
    """Ids of the last outputs that follow a node, where none of them can run; empty: one can, or none follows.

    outputs: all output nodes of the prompt; good: those that ComfyUI runs; chosen: those that the person asked for, None: all."""
    after = followers(prompt, node) & outputs
    last = {one for one in after if not followers(prompt, one) & outputs}
    asked = last if chosen is None else last & chosen
    return [] if asked & good else sorted(asked)


def check_later() -> None:
    """For an output node of ours, before it works.

    Raises:
        ValueError: ComfyUI already knows that no output after this node can run.
    """
    node = executing_node() if inside_comfyui() else None
    queue = getattr(getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None), "prompt_queue", None)
    running = list(getattr(queue, "currently_running", {}).values())
    if node is None or len(running) != 1 or len(running[0]) < 5:
        return
    _, _, prompt, extra, good = running[0][:5]
    classes = sys.modules["nodes"].NODE_CLASS_MAPPINGS
    outputs = {one for one, part in prompt.items() if getattr(classes.get(part["class_type"]), "OUTPUT_NODE", False)}
    chosen = extra.get(CHOSEN)
    if names := lost(prompt, node, outputs, set(good), None if chosen is None else set(map(str, chosen))):
        said = ", ".join(f"{prompt[one].get('_meta', {}).get('title') or prompt[one]['class_type']} (#{one})" for one in names[:3])
        raise ValueError(
            f"not run, because nothing that follows can run: {said}. Mend what is marked red, or disconnect it, and run again."
        )


def note_chosen(request: Any) -> Any:
    """ComfyUI's on-prompt handler."""
    if isinstance(request, dict) and isinstance(request.get("partial_execution_targets"), list):
        request.setdefault("extra_data", {})[CHOSEN] = request["partial_execution_targets"]
    return request


def register() -> None:
    """Ask ComfyUI for each prompt before it is checked."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and hasattr(server, "add_on_prompt_handler"):
        server.add_on_prompt_handler(note_chosen)
