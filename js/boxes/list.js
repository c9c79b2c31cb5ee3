// The list beside the canvas: everything the pointer does, with the keyboard alone. Rows are native controls with spoken names.

import { button, el } from "../dom.js";

const SIDES = [["x", "left"], ["y", "top"], ["width", "width"], ["height", "height"]];

export class BoxList {
  /** `host`: as Stage's, with {frame(), change(ref, sides), relabel(ref, text), renumber(ref, to), remove(ref), duplicate(ref)} */
  constructor(host) {
    this.host = host;
    this.rows = new Map();
    this.hint = el("div", { class: "wegen-hint", text: "No boxes yet: drag on the canvas, or press +" });
    this.element = el("div", { class: "wegen-list", role: "list", aria: { label: "Boxes" }, data: { captureWheel: "true" } }, this.hint);
  }

  render() {
    const { state, selected } = this.host;
    const kept = new Set(state.boxes.map((b) => b.ref));
    this.hint.hidden = kept.size > 0;
    for (const [ref, row] of this.rows) if (!kept.has(ref)) row.remove(), this.rows.delete(ref);
    state.boxes.forEach((box, i) => {
      let row = this.rows.get(box.ref);
      if (!row) this.rows.set(box.ref, (row = this.#row(box.ref)));
      if (this.element.children[i + 1] !== row) this.element.insertBefore(row, this.element.children[i + 1] ?? null);
      row.classList.toggle("selected", box.ref === selected);
      row.choose.setAttribute("aria-pressed", String(box.ref === selected));
      row.choose.setAttribute("aria-label", `Box ${box.ref}${box.label ? `, ${box.label}` : ""}: left ${percent(box.x)}, top ${percent(box.y)}, `
        + `width ${percent(box.width)}, height ${percent(box.height)} per cent`);
      if (row.label !== document.activeElement) row.label.value = box.label;
      row.lock.setAttribute("aria-pressed", String(Boolean(box.locked)));
      row.lock.firstChild.className = `pi pi-${box.locked ? "lock" : "lock-open"}`;
      row.sides.hidden = box.ref !== selected;
      for (const [key] of SIDES) row.fields[key].disabled = Boolean(box.locked);
      for (const [key] of SIDES) if (row.fields[key] !== document.activeElement) row.fields[key].value = percent(box[key]);
      const source = this.host.picture(box.ref) || "";
      if (row.source !== source) {
        row.source = source;
        if (source) row.picture.src = source;
        row.picture.hidden = !source;
      }
    });
  }

  focus(ref) {
    this.rows.get(ref)?.label.focus();
  }

  #row(ref) {
    const { host } = this;
    const picture = el("img", { alt: "", draggable: false, hidden: true, on: { error: (e) => (e.target.hidden = true) } });
    const choose = el("button", { type: "button", class: `wegen-chip colour-${(ref - 1) % 10}`, on: { click: () => host.select(ref) } },
      [String(ref), picture]);
    const label = el("input", {
      type: "text", class: "wegen-name", maxLength: 100, placeholder: `image ${ref}`, aria: { label: `Label of box ${ref}` },
      on: { focus: () => host.select(ref), input: (e) => host.relabel(ref, e.target.value), change: () => host.done() },
    });
    const fields = {};
    const sides = el("div", { class: "wegen-sides", hidden: true }, SIDES.map(([key, spoken]) => {
      fields[key] = el("input", {
        type: "number", min: key === "x" || key === "y" ? 0 : 1, max: 100, step: 0.5, aria: { label: `Box ${ref}, ${spoken} in per cent` },
        on: { input: (e) => e.target.value !== "" && host.change(ref, { [key]: Number(e.target.value) / 100 }), change: () => host.done() },
      });
      return el("label", {}, [el("span", { text: { x: "x", y: "y", width: "w", height: "h" }[key] }), fields[key]]);
    }));
    const lock = button("lock-open", `Lock box ${ref}: it cannot be moved, and can be drawn over`, () => host.lock(ref));
    const row = el("div", { class: "wegen-row", role: "listitem" }, [
      el("div", { class: "wegen-line" }, [
        choose, label, lock,
        button("angle-up", `Box ${ref}: give it to the reference before`, () => host.renumber(ref, ref - 1)),
        button("angle-down", `Box ${ref}: give it to the next reference`, () => host.renumber(ref, ref + 1)),
        button("clone", `Duplicate box ${ref}`, () => host.duplicate(ref)),
        button("trash", `Delete box ${ref}`, () => host.remove(ref)),
      ]),
      sides,
    ]);
    return Object.assign(row, { choose, label, fields, sides, picture, lock });
  }
}

const percent = (v) => Math.round(v * 1000) / 10;
