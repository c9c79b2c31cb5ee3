// WeGen Chat Panel's widget, and the same conversation as a sidebar tab.

import { app, chain, upstream } from "../comfy.js";
import { button, el } from "../dom.js";
import { addPanel } from "./graph.js";
import { ChatPanel } from "./panel.js";
import { Session } from "./session.js";

/** For getCustomWidgets. */
export function chatWidget(node, name) {
  const session = new Session(node), panel = new ChatPanel(session);
  node.wegenSession = session;
  session.miniature = () => upstream(node, "model")?.widgets?.find((w) => w.name === "model")?.value === "wegen-mini";
  const widget = node.addDOMWidget(name, "WEGEN_CHAT_PANEL", panel.element, {
    getValue: () => session.value,
    setValue: (text) => session.load(typeof text === "string" ? text : ""),
    getMinHeight: () => 280,
    hideOnZoom: false,
    margin: 6,
  });
  widget.serializeValue = () => session.promptValue;
  chain(node, "onExecuted", (output) => session.answered(output));
  chain(node, "onConnectionsChange", () => queueMicrotask(() => panel.render()));
  chain(node, "onAdded", () => refreshTab());
  chain(node, "onRemoved", () => {
    panel.destroy();
    session.destroy();
    refreshTab();
  });
  return { widget, minWidth: 460, minHeight: 620 };
}

let tab = null; // what the sidebar shows now: {root, panel}
let chosen = null; // the session last chosen there

/** The panels of all graphs that are open, in order of their nodes. */
const living = () => Session.all().filter((s) => s.node.graph);

function refreshTab() {
  if (tab) queueMicrotask(() => tab && fill(tab));
}

function fill(at) {
  const all = living();
  if (!all.includes(chosen)) chosen = all.find((s) => app.canvas?.selected_nodes?.[s.node.id] === s.node) ?? all[0] ?? null;
  if (at.panel && at.panel.session !== chosen) at.panel = at.panel.destroy() ?? null;
  const name = (s) => `${s.node.title || "WeGen Chat Panel"} #${s.node.id}`;
  const pick = all.length > 1 && el("select", { class: "wegen-select", aria: { label: "Conversation" }, on: {
    change: (e) => ((chosen = all[Number(e.target.value)]), fill(at)) } },
    all.map((s, i) => el("option", { value: i, text: name(s), selected: s === chosen })));
  const go = chosen && button("map-marker", "Show the node in the graph", () => app.canvas.centerOnNode?.(chosen.node));
  const head = el("div", { class: "wegen-tabhead" }, [el("b", { text: "WeGen Chat" }), pick, go]);
  if (chosen) at.panel ??= new ChatPanel(chosen);
  const none = !chosen && el("div", { class: "wegen wegen-none" }, [
    el("p", { text: "This workflow has no WeGen Chat Panel." }),
    el("button", { type: "button", class: "wegen-primary", text: "Add one", on: { click: () => addPanel() } }),
  ]);
  at.root.replaceChildren(...[head, at.panel?.element, none].filter(Boolean));
}

export const sidebarTab = {
  id: "wegen-chat",
  icon: "pi pi-comments",
  title: "WeGen Chat",
  tooltip: "WeGen Chat",
  type: "custom",
  render(container) {
    if (tab?.container === container && tab.root.isConnected) return;
    sidebarTab.destroy();
    tab = { container, root: el("div", { class: "wegen-tab" }), panel: null };
    container.classList.add("wegen-slot");
    container.replaceChildren(tab.root);
    fill(tab);
  },
  destroy() {
    tab?.panel?.destroy();
    tab?.root.remove();
    tab = null;
  },
};
