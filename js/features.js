// The 64 features of a picture as an 8x8 grid of colours: filling while they are written, and below nodes that output features.

import { el } from "./dom.js";

const COLOUR = /^#[0-9a-f]{6}$/;

/** A grid of `n` cells with `fill(colours)`; cells past the colours stay empty. */
export function featureGrid(n = 64) {
  const side = Math.max(1, Math.round(Math.sqrt(n)));
  const cells = Array.from({ length: side * side }, () => el("i"));
  const element = el("div", { class: "wegen-cells", role: "img", style: { gridTemplateColumns: `repeat(${side}, 1fr)` } }, cells);
  element.fill = (colours = []) => {
    const good = colours.filter((c) => COLOUR.test(c)).slice(0, cells.length);
    element.setAttribute("aria-label", `${good.length} of ${cells.length} features`);
    cells.forEach((cell, i) => {
      const colour = good[i] ?? "";
      if (cell.colour !== colour) cell.style.backgroundColor = cell.colour = colour;
    });
  };
  element.fill([]);
  return element;
}

/** Below a node that makes features: one small grid of at least `n` cells for each picture of the batch. The widget is for looking: it is not
 *  saved. */
export function showFeatures(node, rows, n = 0) {
  const batch = (Array.isArray(rows) ? rows : []).filter(Array.isArray).slice(0, 8);
  if (!batch.length) return;
  if (!node.wegenGrids) {
    const element = el("div", { class: "wegen wegen-grids" });
    node.wegenGrids = node.addDOMWidget("feature_grid", "WEGEN_FEATURE_GRID", element, {
      serialize: false, hideOnZoom: false, margin: 4, getMinHeight: () => 84, getMaxHeight: () => 110, getValue: () => "",
    });
    node.wegenGrids.serialize = false;
    const [width, height] = node.computeSize();
    node.setSize?.([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  }
  const { element } = node.wegenGrids;
  element.replaceChildren(
    ...batch.map((colours) => {
      const grid = featureGrid(Math.max(n, colours.length));
      grid.fill(colours);
      return grid;
    }),
  );
  node.setDirtyCanvas?.(true, true);
}
