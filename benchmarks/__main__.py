"""All benchmarks, or those named, one after another: `make bench`, `python -m wegen.benchmarks [model] [nodes] [data] [training] [keep] …`.

What each prints: README.md beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

NAMES = ("model", "nodes", "data", "training", "keep", "references", "regional")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m wegen.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    names = parser.parse_args().names or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    failed = []
    for name in names:  # a process each: what one leaves in memory or caches does not help the next
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, "-m", f"wegen.benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
