import assert from "node:assert/strict";
import test from "node:test";
import { readText } from "../../js/boxes/reading.js";
import * as S from "../../js/boxes/state.js";

const start = () => S.parse("");
const side = { x: 0.1, y: 0.1, width: 0.3, height: 0.3 };

test("what was written is read back; nothing drawn is an empty value", () => {
  assert.equal(S.serialise(start()), "");
  let { state } = S.add(start(), { ...side, label: "panda" }, [2]);
  state = S.add(state, { x: 0.5, y: 0.5, width: 0.2, height: 0.25 }).state;
  const back = S.parse(S.serialise(state));
  assert.deepEqual(back.boxes, state.boxes);
  assert.deepEqual(back.boxes.map((b) => [b.ref, b.label]), [[1, ""], [2, "panda"]]);
  assert.equal(S.serialise(back), S.serialise(state));
});

test("a hostile value: 10,000 boxes, negative sizes, twice the same number, unknown fields, scripts as labels", () => {
  const many = S.parse(JSON.stringify({ boxes: Array.from({ length: 10000 }, (_, i) => ({ ref: i + 1, ...side })), evil: 1, worse: 2 }));
  assert.equal(many.boxes.length, 100);
  assert.deepEqual(many.ignored, ["9900 boxes past the first 100", "2 unknown fields"]);
  const odd = S.parse(JSON.stringify({ boxes: [{ ref: 1, x: 0, y: 0, width: -1, height: 1 }, { ref: 2, ...side, label: "<script>x</script>" },
    { ref: 2, ...side }, { ref: "3", ...side }, null, 7, { ref: 4, ...side, x: null }, { ref: 5, x: -0.5, y: 0, width: 1, height: 3 }] }));
  assert.deepEqual(odd.boxes.map((b) => [b.ref, b.label]), [[2, "<script>x</script>"], [5, ""]]);
  assert.deepEqual([odd.boxes[1].x, odd.boxes[1].width, odd.boxes[1].height], [0, 0.5, 1]);
  assert.equal(odd.ignored.length, 1);
  for (const text of ["{", "7", '"x"', "null", "{}", "[[]]"]) assert.deepEqual(S.parse(text).boxes, []);
});

test("files outside the known folders are none", () => {
  const ok = { filename: "a b.png", subfolder: "wegen", type: "input" };
  assert.deepEqual(S.readFile({ ...ok, more: 1 }), ok);
  for (const bad of [{ ...ok, filename: "../a.png" }, { ...ok, subfolder: "../.." }, { ...ok, subfolder: "/etc" }, { ...ok, type: "root" },
    { ...ok, filename: "" }, { ...ok, subfolder: "C:" }, null, "x"]) assert.equal(S.readFile(bad), null);
});

test("a new box goes to a connected picture first", () => {
  const one = S.add(start(), side, [3]);
  assert.equal(one.ref, 3);
  assert.equal(S.add(one.state, side, [3]).ref, 1);
});

test("renumbering swaps; duplicates stay inside; removing leaves the others their numbers", () => {
  let { state } = S.add(start(), { ...side, label: "a" });
  ({ state } = S.add(state, { x: 0.7, y: 0.7, width: 0.3, height: 0.3, label: "b" }));
  assert.deepEqual(S.renumber(state, 1, 2).boxes.map((b) => b.label), ["b", "a"]);
  assert.deepEqual(S.renumber(state, 1, 5).boxes.map((b) => [b.ref, b.label]), [[2, "b"], [5, "a"]]);
  const copy = S.duplicate(state, 2);
  const made = copy.state.boxes.find((b) => b.ref === copy.ref);
  assert.ok(made.x + made.width <= 1 && made.x !== 0.7);
  assert.deepEqual(S.remove(copy.state, 1).boxes.map((b) => b.ref), [2, 3]);
});

test("undo and redo; a drag is one step; what arrived stays known", () => {
  const history = new S.History(start());
  const first = S.add(history.state, side).state;
  history.push(first);
  history.push(S.change(first, 1, { x: 0.2 }), "drag", 1000);
  history.push(S.change(first, 1, { x: 0.3 }), "drag", 1500);
  history.push(S.change(first, 1, { x: 0.4 }), "drag", 9000);
  assert.equal(history.undo(), true);
  assert.equal(history.state.boxes[0].x, 0.3);
  history.state = { ...history.state, seen: "1:2" };
  history.undo();
  assert.deepEqual([history.state.boxes[0].x, history.state.seen], [0.1, "1:2"]);
  history.redo();
  assert.equal(history.state.boxes[0].x, 0.3);
  history.undo(), history.undo();
  assert.equal(history.state.boxes.length, 0);
  assert.equal(history.undo(), false);
  const drag = {}, slow = new S.History(first);
  for (const [x, now] of [[0.2, 0], [0.3, 9000]]) slow.push(S.change(first, 1, { x }), drag, now);
  slow.push(S.change(first, 1, { x: 0.5 }), {}, 9001);
  slow.undo();
  assert.equal(slow.state.boxes[0].x, 0.3);
  slow.undo();
  assert.equal(slow.state.boxes[0].x, 0.1);
});

test("boxes that arrive take the canvas over and keep labels", () => {
  const { state } = S.add(start(), { ...side, label: "cat" });
  const next = S.seeded(state, [{ x: 0.5, y: 0.5, width: 0.5, height: 0.5 }, null, side], "d");
  assert.deepEqual(next.boxes.map((b) => [b.ref, b.x, b.label]), [[1, 0.5, "cat"], [3, 0.1, ""]]);
  assert.equal(next.seen, "d");
});

test("box_text is read as the server reads it", () => {
  const half = { x: 0.25, y: 0.5, width: 0.5, height: 0.25 };
  const cases = {
    "0.25 0.5 0.5 0.25": [half], "(0.25;0.5;0.5;0.25)": [half], "50 50 100 25": [half], "\n0.25 0.5 0.5 0.25": [null, half],
    "0.25, 0.5, 0.5, 0.25\n-\n0.25 0.5 0.5 0.25": [half, null, half], "[[0.25, 0.5, 0.5, 0.25], null]": [half, null],
    '[{"x": 0.25, "y": 0.5, "width": 0.5, "height": 0.25}]': [half], '[[{"x": 50, "y": 50, "width": 100, "height": 25}]]': [half],
    "[0.25, 0.5, 0.5, 0.25]\n[0.25, 0.5, 0.5, 0.25]": [half, half],
    "": [], "  \n": [], "a b c d": null, "1 2 3": null, "0.9 0.9 0.5 0.5": null, "{": null,
  };
  for (const [text, expected] of Object.entries(cases)) assert.deepEqual(readText(text, 200, 100), expected, text);
  assert.deepEqual(readText("50 50 150 75", 200, 100, "xyxy"), [half]);
  assert.equal(S.digest([half, null, half]), "1:2500,5000,5000,2500;3:2500,5000,5000,2500");
});
