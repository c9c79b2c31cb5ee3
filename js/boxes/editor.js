// The box editor: toolbar, stage and list over one state with undo. Knows nothing of ComfyUI: `surroundings` is all it is told.

import { button, el, own, picturesOf } from "../dom.js";
import { BoxList } from "./list.js";
import { Stage } from "./stage.js";
import * as S from "./state.js";

const CLIP = "application/x-wegen-boxes";

export class BoxEditor {
  /**
   * surroundings: {frame() -> [width, height], picture(ref) -> url, below() -> url of the picture at the background socket, connected() -> [ref], changed(), view(file) -> url,
   *                upload(blob) -> file, tell(text), arrived() -> {boxes, seen} of box_text now, or null}
   */
  constructor(surroundings) {
    this.around = surroundings;
    this.history = new S.History(S.parse(""));
    this.selected = 0;
    this.over = false; // a drag draws, whatever is below it
    this.stage = new Stage(this);
    this.list = new BoxList(this);
    this.said = el("div", { class: "wegen-said", role: "status", aria: { live: "polite" } });
    this.note = el("div", { class: "wegen-note", hidden: true, role: "status" });
    this.element = el("div", { class: "wegen wegen-boxes" }, [this.#toolbar(), this.note,
      el("div", { class: "wegen-body" }, [this.stage.element, this.list.element]), this.said]);
    own(this.element);
    this.stage.keys.addEventListener("keydown", (e) => this.#key(e));
    for (const kind of ["copy", "cut", "paste"]) this.stage.keys.addEventListener(kind, (e) => this.#clipboard(e));
    this.element.addEventListener("dragover", (e) => e.dataTransfer?.types.includes("Files") && (e.preventDefault(), e.stopPropagation()));
    this.element.addEventListener("drop", (e) => this.#drop(e));
  }

  get state() {
    return this.history.state;
  }

  frame() {
    return this.around.frame();
  }

  picture(ref) {
    return this.around.picture(ref);
  }

  get value() {
    if (this.written?.state !== this.state) this.written = { state: this.state, text: S.serialise(this.state) }; // ComfyUI asks often
    return this.written.text;
  }

  /** A value from the workflow. The same one again (ComfyUI sets it freely) keeps undo. */
  load(text) {
    if (text === this.value) return;
    this.history.reset(S.parse(text));
    this.selected = 0;
    this.#background();
    this.explain(this.state.ignored.length ? `Left out of what was opened: ${this.state.ignored.join("; ")}.` : "");
    this.follow();
    this.render();
  }

  /** Boxes that came through the socket or the text, with their digest: they take the canvas over unless it was drawn since they came. */
  arrive(arrived, seen) {
    if (!seen || (this.state.edited && this.state.seen === seen)) return;
    const empty = !this.state.edited || !this.state.boxes.length;
    const next = S.seeded(this.state, arrived, seen);
    if (empty && !this.state.edited) this.history.reset(next);
    else this.history.push({ ...next, edited: true });
    if (!next.boxes.some((b) => b.ref === this.selected)) this.selected = 0;
    this.render();
    this.around.changed();
  }

  /** What box_text says now, where it can be read here. */
  follow() {
    const now = this.around.arrived();
    if (now) this.arrive(now.boxes, now.seen);
  }

  explain(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  render() {
    this.#background();
    this.stage.render();
    this.list.render();
    this.tools.undo.disabled = !this.history.past.length;
    this.tools.redo.disabled = !this.history.future.length;
    this.tools.erase.disabled = this.tools.copy.disabled = !this.selected;
    this.tools.plain.hidden = !this.state.background;
    this.tools.snap.setAttribute("aria-pressed", String(this.state.options.snap));
    this.tools.over.setAttribute("aria-pressed", String(this.over));
    this.tools.lock.setAttribute("aria-pressed", String(this.state.options.lock));
    this.tools.grid.value = String(this.state.options.grid);
  }

  say(text) {
    this.said.textContent = text;
  }

  // ---- what stage, list, keys and toolbar ask for

  #push(state, merge) {
    const seen = this.around.arrived()?.seen ?? state.seen;
    this.history.push({ ...state, seen: state.boxes === this.state.boxes ? state.seen : seen || state.seen }, merge);
    this.render();
  }

  select(ref) {
    if (ref === this.selected) return;
    this.selected = ref;
    this.render();
    if (ref) this.say(`Box ${ref} chosen`);
  }

  done() {
    this.around.changed();
  }

  restore(state) {
    this.history.push(state);
    this.render();
  }

  draw(box, merge = null) {
    const { state, ref } = S.add(this.state, box, this.around.connected());
    if (!ref) return this.explain(`The canvas holds ${S.MOST} boxes, which is all it takes.`), 0;
    this.#push(state, merge);
    this.selected = ref;
    return ref;
  }

  create() {
    const n = this.state.boxes.length % 5;
    const ref = this.draw({ x: 0.1 + n * 0.08, y: 0.1 + n * 0.08, width: 0.4, height: 0.4 });
    if (ref) this.#finish(`Box ${ref} added`);
  }

  edit(ref, sides, merge) {
    this.#push(S.change(this.state, ref, sides), merge);
  }

  change(ref, sides) {
    this.edit(ref, sides, `field ${ref} ${Object.keys(sides)}`);
  }

  relabel(ref, label) {
    this.#push(S.relabel(this.state, ref, label), `label ${ref}`);
  }

  lock(ref) {
    const box = this.state.boxes.find((b) => b.ref === ref);
    this.#push(S.lock(this.state, ref, !box?.locked));
    this.#finish(`Box ${ref} ${box?.locked ? "unlocked" : "locked"}`);
  }

  rename(ref) {
    this.list.focus(ref);
  }

  renumber(ref, to) {
    if (to < 1) return;
    this.#push(S.renumber(this.state, ref, to));
    this.selected = to;
    this.#finish(`Box ${ref} is now of reference ${to}`);
    this.list.rows.get(to)?.choose.focus();
  }

  remove(ref) {
    const had = this.list.element.contains(document.activeElement), at = this.state.boxes.findIndex((b) => b.ref === ref);
    this.#push(S.remove(this.state, ref));
    this.selected = (this.state.boxes[at] ?? this.state.boxes[at - 1])?.ref ?? 0;
    this.#finish(`Box ${ref} deleted`);
    if (had) (this.list.rows.get(this.selected)?.choose ?? this.stage.keys).focus();
  }

  duplicate(ref) {
    const made = S.duplicate(this.state, ref, this.around.connected());
    if (!made.ref) return;
    this.#push(made.state);
    this.selected = made.ref;
    this.#finish(`Box ${ref} duplicated as box ${made.ref}`);
  }

  #finish(said) {
    this.render();
    this.say(said);
    this.done();
  }

  #undo(back) {
    if (!(back ? this.history.undo() : this.history.redo())) return;
    if (!this.state.boxes.some((b) => b.ref === this.selected)) this.selected = 0;
    this.#background();
    this.#finish(back ? "Undone" : "Redone");
  }

  #option(change) {
    this.#push({ ...this.state, edited: true, options: { ...this.state.options, ...change } });
    this.done();
  }

