// One chat panel node's conversation: its value, the message under way, and the views on it (in the node, in the sidebar).

import { api, app, changed, tell } from "../comfy.js";
import * as T from "./transcript.js";

const sessions = new Set();

export class Session {
  constructor(node) {
    this.node = node;
    this.talk = T.empty();
    this.files = []; // attached to the message being written
    this.pending = null; // {turn, restore, prompt, progress}
    this.trouble = "";
    this.views = new Set();
    sessions.add(this);
  }

  static all() {
    return [...sessions];
  }

  destroy() {
    sessions.delete(this);
    this.views.clear();
  }

  // ---- value

  get value() {
    if (this.written?.talk !== this.talk) this.written = { talk: this.talk, text: T.serialise(this.talk) }; // ComfyUI asks often
    return this.written.text;
  }

  get promptValue() {
    return T.forPrompt(this.talk);
  }

  load(text) {
    if (text === this.value) return;
    this.talk = T.parse(text);
    this.files = [];
    this.trouble = this.talk.ignored.length ? `Left out of what was opened: ${this.talk.ignored.join("; ")}.` : "";
    if (this.pending && !T.find(this.talk, this.pending.turn)) this.pending = null;
    this.refresh();
    if (!this.pending && this.waiting) this.#lookFor(this.talk.head); // the page was reloaded meanwhile, perhaps
  }

  /** Does an edit leave the rest alone? The node's widget keep_rest. */
  get keeping() {
    return Boolean(this.#keep?.value);
  }

  set keeping(on) {
    if (!this.#keep) return;
    this.#keep.value = on;
    this.#keep.callback?.(on);
    changed(this.node);
  }

  get #keep() {
    return this.node.widgets?.find((w) => w.name === "keep_rest");
  }

  /** Pictures of each answer. The node's widget variations. */
  get variations() {
    return Number(this.#variations?.value ?? 1);
  }

  set variations(n) {
    if (!this.#variations) return;
    this.#variations.value = n;
    this.#variations.callback?.(n);
    changed(this.node);
  }

  get #variations() {
    return this.node.widgets?.find((w) => w.name === "variations");
  }

  /** A message at the end that nobody answers. */
  get waiting() {
    return !this.pending && T.find(this.talk, this.talk.head)?.role === "user";
  }

  set(talk, { quiet = false } = {}) {
    if (talk === this.talk) return;
    this.talk = talk;
    if (!quiet) changed(this.node);
    this.refresh();
  }

  write(text) {
    this.talk = { ...this.talk, draft: text.slice(0, T.LIMITS.text) };
    this.refresh("draft");
  }

  refresh(what = "all") {
    for (const view of this.views) view.render(what);
  }

  // ---- asking

  send() {
    const text = this.talk.draft.trim();
    if (this.pending || (!text && !this.files.length)) return;
    this.#ask(T.send(this.talk, { text, pictures: this.files }));
  }

  again(id) {
    if (!this.pending) this.#ask(T.again(this.talk, id));
  }

  edit(id, say) {
    if (!this.pending) this.#ask(T.edit(this.talk, id, say));
  }

  /** Ask what waits, as it is. */
  resume() {
    if (this.waiting) this.#ask({ ...this.talk });
  }

  async #ask(talk) {
    const restore = { talk: this.talk, files: this.files };
    this.files = [];
    this.trouble = "";
    const pending = (this.pending = { turn: talk.head, restore, prompt: null, ended: [], progress: { kind: "queued" } });
    this.set(talk);
    try {
      await app.queuePrompt(0, 1);
    } catch (error) {
      return this.#giveUp(pending, error.message);
    }
    for (let attempt = 0; attempt < 3 && this.pending === pending; attempt++) {
      if (await this.#lookFor(pending.turn)) break;
      await new Promise((done) => setTimeout(done, 400 * (attempt + 1)));
      if (attempt === 2) this.#giveUp(pending, "The graph was not accepted. Is the panel's model connected? ComfyUI marks what is wrong.");
    }
    const end = pending.ended.find(({ prompt }) => prompt === pending.prompt);
    if (end) this.#giveUp(pending, end.why);
  }

  /** Find a message's run in the queue or the history; takes an answer that came while nobody listened. True when it was found. */
  async #lookFor(turn) {
    const asks = (prompt) => Object.values(prompt ?? {}).some((n) => typeof n?.inputs?.transcript === "string" && n.inputs.transcript.includes(
      `"head":${JSON.stringify(turn)}`));
    try {
      const queue = await (await api.fetchApi("/queue")).json();
      const found = [...(queue.queue_running ?? []), ...(queue.queue_pending ?? [])].find((item) => asks(item[2]));
      if (found) {
        // the answer may have come while the queue was read: then nothing is under way any more
        if (this.waiting && this.talk.head === turn)
          this.pending = { turn, restore: { talk: T.remove(this.talk, turn), files: [] }, ended: [], progress: { kind: "queued" } };
        if (this.pending?.turn === turn) this.pending.prompt = found[1];
        this.refresh();
        return true;
      }
      const history = await (await api.fetchApi("/history?max_items=8")).json();
      for (const [prompt, entry] of Object.entries(history)) {
        if (!asks(entry.prompt?.[2])) continue;
        if (this.pending?.turn === turn) this.pending.prompt = prompt;
        for (const output of Object.values(entry.outputs ?? {})) if (this.answered(output)) return true;
        return true;
      }
    } catch {
      return false;
    }
    return false;
  }

  stop() {
    if (this.pending) api.interrupt(this.pending.prompt);
  }

  /** Nothing of an interrupted or failed message stays: what was written is back in the box. */
  #giveUp(pending, why) {
    if (this.pending !== pending || !pending) return;
    const asked = T.find(this.talk, pending.turn);
    const known = T.find(pending.restore.talk, pending.turn); // asked again: the message itself was there before
    this.pending = null;
    this.trouble = why;
    this.talk = { ...pending.restore.talk, draft: known ? this.talk.draft : this.talk.draft || asked?.text || "" };
    this.files = this.files.length || known ? this.files : (asked?.pictures ?? []);
    changed(this.node);
    this.refresh();
  }

