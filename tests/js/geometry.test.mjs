import assert from "node:assert/strict";
import test from "node:test";
import { between, clamp, fit, handleAt, handles, hits, LEAST, moved, resized, snap } from "../../js/boxes/geometry.js";

const box = (x, y, width, height) => ({ x, y, width, height });
const near = (a, b) => Object.keys(b).forEach((k) => assert.ok(Math.abs(a[k] - b[k]) < 1e-9, `${k}: ${a[k]} is not ${b[k]}`));
const inside = (b) => b.x >= -1e-12 && b.y >= -1e-12 && b.width >= LEAST - 1e-12 && b.height >= LEAST - 1e-12
  && b.x + b.width <= 1 + 1e-12 && b.y + b.height <= 1 + 1e-12;

test("a box between two points does not care for their order, and ends at the border", () => {
  near(between({ x: 0.8, y: 0.1 }, { x: 0.2, y: 0.5 }), box(0.2, 0.1, 0.6, 0.4));
  near(between({ x: -3, y: 0.5 }, { x: 0.5, y: 9 }), box(0, 0.5, 0.5, 0.5));
});

test("moving stops at the border and keeps the size", () => {
  near(moved(box(0.5, 0.5, 0.4, 0.4), 1, -1), box(0.6, 0, 0.4, 0.4));
  near(moved(box(0.1, 0.1, 0.2, 0.2), 0.1, 0.2), box(0.2, 0.3, 0.2, 0.2));
});

test("each handle moves its own sides and leaves the opposite ones", () => {
  const b = box(0.4, 0.4, 0.2, 0.2);
  near(resized(b, "nw", -0.1, -0.2), box(0.3, 0.2, 0.3, 0.4));
  near(resized(b, "e", 0.1, 0.7), box(0.4, 0.4, 0.3, 0.2));
  near(resized(b, "s", 0.7, 0.1), box(0.4, 0.4, 0.2, 0.3));
  near(resized(b, "se", -9, -9), box(0.4, 0.4, LEAST, LEAST));
});

test("whatever is done, the box stays inside (10,000 random pulls), and its aspect when locked", () => {
  let seed = 1;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  for (let i = 0; i < 10000; i++) {
    const b = clamp(box(random(), random(), random(), random()));
    const { name } = handles(b)[Math.floor(random() * 8)];
    assert.ok(inside(resized(b, name, random() * 4 - 2, random() * 4 - 2)));
    const aspect = 0.3 + random() * 3, free = resized(b, name, random() - 0.5, random() - 0.5, aspect);
    assert.ok(Math.abs(free.width / free.height - aspect) < 1e-9 && free.x >= -1e-9 && free.x + free.width <= 1 + 1e-9
      && free.y >= -1e-9 && free.y + free.height <= 1 + 1e-9);
    assert.ok(inside(snap(b, [box(0.2, 0.2, 0.3, 0.3)], { grid: 1 / 16, tx: 0.05, ty: 0.05, handle: i % 2 ? name : null }).box));
  }
});

test("overlapping boxes are hit from the top", () => {
  const all = [box(0, 0, 1, 1), box(0.2, 0.2, 0.5, 0.5), box(0.9, 0.9, 0.1, 0.1)];
  assert.deepEqual(hits(all, { x: 0.3, y: 0.3 }), [1, 0]);
  assert.deepEqual(hits(all, { x: 0.95, y: 0.95 }), [2, 0]);
});

test("eight handles, corners first where they are close", () => {
  const b = box(0.2, 0.2, 0.6, 0.6);
  assert.equal(handles(b).length, 8);
  for (const { name, x, y } of handles(b)) assert.equal(handleAt(b, { x, y }, 0.02, 0.02), name);
  assert.equal(handleAt(box(0.5, 0.5, 0.02, 0.02), { x: 0.5, y: 0.505 }, 0.02, 0.02), "nw");
  assert.equal(handleAt(b, { x: 0.5, y: 0.5 }, 0.02, 0.02), null);
});

test("snapping: to another box's edge, to the middle of the canvas, else to the grid, else nowhere", () => {
  const others = [box(0.5, 0, 0.3, 0.3)];
  const edge = snap(box(0.195, 0.4, 0.3, 0.2), others, { tx: 0.01, ty: 0.01 });
  near(edge.box, box(0.2, 0.4, 0.3, 0.2));
  assert.deepEqual(edge.guides.map((g) => [g.axis, +g.at.toFixed(6)]), [["x", 0.5], ["y", 0.5]]);
  near(snap(box(0.26, 0.13, 0.1, 0.1), [], { grid: 0.125, tx: 0.001, ty: 0.001 }).box, box(0.25, 0.125, 0.1, 0.1));
  near(snap(box(0.26, 0.13, 0.1, 0.1), [], { tx: 0.001, ty: 0.001 }).box, box(0.26, 0.13, 0.1, 0.1));
  near(snap(box(0.26, 0.13, 0.235, 0.1), others, { tx: 0.01, ty: 0.01, handle: "e" }).box, box(0.26, 0.13, 0.24, 0.1));
});

test("a frame keeps its aspect in any space", () => {
  near(fit(1024, 512, 300, 300), { x: 0, y: 75, width: 300, height: 150 });
  near(fit(512, 1024, 300, 300), { x: 75, y: 0, width: 150, height: 300 });
});
