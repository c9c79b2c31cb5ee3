"""Where the nodes run: inside ComfyUI, or headless. The only file that touches comfy.*, folder_paths and the server.

`runtime()` is the Runtime that fits; `model_roots()`, `list_models()`, `check_model()` say which model folders there are.
ComfyUI is used when it is already loaded (it is, before any pack), and never imported from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..wegen_model.runtime import Part, Placement, Runtime

BUNDLED = "wegen-mini"
FOLDER = "wegen"  # below ComfyUI's models folder
DTYPES = ("default", "float32", "bfloat16", "float16")
WORDS_PER_SECOND = 10  # text and preview updates sent to the browser


def inside_comfyui() -> bool:
    return "folder_paths" in sys.modules and "comfy" in sys.modules


class Notes:
    """Keeps what was warned about, so that the node can show it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes: list[str] = []
        self.told: Callable[..., None] | None = None  # told(i, n, what, preview, text): a node that shows its progress itself

    def tick(self, i: int, n: int, what: str, preview: Any = None, text: str | None = None) -> None:
        super().tick(i, n, what, preview, text)
        if self.told is not None:
            self.told(i, n, what, preview, text)

    def warn(self, text: str) -> None:
        super().warn(text)
        if text not in self.notes:
            self.notes.append(text)


class HeadlessRuntime(Notes, Runtime):
    """`wegen run` and tests: plain PyTorch."""


class ComfyRuntime(Notes, Runtime):
    """Layers, devices, precision, memory, progress and cancel as ComfyUI decides them."""

    def __init__(self, dtype: torch.dtype | None = None):
        super().__init__(device="cpu", dtype=dtype)
        self.chosen = dtype  # what the person asked for; None leaves it to ComfyUI
        self.operations = _operations()
        self._active: list[tuple[Any, int]] = []  # patchers in use, with the room each asked for
        self._what: tuple[str, int, int] = ("", 0, 0)
        self._told = 0.0

    def place(self, part: str) -> Placement:
        import comfy.model_management as mm

        if part == "unet":
            device, offload = mm.get_torch_device(), mm.unet_offload_device()
            dtype = self.chosen or mm.unet_dtype(device, supported_dtypes=[torch.bfloat16, torch.float16, torch.float32])
        elif part == "vae":
            device, offload = mm.vae_device(), mm.vae_offload_device()
            wide = self.chosen if self.chosen != torch.float16 else None  # SDXL's VAE overflows in float16
            dtype = wide or mm.vae_dtype(device, [torch.bfloat16, torch.float32])
        else:
            device, offload = mm.text_encoder_device(), mm.text_encoder_offload_device()
            dtype = self.chosen or mm.text_encoder_dtype(device)
            if self.chosen is None and dtype == torch.float16 and mm.should_use_bf16(device):
                dtype = torch.bfloat16  # WeGen's public weights were trained in it
        if mm.is_device_cpu(device) and self.chosen is None:
            dtype = torch.float32
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            dtype = torch.bfloat16 if mm.should_use_bf16(device) else torch.float16  # --fp8_…: stored wide for now
        return Placement(torch.device(device), torch.device(offload), dtype)

    def adopt(self, part: str, module: torch.nn.Module) -> Part:
        import comfy.model_patcher

        for leaf in module.modules():  # diffusers' plain layers take ComfyUI's behaviour: streaming, casting
            kind = {torch.nn.Linear: "Linear", torch.nn.Conv2d: "Conv2d", torch.nn.GroupNorm: "GroupNorm",
                    torch.nn.LayerNorm: "LayerNorm"}.get(type(leaf))
            if kind:
                leaf.__class__ = getattr(self.operations, kind)
        # diffusers' `device` is read-only, and the patcher writes it
        read_only = isinstance(getattr(type(module), "device", None), property)
        held = type(type(module).__name__, (Held,), {})(module) if read_only else module  # the log names a model by its class
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        place = self.place(part)
        return Part(part, module, patcher_class(held, load_device=place.device, offload_device=place.offload_device))

    @contextlib.contextmanager
    def use(self, part: Part, extra_bytes: int = 0):
        """Nested uses are loaded together, so that one does not push the other out."""
        import comfy.model_management as mm

        self._active.append((part.handle, extra_bytes))
        try:
            mm.load_models_gpu([patcher for patcher, _ in self._active], memory_required=sum(n for _, n in self._active))
            yield torch.device(part.handle.load_device)
        finally:
            self._active.pop()

    def tick(self, i: int, n: int, what: str, preview: Any = None, text: str | None = None) -> None:
        import comfy.model_management as mm
        import comfy.utils

        mm.throw_exception_if_processing_interrupted()
        last_what, last_n, last_i = self._what
        if self._bar is None or (what, n) != (last_what, last_n) or i <= last_i:
            self._bar, self._told = comfy.utils.ProgressBar(n), 0.0
        self._what = (what, n, i)
        if self.told is not None:
            self.told(i, n, what, preview, text)
        picture = None
        if time.monotonic() - self._told >= 1 / WORDS_PER_SECOND or i >= n:
            self._told = time.monotonic()
            picture = _preview(preview) if self.told is None else None
            if text and self.told is None:
                show(text)
        self._bar.update_absolute(i, n, picture)

    def close(self) -> None:
        self._bar, self._what = None, ("", 0, 0)


