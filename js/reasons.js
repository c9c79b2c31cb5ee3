// Why a node of ours refused, as a sentence on that node (and on the subgraphs around it) until the next run. Two ways a run is refused: by the
// server before it starts (node_errors of /prompt), or by the node while it runs (execution_error). Not saved.

import { api, chain, nodesOf } from "./comfy.js";
import { el } from "./dom.js";

const NAME = "why_not", LINE = 17, LETTER = 6.4; // pixels: a line of text, a letter on average
const holders = new Set(); // nodes that show a sentence
let last = null; // the run that was refused

/** What the server's list of faults of one node says, in words. */
export function sentence(errors) {
  return (Array.isArray(errors) ? errors : [])
    .map(({ type, message, details, extra_info: extra }) => {
      const input = extra?.input_name ?? details, said = String(details ?? "").replace(`${extra?.input_name} - `, "");
      if (type === "required_input_missing") return `${input}: nothing is connected here.`;
      return type === "custom_validation_failed" ? `${input}: ${said}` : `${message}${details ? `: ${details}` : ""}`;
    })
    .join("\n");
}

const height = (text, width) =>
  Math.min(text.split("\n").reduce((n, line) => n + Math.ceil((line.length * LETTER) / Math.max(width - 40, 100)), 0), 7) * LINE + 18;

/** The sentence on a node, above whatever was there; the node grows if it has to, and shrinks again when the sentence goes. */
function show(node, text) {
  hide(node);
  const element = el("div", { class: "wegen wegen-why", role: "alert", text, title: text });
  const tall = height(text, node.size[0]), before = node.size[1];
  const widget = node.addDOMWidget(NAME, "WEGEN_WHY", element, {
    serialize: false, hideOnZoom: false, margin: 4, getValue: () => "", getMinHeight: () => tall, getMaxHeight: () => tall,
  });
  widget.serialize = false;
  const least = node.computeSize()[1];
  if (node.size[1] < least) node.setSize?.([node.size[0], least]);
  node.wegenWhy = { widget, grown: node.size[1] - before };
  holders.add(node);
  node.setDirtyCanvas?.(true, true);
}

function hide(node) {
  const { widget, grown } = node.wegenWhy ?? {};
  holders.delete(node);
  if (!widget) return;
  node.wegenWhy = null;
  widget.wegenHolder?.remove();
  if (node.widgets?.includes(widget)) node.removeWidget(widget);
  if (grown) node.setSize?.([node.size[0], Math.max(node.size[1] - grown, node.computeSize()[1])]); // what a person added meanwhile stays
  node.setDirtyCanvas?.(true, true);
}

function tell(id, text) {
  const nodes = nodesOf(id), own = nodes.at(-1); // a subgraph says which of its nodes it was
  for (const node of nodes)
    if (text && node.addDOMWidget) show(node, (node === own ? text : `${own.title || own.type}: ${text}`).slice(0, 2000));
}

const clear = () => [...holders].forEach(hide);

function refused(answer) {
  for (const [id, fault] of Object.entries(answer?.node_errors ?? {}))
    if (String(fault?.class_type).startsWith("WeGen")) tell(id, sentence(fault.errors));
}

/** Once, at start. */
export function showReasons() {
  api.addEventListener("execution_start", ({ detail }) => detail?.prompt_id !== last && clear());
  api.addEventListener("execution_error", ({ detail }) => {
    if (String(detail?.node_type).startsWith("WeGen")) tell(detail.node_id, String(detail.exception_message ?? "").trim());
  });
  const queue = api.queuePrompt;
  api.queuePrompt = function (...args) {
    clear();
    const asked = queue.apply(this, args); // given on as it is: nothing of ours stands in the way of its error
    asked?.then?.((answer) => ((last = answer?.prompt_id), refused(answer)), (error) => refused(error?.response));
    return asked;
  };
}
