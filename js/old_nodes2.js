// The Nodes 2.0 of the first frontends that had it (1.27 to 1.29) shows no DOM widgets at all. There, and only there, our elements are put
// into their nodes by hand. Later frontends do it themselves (WidgetDOM).

import { app } from "./comfy.js";
import { el } from "./dom.js";

const HEIGHTS = { WEGEN_BOXES: "400px", WEGEN_CHAT_PANEL: "460px", WEGEN_DEMO: "28px", WEGEN_FEATURE_GRID: "100px" };

export function hostInOldNodes2() {
  const [major, minor] = String(window.__COMFYUI_FRONTEND_VERSION__ ?? "").split(".").map(Number);
  if (!(major === 1 && minor < 30)) return;
  const pane = () => document.querySelector(".transform-pane");
  const mount = () => {
    if (!window.LiteGraph?.vueNodesMode || !pane()) return;
    for (const node of app.canvas?.graph?._nodes ?? []) {
      for (const widget of node.widgets ?? []) {
        const height = HEIGHTS[widget.type], body = height && pane().querySelector(`[data-node-id="${node.id}"]`);
        if (!body || body.contains(widget.element)) continue;
        const holder = el("div", { class: "wegen-hosted", style: { height } }, widget.element);
        for (const event of ["pointerdown", "pointermove", "pointerup", "mousedown"]) holder.addEventListener(event, (e) => e.stopPropagation());
        body.append(holder);
      }
    }
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => {
      waiting = false;
      mount();
    });
  };
  // nodes come and go as children of the pane, and the pane with the renderer: nothing deeper is watched
  const inPane = new MutationObserver(soon);
  const inPage = new MutationObserver(() => {
    const now = pane();
    if (!now || now.wegenWatched) return;
    now.wegenWatched = true;
    inPane.observe(now, { childList: true });
    soon();
  });
  inPage.observe(document.querySelector("#graph-canvas-container, .graph-canvas-container") ?? document.body, { childList: true, subtree: true });
}