  // ---- what ComfyUI tells

  /** The node's output: the answer, once, and its other variations as versions beside it. True when it was one of ours. */
  answered(output) {
    const all = Array.isArray(output?.wegen_chat) ? output.wegen_chat.filter((s) => T.find(this.talk, s?.turn)) : [], [say] = all;
    if (!say) return false;
    const before = this.talk;
    for (const one of all) this.talk = T.answer(this.talk, one.turn, one);
    if (this.pending?.turn === say.turn) this.pending = null;
    const notes = (Array.isArray(say.notes) ? say.notes : []).filter((n) => typeof n === "string");
    this.trouble = notes.join(" ");
    if (this.talk !== before) changed(this.node);
    this.refresh();
    return true;
  }

  progress(data) {
    if (this.pending?.turn !== data.turn) return;
    const before = this.pending.progress;
    this.pending.progress = { ...data, text: data.text ?? before.text, cells: data.cells ?? before.cells, picture: data.picture ?? before.picture };
    this.refresh("progress");
  }

  async emptied(pending) {
    await new Promise((done) => setTimeout(done, 1500)); // the answer itself comes first
    if (this.pending === pending && !(await this.#lookFor(pending.turn))) this.#giveUp(pending, "Taken out of the queue.");
  }

  ended(prompt, why) {
    if (!this.pending) return;
    this.pending.ended.push({ prompt, why });
    if (this.pending.prompt === prompt) this.#giveUp(this.pending, why);
  }

  /** A run that succeeded: its answer came, or lies in the history, or the node took no part. */
  async succeeded(prompt) {
    const { pending } = this;
    await new Promise((done) => setTimeout(done, 500)); // the answer itself comes first
    if (pending && this.pending === pending && pending.prompt === prompt) await this.#lookFor(pending.turn);
    if (this.pending === pending) this.ended(prompt, "The run ended without this node. Is it muted or bypassed?");
  }
}

/** Listened to once for all panels. */
export function listen() {
  const every = (run) => sessions.forEach(run);
  api.addEventListener("wegen.chat", ({ detail }) => detail && typeof detail === "object" && every((s) => s.progress(detail)));
  api.addEventListener("execution_interrupted", ({ detail }) => every((s) => s.ended(detail?.prompt_id, "Stopped. Your message is back in the box.")));
  api.addEventListener("execution_error", ({ detail }) =>
    every((s) => s.ended(detail?.prompt_id, `${detail?.exception_message ?? "The run failed"}`.trim().slice(0, 600))));
  api.addEventListener("execution_success", ({ detail }) => every((s) => s.succeeded(detail?.prompt_id)));
  api.addEventListener("status", ({ detail }) => {
    if (detail?.exec_info?.queue_remaining !== 0) return;
    every((s) => s.pending?.prompt && s.emptied(s.pending)); // taken out of the queue before it began: no other message comes
  });
}

export const report = (error) => tell("WeGen Chat", error.message ?? String(error), "error");
