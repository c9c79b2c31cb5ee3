// Where a message is written: text, attached pictures, `@` for the tag of one of them, Send and Stop.

import { annotated, keep, picturesInGraph, TYPE, upload, view } from "../comfy.js";
import { button, el, picturesOf } from "../dom.js";
import { readFile } from "../boxes/state.js";
import { LIMITS, tagAt } from "./transcript.js";
import { report } from "./session.js";

export class Composer {
  constructor(session) {
    this.session = session;
    this.editing = null; // the turn that is being edited, or null
    this.text = el("textarea", {
      class: "wegen-write", rows: 2, maxLength: LIMITS.text, placeholder: "Say what you want… @ names a picture",
      aria: { label: "Message. Enter sends, Shift Enter makes a new line, @ names an attached picture" }, data: { captureWheel: "true" },
      on: { input: () => this.#typed(), keydown: (e) => this.#key(e), paste: (e) => this.#files(e, e.clipboardData), blur: () => this.#close(200) },
    });
    this.chips = el("div", { class: "wegen-chips", role: "list", aria: { label: "Attached pictures" }, hidden: true });
    this.menu = el("div", { class: "wegen-menu", role: "listbox", hidden: true });
    this.sending = button("send", "Send (Enter)", () => this.submit());
    this.stopping = button("stop", "Stop", () => session.stop());
    this.sending.classList.add("wegen-send");
    this.cancel = button("times", "Leave the message as it was", () => this.edit(null), { hidden: true });
    this.element = el("div", { class: "wegen-composer" }, [
      this.chips, this.menu,
      el("div", { class: "wegen-line" }, [
        button("paperclip", "Attach a picture (or drop or paste one)", () => this.#choose()),
        button("images", "Attach a picture that a node of the graph shows", () => this.#fromGraph()),
        button("@", "Name an attached picture in the text", () => this.#mention()),
        this.text, this.cancel, this.stopping, this.sending,
      ]),
    ]);
  }

  /** Written into the session; or, while a message is edited, kept here. */
  get draft() {
    return this.editing ? this.edited : { text: this.session.talk.draft, files: this.session.files };
  }

  render() {
    const { text, files } = this.draft, busy = Boolean(this.session.pending);
    if (this.text.value !== text) this.text.value = text;
    this.sending.hidden = busy;
    this.stopping.hidden = !busy;
    this.sending.disabled = !text.trim() && !files.length;
    this.cancel.hidden = !this.editing;
    const shown = files.map(annotated).join("\n");
    if (this.shown !== shown) {
      this.shown = shown;
      this.chips.hidden = !files.length;
      this.chips.replaceChildren(...files.map((file, i) => this.#chip(file, i)));
    }
  }

  edit(turn) {
    this.editing = turn;
    this.edited = turn && { text: turn.text, files: turn.pictures };
    this.render();
    this.text.focus();
  }

  submit() {
    const { text, files } = this.draft;
    if (this.session.pending || (!text.trim() && !files.length)) return;
    const turn = this.editing;
    this.editing = null;
    if (turn) this.session.edit(turn.id, { text: text.trim(), pictures: files });
    else this.session.send();
    this.render();
  }

  attach(files) {
    const { text, files: have } = this.draft, room = LIMITS.pictures - have.length;
    if (files.length > room) report(new Error(`A message takes ${LIMITS.pictures} pictures.`));
    this.#set({ text, files: [...have, ...files.slice(0, Math.max(0, room))] });
  }

  /** A drop anywhere on the panel. True when it was pictures. */
  drop(e) {
    const own = e.dataTransfer?.getData(TYPE);
    if (own) {
      try {
        const file = readFile(JSON.parse(own));
        if (file) this.attach([file]);
      } catch {
        return false;
      }
      return true;
    }
    return this.#files(e, e.dataTransfer);
  }

  #set({ text, files }) {
    if (this.editing) this.edited = { text, files };
    else {
      this.session.files = files;
      if (text !== this.session.talk.draft) return this.session.write(text);
      return this.session.refresh("draft");
    }
    this.render();
  }

  #typed() {
    this.#set({ ...this.draft, text: this.text.value });
    const at = tagAt(this.text.value, this.text.selectionStart);
    if (at) this.#mention(at);
    else this.menu.hidden = true;
  }

  #key(e) {
    if (e.isComposing) return;
    if (!this.menu.hidden) {
      const items = [...this.menu.children], now = items.findIndex((i) => i.ariaSelected === "true");
      const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
      if (step) items.forEach((item, i) => (item.ariaSelected = String(i === (now + step + items.length) % items.length)));
      else if (e.key === "Enter" || e.key === "Tab") items[Math.max(now, 0)]?.click();
      else if (e.key === "Escape") this.menu.hidden = true;
      else return;
      return e.preventDefault();
    }
    if (e.key === "Enter" && !e.shiftKey) {
      e.preventDefault();
      this.submit();
    } else if (e.key === "Escape" && this.editing) this.edit(null);
  }

  /** Offer the tags of the attached pictures; with none, say how to attach. */
  #mention(at = { start: this.text.selectionStart, query: "", open: true }) {
    const { files } = this.draft;
    const wanted = files.map((file, i) => ({ file, k: i + 1 })).filter(({ k, file }) => `image${k} ${k} ${file.filename}`.toLowerCase().includes(at.query));
    this.#menu(wanted.map(({ file, k }) => ({ label: `image ${k}: ${file.label || file.filename}`, file, run: () => this.#insert(at, `<image_${k}>`) })),
      "Attach a picture first: drop it here, paste it, or use the buttons.");
  }

  #insert({ start }, tag) {
    const { text, files } = this.draft, end = this.text.selectionStart;
    const space = /\S$/.test(text.slice(0, start)) ? " " : "";
    const next = text.slice(0, start) + space + tag + text.slice(Math.max(end, start));
    this.#set({ text: next, files });
    this.text.focus();
    this.text.setSelectionRange(start + space.length + tag.length, start + space.length + tag.length);
  }

