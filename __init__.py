"""WeGen: a chat model that sees and draws, as ComfyUI nodes and as a library.

    from wegen import WeGen, Conversation, Reference, Box, Features

ComfyUI asks for NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS and WEB_DIRECTORY. Every name loads when it is first asked for: who
imports only the configuration loads neither torch nor the nodes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from .wegen_model import Box, Conversation, Features, Reference, WeGen

WEB_DIRECTORY = "./js"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY", "Box", "Conversation", "Features", "Reference", "WeGen"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(".nodes" if name.startswith("NODE_") else ".wegen_model", __name__), name)
    except AttributeError as error:  # ComfyUI asks with hasattr, which would take it for a pack without nodes and say nothing
        raise ImportError(f"{name} could not be loaded: {error}") from error
    globals()[name] = value
    return value
