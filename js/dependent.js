// Widgets that do not count at the moment look so: greyed out, values and places kept. And what a large picture will take, said beforehand.

import { app, chain } from "./comfy.js";
import { el } from "./dom.js";
import { cost } from "./size.js";

const of = (node, name) => node.widgets?.find((widget) => widget.name === name);
const linked = (node, name) => node.inputs?.some((input) => input.name === name && input.link != null) ?? false;
/** A toggle that is on; one that a link sets is not known here, and counts as off. */
const on = (node, name) => !linked(node, name) && of(node, name)?.value === true;

// node -> [widgets, whether they count now]
const RULES = {
  WeGenDecode: [
    [["steps", "guidance_scale"], (node) => !on(node, "use_defaults")],
    [["width", "height"], (node) => !on(node, "use_default_size") && !linked(node, "original")],
    [["use_default_size"], (node) => !linked(node, "original")],
    [["feather", "grow", "match_colours"], (node) => linked(node, "mask")],
    [["last_steps"], (node) => linked(node, "late_features")],
  ],
  WeGenChat: [[["top_p", "seed"], (node) => linked(node, "temperature") || of(node, "temperature")?.value !== 0]],
  WeGenBboxCompose: [[["bbox_format"], (node) => linked(node, "boxes") || linked(node, "box_text") || Boolean(of(node, "box_text")?.value)]],
};

/** Follow the widgets and links of a node of ours from now on. */
export function followDependents(node) {
  const rules = RULES[node.comfyClass];
  if (!rules) return;
  const update = () => {
    for (const [names, counts] of rules) {
      const off = !counts(node);
      for (const name of names) {
        const widget = of(node, name);
        if (widget && Boolean(widget.disabled) !== off) widget.disabled = off;
      }
    }
    if (node.comfyClass === "WeGenDecode") sayCost(node);
    node.setDirtyCanvas?.(true, true);
  };
  for (const widget of node.widgets ?? []) chain(widget, "callback", update);
  chain(node, "onConfigure", update);
  chain(node, "onConnectionsChange", () => queueMicrotask(update));
  queueMicrotask(update);
}

/** Below SDXL Feature Decoder: what a size far above SDXL's will take, before anything runs. */
function sayCost(node) {
  const asked = !on(node, "use_default_size") && !linked(node, "original");
  const text = asked ? cost(of(node, "width")?.value, of(node, "height")?.value, of(node, "variations")?.value) : "";
  if (text === (node.wegenCost?.element.textContent ?? "")) return;
  if (!node.wegenCost) {
    const element = el("div", { class: "wegen wegen-cost", role: "status" });
    node.wegenCost = node.addDOMWidget("cost", "WEGEN_COST", element, {
      serialize: false, hideOnZoom: false, margin: 4, getValue: () => "", getMinHeight: () => 76, getMaxHeight: () => 76,
    });
    node.wegenCost.serialize = false;
  }
  node.wegenCost.element.textContent = text;
  if (!text) {
    node.wegenCost.wegenHolder?.remove();
    node.removeWidget(node.wegenCost);
    node.wegenCost = null;
  }
  const least = node.computeSize()[1];
  if (node.size[1] < least) node.setSize?.([node.size[0], least]);
  app.canvas?.setDirty(true, true);
}
