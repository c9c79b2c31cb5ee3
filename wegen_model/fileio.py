"""Files: written beside and renamed, so that a reader never sees half of one; and JSON from outside, read within bounds.

    with atomic(path) as part: …     write to `part`; it takes the place of `path` when the block ends, and goes when it fails
    write_text(path, text)           the same for a text
    write_new(paths, write)          under the first of several names that is free, which two processes never both get
    stays_inside(name)               may a name from outside be joined to a folder?
    read_json(path), parse_json(text, where)     JSON within bounds of length, depth and numbers
    from_dict(cls, values, where)    a dataclass of it, each value checked against its field's annotation

Errors (`JSONError`) name the file and, for a value, its field.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import json
import math
import os
import secrets
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
MAX_BYTES = 64 << 20  # of a configuration, tokenizer, index or workflow
DATASET_BYTES = 4 << 30  # of one dataset's annotations
MAX_DEPTH = 64  # lists and objects inside one another
OLD = 24 * 3600  # seconds after which a file that a killed process left counts as abandoned
UNKEPT = "it is NaN or infinite, has more than 64 bits, or is too large for a float"
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789")}  # of Windows, in any folder
BOMS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# -- writing ----------------------------------------------------------------------------------------------------------------------


def beside(path: Path) -> Path:
    """A name in the same folder for a file in the making, of this process alone. Such names that were abandoned long ago are removed."""
    stem = f".{path.name[:50]}."  # a name's length has a limit
    for left in path.parent.glob(f"{_literal(stem)}????????.part"):
        with contextlib.suppress(OSError):  # another process may have been quicker
            if time.time() - left.stat().st_mtime > OLD:
                left.unlink()
    return path.with_name(f"{stem}{secrets.token_hex(4)}.part")


@contextlib.contextmanager
def atomic(path: str | Path, sync: bool = False) -> Iterator[Path]:
    """Yields the path to write to; at the end it takes the place of `path`, or nothing is left of it where the block failed.

    sync: put it on the disk before it is renamed, for what must outlive a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = beside(path)
    try:
        yield part
        put(part, path, sync)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def put(part: Path, path: Path, sync: bool = False) -> None:
    """Give a file that was written beside `path` its name."""
    if sync:
        with part.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(part, path)


def write_text(path: str | Path, text: str, sync: bool = False) -> None:
    """UTF-8, whole or not at all."""
    with atomic(path, sync) as part:
        part.write_text(text, encoding="utf-8")


