"""What a reader yields before any picture is opened, and the count of what could not be read.

An Item has its name and a function that makes it, so that a resumed run passes over finished ones without reading them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .optional import MissingLibrary
from .sample import Sample

BROKEN = (
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    RecursionError,
)  # of damaged files and rows


@dataclass
class Skips:
    """How many things were skipped and why; every name goes to `log` (JSON lines), some stay here for the summary."""

    log: Path | None = None
    reasons: Counter = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, error: Exception | str) -> None:
        text = error if isinstance(error, str) else _words(error)
        reason = text.replace(name, "…")[:120]
        self.reasons[reason] += 1
        if len(self.names.setdefault(reason, [])) < 3:
            self.names[reason].append(name)
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a") as file:
                file.write(json.dumps({"name": name, "reason": text}) + "\n")

    @property
    def total(self) -> int:
        return sum(self.reasons.values())

    def text(self) -> str:
        """The summary: one line a reason."""
        if not self.total:
            return "nothing was skipped"
        lines = [f"{self.total} skipped" + (f", all named in {self.log}" if self.log else "")]
        return "\n".join(
            [
                *lines,
                *(
                    f"  {n} x {reason}: {', '.join(self.names[reason])}{' …' if n > len(self.names[reason]) else ''}"
                    for reason, n in self.reasons.most_common(12)
                ),
            ]
        )


def _words(error: Exception) -> str:
    """Why a record could not be read. A ValueError says it itself; what Python says of a record of another form gets words around it."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not text in {error.encoding.upper()} (byte {error.start}); save it as UTF-8"
    if isinstance(error, (ValueError, OSError)):
        return str(error) or type(error).__name__
    return f"its record has not the form of the dataset's ({type(error).__name__}: {error})"


@dataclass(frozen=True)
class Item:
    """One thing of a dataset: a row, a file, a member of a tar. `make` gives its sample (None: nothing to learn from it)."""

    name: str
    make: Callable[[], Sample | None]


def samples(item: Item, source: str, skips: Skips) -> Iterator[Sample]:
    """The item's sample, checked; or an entry in `skips`."""
    try:
        made = item.make()
        if made is not None:
            yield Sample(made.task, made.turns, made.key, made.source or source).check()
    except (MissingLibrary, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 whatever one record raises is that record's, not the run's
        skips.add(item.name, error)


def every(items: Iterable[Item], source: str, skips: Skips) -> Iterator[Sample]:
    for item in items:
        yield from samples(item, source, skips)
