// Bbox Compose's canvas widget: the editor bound to its node. One widget is both the value (JSON text) and the view.

import { chain, changed, passThrough, shownBy, tell, upload, upstream, view } from "../comfy.js";
import { BoxEditor } from "./editor.js";
import { readText } from "./reading.js";
import { digest, readFile } from "./state.js";

const SLOTS = [1, 2, 3, 4, 5];
const WATCHED = ["width", "height", "box_text", "bbox_format"];

/** For getCustomWidgets. */
export function boxesWidget(node, name) {
  const value = (widget) => node.widgets?.find((w) => w.name === widget)?.value;
  let thumbs = [], ground = null; // of the last run: by slot, and the background

  const editor = new BoxEditor({
    frame: () => [Number(value("width")) || 1024, Number(value("height")) || 1024],
    connected: () => SLOTS.filter((k) => upstream(node, `image_${k}`)),
    picture: (ref) => {
      const from = SLOTS.includes(ref) && upstream(node, `image_${ref}`);
      return from ? view(shownBy(from)[0] ?? thumbs[ref - 1]) : "";
    },
    below: () => {
      const from = upstream(node, "background");
      return from ? view(shownBy(from)[0] ?? ground) : "";
    },
    arrived: () => {
      if (!node.graph || upstream(node, "boxes")) return null; // not known yet; known when it ran
      const boxes = readText(value("box_text"), Number(value("width")) || 1024, Number(value("height")) || 1024, value("bbox_format"));
      return boxes?.length ? { boxes, seen: digest(boxes) } : null;
    },
    changed: () => changed(node),
    view, upload,
    tell: (text) => tell("Bbox Compose", text),
  });

  const widget = node.addDOMWidget(name, "WEGEN_BOXES", editor.element, {
    getValue: () => editor.value,
    setValue: (text) => editor.load(typeof text === "string" ? text : ""),
    getMinHeight: () => Math.max(300, Math.min(0.5 * node.size[1], node.size[1] - 560)), // the largest thing of a large node
    hideOnZoom: false,
    margin: 6,
  });
  passThrough(editor.element);
  editor.element.addEventListener("pointerenter", () => editor.render()); // a picture may have been chosen upstream meanwhile

  chain(node, "onExecuted", (output) => {
    const news = output?.wegen_boxes?.[0];
    if (!news) return;
    thumbs = (Array.isArray(news.pictures) ? news.pictures : []).map(readFile);
    ground = readFile(news.background);
    if (typeof news.seen === "string" && Array.isArray(news.arrived)) editor.arrive(news.arrived, news.seen);
    editor.render();
  });
  chain(node, "onConnectionsChange", () => queueMicrotask(() => editor.render()));
  const settle = () => {
    watch();
    editor.follow();
    editor.render();
  };
  chain(node, "onConfigure", settle);
  chain(node, "onAdded", () => queueMicrotask(settle)); // a copy is configured before it is in a graph
  queueMicrotask(settle);

  /** The frame and the text are widgets of the same node. */
  function watch() {
    for (const other of node.widgets ?? []) {
      if (["prompt", "box_text"].includes(other.name) && other.options) other.options.getMaxHeight ??= () => 110;
      if (!WATCHED.includes(other.name) || other.wegenWatched) continue;
      other.wegenWatched = true;
      chain(other, "callback", () => {
        editor.follow();
        editor.render();
      });
    }
  }

  return { widget, minWidth: 580, minHeight: 700 };
}