def write_new(paths: Iterable[Path], write: Callable[[Path], Any]) -> Path:
    """A file that takes the first of `paths` that is free, and never another process's. All are in one folder.

    Args:
        write: writes the file that it is given.
    Returns:
        the path that it got.
    """
    names = iter(paths)
    path = next(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        part = beside(path)
        stack.callback(lambda: part.unlink(missing_ok=True))
        write(part)
        while True:
            try:
                _put_new(part, path)
                return path
            except FileExistsError:
                path = next(names)


def _put_new(part: Path, path: Path) -> None:
    """Give a file its name unless the name is taken: FileExistsError."""
    if os.name == "nt":
        os.rename(part, path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(part, path)


def stays_inside(name: Any) -> bool:
    """Whether a name from outside is a relative path that leads down and to a file, on every system: no way up, no root, drive, UNC path
    or stream, no device of Windows, no control character."""
    if not isinstance(name, str) or not name or len(name) > 1000:
        return False
    return all(
        part not in ("", ".", "..")
        and not any(c == ":" or c < " " for c in part)
        and part.partition(".")[0].rstrip(" ").upper() not in DEVICES
        for part in name.replace("\\", "/").split("/")
    )


def _literal(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


# -- reading JSON -----------------------------------------------------------------------------------------------------------------


class JSONError(ValueError):
    """JSON from outside that is refused. `where`: file (and field); `reason`: the rest of the sentence."""

    def __init__(self, where: str, reason: str):
        super().__init__(f"{where} {reason}")
        self.where, self.reason = where, reason


def read_json(path: str | Path, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, lenient: bool = False) -> Any:
    """The JSON of a file, within bounds. OSError: it cannot be opened. JSONError and the rest: as `parse_json`."""
    with open(path, "rb") as file:
        return parse_json(file.read(max_bytes + 1), str(path), max_bytes, max_depth, lenient)


def parse_json(text: str | bytes, where: str, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, lenient: bool = False) -> Any:
    """JSON within bounds. Bytes are UTF-8, or what their byte order mark says.

    Args:
        where: what errors call it.
        lenient: numbers that are refused (see below) become None, for readers that look at each value themselves: ComfyUI itself
            writes NaN into the workflows that it embeds.
    Raises:
        JSONError: longer than `max_bytes`, nested deeper than `max_depth`, no text, no JSON, or with NaN, Infinity, an integer that
            64 bits do not hold or a number that is too large for a float; then the field is named.
    """
    if len(text) > max_bytes:
        raise JSONError(where, f"is longer than {max_bytes / 2**20:.0f} MiB")
    if isinstance(text, bytes):
        try:
            text = text.decode(encoding_of(text))
        except UnicodeDecodeError as error:
            raise JSONError(where, f"is not text in {error.encoding.upper()} (byte {error.start})") from error
    refused: list[_Refused] = []

    def refuse(number: str) -> _Refused | None:
        refused.append(_Refused(number))
        return None if lenient else refused[-1]

    def whole(number: str) -> Any:
        if len(number) > 20 or not -(2**63) <= (value := int(number)) < 2**64:
            return refuse(number)
        return value

    def broken(number: str) -> Any:
        return value if math.isfinite(value := float(number)) else refuse(number)

    try:
        value = json.loads(text.removeprefix("\ufeff"), parse_int=whole, parse_float=broken, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise JSONError(where, f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise JSONError(where, "is nested too deeply") from error
    _check(value, where, max_depth, bool(refused) and not lenient)
    return value


def _check(value: Any, where: str, max_depth: int, refused: bool) -> None:
    """JSONError for what is nested too deeply; and, where a number was `refused`, for that with its field's name."""
    level = [("", value)]  # what may hold more, depth by depth, with the fields' names
    for _ in range(max_depth + 1):
        if not level:
            return
        for name, inner in level:
            if isinstance(inner, _Refused):
                raise JSONError(where, f"holds {inner.text}{f' at {name}' if name else ''}, a number that cannot be kept: {UNKEPT}")
        level = [
            (_join(name, key) if refused else "", inner)
            for name, outer in level
            for key, inner in (outer.items() if isinstance(outer, dict) else enumerate(outer) if isinstance(outer, list) else ())
            if isinstance(inner, (dict, list, _Refused))
        ]
    raise JSONError(where, f"is nested too deeply (more than {max_depth} lists and objects inside one another)")


def encoding_of(head: bytes) -> str:
    """The encoding that a file's first bytes tell: that of their byte order mark, else UTF-8."""
    return next((name for mark, name in BOMS if head.startswith(mark)), "utf-8")


def open_text(path: str | Path, newline: str | None = None) -> TextIO:
    """A text file, in the encoding that its byte order mark tells, else UTF-8. Bytes that are no text there come as lone surrogates,
    which `parse_json` of the line's bytes refuses."""
    with open(path, "rb") as file:
        encoding = encoding_of(file.read(4))
    return open(path, encoding=encoding, errors="surrogateescape" if encoding.startswith("utf-8") else "replace", newline=newline)


class _Refused:
    """A number that cannot be kept, where it stood."""

    def __init__(self, number: str):
        self.text = number if len(number) <= 24 else f"{number[:12]}… ({len(number)} digits)"


def _join(name: str, key: str | int) -> str:
    return f"{name}[{key}]" if isinstance(key, int) else f"{name}.{key}" if name else key


# -- JSON to dataclasses ----------------------------------------------------------------------------------------------------------


def from_dict(cls: type[T], values: Any, where: str, ignore: tuple[str, ...] = ()) -> T:
    """A dataclass of what JSON holds. Nested dataclasses are made too, lists become tuples where a tuple is annotated.

    Args:
        where: the file, for errors. ignore: keys that are no fields.
    Raises:
        JSONError: unknown keys, a missing one, or a value that is not of its field's type; names file and field.
    """
    return _build(cls, values, where, "", ignore)


def _build(cls: type[T], values: Any, where: str, name: str, ignore: tuple[str, ...] = ()) -> T:
    if not isinstance(values, dict):
        raise _wrong(where, name or cls.__name__, values, "an object")
    hints, fields = typing.get_type_hints(cls), {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields) - set(ignore))
    if unknown:
        raise JSONError(f"{where}:", f"unknown keys in {cls.__name__}: {', '.join(unknown)}. A newer version wrote it?")
    empty = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING and f.name not in values]
    if empty:
        raise JSONError(f"{where}:", f"{_join(name, empty[0])} is missing.")
    return cls(**{key: _value(hints[key], value, where, _join(name, key)) for key, value in values.items() if key in fields})


def _value(hint: Any, value: Any, where: str, name: str) -> Any:
    """`value` as its annotation says."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _build(hint, value, where, name)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        kinds = [kind for kind in inner if kind is not type(None)]
        for kind in kinds[:-1]:
            with contextlib.suppress(JSONError):
                return _value(kind, value, where, name)
        return _value(kinds[-1], value, where, name)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise _wrong(where, name, value, "a list")
        if origin is tuple and inner[-1] is not Ellipsis and len(inner) != len(value):
            raise _wrong(where, name, value, f"a list of {len(inner)}")
        each = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],) * len(value)
        return origin(_value(kind, v, where, f"{name}[{i}]") for i, (kind, v) in enumerate(zip(each, value)))
    if hint is dict or origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, name, value, "an object")
        kind = inner[1] if inner else Any
        return value if kind is Any else {key: _value(kind, v, where, _join(name, key)) for key, v in value.items()}
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    right = isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
    if not right:
        raise _wrong(where, name, value, words.get(hint, getattr(hint, "__name__", str(hint))))
    return value


def _wrong(where: str, name: str, value: Any, wanted: str) -> JSONError:
    shown = json.dumps(value, default=str)
    return JSONError(f"{where}:", f"{name} is {shown if len(shown) <= 40 else shown[:40] + '…'}, not {wanted}.")
