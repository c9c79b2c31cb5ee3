"""Two processes at one folder: who works on it holds a lock, and another is refused in words.

    with held(path, "convert"): …    `path` is the lock's file; beside it, PATH.who says who holds it, for messages

The lock is the system's (filelock: flock, on Windows msvcrt), so it goes with its process however that ends, and nothing is left to be
taken over by guessing at process ids. The empty file is removed by its holder before it lets go, and
whoever locks one that has no name any more asks again; what a killed process leaves of it holds nobody up.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .fileio import JSONError, read_json, write_text


class Busy(ValueError):
    """Another process works there; the text says which, where and since when."""


@contextlib.contextmanager
def held(path: Path, what: str, wanted: bool = True) -> Iterator[None]:
    """Hold the lock of a file for the duration.

    Args:
        what: is done, for the other's message. wanted: False holds nothing, for processes that work under another one's lock.
    Raises:
        Busy: another process holds it.
    """
    who = path.with_name(path.name + ".who")
    lock = _acquire(path, who) if wanted else None
    try:
        if lock is not None:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            with contextlib.suppress(OSError):  # the disk may be full: the lock holds all the same
                write_text(who, json.dumps({"what": what, "pid": os.getpid(), "host": socket.gethostname(), "since": now}))
        yield
    finally:
        if lock is not None:
            for left in (who, path):
                with contextlib.suppress(OSError):  # Windows removes no open file: there the empty lock file stays
                    left.unlink()
            lock.release()


def _acquire(path: Path, who: Path) -> Any:
    """The lock, or None where the folder cannot be written or its disk has no locks: the work itself then says what is wrong."""
    import filelock

    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        while not path.exists():  # its holder removed it between our opening and our locking it
            lock.release()
            lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Busy(f"{path.parent}: {_told(who)}. Wait until it is done, stop it, or name another folder.") from None
    except (OSError, NotImplementedError):
        return None
    return lock


def _told(who: Path) -> str:
    """Who holds a lock, in words."""
    try:
        known = read_json(who)
        return f"process {known['pid']} on {known['host']} is at work there ({known['what']}) since {known['since']}"
    except (OSError, JSONError, KeyError, TypeError):
        return "another process is at work there"
