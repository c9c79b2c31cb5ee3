"""The `wegen` command and `python -m wegen`: the library's command line, handed this pack's nodes for `wegen run`."""

from __future__ import annotations

import sys

from .wegen_model.cli.main import main as command


def _nodes() -> dict[str, type]:
    from .nodes import NODE_CLASS_MAPPINGS

    return NODE_CLASS_MAPPINGS


def _names() -> dict[str, str]:
    from .nodes import NODE_DISPLAY_NAME_MAPPINGS

    return NODE_DISPLAY_NAME_MAPPINGS


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return command(argv, _nodes, _names)


if __name__ == "__main__":
    sys.exit(main())
