// What the chat puts into the graph: features of a turn's picture, and a whole panel where there is none.

import { addLoadImage, app, upstream } from "../comfy.js";

/** Load Image -> EVA-CLIP Encode, with the panel's own model. */
export function addFeatures(file, panel) {
  const source = addLoadImage(file, panel), encode = window.LiteGraph.createNode("WeGenEncode");
  if (!source || !encode) return null;
  encode.pos = [source.pos[0] + source.size[0] + 40, source.pos[1]];
  panel.graph.add(encode);
  const into = (name) => encode.inputs.findIndex((input) => input.name === name);
  source.connect(0, encode, into("image"));
  upstream(panel, "model")?.connect(0, encode, into("model"));
  app.canvas?.setDirty(true, true);
  return encode;
}

/** Load WeGen Model -> WeGen Chat Panel, in the middle of what is seen. */
export function addPanel() {
  const graph = app.canvas?.graph ?? app.graph, { LiteGraph } = window;
  const loader = graph._nodes.find((n) => n.type === "WeGenLoadModel") ?? LiteGraph.createNode("WeGenLoadModel");
  const panel = LiteGraph.createNode("WeGenChatPanel");
  const ds = app.canvas.ds, view = app.canvas.canvas.getBoundingClientRect();
  const at = [view.width / 2 / ds.scale - ds.offset[0] - 340, view.height / 2 / ds.scale - ds.offset[1] - 300];
  if (!loader.graph) {
    loader.pos = at;
    graph.add(loader);
  }
  panel.pos = [at[0] + 380, at[1]];
  graph.add(panel);
  loader.connect(0, panel, panel.inputs.findIndex((input) => input.name === "model"));
  app.canvas.setDirty(true, true);
  return panel;
}
