"""A real ComfyUI, started for a test: a throw-away base folder, this pack symlinked into it, a free port, the log kept.

    with ComfyServer(checkout) as server:
        server.upload(path)
        run = server.queue(prompt)              # waits; run.status, run.outputs, run.events
        picture = server.picture(run)           # PIL, the first one

`checkout` is a ComfyUI source folder; `python` is the interpreter that has its requirements. Nothing outside the base
folder is written. HTTP is the standard library's; events come over `websocket-client`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))  # the examples of the template browser
BLUEPRINTS = sorted((PACK / "subgraphs").glob("*.json"))
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ComfyError(Exception):
    """ComfyUI did not start, or refused a request; the text says which, with the end of its log or its own answer."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One queued prompt, after it ended."""

    id: str
    status: str  # "success" | "error" | "interrupted"
    outputs: dict[str, dict]  # node id -> what the node showed: {"images": […], "text": […]}
    events: list[dict]  # every websocket message of this prompt, in order: {"type", "data"}
    history: dict  # the server's own entry
    binary: list[bytes] = dataclasses.field(default_factory=list)  # pictures and texts sent while nodes ran: 4 bytes of kind, then it

    def sent(self, kind: str) -> list[bytes]:
        """What nodes sent while they ran: "preview" pictures, or live "text" (with the node's id before it)."""
        kinds = {"preview": (1, 2, 4), "text": (3,)}[kind]
        return [message[4:] for message in self.binary if int.from_bytes(message[:4], "big") in kinds]

    @property
    def ran(self) -> list[str]:
        """Ids of the nodes that were executed, in order."""
        return [e["data"]["node"] for e in self.events if e["type"] == "executing" and e["data"]["node"] is not None]

    @property
    def cached(self) -> set[str]:
        """Ids of the nodes whose result came from the cache."""
        return {n for e in self.events if e["type"] == "execution_cached" for n in e["data"]["nodes"]}

    @property
    def images(self) -> list[dict]:
        """Every picture shown: {"filename", "subfolder", "type"}."""
        return [image for shown in self.outputs.values() for image in shown.get("images", [])]

    @property
    def error(self) -> str:
        """The message of the node that failed, with its traceback; empty where none did."""
        for event in self.events:
            if event["type"] == "execution_error":
                data = event["data"]
                trace = "".join(data["traceback"])
                return f"{data['node_type']} #{data['node_id']}: {data['exception_message']}\n{trace}"
        return ""

    def progress(self, node: str | None = None) -> list[tuple[int, int]]:
        """The bar as it moved, (value, max) per message; of one node, or of all."""
        data = [e["data"] for e in self.events if e["type"] == "progress"]
        return [(d["value"], d["max"]) for d in data if node in (None, d["node"])]


