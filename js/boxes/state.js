// The boxes of Bbox Compose as a value: reading it defensively, writing it, every change to it, undo. Without DOM.
// The format, and its other reader: wegen_model/chat/canvas_state.py.

import { clamp } from "./geometry.js";

export const MOST = 100; // boxes
export const LABEL = 100; // characters; both as in canvas_state.py
export const PLACES = ["input", "output", "temp"]; // of files
const round = (v) => Math.round(v * 1e5) / 1e5;

/** Text of the widget -> {boxes, seen, background, options, ignored}. Never throws; `ignored` says in words what was left out. */
export function parse(text) {
  const empty = { boxes: [], seen: "", background: null, options: { snap: true, grid: 0, lock: false }, edited: false, ignored: [] };
  if (typeof text !== "string" || !text.trim()) return empty;
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return { ...empty, ignored: ["the canvas held no readable boxes"] };
  }
  const rows = Array.isArray(value) ? value : value?.boxes;
  if (!Array.isArray(rows)) return { ...empty, ignored: ["the canvas held no list of boxes"] };
  const boxes = [], taken = new Set(), ignored = [];
  let bad = 0;
  for (const row of rows.slice(0, MOST)) {
    const box = readBox(row, taken);
    if (box) boxes.push(box);
    else bad++;
  }
  if (bad) ignored.push(`${bad} box${bad > 1 ? "es" : ""} with impossible sides or numbers`);
  if (rows.length > MOST) ignored.push(`${rows.length - MOST} boxes past the first ${MOST}`);
  const known = new Set(["version", "boxes", "seen", "background", "options"]);
  const strange = Array.isArray(value) ? [] : Object.keys(value).filter((key) => !known.has(key));
  if (strange.length) ignored.push(`${strange.length} unknown field${strange.length > 1 ? "s" : ""}`);
  const o = value.options ?? {};
  return {
    boxes: boxes.sort((a, b) => a.ref - b.ref),
    seen: typeof value.seen === "string" ? value.seen : "",
    background: readFile(value.background),
    options: { snap: o.snap !== false, grid: [0, 8, 16, 32].includes(o.grid) ? o.grid : 0, lock: o.lock === true },
    edited: true,
    ignored,
  };
}

function readBox(row, taken) {
  if (!row || typeof row !== "object" || !Number.isInteger(row.ref) || row.ref < 1 || row.ref > MOST || taken.has(row.ref)) return null;
  const sides = [row.x, row.y, row.width, row.height];
  if (!sides.every(Number.isFinite)) return null;
  const x = Math.max(0, row.x), y = Math.max(0, row.y);
  const width = Math.min(1, row.x + row.width) - x, height = Math.min(1, row.y + row.height) - y;
  if (!(width > 1e-4) || !(height > 1e-4)) return null;
  taken.add(row.ref);
  return { ref: row.ref, x, y, width: round(width), height: round(height), label: typeof row.label === "string" ? cut(row.label.trim(), LABEL) : "",
    ...(row.locked === true ? { locked: true } : {}) };
}

/** The first `most` characters, counted as Python does: an emoji is one. */
export const cut = (text, most) => (text.length <= most ? text : [...text].slice(0, most).join(""));

/** A picture by file, or null. */
export function readFile(file) {
  if (!file || typeof file !== "object" || !PLACES.includes(file.type)) return null;
  const { filename } = file, subfolder = file.subfolder ?? "";
  if (typeof filename !== "string" || typeof subfolder !== "string" || !filename || cut(filename + subfolder, 500) !== filename + subfolder) return null;
  if (/[/\\]/.test(filename) || /^[/\\]/.test(subfolder) || `${subfolder}/${filename}`.split(/[/\\]/).some((p) => p === ".." || /[:\0]/.test(p)))
    return null;
  return { filename, subfolder, type: file.type };
}

/** The value's text; "" while nothing was ever drawn, so that old workflows stay as they are. */
export function serialise(state) {
  if (!state.edited) return "";
  const boxes = state.boxes.map(({ ref, x, y, width, height, label, locked }) => ({
    ref, x: round(x), y: round(y), width: round(width), height: round(height), ...(label ? { label } : {}), ...(locked ? { locked } : {}),
  }));
  return JSON.stringify({
    version: 1, boxes, seen: state.seen, options: state.options, ...(state.background ? { background: state.background } : {}),
  });
}