class Held(torch.nn.Module):
    """A module under one name, where a patcher may write its own attributes."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module


def _operations() -> Any:
    """comfy.ops.manual_cast, without the layers that newer versions leave empty until their weights come: ours are built on
    the meta device and checked against the file."""
    from comfy.ops import manual_cast

    def full(base: type) -> type:
        def load(self, *args, **kwargs):
            return base._load_from_state_dict(self, *args, **kwargs)

        return type(base.__name__, (base,), {"_load_from_state_dict": load})

    return type("operations", (manual_cast,), {"Linear": full(manual_cast.Linear), "Embedding": full(manual_cast.Embedding)})


def _preview(preview: Any):
    """("JPEG", picture, longest side) as ComfyUI's bar takes it, or None; the user's preview setting is respected."""
    if preview is None:
        return None
    from comfy.cli_args import LatentPreviewMethod, args

    if args.preview_method == LatentPreviewMethod.NoPreviews:
        return None
    from PIL import Image

    pixels = (preview().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return "JPEG", Image.fromarray(pixels), getattr(args, "preview_size", 512)


def _executing_node() -> str | None:
    try:
        from comfy_execution.utils import get_executing_context
    except ImportError:
        return None
    context = get_executing_context()
    return context.node_id if context is not None else None


def runtime(dtype: str = "default") -> Runtime:
    """A Runtime for one loaded model. `dtype`: one of DTYPES."""
    chosen = None if dtype == "default" else getattr(torch, dtype)
    return ComfyRuntime(chosen) if inside_comfyui() else HeadlessRuntime(dtype=chosen, progress=sys.stderr.isatty())


@contextlib.contextmanager
def watch(run: Runtime, told: Callable[..., None] | None = None):
    """One node's run: yields the list of what is warned about meanwhile; drops the bar whatever happens.

    `told(i, n, what, preview, text)` takes the place of what is otherwise shown below the node."""
    run.notes.clear()
    run.told = told
    try:
        yield run.notes
    finally:
        run.told = None
        run.close()


def shown(result: tuple, notes: list[str], text: str = "", ui: dict | None = None) -> dict:
    """A V1 node's answer: its outputs, text with notes below it where there is any, and what our own scripts show (`ui`)."""
    lines = [line for line in (text, *(f"Note: {note}" for note in notes)) if line]
    if lines:
        show("\n\n".join(lines))
    ui = (ui or {}) | ({"text": lines} if lines else {})
    return {"ui": ui, "result": result} if ui else {"result": result}


