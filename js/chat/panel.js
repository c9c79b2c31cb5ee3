// A view on a session: transcript, composer, tools. The node has one, the sidebar another; both show the same.

import { passThrough, TYPE, view } from "../comfy.js";
import { button, el, own } from "../dom.js";
import { Composer } from "./composer.js";
import * as T from "./transcript.js";
import { growingElement, turnElement } from "./turn.js";

const KEEP = "Leave what an edit does not touch as it is"; // the lock
const SEVERAL = "Pictures of each answer, side by side";
const PAGE = 40; // turns shown at once: a long conversation stays light

export class ChatPanel {
  constructor(session) {
    this.session = session;
    this.page = PAGE;
    this.kept = new Map(); // turn id -> {key, element}
    this.composer = new Composer(session);
    this.earlier = el("button", { type: "button", class: "wegen-earlier", on: { click: () => ((this.page += PAGE), this.render()) } });
    this.list = el("div", { class: "wegen-turns", role: "log", tabIndex: 0, aria: { label: "Conversation", live: "polite" }, data: { captureWheel: "true" } });
    this.note = el("div", { class: "wegen-note", role: "status", hidden: true });
    this.waiting = el("div", { class: "wegen-note", hidden: true }, [
      el("span", { text: "This message was not answered. " }),
      el("button", { type: "button", class: "wegen-button", text: "Ask", on: { click: () => session.resume() } }),
      el("button", { type: "button", class: "wegen-button", text: "Take back", on: { click: () => this.#takeBack() } }),
    ]);
    this.empty = el("div", { class: "wegen-hint", text: "Say what you want to see. Attach pictures by dropping them here." });
    this.count = el("span", { class: "wegen-count" });
    this.demo = el("a", { class: "wegen-demo", text: "demo weights", target: "_blank", rel: "noopener", hidden: true,
      title: "The bundled miniature draws 24 simple things. How to use the real weights" });
    this.demo.href = new URL("../docs/real_weights.html", import.meta.url).href;
    this.clear = button("eraser", "Clear the conversation", () => this.#clear());
    this.keeping = button("lock", KEEP, () => {
      session.keeping = !session.keeping;
      this.render();
    });
    this.several = el("select", { class: "wegen-select", title: SEVERAL, aria: { label: SEVERAL },
      on: { change: () => (session.variations = Number(this.several.value)) } });
    this.element = el("div", { class: "wegen wegen-chat" }, [
      el("div", { class: "wegen-toolbar" }, [this.count, this.demo, el("span", { class: "wegen-space" }),
        this.several, this.keeping, button("download", "Export as Markdown", () => this.#export()), this.clear]),
      this.list, this.waiting, this.note, this.composer.element,
    ]);
    // pictures take their height when they have come: the end stays in sight
    this.list.addEventListener("scroll", () => this.#scrolled());
    this.list.addEventListener("load", () => this.stuck && this.#toEnd(), true);
    this.stuck = true;
    own(this.element);
    passThrough(this.element);
    this.element.addEventListener("dragover", (e) => {
      if (!e.dataTransfer || ![...e.dataTransfer.types].some((t) => t === "Files" || t === TYPE)) return;
      e.preventDefault();
      e.stopPropagation();
      e.dataTransfer.dropEffect = "copy";
    });
    this.element.addEventListener("drop", (e) => {
      e.stopPropagation();
      if (this.composer.drop(e)) e.preventDefault();
    });
    this.growing = null;
    session.views.add(this);
    this.render();
  }

  destroy() {
    this.session.views.delete(this);
    this.composer.destroy();
    clearTimeout(this.asking);
    clearTimeout(this.later);
    this.element.remove();
  }

  render(what = "all") {
    const { session } = this;
    if (what === "draft") return this.composer.render();
    if (what === "progress") return this.#grow();
    const path = T.path(session.talk), shown = path.slice(-this.page), busy = Boolean(session.pending);
    const act = {
      edit: (t) => this.composer.edit(t), again: (t) => session.again(t.id), branch: (t) => session.set(T.branch(session.talk, t.id)),
      remove: (t) => session.set(T.remove(session.talk, t.id)), choose: (t, step) => session.set(T.choose(session.talk, t.id, step)),
      attach: (file) => this.composer.attach([file]),
    };
    const kept = new Map();
    shown.forEach((turn, i) => {
      const versions = T.siblings(session.talk, turn.id);
      const key = `${busy} ${versions.findIndex((t) => t.id === turn.id)}/${versions.map((t) => t.pictures[0]?.filename)} ${turn.seed}`;
      const old = this.kept.get(turn.id);
      const same = old && old.key === key && old.turn === turn;
      kept.set(turn.id, same ? old : { key, turn, element: turnElement(session, turn, shown[i - 1], T.original(shown[i - 1], shown[i - 2]), act, busy) });
    });
    this.kept = kept;
    this.growing = busy ? (this.growing ?? growingElement()) : null;
    const hidden = path.length - shown.length;
    this.earlier.textContent = `Show ${Math.min(hidden, PAGE)} earlier turns (${hidden} hidden)`;
    const rows = [hidden ? this.earlier : null, ...[...kept.values()].map((k) => k.element), this.growing].filter(Boolean);
    this.#place(rows.length ? rows : [this.empty]);
    this.count.textContent = path.length ? `${Math.ceil(path.length / 2)} ${path.length > 2 ? "turns" : "turn"}` : "";
    this.keeping.setAttribute("aria-pressed", String(session.keeping));
    this.keeping.title = session.keeping ? `${KEEP}: on` : `${KEEP}: off`;
    this.keeping.firstChild.className = `pi pi-${session.keeping ? "lock" : "lock-open"}`;
    const counts = [...new Set([1, 2, 4, 8, session.variations])].sort((a, b) => a - b);
    this.several.replaceChildren(...counts.map((n) => el("option", { value: n, text: `×${n}`, selected: n === session.variations })));
    this.clear.disabled = busy || !path.length;
    this.waiting.hidden = !session.waiting;
    this.note.textContent = session.trouble;
    this.note.hidden = !session.trouble;
    this.demo.hidden = !session.miniature?.();
    this.composer.render();
    this.#grow();
    if (busy && !this.busy) this.stuck = true; // just sent
    this.busy = busy;
    if (!this.stuck) return;
    this.#toEnd();
    clearTimeout(this.later);
    this.later = setTimeout(() => this.stuck && this.#toEnd(), 250); // a workflow is read before its nodes are laid out
  }

  #atEnd() {
    return this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 60;
  }

  #toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
    this.top = this.list.scrollTop;
  }

  /** Only a way up lets go of the end: a picture on its way makes the list longer before it is loaded, and nobody scrolled. */
  #scrolled() {
    const { scrollTop } = this.list;
    if (this.#atEnd()) this.stuck = true;
    else if (scrollTop < this.top) this.stuck = false;
    this.top = scrollTop;
  }

  /** Rows as they should be, touching only what differs, so that focus and selection stay. */
  #place(rows) {
    rows.forEach((row, i) => this.list.children[i] !== row && this.list.insertBefore(row, this.list.children[i] ?? null));
    while (this.list.children.length > rows.length) this.list.lastChild.remove();
  }

  #grow() {
    if (!this.growing || !this.session.pending) return;
    this.growing.show(this.session.pending.progress);
    if (this.stuck) this.#toEnd();
  }

  #takeBack() {
    const { session } = this, asked = T.find(session.talk, session.talk.head);
    session.files = asked.pictures;
    session.set({ ...T.remove(session.talk, asked.id), draft: session.talk.draft || asked.text });
  }

  /** Clearing asks once, in place. */
  #clear() {
    if (!this.clear.classList.contains("sure")) {
      this.clear.classList.add("sure");
      this.clear.title = "Press again: all branches go";
      this.asking = setTimeout(() => this.clear.classList.remove("sure"), 3000);
      return;
    }
    this.clear.classList.remove("sure");
    this.session.trouble = "";
    this.session.set({ ...T.empty(), draft: this.session.talk.draft });
  }

  #export() {
    const text = T.markdown(this.session.talk, (file) => new URL(view(file), location.href).href);
    const link = el("a", { href: URL.createObjectURL(new Blob([`${text}\n`], { type: "text/markdown" })), download: "wegen-chat.md" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