  #fromGraph() {
    const attach = (file) => keep(file).then((kept) => this.attach([kept]), report);
    this.#menu(picturesInGraph().map(({ title, file }) => ({ label: `${title}: ${file.filename}`, file, run: () => attach(file) })),
      "No node of this graph shows a picture yet.");
  }

  #menu(items, otherwise) {
    this.menu.replaceChildren(...(items.length ? items : [{ label: otherwise, run: () => {} }]).map(({ label, file, run }, i) =>
      el("button", { type: "button", role: "option", class: "wegen-option", aria: { selected: String(i === 0) }, on: {
        mousedown: (e) => e.preventDefault(),
        click: () => {
          this.menu.hidden = true;
          run();
        },
      } }, [file && el("img", { src: view(file), alt: "" }), el("span", { text: label })])));
    this.menu.hidden = false;
    this.text.focus();
  }

  #close(after) {
    clearTimeout(this.closing);
    this.closing = setTimeout(() => (this.menu.hidden = true), after);
  }

  destroy() {
    clearTimeout(this.closing);
  }

  #chip(file, i) {
    const take = () => {
      const { text, files } = this.draft;
      this.#set({ text, files: files.filter((_, k) => k !== i) });
    };
    return el("span", { class: "wegen-chip", role: "listitem", title: annotated(file) }, [
      el("img", { src: view(file), alt: "" }),
      el("button", { type: "button", class: "wegen-button", text: `image ${i + 1}`, title: "Insert its tag",
        on: { click: () => this.#insert({ start: this.text.selectionStart }, `<image_${i + 1}>`) } }),
      button("times", `Take image ${i + 1} away`, take),
    ]);
  }

  #choose() {
    const input = el("input", { type: "file", accept: "image/*", multiple: true, on: { change: () => this.#store([...input.files]) } });
    input.click();
  }

  #files(e, transfer) {
    const pictures = picturesOf(transfer);
    if (!pictures.length) return false;
    e.preventDefault();
    this.#store(pictures);
    return true;
  }

  async #store(pictures) {
    try {
      this.attach(await Promise.all(pictures.map((p) => upload(p, p.name && p.name !== "image.png" ? p.name : `pasted-${Date.now()}.png`))));
    } catch (error) {
      report(error);
    }
  }
}
