// A conversation as a value, without DOM: a tree of turns, of which the path from `head` to the root is what is said.
// Editing a message or answering again makes a sibling, so nothing is lost. Format and other reader: wegen_model/chat/chat_state.py.
// A turn: {id, parent, role: "user" | "assistant", text, pictures: [{filename, subfolder, type, label?, box?}], boxes, seed, first?, cells?}
// first: of several pictures of one answer, which are versions beside each other, the seed of the first; the first itself has none.
// tests/test_js.py gives both readers the same values and compares.

import { cut, readFile } from "../boxes/state.js";

export const LIMITS = { turns: 4000, text: 20000, pictures: 8, boxes: 32, label: 100, id: 64 };
export const TAG = /<(image|bbox)_(\d{1,3})>/gi; // stands for a picture or box of its turn, as in conversation.py
const LONG_SEED = /("(?:seed|first)"\s*:\s*)(\d{16,})(?=\s*[,}])/g; // whole numbers that JSON.parse would round: read as text

export const empty = () => ({ turns: [], head: null, draft: "", ignored: [] });
const newId = () => crypto.randomUUID?.().slice(0, 18) ?? Math.random().toString(36).slice(2, 14);
export const newSeed = () => Math.floor(Math.random() * 2 ** 32);

/** Text of the widget -> conversation. Never throws; `ignored` says in words what was left out. Which turns count is chat_state.py's to say. */
export function parse(text) {
  const out = empty();
  if (typeof text !== "string" || !text.trim()) return out;
  let value;
  try {
    value = JSON.parse(text.replace(LONG_SEED, '$1"$2"'));
  } catch {
    value = null;
  }
  if (!value || typeof value !== "object") return send(out, { text: cut(text.trim(), LIMITS.text), seed: 0 });
  const rows = Array.isArray(value) ? value : value.turns;
  if (!Array.isArray(rows)) return { ...out, ignored: ["a conversation without a list of turns"] };
  const kept = rows.slice(-LIMITS.turns), why = new Map();
  const note = (words) => why.set(words, (why.get(words) ?? 0) + 1);
  if (rows.length > kept.length) why.set("turns past the newest " + LIMITS.turns, rows.length - kept.length);
  const read = Array.isArray(value) || !("head" in value) ? readChain(kept, note) : readTree(kept, value.head, note);
  if (typeof value.draft === "string") out.draft = cut(value.draft, LIMITS.text);
  return { ...out, ...read, ignored: [...why].map(([words, n]) => (n > 1 ? `${words} (${n} times)` : words)) };
}

/** Rows in the order of speaking. */
function readChain(rows, note) {
  const turns = new Map();
  let last = null;
  for (const row of rows) {
    const turn = readTurn(row, note);
    if (turn) last = follow(turns, turn, last, note);
  }
  return { turns: [...turns.values()], head: last?.id ?? null };
}

/** Rows that name their parents, in any order. A circle is cut where the head's path would come round to itself. */
function readTree(rows, head, note) {
  const table = new Map(), nodes = [], turns = new Map();
  for (const row of rows) {
    if (typeof row?.id === "string" && table.has(row.id)) {
      note("a turn with another's name");
      continue;
    }
    nodes.push(row);
    if (typeof row?.id === "string") table.set(row.id, row);
  }
  const met = new Set();
  for (let row = table.get(head); row && !met.has(row); row = table.get(row.parent)) met.add(row);
  const root = [...met].at(-1);
  const above = (row) => (row === root ? undefined : table.get(row?.parent));
  const last = new Map(); // row -> the turn that is the last one kept on its path, or null
  for (const row of nodes) {
    const path = new Set();
    for (let r = row; r !== undefined && !last.has(r) && !path.has(r); r = above(r)) path.add(r);
    for (const r of [...path].reverse()) {
      const before = last.get(above(r)) ?? null, turn = readTurn(r, note);
      if (typeof r?.parent === "string" && !table.has(r.parent)) note("a turn that follows nothing");
      last.set(r, turn ? follow(turns, turn, before, note) : before);
    }
  }
  return { turns: [...turns.values()], head: last.get(table.get(head))?.id ?? null };
}

/** Put a turn after `before`, the last one kept on its path; returns the last one kept then. A message after a message stands in its place
 *  (the unanswered one stays as a version beside it); an answer without a message, or after an answer, is left out. */
function follow(turns, turn, before, note) {
  if (turn.role === "assistant" && before?.role !== "user") {
    note("an answer to nothing");
    return before;
  }
  turn.parent = before === null ? null : before.role === "user" && turn.role === "user" ? before.parent : before.id;
  if (!turn.id || turns.has(turn.id)) turn.id = newId();
  turns.set(turn.id, turn);
  return turn;
}