def nothing() -> Any:
    """An output that is not there: ComfyUI skips what hangs on it; headless it is None."""
    if not inside_comfyui():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def show(text: str) -> None:
    """Text below the node that runs, where this ComfyUI can show it."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    node = _executing_node() if inside_comfyui() else None
    if server is None or node is None:
        return
    if hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node, server.client_id)


# --- model folders --------------------------------------------------------------------------------------------------


def register() -> None:
    """Make models/wegen known to ComfyUI; paths of a user's extra_model_paths.yaml stay, and stay first."""
    if not inside_comfyui():
        return
    import folder_paths

    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def model_roots() -> tuple[Path, ...]:
    """Folders below which model folders lie. Headless: WEGEN_MODELS, and models/wegen where the command runs."""
    if inside_comfyui():
        import folder_paths

        return tuple(Path(p) for p in folder_paths.get_folder_paths(FOLDER))
    named = [Path(p) for p in os.environ.get("WEGEN_MODELS", "").split(os.pathsep) if p]
    return (*named, Path("models") / FOLDER)


def bundled() -> Path:
    from ..wegen_model.checkpoint.folder import resolve

    return resolve(BUNDLED)


def list_models(kind: str) -> list[str]:
    """Names for a loader's combo: the bundled model, then folders below the roots, `/` as separator.

    `kind`: "model", or "decoder" (folders with unet/).
    """
    found = set()
    for root in model_roots():
        for folder in _folders(root):
            decoder = (folder / "unet" / "config.json").is_file()
            model = any((folder / name).exists() for name in ("vision.safetensors", "vision.safetensors.index.json", "language",
                                                              "projectors.safetensors"))
            if decoder if kind == "decoder" else model or not decoder:
                found.add(folder.relative_to(root).as_posix())
    return [BUNDLED, *sorted(found - {BUNDLED})]


def _folders(root: Path):
    """Folders with a config.json, the topmost of each branch. Links are followed, but not back to a folder they lie in."""
    above: dict[str, frozenset[str]] = {}  # walked folder: real paths of itself and all above it
    for path, names, files in os.walk(root, followlinks=True):
        names[:] = sorted(n for n in names if not n.startswith("."))  # dot folders: a conversion on its way
        real, outer = os.path.realpath(path), above.get(os.path.dirname(path), frozenset())
        if real in outer:
            names.clear()
            continue
        above[path] = outer | {real}
        if "config.json" in files and Path(path) != root:
            names.clear()
            yield Path(path)


def check_model(name: str, kind: str) -> bool | str:
    """True, or why a loader cannot open `name`. Inside ComfyUI only listed names are opened; headless also paths."""
    if name == BUNDLED:
        if (bundled() / "config.json").is_file():
            return True
        return (f"the bundled {BUNDLED} is missing its weights, which come with WeGen ({bundled()}). Install WeGen again.")
    listed = list_models(kind)
    if name in listed or not inside_comfyui() and (Path(name) / "config.json").is_file():
        return True
    where = " or ".join(str(root) for root in model_roots())
    what = "decoder folder (config.json, unet/, vae/, scheduler/)" if kind == "decoder" else "model folder"
    return (f"there is no {what} '{name}' in {where}. Found: {', '.join(listed)}. Put the folder there (`wegen convert` makes one "
            "from public files), or choose another.")


def knows() -> str:
    """One sentence on what the bundled model can draw, read from its config.json."""
    try:
        values = json.loads((bundled() / "config.json").read_text())
    except (OSError, ValueError):
        return ""
    concepts = values.get("concepts") or ()
    return f"{BUNDLED} (small, bundled, runs on any CPU) knows: {', '.join(concepts)}." if concepts else values.get("knows", "")


def fingerprint(name: str) -> str:
    """Changes when a model folder's files do, so that a replaced model is loaded anew."""
    from ..wegen_model.checkpoint.folder import CheckpointError, resolve

    try:
        folder = resolve(name, model_roots())
    except CheckpointError:
        return name
    stamps = [(p.relative_to(folder).as_posix(), p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()]
    return f"{folder} {stamps}"


register()
