// The picture's frame with the boxes in it: drawing, moving, resizing with the pointer. Boxes are elements, so they are sharp at any
// zoom; only what changed is written, and nothing runs while idle. The editor around it holds the state.

import { el } from "../dom.js";
import { between, handleAt, HANDLES, hits, moved, resized, snap } from "./geometry.js";

const REACH = 9; // pixels around a handle
const SLIP = 3; // pixels that are still a click

export class Stage {
  /** `host`: {state, selected, frame(), picture(ref), select(ref), edit(ref, sides, merge), draw(box, merge), done(), rename(ref)} */
  constructor(host) {
    this.host = host;
    this.shapes = new Map(); // ref -> element
    this.drag = null;
    this.background = el("img", { class: "wegen-background", alt: "", draggable: false, hidden: true });
    this.guides = el("div", { class: "wegen-guides" });
    this.keys = el("textarea", {
      class: "wegen-keys", readOnly: true, rows: 1, aria: { label:
        "Canvas of boxes. N draws a new box, Page Up and Page Down choose one, arrow keys move it (Shift: further, Alt: resize), Delete removes it, "
        + "Control D duplicates, Control Z undoes." },
    });
    this.hint = el("div", { class: "wegen-hint", text: "Drag to draw a box" });
    this.frame = el("div", { class: "wegen-frame" }, [this.background, this.guides, this.hint, this.keys]);
    this.element = el("div", { class: "wegen-stage" }, this.frame);
    this.frame.addEventListener("pointerdown", (e) => this.#down(e));
    this.frame.addEventListener("pointermove", (e) => this.#move(e));
    this.frame.addEventListener("pointerup", (e) => this.#up(e));
    this.frame.addEventListener("pointercancel", () => this.#cancel());
    this.frame.addEventListener("lostpointercapture", () => this.drag && this.#cancel());
    this.frame.addEventListener("dblclick", () => this.host.selected && this.host.rename(this.host.selected));
  }

  render() {
    const { state, selected } = this.host, [width, height] = this.host.frame();
    this.frame.style.setProperty("--wegen-aspect", `${width} / ${height}`);
    this.frame.style.setProperty("--wegen-ratio", String(width / height));
    this.hint.hidden = state.boxes.length > 0;
    const kept = new Set();
    for (const box of state.boxes) {
      kept.add(box.ref);
      let shape = this.shapes.get(box.ref);
      if (!shape) this.shapes.set(box.ref, (shape = this.#shape(box.ref)));
      place(shape, box);
      shape.classList.toggle("selected", box.ref === selected);
      shape.classList.toggle("locked", Boolean(box.locked));
      shape.style.zIndex = box.ref === selected ? 200 : box.ref;
      const name = box.label || "";
      if (shape.label.textContent !== name) shape.label.textContent = name;
      const source = this.host.picture(box.ref) || "";
      if (shape.source !== source) {
        shape.source = source;
        if (source) shape.picture.src = source;
        shape.picture.hidden = !source;
      }
    }
    for (const [ref, shape] of this.shapes) if (!kept.has(ref)) shape.remove(), this.shapes.delete(ref);
  }

  setBackground(url) {
    this.background.hidden = !url;
    if (url) this.background.src = url;
    else this.background.removeAttribute("src");
  }

  #shape(ref) {
    const picture = el("img", { alt: "", draggable: false, hidden: true, on: { error: (e) => (e.target.hidden = true) } });
    const label = el("span", { class: "wegen-label" });
    const shape = el("div", { class: `wegen-box colour-${(ref - 1) % 10}` }, [
      picture, el("span", { class: "wegen-number", text: String(ref) }), label,
      ...HANDLES.map((name) => el("span", { class: `wegen-handle ${name}` })),
    ]);
    Object.assign(shape, { picture, label });
    this.frame.append(shape);
    return shape;
  }

  /** Pointer in fractions, with the size of a pixel on screen: right under the canvas' zoom in both renderers. */
  #point(e) {
    const rect = this.frame.getBoundingClientRect();
    return { x: (e.clientX - rect.left) / rect.width, y: (e.clientY - rect.top) / rect.height, tx: REACH / rect.width, ty: REACH / rect.height };
  }

  #down(e) {
    if (e.button !== 0) return;
    e.stopPropagation();
    e.preventDefault();
    this.keys.focus({ preventScroll: true });
    const p = this.#point(e), { state, selected } = this.host;
    const chosen = state.boxes.find((b) => b.ref === selected && !b.locked);
    const handle = chosen && handleAt(chosen, p, p.tx, p.ty);
    const below = hits(state.boxes, p).map((i) => state.boxes[i].ref);
    this.drag = { start: p, at: [e.clientX, e.clientY], moved: false, before: state, below };
    if (handle) Object.assign(this.drag, { kind: "resize", handle, box: chosen });
    else if (below.length && !e.shiftKey && !this.host.over) {
      const ref = below.includes(selected) && !e.altKey ? selected : below[0];
      Object.assign(this.drag, { kind: "move", was: selected, box: state.boxes.find((b) => b.ref === ref) });
      if (!e.altKey) this.host.select(ref);
    } else Object.assign(this.drag, { kind: "draw", box: null });
    this.frame.setPointerCapture(e.pointerId);
  }

  #move(e) {
    const drag = this.drag, p = this.#point(e);
    if (!drag) return this.#hover(p);
    e.stopPropagation();
    if (!drag.moved && Math.hypot(e.clientX - drag.at[0], e.clientY - drag.at[1]) < SLIP) return;
    if (drag.kind === "move" && drag.box.locked) Object.assign(drag, { kind: "draw", box: null }); // a locked box is ground to draw on
    drag.moved = true;
    const { state } = this.host, [width, height] = this.host.frame(), options = state.options;
    const dx = p.x - drag.start.x, dy = p.y - drag.start.y;
    const free = e.ctrlKey || e.metaKey || !options.snap; // held: no snapping
    let box, handle = null;
    if (drag.kind === "move") box = moved(drag.box, e.shiftKey && Math.abs(dx * width) < Math.abs(dy * height) ? 0 : dx,
      e.shiftKey && Math.abs(dx * width) >= Math.abs(dy * height) ? 0 : dy);
    else if (drag.kind === "resize") {
      handle = drag.handle;
      box = resized(drag.box, handle, dx, dy, options.lock || e.shiftKey ? drag.box.width / drag.box.height : 0);
      if (options.lock || e.shiftKey) handle = "";
    } else {
      box = between(drag.start, p);
      handle = (p.y < drag.start.y ? "n" : "s") + (p.x < drag.start.x ? "w" : "e");
    }
    const others = state.boxes.filter((b) => b.ref !== drag.box?.ref);
    const snapped = free || handle === "" ? { box, guides: [] }
      : snap(box, others, { grid: options.grid ? 1 / options.grid : 0, tx: p.tx * 0.7, ty: p.ty * 0.7, handle });
    this.#guide(snapped.guides);
    if (drag.kind === "draw") {
      drag.made ??= this.host.draw(snapped.box, drag);
      if (!drag.made) return this.#cancel();
      drag.box ??= { ref: drag.made };
    }
    const { x, y, width: w, height: h } = snapped.box;
    this.host.edit(drag.box.ref, { x, y, width: w, height: h }, drag);
  }

  #up(e) {
    const drag = this.drag;
    if (!drag) return;
    e.stopPropagation();
    this.drag = null;
    this.frame.releasePointerCapture?.(e.pointerId);
    this.#guide([]);
    if (drag.moved) return this.host.done();
    if (drag.kind === "draw") return this.host.select(0);
    if (drag.kind === "move" && (e.altKey || drag.was === this.host.selected)) {
      // a click on what is already chosen goes to the next below it
      const at = drag.below.indexOf(this.host.selected);
      this.host.select(drag.below[(at + 1) % drag.below.length]);
    }
  }

  #cancel() {
    if (!this.drag) return;
    const { before, moved: changed } = this.drag;
    this.drag = null;
    this.#guide([]);
    if (changed) this.host.restore(before);
  }

  #hover(p) {
    const { state, selected } = this.host, chosen = state.boxes.find((b) => b.ref === selected && !b.locked);
    const handle = chosen && handleAt(chosen, p, p.tx, p.ty);
    const turn = { n: "ns", s: "ns", e: "ew", w: "ew", nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw" };
    const cursor = handle ? `${turn[handle]}-resize` : !this.host.over && hits(state.boxes.filter((b) => !b.locked), p).length ? "move" : "crosshair";
    if (this.cursor !== cursor) this.frame.style.cursor = this.cursor = cursor;
  }

  #guide(guides) {
    this.guides.replaceChildren(
      ...guides.map(({ axis, at }) => el("i", { class: axis, style: { [axis === "x" ? "left" : "top"]: `${at * 100}%` } })),
    );
  }
}

function place(shape, { x, y, width, height }) {
  const inset = `${(x * 100).toFixed(3)}%,${(y * 100).toFixed(3)}%,${(width * 100).toFixed(3)}%,${(height * 100).toFixed(3)}%`;
  if (shape.inset === inset) return;
  shape.inset = inset;
  [shape.style.left, shape.style.top, shape.style.width, shape.style.height] = inset.split(",");
}
