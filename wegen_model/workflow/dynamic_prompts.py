"""`{a|b}` and comments in a text: what ComfyUI's frontend makes of the widgets that declare `dynamicPrompts` when a graph is queued.

Source: processDynamicPrompt and the extension Comfy.DynamicPrompts of Comfy-Org/ComfyUI_frontend (the same in 1.27 and 1.58). The canvas
keeps the text as it was typed; the prompt gets one that was chosen. The server chooses nothing: a prompt in API format is final.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from .spec import GraphError, Workflow

COMMENT = re.compile(r"/\*[\s\S]*?\*/|//[^\n\r\u2028\u2029]*")  # also of an address: https://… ends at its colon
ESCAPED = re.compile(r"\\([{}|])")


def choose_text(text: str, choose: Callable[[int], int]) -> str:
    """`text` without comments, and with one of the choices of each `{a|b}`; `\\{`, `\\|` and `\\}` are these letters themselves.

    Args:
        choose: an index below the count that it is given; the choices may hold choices of their own.
    """
    text, result, at = COMMENT.sub("", text), "", 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            result += "\\" + (text[at + 1 : at + 2] or "undefined")  # JavaScript's word for the letter behind the last one
            at += 2
        elif letter == "{":
            choices, at = _choices(text, at + 1)
            result += choose_text(choices[choose(len(choices))], choose)
        else:
            result += letter
            at += 1
    return ESCAPED.sub(r"\1", result)


def _choices(text: str, at: int) -> tuple[list[str], int]:
    """(the choices of the block that begins at `at`, where the text goes on). A block that is never closed ends with the text."""
    choices, depth = [""], 0
    while at < len(text):
        letter = text[at]
        at += 1
        if letter == "\\":
            choices[-1] += "\\" + (text[at : at + 1] or "undefined")
            at += 1
            continue
        if letter == "}" and depth == 0:
            break
        if letter == "|" and depth == 0:
            choices.append("")
            continue
        depth += (letter == "{") - (letter == "}")
        choices[-1] += letter
    return choices, at


def expand(workflow: Workflow, seed: int | None = None) -> dict[tuple[str, str], str]:
    """Choose the texts of the prompt, once: `workflow.dynamic` names them, and is empty afterwards. The canvas keeps its texts.

    Args:
        seed: of the choices; None chooses anew each time, as the frontend does.

    Returns: {(node id, input): text} of those that changed. Raises GraphError for one whose choices are nested too deeply.
    """
    rng, changed = random.Random(seed), {}
    for node_id, node in workflow.prompt.items():
        for name, text in node["inputs"].items() if isinstance(node, dict) and isinstance(node.get("inputs"), dict) else ():
            if (node_id, name) in workflow.dynamic and isinstance(text, str):
                try:
                    chosen = choose_text(text, rng.randrange)
                except RecursionError as error:
                    raise GraphError(f"{workflow.label(node_id)}, input {name}: its {{choices}} are nested too deeply") from error
                if chosen != text:
                    changed[node_id, name] = node["inputs"][name] = chosen
    workflow.dynamic.clear()
    return changed
