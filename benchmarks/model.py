"""Times what the README promises, and prints ratios: `python -m wegen.benchmarks.model`. No test asserts a time.

demo      `make demo`'s command, after installation        against `python -c "import torch"`
import    what importing the pack adds to a Python that has torch
picture   text to picture, warm, in one process            chat, draw and decode apart
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent


def clock(command: list[str], runs: int = 3) -> float:
    """Median seconds of a whole process."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return median(times)


def warm(runs: int = 5) -> dict[str, float]:
    """Median seconds of each step of text to picture, everything loaded."""
    from wegen.wegen_model.chat.conversation import Conversation
    from wegen.wegen_model.pipeline import WeGen

    model, rows = WeGen.load("wegen-mini"), {"chat": [], "draw": [], "decode": []}
    for i in range(runs + 1):
        marks = [time.perf_counter()]
        talk = model.chat(Conversation().user("a fox on a teal background"), picture="always")
        marks.append(time.perf_counter())
        features, _ = model.draw(talk)
        marks.append(time.perf_counter())
        model.decode(features, seed=i)
        marks.append(time.perf_counter())
        if i:
            for name, a, b in zip(rows, marks, marks[1:]):
                rows[name].append(b - a)
    return {name: median(values) for name, values in rows.items()}


def main() -> None:
    python = sys.executable
    torch_only = clock([python, "-c", "import torch"])
    pack = clock([python, "-c", "import torch, wegen"])
    with tempfile.TemporaryDirectory() as out:
        demo = clock([python, "-m", "wegen", "run", "workflows/text_to_picture.json", "--out", out])
    steps = warm()
    out = sys.stdout.write
    out(f"import torch                {torch_only:6.2f} s   1.0x\n")
    out(f"import torch, wegen         {pack:6.2f} s   {pack / torch_only:.2f}x   the pack adds {pack - torch_only:.2f} s\n")
    out(f"demo, whole process         {demo:6.2f} s   {demo / torch_only:.1f}x\n")
    whole = sum(steps.values())
    for name, seconds in steps.items():
        out(f"  warm: {name:<20}{seconds:6.2f} s   {seconds / whole:.0%} of {whole:.2f} s\n")


if __name__ == "__main__":
    main()
