// ComfyUI's frontend as the rest of js/ sees it: the only file that imports it. Both renderers, frontend 1.27 and later.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { readFile } from "./boxes/state.js";

export { api, app };
export const TYPE = "application/x-wegen-file"; // a picture by file, in a drag from the chat

/** The address of a picture by file; "" for none. */
export const view = (file) => (file ? api.apiURL(`/view?${new URLSearchParams({ ...file, label: "", box: "" })}`) : "");

/** "sub/name.png [output]", as Load Image takes it. */
export const annotated = ({ filename, subfolder, type }) => `${subfolder ? `${subfolder}/` : ""}${filename}${type === "input" ? "" : ` [${type}]`}`;

/** Put a picture into ComfyUI's input folder, below wegen/. */
export async function upload(blob, name = blob.name || "picture.png") {
  const form = new FormData();
  form.append("image", blob, name);
  form.append("type", "input");
  form.append("subfolder", "wegen");
  const answer = await api.fetchApi("/upload/image", { method: "POST", body: form });
  if (!answer.ok) throw new Error(`the picture could not be stored (${answer.status} ${answer.statusText})`);
  const saved = await answer.json();
  return { filename: saved.name, subfolder: saved.subfolder ?? "", type: saved.type ?? "input" };
}

/** Files of the temp folder are gone after a restart: copied into input. */
export async function keep(file) {
  if (file.type !== "temp") return file;
  const answer = await fetch(view(file));
  if (!answer.ok) throw new Error(`${file.filename} is no longer there: run its node again`);
  return upload(await answer.blob(), file.filename);
}

/** The pictures that a node shows, by file. */
export function shownBy(node) {
  if (!node) return [];
  const widget = String(node.type).startsWith("LoadImage") && node.widgets?.find((w) => w.name === "image");
  const named = widget && /^(?:(.*)\/)?([^/]+?)(?: \[(input|output|temp)\])?$/.exec(String(widget.value ?? ""));
  if (named) return [readFile({ filename: named[2], subfolder: named[1] ?? "", type: named[3] ?? "input" })].filter(Boolean); // its outputs may lag behind
  const outputs = app.nodeOutputs ?? {};
  const own = outputs[node.id] ?? Object.entries(outputs).find(([key]) => node.graph !== app.graph && key.endsWith(`:${node.id}`))?.[1];
  const files = (own?.images ?? []).map(readFile).filter(Boolean);
  if (files.length) return files;
  return (node.imgs ?? [])
    .map((img) => {
      const query = new URL(img.src, location.href).searchParams;
      return readFile({ filename: query.get("filename"), subfolder: query.get("subfolder") ?? "", type: query.get("type") ?? "input" });
    })
    .filter(Boolean);
}

const linkOf = (graph, id) => (id == null ? null : graph?.getLink?.(id) ?? graph?.links?.get?.(id) ?? graph?.links?.[id] ?? null);

/** The node whose subgraph a graph is; null for the outermost. */
function hostOf(graph, within = app.graph, depth = 0) {
  for (const node of (depth < 20 && within?._nodes) || []) {
    if (!node.subgraph) continue;
    const found = node.subgraph === graph ? node : hostOf(graph, node.subgraph, depth + 1);
    if (found) return found;
  }
  return null;
}

/** The node at the other end of an input, past reroutes, into subgraphs and out of them; null when there is none, or while the node is in
 *  no graph (1.58 throws there). */
