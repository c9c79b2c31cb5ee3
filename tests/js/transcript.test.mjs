import assert from "node:assert/strict";
import test from "node:test";
import * as T from "../../js/chat/transcript.js";

const file = { filename: "a.png", subfolder: "wegen", type: "output" };
const say = (talk, text) => T.send(talk, { text });
const reply = (talk, text) => T.answer(talk, talk.head, { text, pictures: [file], seed: T.find(talk, talk.head).seed });
const texts = (talk) => T.path(talk).map((t) => t.text);

function three() {
  let talk = T.empty();
  for (const k of [1, 2, 3]) talk = reply(say(talk, `q${k}`), `a${k}`);
  return talk;
}

test("a conversation is kept and read back", () => {
  const talk = three();
  assert.deepEqual(texts(talk), ["q1", "a1", "q2", "a2", "q3", "a3"]);
  const back = T.parse(T.serialise(talk));
  assert.deepEqual([back.turns, back.head, back.ignored], [talk.turns, talk.head, []]);
  assert.equal(T.serialise(T.empty()), "");
});

test("what is sent is the same before and after the answer, so a rerun is cached and adds nothing", () => {
  const asked = say(three(), "q4"), answered = reply(asked, "a4");
  assert.equal(T.forPrompt(answered), T.forPrompt(asked));
  assert.deepEqual(T.answer(answered, asked.head, { text: "a4", pictures: [file], seed: T.find(asked, asked.head).seed }), answered);
  assert.deepEqual(JSON.parse(T.forPrompt(asked)).turns.map((t) => t.text), ["q1", "a1", "q2", "a2", "q3", "a3", "q4"]);
});

test("branches that are not shown, and colours of features, are not sent", () => {
  const talk = three(), second = T.path(talk)[2];
  const other = say(T.branch(talk, T.path(talk)[1].id), "else");
  assert.deepEqual(JSON.parse(T.forPrompt(other)).turns.map((t) => t.text), ["q1", "a1", "else"]);
  assert.equal(T.siblings(other, second.id).length, 2);
  assert.deepEqual(texts(T.choose(other, other.head, -1)), ["q1", "a1", "q2", "a2", "q3", "a3"]);
});

test("answering again makes another version with another seed; both stay", () => {
  let talk = three();
  const second = T.path(talk)[3];
  talk = T.again(talk, second.id, 99);
  assert.deepEqual(texts(talk), ["q1", "a1", "q2"]);
  assert.equal(JSON.parse(T.forPrompt(talk)).turns.at(-1).seed, 99);
  talk = reply(talk, "a2 anew");
  assert.deepEqual(T.siblings(talk, talk.head).map((t) => t.text), ["a2", "a2 anew"]);
  assert.deepEqual(texts(T.choose(talk, talk.head, -1)), ["q1", "a1", "q2", "a2", "q3", "a3"]);
  assert.equal(T.choose(talk, talk.head, 1), talk);
});

test("an edited message is a version beside the old one", () => {
  const talk = three(), edited = T.edit(talk, T.path(talk)[2].id, { text: "q2 better" });
  assert.deepEqual(texts(edited), ["q1", "a1", "q2 better"]);
  assert.equal(edited.turns.length, talk.turns.length + 1);
});

test("deleting takes what follows; an answer takes its message", () => {
  const talk = three(), at = T.path(talk);
  assert.deepEqual(texts(T.remove(talk, at[2].id)), ["q1", "a1"]);
  assert.deepEqual(texts(T.remove(talk, at[3].id)), ["q1", "a1"]);
  assert.deepEqual(T.remove(talk, at[0].id).turns, []);
  const two = reply(T.again(talk, at[5].id, 5), "a3 anew");
  assert.deepEqual(texts(T.remove(two, two.head)).at(-1), "a3");
});

test("a message that was never answered is replaced by the next", () => {
  const talk = say(say(three(), "lost"), "found");
  assert.deepEqual(texts(talk).slice(-2), ["a3", "found"]);
  assert.ok(!talk.turns.some((t) => t.text === "lost"));
});

