"""ComfyUI's own frontend in headless Chromium: load a workflow, look at it, queue it, photograph it. Classic canvas or Nodes 2.0.

    with ComfyServer.from_environment() as server, Frontend(server, vue=True) as page:
        page.load(json.loads(path.read_text()))
        page.run()                              # presses Run, waits for the end
        page.shoot("picture.png")

`shoot(workflow, png)` does all of it in one call, starting a server where none is handed over. WEGEN_CHROMIUM names another browser.
Units: graph coordinates are the canvas's own; `zoom` is screen pixels per graph unit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from .server import ComfyServer

CHROMIUM = os.environ.get("WEGEN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
]
# First-run windows and news would cover the graph; settings that a version lacks are ignored by it.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.AppBuilder.VueNodeSwitchDismissed": True,
    "Comfy.Appearance.DisableAnimations": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
}
MARGIN = {"left": 100, "top": 130, "right": 60, "bottom": 140}  # pixels that the frontend's bars take
# The box around everything drawn, in graph units: nodes with their title bars, groups; in Nodes 2.0 what the page really laid out.
BOUNDS = """() => {
  const ds = app.canvas.ds, rects = [];
  for (const n of app.canvas.graph._nodes) {
    const b = n.getBounding ? n.getBounding() : [n.pos[0], n.pos[1] - 30, n.size[0], n.size[1] + 30];
    rects.push([b[0], b[1], b[0] + b[2], b[1] + b[3]]);
  }
  for (const g of app.canvas.graph._groups) rects.push([g.pos[0], g.pos[1], g.pos[0] + g.size[0], g.pos[1] + g.size[1]]);
  if (LiteGraph.vueNodesMode) for (const e of document.querySelectorAll('[data-node-id]')) {
    const r = e.getBoundingClientRect(), o = app.canvas.canvas.getBoundingClientRect();
    if (r.width) rects.push([(r.left - o.left) / ds.scale - ds.offset[0], (r.top - o.top) / ds.scale - ds.offset[1],
                             (r.right - o.left) / ds.scale - ds.offset[0], (r.bottom - o.top) / ds.scale - ds.offset[1]]);
  }
  if (!rects.length) return [0, 0, 100, 100];
  return [Math.min(...rects.map(r => r[0])), Math.min(...rects.map(r => r[1])),
          Math.max(...rects.map(r => r[2])), Math.max(...rects.map(r => r[3]))];
}"""
# Runs of this page: every way a prompt can end.
WATCH = """() => {
  window.__ended = [];
  for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
    app.api.addEventListener(kind, e => window.__ended.push({kind, detail: e.detail}));
}"""
# "Job queued" hides a corner of the graph for some seconds.
HIDE = """() => {
  const style = document.createElement('style');
  style.textContent = '[data-testid="queue-notification-banner"] { display: none !important }';
  document.head.append(style);
}"""
# Pairs of nodes that cover each other, with the area in graph units; and nodes that stick out of the group they begin in.
OVERLAPS = """() => {
  const ds = app.canvas.ds, o = app.canvas.canvas.getBoundingClientRect(), rects = [];
  for (const n of app.canvas.graph._nodes) {
    const e = LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${n.id}"]`), r = e && e.getBoundingClientRect();
    const b = n.getBounding();
    const box = r && r.width ? [(r.left - o.left) / ds.scale - ds.offset[0], (r.top - o.top) / ds.scale - ds.offset[1],
                                (r.right - o.left) / ds.scale - ds.offset[0], (r.bottom - o.top) / ds.scale - ds.offset[1]]
                             : [b[0], b[1], b[0] + b[2], b[1] + b[3]];
    rects.push([`${n.type} #${n.id}`, ...box]);
  }
  const found = [];
  for (let i = 0; i < rects.length; i++) for (let j = i + 1; j < rects.length; j++) {
    const [a, ax, ay, aX, aY] = rects[i], [b, bx, by, bX, bY] = rects[j];
    const w = Math.min(aX, bX) - Math.max(ax, bx), h = Math.min(aY, bY) - Math.max(ay, by);
    if (w > 1 && h > 1) found.push(`${a} and ${b} cover each other by ${Math.round(w)}x${Math.round(h)}`);
  }
  for (const g of app.canvas.graph._groups) for (const [a, x, y, X, Y] of rects) {
    const inside = x >= g.pos[0] && x < g.pos[0] + g.size[0] && y >= g.pos[1] && y < g.pos[1] + g.size[1];
    if (inside && (X > g.pos[0] + g.size[0] || Y > g.pos[1] + g.size[1])) found.push(`${a} sticks out of the group ${g.title}`);
  }
  return found;
}"""
BROKEN = """() => {
  const found = [];
  for (const n of app.graph._nodes) {
    if (!LiteGraph.registered_node_types[n.type]) found.push(`${n.type}: not registered`);
    if (n.has_errors) found.push(`${n.type}: marked as faulty`);
  }
  for (const id of Object.keys(app.lastNodeErrors ?? {})) found.push(`node ${id}: ${JSON.stringify(app.lastNodeErrors[id])}`);
  return found;
}"""


class Frontend:
    """One page, with one workflow.

    Args:
        server: a running one.
        vue: Nodes 2.0 instead of the classic canvas.
        theme: "dark" or "light".
        size: window in CSS pixels.
        density: device pixels per CSS pixel; 2 gives a sharper picture.
    """

    def __init__(
        self, server: ComfyServer, vue: bool = False, theme: str = "dark", size: tuple[int, int] = (1600, 900), density: float = 1
    ):
        self.server, self.vue, self.theme, self.size, self.density = server, vue, theme, size, density
        self.console: list[str] = []  # "error: text (address)" of every console error and uncaught exception
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Frontend:
        from playwright.sync_api import sync_playwright

        self.server.post("/settings", SETTINGS | {"Comfy.VueNodes.Enabled": self.vue, "Comfy.ColorPalette": self.theme})
        with contextlib.ExitStack() as stack:
            playwright = stack.enter_context(sync_playwright())
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            stack.callback(browser.close)
            width, height = self.size
            self.page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=self.density)
            self.page.set_default_timeout(300_000)  # a busy machine
            self.page.route(lambda url: not url.startswith((self.server.url, "data:", "blob:")), lambda route: route.abort())
            self.page.on("console", lambda m: m.type == "error" and self._note(m.text, m.location.get("url", "")))
            self.page.on("pageerror", lambda e: self._note(f"{e.message}\n{e.stack or ''}", ""))
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _note(self, text: str, address: str) -> None:
        self.console.append(f"{text} ({address})" if address else text)

    def _open(self) -> None:
        self.page.goto(self.server.url)
        for ready in (  # the last: the default graph, which is laid after the rest and would replace ours
            "window.app?.graph && window.app?.canvas && window.app?.extensionManager && window.LiteGraph",
            "app.vueAppReady && Object.keys(LiteGraph.registered_node_types).length > 100",
            "app.extensionManager.workflow.activeWorkflow && app.graph._nodes.length",
        ):
            self.page.wait_for_function(ready)
        self.page.evaluate(WATCH)
        self.page.evaluate(HIDE)
        self.close_windows()

    # ---- what a person does

    def close_windows(self) -> None:
        """Close what lies over the graph: dialogs, templates, notices."""
        for _ in range(3):
            if not self.page.locator('[role="dialog"]:visible').count():
                break
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(300)

    def load(self, workflow: dict) -> None:
        """Show a workflow (UI format)."""
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        expected = sorted(str(node["id"]) for node in workflow["nodes"])
        self.page.wait_for_function("ids => app.graph._nodes.map(n => String(n.id)).sort().join() === ids", arg=",".join(expected))
        self.page.wait_for_timeout(500)

    def run(self, timeout: float = 600) -> str:
        """Press Run and wait: "success", "error" or "interrupted". Then wait for the pictures to be drawn."""
        before = self.page.evaluate("window.__ended.length")
        self.page.locator('[data-testid="queue-button"]').first.click()
        self.page.wait_for_function(
            "n => window.__ended.length > n || Object.keys(app.lastNodeErrors ?? {}).length", arg=before, timeout=timeout * 1000
        )
        ended = self.page.evaluate("n => window.__ended[n]", before)
        if ended is None:
            return "refused"
        with contextlib.suppress(Exception):
            self.page.wait_for_load_state("networkidle", timeout=5000)
        self.page.wait_for_timeout(700)
        return ended["kind"].removeprefix("execution_")

    # ---- what a person sees

    def prompt(self) -> dict:
        """The API prompt that the frontend makes of its canvas."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def broken(self) -> list[str]:
        """Nodes that are missing or drawn red."""
        return self.page.evaluate(BROKEN)

    @property
    def early_nodes2(self) -> bool:
        """The first Nodes 2.0 (frontends 1.27 to 1.29): it gives nodes sizes of its own and takes no drop on a node."""
        return self.vue and self.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__.split('.').map(Number)") < [1, 30]

    def overlaps(self) -> list[str]:
        """Nodes that cover each other or stick out of their group (after `fit`: Nodes 2.0 lays out only what is in view).
        None are counted in the first Nodes 2.0, where no workflow's layout holds."""
        if self.early_nodes2:
            return []
        return self.page.evaluate(OVERLAPS)

    def errors(self, pack: str = "wegen") -> list[str]:
        """Console errors and exceptions from a pack's own scripts, or that name it."""
        return [text for text in self.console if f"/extensions/{pack}/" in text or pack in text.lower()]

    def pictures(self) -> int:
        """How many pictures nodes show."""
        return self.page.evaluate(
            "() => app.graph._nodes.reduce((n, node) => n + (node.imgs?.length || app.nodeOutputs?.[node.id]?.images?.length || 0), 0)"
        )

    def fit(self, zoom: float = 1.0) -> dict[str, float]:
        """Grow the window until the whole graph is in view at `zoom`; returns the graph's place in it, in pixels."""
        for _ in range(2):  # Nodes 2.0 lays out only what is in view
            left, top, right, bottom = self.page.evaluate(BOUNDS)
            width = (right - left) * zoom + MARGIN["left"] + MARGIN["right"]
            height = (bottom - top) * zoom + MARGIN["top"] + MARGIN["bottom"]
            self.page.set_viewport_size({"width": min(6000, max(900, round(width))), "height": min(6000, max(600, round(height)))})
            self.page.wait_for_timeout(300)
            self.page.evaluate(
                """([scale, x, y]) => {
                  const o = app.canvas.canvas.getBoundingClientRect(), ds = app.canvas.ds;
                  ds.scale = scale;
                  ds.offset[0] = (x[1] - o.left) / scale - x[0];
                  ds.offset[1] = (y[1] - o.top) / scale - y[0];
                  app.canvas.setDirty(true, true);
                }""",
                [zoom, [left, MARGIN["left"]], [top, MARGIN["top"]]],
            )
            self.page.wait_for_timeout(500)
        return {"x": MARGIN["left"], "y": MARGIN["top"], "width": (right - left) * zoom, "height": (bottom - top) * zoom}

    def shoot(self, png: str | Path, crop: bool = False) -> None:
        """Write what is on screen; `crop` keeps the graph with a small rim (after `fit`)."""
        options: dict[str, Any] = {"path": str(png)}
        if crop:
            place = self.fit(self.page.evaluate("app.canvas.ds.scale"))
            options["clip"] = {"x": place["x"] - 20, "y": place["y"] - 20, "width": place["width"] + 40, "height": place["height"] + 40}
        view = self.page.viewport_size
        self.page.evaluate("app.extensionManager.toast?.removeAll?.()")  # notices would cover the graph: a draft too large to keep
        self.page.mouse.move(view["width"] - 8, view["height"] // 2)  # bare canvas: no hover card opens
        self.page.wait_for_timeout(600)
        self.page.screenshot(**options)


def shoot(
    workflow_json: str | Path | dict,
    png_path: str | Path,
    vue: bool = False,
    theme: str = "dark",
    zoom: float | None = 1.0,
    *,
    server: ComfyServer | None = None,
    run: bool = False,
    crop: bool = False,
    density: float = 1,
) -> list[str]:
    """Photograph a workflow in the frontend.

    Args:
        workflow_json: path, or the loaded UI-format workflow.
        vue, theme, density: as for `Frontend`.
        zoom: pixels per graph unit, the window growing to hold the graph; None leaves the window and the view as they are.
            The Nodes 2.0 of old frontends (1.27) hides widgets and pictures at 0.8 and below.
        server: a running one; None starts one as the environment says.
        run: queue it first and wait, so that pictures are shown.
        crop: the graph alone, without the frontend's bars.

    Returns: what is wrong, in words: nodes missing or red, console errors of the pack, a run that did not succeed.
    """
    workflow = workflow_json if isinstance(workflow_json, dict) else json.loads(Path(workflow_json).read_text(encoding="utf8"))
    with contextlib.ExitStack() as stack:
        server = server or stack.enter_context(ComfyServer.from_environment())
        page = stack.enter_context(Frontend(server, vue, theme, density=density))
        page.load(workflow)
        status = page.run() if run else "success"
        if zoom is not None:
            page.fit(zoom)
        page.close_windows()
        page.shoot(png_path, crop)
        problems = page.broken() + page.errors()
        return problems if status == "success" else [*problems, f"the run ended with: {status}"]
