"""The machinery of layouts: a layout is a table of rows, read from left to right to load and from right to left to export.

A row's key pattern may hold holes: {n} and {m} numbers, {leaf} weight or bias, {rest} anything; the other side uses the same holes.
The first row that fits a key wins; a key that no row fits is an error that names it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

HOLES = {"n": r"\d+", "m": r"\d+", "leaf": "weight|bias", "rest": ".+", "side": "encoder|decoder"}
HALVES = ("q", "v")  # rows that share one target: what they hold are thirds of it


@dataclass(frozen=True)
class Row:
    """One line of a layout."""

    pattern: str  # key in the public file
    part: str | None  # part of our folder; None: dropped
    target: str = ""  # key there; empty: the same
    how: str = "copy"  # "copy"; or one of tensors.HOWS: positions, q, v, rotary, pointwise
    why: str = ""  # of a dropped key
    only_read: bool = False  # an older or second spelling, never written

    def match(self, key: str) -> str | None:
        """The target's key, or None when the pattern does not fit."""
        return _translate(self.pattern, self.target or self.pattern, key)

    def back(self, target: str) -> str | None:
        """The public key of a target, or None."""
        return _translate(self.target or self.pattern, self.pattern, target) if self.part and not self.only_read else None


def _translate(pattern: str, other: str, key: str) -> str | None:
    if "{" not in pattern:
        return other if key == pattern else None
    found = _compile(pattern).fullmatch(key)
    return other.format(**found.groupdict()) if found else None


def _compile(pattern: str, cache: dict[str, re.Pattern] = {}) -> re.Pattern:  # noqa: B006 a cache by design
    if pattern not in cache:
        pieces = re.split(r"\{(\w+)\}", pattern)
        cache[pattern] = re.compile("".join(f"(?P<{p}>{HOLES[p]})" if i % 2 else re.escape(p) for i, p in enumerate(pieces)))
    return cache[pattern]


@dataclass(frozen=True)
class KeyMap:
    """A kind of file.

    `marks`: keys that tell it from others, one of which must be there; `prefixes` that may precede all keys, the usual one first.
    `rows`: the table, or a function of the keys that makes it, where keys of one side depend on how many there are.
    """

    name: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...] | Callable[[Collection[str]], tuple[Row, ...]]
    prefixes: tuple[str, ...] = ("",)

    def prefix(self, keys: Collection[str]) -> str | None:
        """The prefix with which a mark is among the keys; None: a file of another kind."""
        return next((p for p in self.prefixes if any(p + mark in keys for mark in self.marks)), None)

    def table(self, keys: Collection[str]) -> tuple[dict[str, Row], list[Row]]:
        """Rows without holes by their pattern, and the others in order."""
        rows = self.rows(keys) if callable(self.rows) else self.rows
        return {r.pattern: r for r in rows if "{" not in r.pattern}, [r for r in rows if "{" in r.pattern]

    def route(self, keys: Collection[str]) -> tuple[list[tuple[str, str, Row]], list[str]]:
        """(key, target, row) of every key that a row fits, and the keys that none does."""
        prefix = self.prefix(keys) or ""
        bare = {key: key.removeprefix(prefix) for key in keys}
        exact, open_rows = self.table(list(bare.values()))
        routed, unknown = [], []
        for key, name in bare.items():
            row = exact.get(name)
            target = row.target or row.pattern if row else None
            for row in () if row else open_rows:
                target = row.match(name)
                if target is not None:
                    break
            if target is None:
                unknown.append(key)
            else:
                routed.append((key, target, row or exact[name]))
        return routed, unknown

    def export(self, part: str, targets: Collection[str]) -> list[tuple[str, str, Row]]:
        """(public key, target, row) for every tensor of one of our parts: the same table from right to left.

        Raises:
            KeyError: a target that the layout has no place for.
        """
        rows = self.rows(targets) if callable(self.rows) else self.rows
        rows = [row for row in rows if row.part == part and not row.only_read]
        exact: dict[str, list[Row]] = {}
        for row in rows:
            if "{" not in (row.target or row.pattern):
                exact.setdefault(row.target or row.pattern, []).append(row)
        open_rows = [row for row in rows if "{" in (row.target or row.pattern)]
        out = []
        for target in targets:
            hits = [(row.back(target), row) for row in (*exact.get(target, ()), *open_rows)]
            hits = [(key, row) for key, row in hits if key is not None]
            if not hits:
                raise KeyError(target)
            chosen = [hit for hit in hits if hit[1].how in HALVES] if hits[0][1].how in HALVES else hits[:1]
            out += [(self.prefixes[0] + key, target, row) for key, row in chosen]
        return out


def below(prefix: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The same rows for keys that begin with `prefix`."""
    return tuple(dataclasses.replace(r, pattern=prefix + r.pattern, target=r.target or r.pattern) for r in rows)