  #cycle(step) {
    const refs = this.state.boxes.map((b) => b.ref);
    if (!refs.length) return;
    const at = refs.indexOf(this.selected);
    this.select(refs[at < 0 ? (step > 0 ? 0 : refs.length - 1) : (at + step + refs.length) % refs.length]);
  }

  // ---- input

  #toolbar() {
    const hold = { on: { mousedown: (e) => e.preventDefault() } }; // a click leaves the keys with the canvas
    const t = (this.tools = {
      add: button("plus", "New box (N)", () => this.create(), hold),
      copy: button("clone", "Duplicate the chosen box (Ctrl+D)", () => this.duplicate(this.selected), hold),
      erase: button("trash", "Delete the chosen box (Delete)", () => this.remove(this.selected), hold),
      over: button("pencil", "Draw over boxes that are there (or hold Shift)", () => ((this.over = !this.over), this.render()), hold),
      undo: button("undo", "Undo (Ctrl+Z)", () => this.#undo(true), hold),
      redo: button("refresh", "Redo (Ctrl+Shift+Z)", () => this.#undo(false), hold),
      snap: button("th-large", "Snap to other boxes and the grid (hold Ctrl to draw freely)", () => this.#option({ snap: !this.state.options.snap }), hold),
      grid: el("select", { class: "wegen-select", title: "Grid", aria: { label: "Grid" }, on: { change: (e) => this.#option({ grid: Number(e.target.value) }) } },
        [[0, "no grid"], [8, "8 × 8"], [16, "16 × 16"], [32, "32 × 32"]].map(([value, text]) => el("option", { value, text }))),
      lock: button("lock", "Keep each box's aspect while resizing (or hold Shift)", () => this.#option({ lock: !this.state.options.lock }), hold),
      picture: button("image", "Background picture: choose, drop or paste one", () => this.#choose(), hold),
      plain: button("times", "Take the background picture away", () => this.#setBackground(null), hold),
      large: button("window-maximize", "Full screen (Escape leaves it)", () => this.#fullScreen(), hold),
    });
    return el("div", { class: "wegen-toolbar", role: "toolbar", aria: { label: "Boxes" } }, Object.values(t));
  }

  #key(e) {
    const ctrl = e.ctrlKey || e.metaKey, key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const box = this.state.boxes.find((b) => b.ref === this.selected);
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (ctrl && key === "z") this.#undo(!e.shiftKey);
    else if (ctrl && key === "y") this.#undo(false);
    else if (ctrl && key === "d" && box) this.duplicate(box.ref);
    else if (ctrl && key in arrows) return;
    else if (ctrl) return; // copy, cut and paste come as events of their own
    else if ((key === "Delete" || key === "Backspace") && box) this.remove(box.ref);
    else if (key === "Escape") this.select(0);
    else if (key === "n") this.create();
    else if (key === "PageDown") this.#cycle(1);
    else if (key === "PageUp") this.#cycle(-1);
    else if (key === "Enter" && box) this.rename(box.ref);
    else if (key in arrows && box && !box.locked) {
      const step = e.shiftKey ? 0.05 : 0.005, [dx, dy] = arrows[key].map((v) => v * step);
      const sides = e.altKey ? { width: box.width + dx, height: box.height + dy } : { x: box.x + dx, y: box.y + dy };
      this.edit(box.ref, sides, `nudge ${box.ref}`);
      this.done();
    } else return;
    e.preventDefault();
  }

  #clipboard(e) {
    if (e.type === "paste") {
      const [picture] = picturesOf(e.clipboardData);
      if (picture) this.#setBackground(picture);
      else this.#paste(e.clipboardData?.getData(CLIP) || e.clipboardData?.getData("text/plain"));
    } else {
      const box = this.state.boxes.find((b) => b.ref === this.selected);
      if (!box) return;
      e.clipboardData.setData(CLIP, JSON.stringify([box]));
      e.clipboardData.setData("text/plain", JSON.stringify([box]));
      if (e.type === "cut") this.remove(box.ref);
    }
    e.preventDefault();
  }

  #paste(text) {
    const [box] = S.parse(text).boxes;
    if (!box) return;
    const same = this.state.boxes.some((b) => b.x === box.x && b.y === box.y);
    const off = same ? 0.03 : 0;
    const ref = this.draw({ ...box, ref: 0, x: box.x + off, y: box.y + off });
    if (ref) this.#finish(`Box ${ref} pasted`);
  }

  #drop(e) {
    const [picture] = picturesOf(e.dataTransfer);
    if (!picture) return;
    e.preventDefault();
    e.stopPropagation();
    this.#setBackground(picture);
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen?.().catch((error) => this.explain(`Full screen: ${error.message}.`));
  }

  #choose() {
    const input = el("input", { type: "file", accept: "image/*", on: { change: () => input.files[0] && this.#setBackground(input.files[0]) } });
    input.click();
  }

  async #setBackground(blob) {
    try {
      const background = blob && (await this.around.upload(blob));
      this.#push({ ...this.state, edited: true, background });
      this.#background();
      this.done();
    } catch (error) {
      this.explain(`Background: ${error.message}.`);
    }
  }

  #background() {
    const own = this.state.background, url = own ? this.around.view(own) : this.around.below();
    if (this.shownBelow !== url) this.stage.setBackground((this.shownBelow = url));
  }
}
