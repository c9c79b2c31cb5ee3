"""Running a workflow without ComfyUI.

Files: load (formats, canvas, virtual), change (settings), choose texts (dynamic_prompts), check (validate), run (execute), call a node
(call), a few of ComfyUI's nodes (standins), shared words (spec).

It is for trying a workflow and for tests, not a second ComfyUI. The node classes are handed in; nothing here imports the pack's nodes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ..runtime import Cancelled
from .dynamic_prompts import expand
from .execute import Saved, run
from .formats import load_workflow
from .png import prompt_from_png
from .settings import set_images, set_seed, set_values
from .spec import Folders, ForeignNodesError, GraphError, NodeClass, NodeError, Workflow, links_of
from .standins import NAMES, STANDINS
from .validate import check

__all__ = [
    "STANDINS",
    "Folders",
    "ForeignNodesError",
    "GraphError",
    "NodeError",
    "Saved",
    "Workflow",
    "check",
    "expand",
    "load_workflow",
    "prompt_from_png",
    "run",
    "run_command",
    "set_images",
    "set_seed",
    "set_values",
]

CANCELLED = 130  # what a shell gives for Ctrl-C


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class _Notes(logging.Handler):
    """What is warned about during a run, told as it comes."""

    def __init__(self, echo: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self.echo = echo
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.told.add(record.getMessage())
        self.echo(f"note: {record.getMessage()}")


def run_command(
    workflow_path: str | Path,
    sets: list[str] | tuple[str, ...] = (),
    seed: int | None = None,
    out: str | Path = "output",
    input_dir: str | Path | None = None,
    nodes: dict[str, NodeClass] | None = None,
    echo: Callable[[str], None] = _to_stderr,
    images: list[str] | tuple[str, ...] = (),
    names: dict[str, str] | None = None,
) -> int:
    """What `wegen run` does. `images` (`--image`) and then `sets` (`--set`) come after `seed`, so they win; `names`: {class type: display name}.

    What output nodes made is told at the end, also when a later node fails or the run is cancelled.

    Returns the exit code: 0 done, 1 a node failed, 2 the workflow or an argument is wrong, 3 the workflow has foreign nodes, 130 cancelled.
    """
    nodes = nodes or {}
    saved: list[Saved] = []
    notes, logger = _Notes(echo), logging.getLogger("wegen")

    def name(node_id: str) -> str:
        title = workflow.title(node_id)
        return f"{workflow.names.get(title, title)} (node {node_id})"

    def tell_saved() -> None:
        """Each thing once: a text that the next node shows too is that node's, a note was told as it came."""
        shown = {(link[0], item.text) for item in saved for link in links_of(workflow.prompt[item.node_id]).values()}
        for item in saved:
            if item.kind != "text":
                echo(f"{name(item.node_id)}: {item.path}")
            elif (item.node_id, item.text) not in shown and (item.text or "").removeprefix("Note: ") not in notes.told:
                echo(f"{name(item.node_id)}: {item.text}")

    def tell(done: int, total: int, node_id: str, title: str) -> None:
        echo(f"[{done + 1}/{total}] {name(node_id)}")

    logger.addHandler(notes)
    try:
        workflow = load_workflow(workflow_path, nodes)
        workflow.names = {**NAMES, **(names or {})}
        if seed is not None and not set_seed(workflow, seed):
            echo("--seed: no node of this workflow has a seed; nothing was changed")
        set_images(workflow, list(images))
        set_values(workflow, list(sets))
        for label in workflow.passed_over:
            echo(f"passed over, as nothing is linked to it and it is not of this pack: {label}")
        for (node_id, widget), text in expand(workflow, seed).items():
            echo(f"{name(node_id)}, {widget}: {' '.join(text.split())}")
        run(workflow, nodes, out_dir=out, input_dir=input_dir, on_node=tell, on_saved=saved.append)
    except GraphError as error:
        kind = "uses nodes that are not here" if isinstance(error, ForeignNodesError) else "cannot be run"
        echo(f"{workflow_path} {kind}:")
        for problem in error.problems:
            echo(f"  - {problem}")
        return error.exit_code
    except NodeError as error:
        tell_saved()
        echo(str(error))
        return error.exit_code
    except (KeyboardInterrupt, Cancelled):
        tell_saved()
        echo("cancelled")
        return CANCELLED
    finally:
        logger.removeHandler(notes)
    tell_saved()
    return 0