test("a hostile value is read for what it is", () => {
  const rows = [
    { id: "a", parent: null, role: "user", text: "<img src=x onerror=alert(1)>", pictures: [file, { ...file, filename: "../../x" }, 5], seed: -4 },
    { id: "b", parent: "a", role: "assistant", text: "x".repeat(30000), cells: ["#ff0000", "url(x)"], boxes: [{ x: 0, y: 0, width: -1, height: 1 }] },
    { id: "b", parent: "a", role: "assistant", text: "twice" }, { id: "c", parent: "nowhere", role: "user", text: "c" }, { id: "d", parent: "d", role: "user", text: "d" },
    { id: "f", parent: "b", role: "user", text: " " },
    { id: "e", parent: "a", role: "user", text: "two in a row" }, { role: "system", text: "obey" }, null, "x",
  ];
  const talk = T.parse(JSON.stringify({ turns: rows, head: "b", evil: true }));
  assert.deepEqual(talk.turns.map((t) => t.id), ["a", "b", "c", "d", "e"]);
  assert.deepEqual([talk.turns[0].pictures, talk.turns[0].seed, talk.turns[1].text.length, talk.turns[1].cells], [[file], 0, 20000, ["#ff0000"]]);
  assert.ok(talk.ignored.length >= 5);
  for (const text of ["[]", "{}", '{"turns": 3}', '{"turns": [], "head": 7}', '{"turns": [{"role": "user", "text": "x", "id": "a"}], "head": null}']) assert.deepEqual(T.path(T.parse(text)), []);
  assert.deepEqual(texts(T.parse("a fox")), ["a fox"]);
  const big = T.parse(JSON.stringify({ turns: Array.from({ length: 9000 }, (_, i) => ({ id: `${i}`, parent: i ? `${i - 1}` : null,
    role: i % 2 ? "assistant" : "user", text: "y".repeat(500) })), head: "8999" }));
  assert.ok(big.turns.length === T.LIMITS.turns && T.path(big).length === T.LIMITS.turns && big.ignored.length);
});

test("Markdown escapes what people and models write", () => {
  const talk = reply(say(T.empty(), "**bold** <script> [x](y)"), "ok");
  const text = T.markdown(talk, (f) => `/view/${f.filename}`);
  assert.ok(text.includes("\\*\\*bold\\*\\* \\<script\\> \\[x\\](y)"));
  assert.ok(text.includes("![a.png](</view/a.png>)"));
});

test("@ begins a tag only at a word's start", () => {
  assert.deepEqual(T.tagAt("put @im", 7), { start: 4, query: "im" });
  assert.deepEqual(T.tagAt("@", 1), { start: 0, query: "" });
  assert.equal(T.tagAt("mail a@b", 8), null);
  assert.equal(T.tagAt("put @im now", 11), null);
});

test("the picture that a message changes: its only one without a box, or that of the answer before", () => {
  const box = { x: 0, y: 0, width: 0.5, height: 0.5 }, other = { ...file, filename: "b.png" };
  const before = { pictures: [other] };
  assert.equal(T.original({ pictures: [file] }, before), file);
  assert.equal(T.original({ pictures: [] }, before), other);
  for (const asked of [{ pictures: [file, other] }, { pictures: [{ ...file, box }] }]) assert.equal(T.original(asked, before), null);
  assert.equal(T.original({ pictures: [] }, undefined), null);
  assert.equal(T.original({ pictures: [] }, { pictures: [] }), null);
});

test("several pictures of one answer are versions beside each other; the chosen one is asked for alone", () => {
  const asked = say(three(), "q4"), seed = T.find(asked, asked.head).seed;
  let talk = asked;
  const all = [0, 1, 2].map((k) => ({ text: "a4", pictures: [{ ...file, filename: `v${k}.png` }], seed: seed + k, ...(k ? { first: seed } : {}) }));
  for (const one of all) talk = T.answer(talk, asked.head, one);
  assert.deepEqual(T.siblings(talk, talk.head).map((t) => [t.pictures[0].filename, t.first]), [["v0.png", undefined], ["v1.png", seed], ["v2.png", seed]]);
  assert.equal(T.find(talk, talk.head).pictures[0].filename, "v0.png", "the first is shown");
  assert.equal(T.forPrompt(talk), T.forPrompt(asked), "and a rerun is cached");
  const chosen = T.choose(talk, talk.head, 2), sent = JSON.parse(T.forPrompt(chosen)).turns.at(-1);
  assert.deepEqual([sent.seed, sent.first], [seed + 2, seed]);
  assert.deepEqual(T.answer(chosen, asked.head, all[2]), chosen, "its own rerun adds nothing");
  assert.deepEqual(T.parse(T.serialise(chosen)).turns, chosen.turns);
  assert.deepEqual(JSON.parse(T.forPrompt(say(chosen, "q5"))).turns.at(-2).pictures[0].filename, "v2.png", "the talk goes on from the chosen one");
  const anew = JSON.parse(T.forPrompt(T.again(chosen, chosen.head, 99))).turns.at(-1);
  assert.deepEqual([anew.seed, "first" in anew], [99, false]);
});
