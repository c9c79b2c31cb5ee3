// The pack's extension: two editors as widgets, the sidebar tab, colours of sockets, previews of features, the mark of demo weights.

import { boxesWidget } from "./boxes/widget.js";
import { listen } from "./chat/session.js";
import { chatWidget, sidebarTab } from "./chat/widget.js";
import { api, app, chain, nodeOf, setPicture, TYPE } from "./comfy.js";
import { followDependents } from "./dependent.js";
import { el } from "./dom.js";
import { readFile } from "./boxes/state.js";
import { showFeatures } from "./features.js";
import { hostInOldNodes2 } from "./old_nodes2.js";
import { showReasons } from "./reasons.js";

// colours of sockets and links, one a kind: as in wegen.css, from which Nodes 2.0 takes them
const TYPES = { WEGEN_MODEL: "#e0a458", WEGEN_DECODER: "#c9703f", WEGEN_FEATURES: "#35b89f", WEGEN_REFERENCES: "#d987b5", WEGEN_CHAT: "#a9bd4b" };
// least sizes of new nodes: nothing is clipped, and the message box and the canvas are the largest things of theirs
const SIZES = { WeGenDecode: [400, 0], WeGenChat: [480, 640], WeGenEditInBox: [440, 400], WeGenBboxCompose: [720, 1000], WeGenChatPanel: [520, 720] };
const LOADERS = { WeGenLoadModel: "model", WeGenLoadDecoder: "decoder" };

/** Below a loader that opens the miniature: what it is, and where the real weights are explained. Not saved. */
function demoMark(node, name) {
  const link = el("a", { text: "demo weights: how to get real ones", target: "_blank", rel: "noopener",
    href: new URL("./docs/real_weights.html", import.meta.url).href });
  const element = el("div", { class: "wegen wegen-mark" }, link);
  const widget = node.addDOMWidget("demo_weights", "WEGEN_DEMO", element, {
    serialize: false, hideOnZoom: false, margin: 4, getValue: () => "", getMinHeight: () => 26, getMaxHeight: () => 26,
  });
  widget.serialize = false;
  const combo = node.widgets.find((w) => w.name === name);
  const update = () => (link.hidden = combo?.value !== "wegen-mini");
  if (combo) chain(combo, "callback", update);
  chain(node, "onConfigure", update);
  queueMicrotask(update);
}

/** A picture dragged from the chat onto Load Image: by file, nothing is uploaded again. Other drops are as they were. */
function takesTurns(node) {
  const over = node.onDragOver, drop = node.onDragDrop;
  const ours = (e) => e.dataTransfer?.types?.includes(TYPE);
  node.onDragOver = function (e, ...rest) {
    return ours(e) || (over?.call(this, e, ...rest) ?? false);
  };
  node.onDragDrop = function (e, ...rest) {
    if (!ours(e)) return drop?.call(this, e, ...rest) ?? false;
    const file = readFile(JSON.parse(e.dataTransfer.getData(TYPE)));
    return Boolean(file) && setPicture(this, file);
  };
}

/** A node as it is added; a saved one is given its own values after this. */
function settleNew(node) {
  // the graph queued again unchanged runs nothing: a seed changes when a person says so
  for (const widget of node.widgets ?? []) if (widget.name === "control_after_generate") widget.value = "fixed";
  const model = node.comfyClass === "WeGenDraw" && node.inputs?.find((input) => input.name === "model");
  const least = SIZES[node.comfyClass];
  if (least) node.setSize?.([Math.max(node.size[0], least[0]), Math.max(node.size[1], least[1])]);
  followDependents(node);
  if (model) model.shape = window.LiteGraph?.HollowCircle ?? 7; // may stay empty
}

/** AR Feature Decode's model is optional to the server; its socket stays the first, where workflows and people know it. */
function keepModelFirst(def) {
  const { model, ...rest } = def?.input?.optional ?? {};
  if (!model) return;
  def.input = { ...def.input, required: { model, ...def.input.required }, optional: rest };
  const order = def.input_order;
  if (order) def.input_order = { ...order, required: ["model", ...(order.required ?? [])], optional: (order.optional ?? []).filter((n) => n !== "model") };
}

app.registerExtension({
  name: "wegen.editors",

  getCustomWidgets: () => ({ WEGEN_BOXES: boxesWidget, WEGEN_CHAT_PANEL: chatWidget }),

  addCustomNodeDefs(defs) {
    keepModelFirst(defs.WeGenDraw);
    // Nodes 2.0 hangs an input's tooltip on its whole widget: over an editor it would only be in the way
    for (const [id, name] of [["WeGenBboxCompose", "canvas"], ["WeGenChatPanel", "transcript"]]) {
      const input = defs[id]?.input;
      const options = (input?.required?.[name] ?? input?.optional?.[name])?.[1];
      if (options) delete options.tooltip;
    }
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("WeGen")) return;
    chain(nodeType.prototype, "onExecuted", function (output) {
      if (output?.wegen_features) showFeatures(this, output.wegen_features);
    });
  },

  nodeCreated(node) {
    if (String(node.comfyClass).startsWith("WeGen")) settleNew(node);
    if (node.comfyClass === "LoadImage") takesTurns(node);
    if (LOADERS[node.comfyClass]) demoMark(node, LOADERS[node.comfyClass]);
  },

  setup() {
    document.head.append(el("link", { rel: "stylesheet", href: new URL("./wegen.css", import.meta.url).href }));
    // palettes write "" for types they do not know, whenever one is loaded: the colour stays
    for (const table of [app.canvas?.default_connection_color_byType, window.LGraphCanvas?.link_type_colors]) {
      if (table) for (const [type, colour] of Object.entries(TYPES)) Object.defineProperty(table, type, { get: () => colour, set() {}, enumerable: true, configurable: true });
    }
    app.extensionManager?.registerSidebarTab?.(sidebarTab);
    listen();
    showReasons();
    api.addEventListener("wegen.features", ({ detail }) => {
      const node = nodeOf(detail?.node);
      if (node) showFeatures(node, [detail.cells], detail.n);
    });
    hostInOldNodes2();
  },
});
