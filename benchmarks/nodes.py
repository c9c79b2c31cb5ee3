"""What the nodes cost over direct library calls, with the miniature, and what the pack adds to ComfyUI's start: `python -m wegen.benchmarks.nodes`.

    node       the node's own call                     library    the same work asked of WeGen / WeGenDecoder
    overhead   node / library - 1, in CPU seconds (a busy machine does not change them); target: under 3 %

Without ComfyUI the nodes run headless. With WEGEN_COMFYUI (and WEGEN_COMFYUI_PYTHON) they run inside its modules too, and a server
is started with and without the pack. No test asserts a time.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
RUNS = 7


def rows(pack: str, runs: int = RUNS) -> list[tuple[str, float, float]]:
    """(node, CPU seconds of the node, of the library call), medians of alternating warm runs. `pack`: the package's name here."""
    import torch

    nodes = importlib.import_module(f"{pack}.nodes").NODE_CLASS_MAPPINGS
    Conversation = importlib.import_module(f"{pack}.wegen_model.chat.conversation").Conversation

    def node(name, **inputs):
        answer = getattr(nodes[name](), nodes[name].FUNCTION)(**inputs)
        return answer["result"] if isinstance(answer, dict) else answer

    (model,) = node("WeGenLoadModel", model="wegen-mini")
    words = "a fox on a teal background"
    chat = model.chat(Conversation().user(words), picture="always", max_tokens=128)
    features, _ = model.draw(chat)
    image = model.decode(features)
    pairs = {
        "EVA-CLIP Encode": (lambda: node("WeGenEncode", model=model, image=image), lambda: model.encode(image)),
        "WeGen Chat": (
            lambda: node("WeGenChat", model=model, message=words, picture="always"),
            lambda: model.chat(Conversation().user(words), picture="always", max_tokens=128),
        ),
        "AR Feature Decode": (lambda: node("WeGenDraw", model=model, chat=chat), lambda: model.draw(chat)),
        "SDXL Feature Decoder": (lambda: node("WeGenDecode", features=features, decoder=model), lambda: model.decode(features)),
    }
    out = []
    with torch.inference_mode():
        for name, both in pairs.items():
            taken, often = [[], []], 1
            for i in range(runs + 1):
                for side in ((0, 1), (1, 0))[i % 2]:
                    begun = time.process_time()
                    for _ in range(often):
                        both[side]()
                    spent = (time.process_time() - begun) / often
                    if i:
                        taken[side].append(spent)
                often = often if i else max(1, int(0.3 / spent))  # short calls are repeated: clocks are coarse
            out.append((name, median(taken[0]), median(taken[1])))
    return out


def tell(where: str, measured: list[tuple[str, float, float]]) -> None:
    for name, node, library in measured:
        sys.stdout.write(f"{where:<10}{name:<22}{node:8.3f} s   library {library:8.3f} s   overhead {node / library - 1:+7.2%}\n")
    node, library = (sum(row[i] for row in measured) for i in (1, 2))
    sys.stdout.write(f"{where:<10}{'all four':<22}{node:8.3f} s   library {library:8.3f} s   overhead {node / library - 1:+7.2%}\n")


def inside(comfyui: str) -> None:
    """This file again, in ComfyUI's interpreter."""
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, comfyui)
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.model_management  # noqa: F401
    import folder_paths  # noqa: F401

    spec = importlib.util.spec_from_file_location("a_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["a_pack"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    tell("ComfyUI", rows("a_pack"))


def start(packs: dict | None) -> tuple[float, float]:
    """(seconds until the server answers, seconds of our import)."""
    from wegen.tests.comfyui.server import ComfyServer

    begun = time.perf_counter()
    with ComfyServer.from_environment(packs=packs) as server:
        return time.perf_counter() - begun, server.import_seconds() if packs is None else 0.0


def main() -> None:
    if "--inside" in sys.argv:
        return inside(sys.argv[sys.argv.index("--inside") + 1])
    tell("headless", rows("wegen"))
    comfyui = os.environ.get("WEGEN_COMFYUI")
    if not comfyui:
        return None
    python = os.environ.get("WEGEN_COMFYUI_PYTHON", sys.executable)
    done = subprocess.run([python, __file__, "--inside", comfyui], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    sys.stdout.write(done.stdout)
    pairs = [(start({}), start(None)) for _ in range(3)]
    bare, full = median(p[0][0] for p in pairs), median(p[1][0] for p in pairs)
    sys.stdout.write(
        f"start-up  without {bare:.1f} s, with {full:.1f} s: {full / bare:.2f}x; ComfyUI's own count of our import: "
        f"{median(p[1][1] for p in pairs):.2f} s\n"
    )
    return None


if __name__ == "__main__":
    main()
