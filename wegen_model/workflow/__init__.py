"""Running a workflow without ComfyUI.

Files: load (formats, canvas), change (settings), check (validate), run (execute), call a node (call), a few of ComfyUI's nodes (standins),
shared words (spec).

It is for trying a workflow and for tests, not a second ComfyUI. The node classes are handed in; nothing here imports the pack's nodes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ..runtime import Cancelled
from .execute import Saved, run
from .formats import load_workflow
from .png import prompt_from_png
from .settings import set_seed, set_values
from .spec import Folders, ForeignNodesError, GraphError, NodeClass, NodeError, Workflow
from .standins import STANDINS
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
    "load_workflow",
    "prompt_from_png",
    "run",
    "run_command",
    "set_seed",
    "set_values",
]

CANCELLED = 130  # what a shell gives for Ctrl-C


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def run_command(
    workflow_path: str | Path,
    sets: list[str] | tuple[str, ...] = (),
    seed: int | None = None,
    out: str | Path = "output",
    input_dir: str | Path | None = None,
    nodes: dict[str, NodeClass] | None = None,
    echo: Callable[[str], None] = _to_stderr,
) -> int:
    """What `wegen run` does. `sets` come after `seed`, so they win.

    What output nodes made is told at the end, also when a later node fails or the run is cancelled.

    Returns the exit code: 0 done, 1 a node failed, 2 the workflow or an argument is wrong, 3 the workflow has foreign nodes, 130 cancelled.
    """
    nodes = nodes or {}
    saved: list[Saved] = []

    def tell_saved() -> None:
        for item in saved:
            echo(f"{workflow.label(item.node_id)}: {item.text if item.kind == 'text' else item.path}")

    def tell(done: int, total: int, node_id: str, title: str) -> None:
        echo(f"[{done + 1}/{total}] {title} (node {node_id})")

    try:
        workflow = load_workflow(workflow_path, nodes)
        if seed is not None and not set_seed(workflow, seed):
            echo("--seed: no node of this workflow has a seed; nothing was changed")
        set_values(workflow, list(sets))
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
    tell_saved()
    return 0
