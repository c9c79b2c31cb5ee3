"""Words to ids and back: a folder's own tokenizer plus WeGen's special tokens.

Two kinds of folder: `tokenizer.json` (the tokenizers library; the miniature) and `tokenizer.model` (sentencepiece; LLaMA-2),
each beside an `added_tokens.json` of {token: id}. For LLaMA-2 the table is the public one: <img_00000>…<img_00099> 32000-32099,
<img> 32100, </img> 32101, <patch> 32102, </patch> 32103, <loc-0>…<loc-223> 32104-32327, <box_start> 32328, <box_end> 32329.
Text never yields a special id, whatever it says: pieces of text and special tokens are put together from separate lists.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..box import LOCATIONS
from ..fileio import parse_json, read_json

IMAGE_TOKENS = 100  # <img_00000> … : how many features a picture may have
AGAIN = "Copy or convert the model again."


def special_tokens(first: int, images: int = IMAGE_TOKENS) -> dict[str, int]:
    """WeGen's table in the public order, from id `first` on."""
    names = [f"<img_{i:05d}>" for i in range(images)] + ["<img>", "</img>", "<patch>", "</patch>"]
    names += [f"<loc-{i}>" for i in range(LOCATIONS)] + ["<box_start>", "<box_end>"]
    return {name: first + i for i, name in enumerate(names)}


class Tokenizer:
    """`encode(text) -> ids`, `decode(ids) -> text`, and the special ids as attributes."""

    def __init__(self, backend, special: dict[str, int], bos: int, eos: int, hash: str):
        self._backend = backend
        self.special = special
        self.bos, self.eos, self.hash = bos, eos, hash
        need = ("<img_00000>", "<img>", "</img>", "<loc-0>", f"<loc-{LOCATIONS - 1}>", "<box_start>", "<box_end>")
        missing = [name for name in need if name not in special]
        if missing:
            raise ValueError(
                f"the tokenizer lacks WeGen's special tokens ({', '.join(missing)}): added_tokens.json should "
                "list them; `wegen convert` writes it."
            )
        self.image_start, self.image_end = special["<img>"], special["</img>"]
        self.image_first, self.loc_first = special["<img_00000>"], special["<loc-0>"]
        self.box_start, self.box_end = special["<box_start>"], special["<box_end>"]
        self.names = {i: name for name, i in special.items()}
        self.size = max(special.values()) + 1

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        folder = Path(folder)
        added = folder / "added_tokens.json"
        special = _table(read_json(added), added) if added.is_file() else {}
        if (folder / "tokenizer.json").is_file():
            raw = (folder / "tokenizer.json").read_bytes()
            data = parse_json(raw, str(folder / "tokenizer.json"))
            own = _own_tokens(data, folder / "tokenizer.json")
            special = special or own
            backend: Any = _Fast(data, own, folder / "tokenizer.json")
        elif (folder / "tokenizer.model").is_file():
            raw = (folder / "tokenizer.model").read_bytes()
            backend = _SentencePiece(raw, folder / "tokenizer.model")
            special = special or special_tokens(backend.size)
        else:
            raise FileNotFoundError(
                f"{folder}: no tokenizer. Put tokenizer.model (or tokenizer.json) and added_tokens.json "
                "there; LLaMA-2's come with its weights."
            )
        special = {k: v for k, v in special.items() if k.startswith(("<img", "</img", "<patch", "</patch", "<loc-", "<box_"))}
        digest = hashlib.sha256(raw + json.dumps(sorted(special.items())).encode()).hexdigest()[:12]
        return cls(backend, special, backend.bos, backend.eos, digest)

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text between special tokens (sentencepiece puts its word mark before each piece)."""
        return self._backend.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special ones left out."""
        return self._backend.decode([i for i in ids if i not in self.names and i not in (self.bos, self.eos)])

    def location(self, value: int) -> int:
        return self.loc_first + value


def _table(values: Any, path: Path) -> dict[str, int]:
    """{token: id} as a file holds it. ValueError names the file and the token whose id is not valid."""
    if not isinstance(values, dict):
        raise ValueError(f"{path}: not a table of tokens and their ids. {AGAIN}")
    for name, i in values.items():
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < 2**31:
            raise ValueError(f"{path}: the id of {name[:40]!r} is {str(i)[:40]!r}, not a whole number from 0 on. {AGAIN}")
    return values


def _own_tokens(data: Any, path: Path) -> dict[str, int]:
    """{token: id} of the added tokens of a tokenizer.json. ValueError names the file and the field."""
    rows = data.get("added_tokens", []) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in rows):
        raise ValueError(f"{path}: not a valid tokenizer (added_tokens is no list of tokens with content and id). {AGAIN}")
    return _table({t["content"]: t.get("id") for t in rows}, path)


class _Fast:
    """tokenizers' byte-level BPE or any other tokenizer.json; its own added tokens are taken out first."""

    def __init__(self, data: dict, own: dict[str, int], path: Path):
        import tokenizers

        self.bos, self.eos = own.get("<s>", 1), own.get("</s>", 2)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps({**data, "added_tokens": [], "post_processor": None}))
        except Exception as error:  # noqa: BLE001 the tokenizers library raises Exception itself
            raise ValueError(f"{path}: not a valid tokenizer ({error}). {AGAIN}") from error
        self.size = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids)


class _SentencePiece:
    """LLaMA's sentencepiece model. Each piece carries the word mark, as in transformers 4.30.2, with which the release was trained
    (`legacy` in the release's tokenizer_config.json came later and is not read there)."""

    def __init__(self, raw: bytes, path: Path):
        import sentencepiece

        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=raw)
        except RuntimeError as error:
            raise ValueError(f"{path}: not a valid tokenizer. {AGAIN}") from error
        if not raw or not self._sp.get_piece_size():
            raise ValueError(f"{path}: it is empty. {AGAIN}")
        self.size = self._sp.get_piece_size()
        self.bos, self.eos = self._sp.bos_id(), self._sp.eos_id()

    def encode(self, text: str) -> list[int]:
        return self._sp.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self._sp.decode(ids)