class ComfyServer:
    """Start with `with`, stop on leaving.

    Args:
        checkout: folder with ComfyUI's main.py.
        python: interpreter to run it with.
        packs: name under custom_nodes -> folder; this pack as `wegen` unless given.
        base: folder for models, input, output; a temporary one, removed at the end, unless given.
        frontend: `static` folder of another comfyui-frontend-package.
        arguments: more command-line flags.
        start_timeout: seconds until the first answer.
    """

    def __init__(
        self,
        checkout: str | Path,
        python: str = sys.executable,
        *,
        packs: dict[str, Path] | None = None,
        base: Path | None = None,
        frontend: str | Path | None = None,
        arguments: tuple[str, ...] = (),
        start_timeout: float = 600,
    ):
        self.checkout = Path(checkout).resolve()
        if not (self.checkout / "main.py").is_file():
            raise ComfyError(f"{self.checkout} holds no main.py: WEGEN_COMFYUI should name a ComfyUI checkout.")
        self.python, self.start_timeout = python, start_timeout
        self.packs = {"wegen": PACK} if packs is None else packs
        self.frontend, self.arguments = frontend, arguments
        self._temporary = base is None
        self.base = Path(base or tempfile.mkdtemp(prefix="wegen-comfyui-"))
        self.client = uuid.uuid4().hex
        self.port = 0
        self._process: subprocess.Popen | None = None

    @classmethod
    def from_environment(cls, **options: Any) -> ComfyServer:
        """As WEGEN_COMFYUI, WEGEN_COMFYUI_PYTHON and WEGEN_COMFYUI_FRONTEND say."""
        options.setdefault("frontend", os.environ.get("WEGEN_COMFYUI_FRONTEND"))
        python = os.environ.get("WEGEN_COMFYUI_PYTHON", sys.executable)
        return cls(os.environ["WEGEN_COMFYUI"], python, **options)

    # ---- life

    def __enter__(self) -> ComfyServer:
        for folder in ("custom_nodes", "models", "input", "output", "user", "temp"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for name, folder in self.packs.items():
            link = self.base / "custom_nodes" / name
            if not link.exists():
                link.symlink_to(folder, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [self.python, "main.py", "--cpu", "--disable-auto-launch", "--disable-api-nodes", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{self.base}/user/comfyui.db"]
        command += ["--front-end-root", str(self.frontend)] if self.frontend else []
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"} | os.environ
        environment |= {"PYTHONUNBUFFERED": "1"}
        with open(self.base / "comfyui.log", "wb") as log:
            self._process = subprocess.Popen(
                [*command, *self.arguments],
                cwd=self.checkout,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        while True:
            if self._process.poll() is not None:
                raise ComfyError(f"ComfyUI stopped with code {self._process.returncode}:\n{self.log[-1500:]}")
            with contextlib.suppress(OSError, ComfyError):
                self.get("/system_stats")
                return
            if time.monotonic() > deadline:
                raise ComfyError(f"ComfyUI did not answer within {self.start_timeout:.0f} s:\n{self.log[-1500:]}")
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    # ---- what it says

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def outputs(self) -> Path:
        """Where Save Image writes."""
        return self.base / "output"

    @property
    def log(self) -> str:
        """Everything printed so far, without colour codes and level prefixes."""
        text = COLOUR.sub("", (self.base / "comfyui.log").read_text(encoding="utf8", errors="replace"))
        return re.sub(r"^\[(DEBUG|INFO)\] ?", "", text, flags=re.MULTILINE)

    @property
    def version(self) -> str:
        return self.get("/system_stats")["system"]["comfyui_version"]

    def import_seconds(self, pack: str = "wegen") -> float:
        """What the log's "Import times for custom nodes" says of a pack."""
        found = re.search(rf"([\d.]+) seconds(?: \(IMPORT FAILED\))?: \S*[/\\]{re.escape(pack)}\s*$", self.log, re.MULTILINE)
        if found is None:
            raise ComfyError(f"the log lists no import time of {pack}:\n{self.log[-2000:]}")
        return float(found[1])

    # ---- requests

    def request(self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        """GET, or POST where there is a body. Errors: `ComfyError` with the server's answer."""
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers or {}), timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise ComfyError(f"{path}: {error.code} {error.read().decode(errors='replace')}") from error

    def get(self, path: str) -> Any:
        return json.loads(self.request(path))

    def post(self, path: str, value: Any) -> bytes:
        return self.request(path, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def object_info(self) -> dict[str, dict]:
        """Every node the server knows: id -> inputs, outputs, tooltips, category."""
        return self.get("/object_info")

    def node_classes(self) -> dict[str, type]:
        """Every node as a class with INPUT_TYPES alone: what our converter needs to read a workflow with core's nodes in it."""

        def declare(entry: dict) -> type:
            return type(entry["name"], (), {"INPUT_TYPES": classmethod(lambda cls: entry["input"])})

        return {name: declare(entry) for name, entry in self.object_info().items()}

    def interrupt(self) -> None:
        """The Cancel button."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload models and forget every cached result. The worker does it between prompts and says nothing: wait, longer when busy."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(max(1.0, os.getloadavg()[0] / os.cpu_count()))

    def upload(self, picture: str | Path, name: str | None = None) -> str:
        """Put a file into the input folder; returns the name Load Image knows it by."""
        picture, boundary = Path(picture), uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{boundary}\r\n'
        head += f'Content-Disposition: form-data; name="image"; filename="{name or picture.name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = self.request("/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
        return json.loads(answer)["name"]

    def picture(self, run: Run, index: int = 0):
        """A picture that a run showed, as PIL RGB."""
        from PIL import Image

        if not run.images:
            raise ComfyError(f"the run showed no picture ({run.status}): {run.outputs}\n{run.error}")
        query = urllib.parse.urlencode(run.images[index])
        return Image.open(io.BytesIO(self.request(f"/view?{query}"))).convert("RGB")

    def queue(self, prompt: dict, on_event: Callable[[dict], None] | None = None, timeout: float = 600) -> Run:
        """Queue a prompt (API format) and wait until it ended; `on_event` sees each message as it comes.

        Errors: `ComfyError` when the server refuses the prompt or the time runs out (the run is interrupted then).
        """
        import websocket

        events: list[dict] = []
        binary: list[bytes] = []
        deadline = time.monotonic() + timeout
        address = f"ws://127.0.0.1:{self.port}/ws?clientId={self.client}"
        with contextlib.closing(websocket.create_connection(address, timeout=120)) as socket_:  # a busy machine
            socket_.settimeout(5)
            answer = json.loads(self.post("/prompt", {"prompt": prompt, "client_id": self.client}))
            prompt_id = answer["prompt_id"]
            while True:
                if time.monotonic() > deadline:
                    self.interrupt()
                    raise ComfyError(f"the prompt ran past {timeout:.0f} s; last messages: {events[-5:]}\n{self.log[-2000:]}")
                try:
                    message = socket_.recv()
                except websocket.WebSocketTimeoutException:
                    continue
                except (websocket.WebSocketException, OSError) as error:
                    raise ComfyError(f"ComfyUI went away during the prompt ({error}):\n{self.log[-1500:]}") from error
                if isinstance(message, bytes):  # a preview picture or a text
                    binary.append(message)
                    continue
                event = json.loads(message)
                if event["data"].get("prompt_id") != prompt_id:
                    continue
                events.append(event)
                if on_event is not None:
                    on_event(event)
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
        history = self.get(f"/history/{prompt_id}")[prompt_id]
        kinds = {event["type"] for event in events}
        status = "interrupted" if "execution_interrupted" in kinds else history["status"]["status_str"]
        return Run(prompt_id, status, history["outputs"], events, history, binary)
