// The Nodes 2.0 of the first frontends that had it (1.27 to 1.29) shows no DOM widgets at all. There, and only there, our elements are put
// into their nodes by hand. Later frontends do it themselves (WidgetDOM).

import { app } from "./comfy.js";
import { el } from "./dom.js";

const HEIGHTS = { WEGEN_BOXES: "400px", WEGEN_CHAT_PANEL: "460px", WEGEN_DEMO: "28px", WEGEN_FEATURE_GRID: "100px", WEGEN_WHY: "90px", WEGEN_COST: "80px" };

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
        const holder = (widget.wegenHolder ??= hold(height));
        holder.replaceChildren(widget.element);
        if (holder.parentElement !== body) body.append(holder);
      }
    }
  };
  let waiting = false;
  // anywhere: nodes come and go, and the classic overlay takes elements back when it mounts; what is in place costs a look
  new MutationObserver(() => {
    if (waiting || !window.LiteGraph?.vueNodesMode) return;
    waiting = true;
    queueMicrotask(() => {
      waiting = false;
      mount();
    });
  }).observe(document.body, { childList: true, subtree: true });
}

function hold(height) {
  const holder = el("div", { class: "wegen-hosted", style: { height } });
  for (const event of ["pointerdown", "pointermove", "pointerup", "mousedown"]) holder.addEventListener(event, (e) => e.stopPropagation());
  return holder;
}
