"""The WeGen library: towers, decoder, training and the bundled miniature, without ComfyUI. Its face, loaded name by name:

WeGen           a model folder that sees, chats, draws and paints (pipeline.py)
Conversation    turns so far, and Reference, what a turn shows (chat/conversation.py)
Box             a place in a picture (box.py)
Features        a picture as the model sees and writes it (features.py)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .box import Box
    from .chat.conversation import Conversation, Reference
    from .features import Features
    from .pipeline import WeGen

__all__ = ["Box", "Conversation", "Features", "Reference", "WeGen"]

_HOMES = {
    "Box": ".box",
    "Conversation": ".chat.conversation",
    "Features": ".features",
    "Reference": ".chat.conversation",
    "WeGen": ".pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return value