function readTurn(row, note) {
  if (!row || typeof row !== "object" || !["user", "assistant"].includes(row.role)) return note("something that is no turn"), null;
  const whole = typeof row.text === "string" ? row.text : "", text = cut(whole, LIMITS.text);
  if (text !== whole) note(`text past ${LIMITS.text} characters`);
  const pictures = [];
  for (const file of Array.isArray(row.pictures) ? row.pictures : []) {
    const read = pictures.length < LIMITS.pictures ? readFile(file) : null;
    if (!read) {
      note("a picture that names no file here");
      if (pictures.length >= LIMITS.pictures) break;
      continue;
    }
    const label = typeof file.label === "string" ? cut(file.label, LIMITS.label) : "", box = readBox(file.box);
    pictures.push({ ...read, ...(label ? { label } : {}), ...(box ? { box } : {}) });
  }
  if (row.role === "user" && !text.trim() && !pictures.length) return note("an empty message"), null;
  const boxes = (Array.isArray(row.boxes) ? row.boxes : []).slice(0, LIMITS.boxes).map(readBox).filter(Boolean);
  const cells = Array.isArray(row.cells) ? row.cells.filter((c) => typeof c === "string" && /^#[0-9a-f]{6}$/.test(c)).slice(0, 256) : [];
  const seed = readSeed(row.seed) ?? 0, first = readSeed(row.first) ?? seed;
  return { id: typeof row.id === "string" ? cut(row.id, LIMITS.id) : "", parent: null, role: row.role, text, pictures, boxes, cells, seed,
    ...(first === seed ? {} : { first }) };
}

/** A whole number of 64 bits; past 2^53, which a number here would round, it is kept as the text of its digits. Null for anything else. */
function readSeed(seed) {
  if (typeof seed === "string" && /^[0-9]{1,20}$/.test(seed) && BigInt(seed) < 2n ** 64n) {
    return Number.isSafeInteger(Number(seed)) ? Number(seed) : BigInt(seed).toString();
  }
  return Number.isSafeInteger(seed) && seed >= 0 ? seed : null;
}

function readBox(box) {
  if (!box || ![box.x, box.y, box.width, box.height].every(Number.isFinite)) return null;
  const { x, y, width, height } = box;
  return x >= -1e-6 && y >= -1e-6 && width > 0 && height > 0 && x + width <= 1.0001 && y + height <= 1.0001 ? { x, y, width, height } : null;
}

const lean = ({ id, parent, role, text, pictures, boxes, seed, first, cells }) => ({
  id, parent, role, text, seed, ...(first === undefined ? {} : { first }),
  ...(pictures.length ? { pictures } : {}), ...(boxes.length ? { boxes } : {}), ...(cells.length ? { cells } : {}),
});

/** What the workflow keeps: the whole tree. */
export function serialise(talk) {
  if (!talk.turns.length && !talk.draft) return "";
  return JSON.stringify({ version: 1, head: talk.head, turns: talk.turns.map(lean), ...(talk.draft ? { draft: talk.draft } : {}) });
}

/** What a run is given: the path up to the last message, with the seed of its answer. The same before and after the answer came, so that
 *  a rerun is ComfyUI's cache and adds nothing. */
export function forPrompt(talk) {
  const turns = path(talk);
  if (!turns.length) return "";
  const last = turns.at(-1);
  const kept = last.role === "assistant" ? turns.slice(0, -1) : turns;
  const asked = { ...kept.at(-1), seed: last.seed, first: last.first };
  // an earlier answer's seed and colours change nothing in the next one
  const rows = [...kept.slice(0, -1), asked].map((t) => ({ ...lean({ ...t, cells: [] }), ...(t === asked ? {} : { seed: 0, first: undefined }) }));
  return JSON.stringify({ version: 1, head: asked.id, turns: rows });
}

// ---- looking

export const find = (talk, id) => talk.turns.find((t) => t.id === id) ?? null;

/** The turns from the root to `from` (the head). */
export function path(talk, from = talk.head) {
  const table = new Map(talk.turns.map((t) => [t.id, t])), out = [];
  for (let turn = table.get(from); turn && out.length <= talk.turns.length; turn = table.get(turn.parent)) out.push(turn);
  return out.reverse();
}

/** The picture that a message changes: its only one, if no box places it; of a message without pictures, that of the answer `before` it. */
export function original(asked, before) {
  if (asked?.pictures.length) return asked.pictures.length === 1 && !asked.pictures[0].box ? asked.pictures[0] : null;
  return before?.pictures[0] ?? null;
}

/** A turn's versions, itself among them, oldest first. */
export const siblings = (talk, id) => {
  const turn = find(talk, id);
  return turn ? talk.turns.filter((t) => t.parent === turn.parent && t.role === turn.role) : [];
};

/** The newest end below a turn. */
function leaf(talk, id) {
  for (;;) {
    const next = talk.turns.filter((t) => t.parent === id).at(-1);
    if (!next) return id;
    id = next.id;
  }
}

// ---- changes: each returns a new conversation

const make = (role, parent, say) => ({
  id: newId(), parent, role, text: "", pictures: [], boxes: [], cells: [], seed: newSeed(), ...say,
});

/** A message after the head. A head that was never answered is replaced: two messages do not follow each other. */
export function send(talk, { text, pictures = [], seed = newSeed() }) {
  const last = find(talk, talk.head);
  const parent = last?.role === "user" ? last.parent : talk.head;
  const turn = make("user", parent, { text, pictures, seed });
  const turns = last?.role === "user" && !talk.turns.some((t) => t.parent === last.id) ? talk.turns.filter((t) => t !== last) : talk.turns;
  return { ...talk, turns: [...turns, turn], head: turn.id, draft: "" };
}

/** The answer to a message, once: the same answer (message and seed) that comes again replaces itself. */
export function answer(talk, to, { text, pictures, boxes = [], cells = [], seed: given, first }) {
  if (find(talk, to)?.role !== "user") return talk;
  const seed = readSeed(given) ?? 0;
  const old = talk.turns.find((t) => t.parent === to && t.seed === seed);
  const read = readTurn({ role: "assistant", text, pictures, boxes, cells, seed, first }, () => {});
  if (old && JSON.stringify(lean(old)) === JSON.stringify(lean({ ...read, id: old.id, parent: to }))) return talk;
  if (old) return { ...talk, turns: talk.turns.map((t) => (t === old ? { ...read, id: old.id, parent: to } : t)) };
  const turn = { ...read, id: newId(), parent: to };
  return { ...talk, turns: [...talk.turns, turn], head: talk.head === to ? turn.id : talk.head };
}

/** Another answer to the same message: the message becomes the head again, with a new seed. `id`: the message or an answer to it. */
export function again(talk, id, seed = newSeed()) {
  const turn = find(talk, id);
  const asked = turn?.role === "assistant" ? turn.parent : turn?.id;
  if (!asked) return talk;
  return { ...talk, head: asked, turns: talk.turns.map((t) => (t.id === asked ? { ...t, seed, first: undefined } : t)) };
}

/** A message said differently: a sibling, and the head. */
export function edit(talk, id, { text, pictures }) {
  const old = find(talk, id);
  if (old?.role !== "user") return talk;
  const turn = make("user", old.parent, { text, pictures: pictures ?? old.pictures });
  return { ...talk, turns: [...talk.turns, turn], head: turn.id };
}

/** Go on from an earlier answer: what was said after it stays as another branch. */
export const branch = (talk, id) => (find(talk, id) ? { ...talk, head: id } : talk);

/** Show another version of a turn, with what followed it. `step`: -1 or 1. */
export function choose(talk, id, step) {
  const all = siblings(talk, id), at = all.findIndex((t) => t.id === id) + step;
  return all[at] ? { ...talk, head: leaf(talk, all[at].id) } : talk;
}

/** Take a turn out with all that follows it. The head goes to another version, or to the turn before (a message without answer goes too). */
export function remove(talk, id) {
  const turn = find(talk, id);
  if (!turn) return talk;
  const gone = new Set([id]);
  for (const t of talk.turns) if (gone.has(t.parent)) gone.add(t.id); // parents come before children
  const turns = talk.turns.filter((t) => !gone.has(t.id));
  const rest = { ...talk, turns };
  if (!gone.has(talk.head)) return rest;
  const other = turns.filter((t) => t.parent === turn.parent && t.role === turn.role).at(-1);
  if (other) return { ...rest, head: leaf(rest, other.id) };
  if (turn.role === "assistant") return remove({ ...rest, head: turn.parent }, turn.parent);
  return { ...rest, head: turn.parent };
}

// ---- text

/** Lines for an export. `link(file)` gives a picture's address. */
export function markdown(talk, link) {
  const safe = (text) => text.replace(/[\\`*_[\]<>#|]/g, "\\$&");
  return path(talk)
    .map((turn) => {
      const pictures = turn.pictures.map((file) => `![${safe(file.label || file.filename)}](<${encodeURI(link(file))}>)`);
      return [`**${turn.role === "user" ? "You" : "WeGen"}**`, safe(turn.text), ...pictures].filter(Boolean).join("\n\n");
    })
    .join("\n\n---\n\n");
}

/** The tag being typed before the caret: {start, query}, or null. */
export function tagAt(text, caret) {
  const found = /(^|[\s(])@(\w{0,12})$/.exec(text.slice(0, caret));
  return found ? { start: caret - found[2].length - 1, query: found[2].toLowerCase() } : null;
}
