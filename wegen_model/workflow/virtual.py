"""Nodes that exist on the canvas only: they never reach the prompt, whatever pack drew them.

Source: ComfyUI_frontend (Reroute, PrimitiveNode, notes), rgthree-comfy's constants.ts, ComfyUI-KJNodes' setgetnodes.js and
ComfyUI-Easy-Use's of the same form: a Set and a Get node hold a name as their one value and link what goes into the one to the other.
"""

from __future__ import annotations

PRIMITIVE = "PrimitiveNode"
NOTES = {"Note", "MarkdownNote"}
SETTERS = {"SetNode", "easy setNode"}
GETTERS = {"GetNode", "easy getNode"}
PASSING = {"Reroute", "Reroute (rgthree)"} | SETTERS  # output 0 is input 0
SWITCHES = {  # of modes, buttons and labels; their links say which nodes they switch
    f"{name} (rgthree)"
    for name in (
        "Bookmark",
        "Fast Actions Button",
        "Fast Bypasser",
        "Fast Groups Bypasser",
        "Fast Groups Muter",
        "Fast Muter",
        "Label",
        "Mute / Bypass Relay",
        "Mute / Bypass Repeater",
        "Node Collector",
        "Random Unmuter",
    )
}
VIRTUAL = {PRIMITIVE} | NOTES | PASSING | GETTERS | SWITCHES


def is_group(kind: str) -> bool:
    """Whether a class type is a group node of the old kind, which holds nodes of its own."""
    return kind.startswith(("workflow>", "workflow/"))


def name_of_pair(node: dict) -> str:
    """The name by which a Set and a Get node find each other."""
    row = node.get("widgets_values")
    values = list(row.values()) if isinstance(row, dict) else row if isinstance(row, list) else []
    return str(values[0]) if values and values[0] is not None else ""