/** As `digest` in canvas_state.py: text that changes when the boxes do. `boxes`: one entry a reference, null for none. */
export const digest = (boxes) =>
  boxes
    .map((b, i) => b && `${i + 1}:${[b.x, b.y, b.width, b.height].map((v) => Math.trunc(v * 10000 + 0.5)).join(",")}`)
    .filter(Boolean)
    .join(";");

/** Boxes that arrived become the canvas', with their digest; labels stay where the reference had one. */
export function seeded(state, arrived, seen) {
  const labels = new Map(state.boxes.map((b) => [b.ref, b.label]));
  const boxes = arrived.map((b, i) => b && clamp({ ...b, ref: i + 1, label: labels.get(i + 1) || (typeof b.label === "string" ? cut(b.label, LABEL) : "") })).filter(Boolean);
  return { ...state, boxes, seen };
}

// ---- changes: each takes a state and returns another

const replaced = (state, ref, make) => ({ ...state, edited: true, boxes: state.boxes.map((b) => (b.ref === ref ? { ...b, ...make(b) } : b)) });
const ordered = (state, boxes) => ({ ...state, edited: true, boxes: boxes.sort((a, b) => a.ref - b.ref) });

/** The number for the next box: a connected picture without a box first, else the first free one. */
export function freeRef(state, connected = []) {
  const taken = new Set(state.boxes.map((b) => b.ref));
  const waiting = connected.find((ref) => !taken.has(ref));
  if (waiting) return waiting;
  for (let ref = 1; ref <= MOST; ref++) if (!taken.has(ref)) return ref;
  return 0;
}

export function add(state, box, connected) {
  const ref = box.ref && !state.boxes.some((b) => b.ref === box.ref) ? box.ref : freeRef(state, connected);
  if (!ref) return { state, ref: 0 };
  return { state: ordered(state, [...state.boxes, clamp({ label: "", ...box, ref })]), ref };
}

export const change = (state, ref, sides) => replaced(state, ref, (b) => clamp({ ...b, ...sides }));
export const relabel = (state, ref, label) => replaced(state, ref, () => ({ label: cut(String(label), LABEL) }));
export const lock = (state, ref, locked) => replaced(state, ref, () => ({ locked: locked || undefined }));
export const remove = (state, ref) => ({ ...state, edited: true, boxes: state.boxes.filter((b) => b.ref !== ref) });

export function duplicate(state, ref, connected) {
  const box = state.boxes.find((b) => b.ref === ref);
  if (!box) return { state, ref: 0 };
  const shift = (at, size) => (at + size + 0.03 <= 1 ? at + 0.03 : at - 0.03);
  return add(state, { ...box, ref: 0, locked: undefined, x: shift(box.x, box.width), y: shift(box.y, box.height) }, connected);
}

/** Give a box to another reference; the box that was there takes the old number. Later numbers lie above earlier ones. */
export function renumber(state, ref, to) {
  if (to < 1 || to > MOST || ref === to) return state;
  const boxes = state.boxes.map((b) => (b.ref === ref ? { ...b, ref: to } : b.ref === to ? { ...b, ref } : b));
  return ordered(state, boxes);
}

/** Undo and redo over whole states. Changes with the same `merge` key are one step: a text within a second (a held arrow key), an object
 *  however long it takes (one drag). */
export class History {
  constructor(state, limit = 200) {
    this.state = state;
    this.limit = limit;
    this.past = [];
    this.future = [];
    this.last = { merge: null, at: 0 };
  }

  push(state, merge = null, now = Date.now()) {
    if (state === this.state) return;
    const same = merge !== null && this.last.merge === merge && (typeof merge === "object" || now - this.last.at < 1000);
    if (!same) this.past.push(this.state);
    if (this.past.length > this.limit) this.past.shift();
    this.future = [];
    this.state = state;
    this.last = { merge, at: now };
  }

  /** From outside (a load): no step. */
  reset(state) {
    Object.assign(this, { state, past: [], future: [], last: { merge: null, at: 0 } });
  }

  undo() {
    return this.#step(this.past, this.future);
  }

  redo() {
    return this.#step(this.future, this.past);
  }

  #step(from, to) {
    if (!from.length) return false;
    to.push(this.state);
    // what has arrived meanwhile stays known, so that the restored boxes count
    this.state = { ...from.pop(), seen: this.state.seen, edited: true };
    this.last = { merge: null, at: 0 };
    return true;
  }
}
