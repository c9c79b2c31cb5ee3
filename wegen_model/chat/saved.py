"""A conversation as one file: exactly what was said, drawn and attached, so that the talk goes on as if it had never stopped.

safetensors. Its tensors are features as they are (b,n,c) and attached pictures (1,h,w,3 or 4), in 8 bits where that is exact. Its metadata
has `format` and, under `conversation`, JSON:

    {"tokenizer": hash, "turns": [{"role", "text", "ids", "open_image", "seed", "references": […], "pictures": […]}, …],
     "states": [[index of a turn, …], …], "drawn": [[index of a turn, …], …]}

`states`: the turns of the conversation now (last) and before each of its messages and commands, for undo; `drawn`: see Conversation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..box import Box
from ..features import Features
from ..fileio import atomic, parse_json
from .conversation import Conversation, Reference, Turn

FORMAT = "wegen-conversation-1"


def save_conversation(conversation: Conversation, path: str | Path) -> None:
    """Write the file, beside and renamed."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}  # id of a tensor -> its name
    table: dict[int, int] = {}  # id of a turn -> its index
    rows: list[dict] = []

    def tensor(value: Tensor, picture: bool = False) -> str:
        if id(value) not in names:
            names[id(value)] = name = f"t{len(names)}"
            stored = value.detach().cpu()
            whole = (stored * 255).round().byte() if picture else stored
            exact = picture and torch.equal(whole.float() / 255, stored.float())
            tensors[name] = (whole if exact else stored).contiguous().clone()
        return names[id(value)]

    def features(value: Features | None) -> dict | None:
        if value is None:
            return None
        return {"tensor": tensor(value.tokens), "grid": list(value.grid), "space": value.space, "tower": value.tower}

    def reference(r: Reference) -> dict:
        return {
            "picture": None if r.picture is None else tensor(r.picture, picture=True),
            "features": features(r.features),
            "box": r.box and [r.box.x, r.box.y, r.box.width, r.box.height],
            "label": r.label,
        }

    def index(turn: Turn) -> int:
        if id(turn) not in table:
            table[id(turn)] = len(rows)
            rows.append(
                {
                    "role": turn.role,
                    "text": turn.text,
                    "ids": turn.ids,
                    "open_image": turn.open_image,
                    "seed": turn.seed,
                    "references": [reference(r) for r in turn.references],
                    "pictures": [features(turn.written(k)) for k in range(len(turn.pictures))],
                }
            )
        return table[id(turn)]

    states: list[list[int]] = []
    state: Conversation | None = conversation
    while state is not None:
        states.append([index(turn) for turn in state.turns])
        state = state.previous
    drawn = [[index(turn) for turn in turns] for turns in conversation.drawn]
    value = {"tokenizer": conversation.tokenizer, "turns": rows, "states": states[::-1], "drawn": drawn}
    with atomic(path) as part:
        save_file(tensors, part, {"format": FORMAT, "conversation": json.dumps(value)})


def load_conversation(path: str | Path) -> Conversation:
    """Read what `save_conversation` wrote.

    Raises:
        ValueError: it holds no conversation, or a damaged one. OSError: there is no such file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file of a conversation, as /save in `wegen chat` wrote it.")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            if meta.get("format") != FORMAT:
                raise ValueError("it is something else")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        return _read(parse_json(meta["conversation"], "the conversation"), tensors)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no conversation, or a damaged one ({error}). /save in `wegen chat` writes them.") from error


def _read(value: Any, tensors: dict[str, Tensor]) -> Conversation:
    def picture(name: str | None) -> Tensor | None:
        if name is None:
            return None
        return tensors[name].float() / 255 if tensors[name].dtype == torch.uint8 else tensors[name]

    def features(row: dict) -> Features:
        rows, columns = row["grid"]
        return Features(tensors[row["tensor"]], (rows, columns), str(row["space"]), str(row["tower"]))

    def reference(row: dict) -> Reference:
        seen, box = row["features"], row["box"]
        return Reference(picture(row["picture"]), seen and features(seen), box and Box(*box), str(row["label"]))

    def turn(row: dict) -> Turn:
        made = Turn(
            row["role"],
            str(row["text"]),
            tuple(reference(r) for r in row["references"]),
            row["ids"] if row["ids"] is None else tuple(map(int, row["ids"])),
            tuple(features(f) for f in row["pictures"]),
            bool(row["open_image"]),
            row["seed"],
        )
        if made.role not in ("user", "assistant"):
            raise ValueError(f"a turn of «{str(made.role)[:20]}»")
        made.check()
        return made

    turns = [turn(row) for row in value["turns"]]
    drawn = tuple(tuple(turns[i] for i in rows) for rows in value["drawn"])
    talk = None
    for state in value["states"]:
        talk = Conversation(tuple(turns[i] for i in state), str(value["tokenizer"]), drawn, talk)
    return talk or Conversation()