export function upstream(node, name) {
  let at = node?.graph && node.inputs?.find((input) => input.name === name);
  for (let i = 0; at && i < 50; i++) {
    const { graph } = node, link = linkOf(graph, at.link);
    if (!link) return null;
    if (link.origin_id === graph.inputNode?.id) { // what the subgraph is given from outside
      const outer = graph.inputs?.[link.origin_slot]?.name;
      node = hostOf(graph);
      at = node?.inputs?.find((input) => input.name === outer);
      continue;
    }
    let found = graph.getNodeById(link.origin_id), slot = link.origin_slot;
    while (found?.subgraph) { // what a subgraph gives out
      const inner = linkOf(found.subgraph, found.subgraph.outputs?.[slot]?.linkIds?.[0]);
      if (!inner) return found;
      slot = inner.origin_slot;
      found = found.subgraph.getNodeById(inner.origin_id);
    }
    if (found?.type !== "Reroute") return found ?? null;
    node = found;
    at = found.inputs?.[0];
  }
  return null;
}

/** The nodes that an id names as the server has it ("7:3": subgraph 7, and node 3 in it), from outside in; fewer where this workflow lacks some. */
export function nodesOf(id) {
  const nodes = [];
  let graph = app.graph;
  for (const part of String(id ?? "").split(":")) {
    const node = graph?.getNodeById(part);
    if (node) nodes.push(node);
    graph = node?.subgraph;
  }
  return nodes;
}

/** The node with such an id; undefined where this workflow has none. */
export function nodeOf(id) {
  const nodes = nodesOf(id);
  return nodes.length === String(id ?? "").split(":").length ? nodes.at(-1) : undefined;
}

/** Run `after` once the method there was before has run. */
export function chain(object, method, after) {
  const before = object[method];
  object[method] = function (...args) {
    const answer = before?.apply(this, args);
    after.apply(this, args);
    return answer;
  };
}

/** Every picture shown in the graph at hand: [{title, file}]. */
export function picturesInGraph() {
  const graph = app.canvas?.graph ?? app.graph, met = new Set();
  return (graph?._nodes ?? [])
    .flatMap((node) => shownBy(node).map((file) => ({ title: node.title || node.type, file })))
    .filter(({ file }) => !met.has(annotated(file)) && met.add(annotated(file)));
}

/** Tell ComfyUI that a widget's value changed: its own undo, and the mark of an unsaved workflow. */
export function changed(node) {
  node.graph?.change?.();
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
  (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

export function tell(summary, detail = "", severity = "warn") {
  app.extensionManager?.toast?.add({ severity, summary, detail, life: 6000 });
}

/** A node that shows a picture, placed right of another. */
export function addLoadImage(file, beside) {
  const graph = beside?.graph ?? app.graph;
  const node = window.LiteGraph.createNode("LoadImage");
  if (!node) return null;
  node.pos = beside ? [beside.pos[0] + beside.size[0] + 40, beside.pos[1]] : [...app.canvas.graph_mouse];
  graph.add(node);
  setPicture(node, file);
  return node;
}

/** Show a picture by file in a Load Image node. */
export function setPicture(node, file) {
  const widget = node.widgets?.find((w) => w.name === "image");
  if (!widget) return false;
  const value = annotated(file), values = widget.options?.values;
  if (Array.isArray(values) && !values.includes(value)) values.push(value);
  widget.value = value;
  widget.callback?.(value);
  app.canvas?.setDirty(true, true);
  return true;
}

/** Wheel and middle button over a widget of the classic canvas belong to the canvas, unless something under the pointer scrolls. */
export function passThrough(element) {
  const vue = () => window.LiteGraph?.vueNodesMode;
  element.addEventListener("wheel", (e) => {
    for (let at = e.target; at && at !== element.parentElement; at = at.parentElement) {
      const scrolls = at.scrollHeight > at.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(at).overflowY);
      if (scrolls && !e.ctrlKey) return e.stopPropagation();
    }
    if (!vue()) app.canvas?.processMouseWheel?.(e);
  });
  element.addEventListener("pointerdown", (e) => e.button === 1 && !vue() && app.canvas?.processMouseDown?.(e));
  element.addEventListener("pointermove", (e) => e.buttons & 4 && !vue() && app.canvas?.processMouseMove?.(e));
  element.addEventListener("pointerup", (e) => e.button === 1 && !vue() && app.canvas?.processMouseUp?.(e));
}
