// Geometry of boxes on a canvas, without DOM. A box is {x, y, width, height} in fractions 0..1, top-left corner; tolerances are fractions
// too, one a direction, since the canvas is seldom square. All functions return new values.

export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
export const LEAST = 0.01; // the shortest side

const limit = (value, low, high) => Math.min(Math.max(value, low), high);

/** Inside the canvas, and no shorter than LEAST. */
export function clamp(box) {
  const width = limit(box.width, LEAST, 1), height = limit(box.height, LEAST, 1);
  return { ...box, x: limit(box.x, 0, 1 - width), y: limit(box.y, 0, 1 - height), width, height };
}

/** The box between two points, in any order. */
export function between(a, b) {
  const x = limit(Math.min(a.x, b.x), 0, 1), y = limit(Math.min(a.y, b.y), 0, 1);
  return { x, y, width: limit(Math.max(a.x, b.x), 0, 1) - x, height: limit(Math.max(a.y, b.y), 0, 1) - y };
}

export const moved = (box, dx, dy) => clamp({ ...box, x: box.x + dx, y: box.y + dy });

/** One of the 8 handles pulled by (dx, dy); the opposite side stays. `aspect`: width / height in fractions that is kept, or 0. */
export function resized(box, handle, dx, dy, aspect = 0) {
  let left = box.x, top = box.y, right = box.x + box.width, bottom = box.y + box.height;
  if (handle.includes("w")) left = limit(left + dx, 0, right - LEAST);
  if (handle.includes("e")) right = limit(right + dx, left + LEAST, 1);
  if (handle.includes("n")) top = limit(top + dy, 0, bottom - LEAST);
  if (handle.includes("s")) bottom = limit(bottom + dy, top + LEAST, 1);
  const out = { ...box, x: left, y: top, width: right - left, height: bottom - top };
  return aspect > 0 ? locked(box, out, handle, aspect) : out;
}

function locked(before, box, handle, aspect) {
  const across = handle === "e" || handle === "w", along = handle === "n" || handle === "s";
  let width = along ? box.height * aspect : across || box.width / aspect > box.height ? box.width : box.height * aspect;
  const right = before.x + before.width, bottom = before.y + before.height;
  const roomX = handle.includes("w") ? right : 1 - before.x;
  const roomY = handle.includes("n") ? bottom : 1 - before.y;
  width = Math.min(width, roomX, roomY * aspect);
  const height = width / aspect;
  return { ...box, width, height, x: handle.includes("w") ? right - width : before.x, y: handle.includes("n") ? bottom - height : before.y };
}

export const contains = (box, p) => p.x >= box.x && p.x <= box.x + box.width && p.y >= box.y && p.y <= box.y + box.height;

/** Indices of the boxes below a point, the topmost first. */
export function hits(boxes, point) {
  const found = [];
  for (let i = boxes.length - 1; i >= 0; i--) if (contains(boxes[i], point)) found.push(i);
  return found;
}

/** Where the 8 handles of a box are. */
export function handles(box) {
  const xs = { w: box.x, e: box.x + box.width }, ys = { n: box.y, s: box.y + box.height };
  return HANDLES.map((name) => ({
    name,
    x: xs[name.at(-1)] ?? box.x + box.width / 2,
    y: ys[name[0]] ?? box.y + box.height / 2,
  }));
}

/** The nearest handle within reach of a point, or null. Corners go before sides. */
export function handleAt(box, point, tx, ty) {
  let best = null, least = 1;
  for (const { name, x, y } of handles(box)) {
    const far = Math.max(Math.abs(point.x - x) / tx, Math.abs(point.y - y) / ty) + (name.length === 1 ? 0.2 : 0);
    if (far < least) [best, least] = [name, far];
  }
  return best;
}

/** What a moved (handle null) or resized box may snap to: the grid, edges and middles of other boxes, the canvas.
 *  Returns {box, guides: [{axis, at}]}; a guide is a line worth drawing. */
export function snap(box, others, { grid = 0, tx = 0.01, ty = 0.01, handle = null } = {}) {
  let out = { ...box };
  const guides = [];
  for (const [axis, start, size, low, high, tolerance] of [["x", "x", "width", "w", "e", tx], ["y", "y", "height", "n", "s", ty]]) {
    const targets = [[0, true], [0.5, true], [1, true]];
    for (const o of others) targets.push([o[start], true], [o[start] + o[size], true], [o[start] + o[size] / 2, false]);
    const own = [];
    if (handle === null || handle.includes(low)) own.push([out[start], 0]);
    if (handle === null || handle.includes(high)) own.push([out[start] + out[size], 1]);
    if (handle === null) own.push([out[start] + out[size] / 2, 0.5]);
    let best = null, near = tolerance;
    for (const [at, which] of own) {
      for (const [target, edge] of targets) {
        const far = Math.abs(at - target);
        if (far <= near && (edge || which === 0.5)) [best, near] = [{ shift: target - at, which, target }, far];
      }
    }
    if (!best && grid > 0 && own.length) {
      const [at, which] = own[0];
      const target = Math.round(at / grid) * grid;
      if (Math.abs(target - at) <= grid / 2) best = { shift: target - at, which, target: null };
    }
    if (!best) continue;
    if (handle === null || best.which === 0.5) out = { ...out, [start]: out[start] + best.shift };
    else if (best.which === 0) out = { ...out, [start]: out[start] + best.shift, [size]: out[size] - best.shift };
    else out = { ...out, [size]: out[size] + best.shift };
    if (best.target !== null) guides.push({ axis, at: best.target });
  }
  return { box: clamp(out), guides };
}

/** The largest frame of an aspect ratio within a space, centred: {x, y, width, height}, all in pixels. */
export function fit(width, height, spaceWidth, spaceHeight) {
  const scale = Math.min(spaceWidth / width, spaceHeight / height);
  const w = Math.max(1, width * scale), h = Math.max(1, height * scale);
  return { x: (spaceWidth - w) / 2, y: (spaceHeight - h) / 2, width: w, height: h };
}
