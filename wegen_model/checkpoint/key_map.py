"""The machinery of key maps: a map is a table of rules, read from left to right to load and from right to left to export.

A rule's key pattern may hold holes: {n} and {m} numbers, {leaf} weight or bias, {rest} anything; the other side uses the same holes.
The first rule that fits a key wins; a key that no rule fits is an error that names it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

HOLES = {"n": r"\d+", "m": r"\d+", "leaf": "weight|bias", "rest": ".+", "side": "encoder|decoder"}
HALVES = ("q", "v")  # rules that share one target: each gives one third of it


@dataclass(frozen=True)
class KeyRule:
    """One line of a key map."""

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

    `marks`: keys that distinguish it from others, one of which must be present; `prefixes` that may precede all keys, the usual one first.
    `rules`: the table, or a function of the keys that makes it, where keys of one side depend on how many there are.
    `export`: its name for `wegen convert --layout`; empty: it is only read.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[KeyRule, ...] | Callable[[Collection[str]], tuple[KeyRule, ...]]
    prefixes: tuple[str, ...] = ("",)
    export: str = ""

    def prefix(self, keys: Collection[str]) -> str | None:
        """The prefix with which a mark is among the keys; None: a file of another kind."""
        return next((p for p in self.prefixes if any(p + mark in keys for mark in self.marks)), None)

    def table(self, keys: Collection[str]) -> tuple[dict[str, KeyRule], list[KeyRule]]:
        """Rules without holes by their pattern, and the others in order."""
        rules = self.rules(keys) if callable(self.rules) else self.rules
        return {r.pattern: r for r in rules if "{" not in r.pattern}, [r for r in rules if "{" in r.pattern]

    def route(self, keys: Collection[str]) -> tuple[list[tuple[str, str, KeyRule]], list[str]]:
        """(key, target, rule) of every key that a rule fits, and the keys that none does."""
        prefix = self.prefix(keys) or ""
        bare = {key: key.removeprefix(prefix) for key in keys}
        exact, open_rules = self.table(list(bare.values()))
        routed, unknown = [], []
        for key, name in bare.items():
            rule = exact.get(name)
            target = rule.target or rule.pattern if rule else None
            for rule in () if rule else open_rules:
                target = rule.match(name)
                if target is not None:
                    break
            if target is None:
                unknown.append(key)
            else:
                routed.append((key, target, rule or exact[name]))
        return routed, unknown

    def export_keys(self, part: str, targets: Collection[str]) -> list[tuple[str, str, KeyRule]]:
        """(public key, target, rule) for every tensor of one of our parts: the same table from right to left.

        Raises:
            KeyError: a target that the map has no place for.
        """
        table = self.rules(targets) if callable(self.rules) else self.rules
        rules = [rule for rule in table if rule.part == part and not rule.only_read]
        exact: dict[str, list[KeyRule]] = {}
        for rule in rules:
            if "{" not in (rule.target or rule.pattern):
                exact.setdefault(rule.target or rule.pattern, []).append(rule)
        open_rules = [rule for rule in rules if "{" in (rule.target or rule.pattern)]
        out = []
        for target in targets:
            hits = [(rule.back(target), rule) for rule in (*exact.get(target, ()), *open_rules)]
            hits = [(key, rule) for key, rule in hits if key is not None]
            if not hits:
                raise KeyError(target)
            chosen = [hit for hit in hits if hit[1].how in HALVES] if hits[0][1].how in HALVES else hits[:1]
            out += [(self.prefixes[0] + key, target, rule) for key, rule in chosen]
        return out


def below(prefix: str, rules: tuple[KeyRule, ...]) -> tuple[KeyRule, ...]:
    """The same rules for keys that begin with `prefix`."""
    return tuple(dataclasses.replace(r, pattern=prefix + r.pattern, target=r.target or r.pattern) for r in rules)
